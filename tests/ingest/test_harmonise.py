import gzip
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cytolake.corpus.genes import GeneReference
from cytolake.ingest.harmonise import Harmonised, choose_names, harmonise
from cytolake.ingest.orthologs import Orthologs
from cytolake.platform.errors import NoGenesError, SourceError
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse


def names(*words: Any):
    return np.array(words, dtype=object)


def column_of(path: Path, place: str):
    """A column of a gene table in an HDF5 file, as written by anndata."""
    with h5py.File(path) as file:
        column: Any = file[place]
        if isinstance(column, h5py.Group):
            values: Any = column
            return np.array(values["categories"].asstr()[:][values["codes"][:]], dtype=object)
        return np.array(column.asstr()[:], dtype=object)


def summed_by(genes: Harmonised, counts: np.ndarray, rows: list[int]) -> np.ndarray:
    """Some rows by gene, each row given by a part of its own beside the whole at once."""
    matrix = sparse.csr_matrix(counts.astype(np.uint32))
    chosen = np.array(rows, dtype=np.int64)
    whole = genes.sum_genes([(matrix, chosen)])
    single = genes.sum_genes([(matrix, np.array([row])) for row in rows])
    assert all((one == other).all() for one, other in zip(whole, single, strict=True))
    indptr, indices, values = whole
    assert all((np.diff(indices[a:b]) > 0).all() for a, b in pairwise(indptr))
    shape = (len(rows), len(genes.gene_ids))
    return sparse.csr_matrix((values, indices, indptr), shape=shape).toarray()


def test_ids_symbols_and_aliases_of_one_gene_are_summed_and_counted(reference: GeneReference):
    columns = {"index": names("ENSG00000000001.4", "G2", "OLD1", "TWICE", "nonsense", "G2")}
    genes = harmonise(columns, reference, where="x.h5ad")
    counts = summed_by(genes, np.array([[1, 2, 4, 8, 16, 32]]), [0])
    by_gene = dict(zip(genes.gene_ids, counts[0].tolist(), strict=True))
    assert by_gene == {
        "ENSG00000000001": 5,
        "ENSG00000000002": 34,
        "unmapped:TWICE": 8,
        "unmapped:nonsense": 16,
    }
    assert genes.n_summed == 2
    assert genes.kinds == {"alias": 1, "ambiguous": 1, "ensembl": 1, "symbol": 2, "unmapped": 1}
    assert genes.n_mapped == 4
    assert genes.var.column("source_name").to_pylist()[0] == "ENSG00000000001.4|OLD1"


@given(data=st.data())
def test_summing_genes_equals_a_dense_loop(data: Any):
    reference = GeneReference(
        gene_ids=("ENSG00000000001", "ENSG00000000002", "ENSG00000000003"),
        symbols=("A", "B", "C"),
        biotypes=("protein_coding",) * 3,
        aliases=(("X",), (), ()),
    )
    words = data.draw(st.lists(st.sampled_from(["A", "B", "C", "X", "z"]), min_size=4, max_size=9))
    words += ["A"]
    rows = data.draw(
        st.lists(
            st.lists(st.integers(0, 9), min_size=len(words), max_size=len(words)),
            min_size=1,
            max_size=4,
        )
    )
    genes = harmonise({"index": names(*words)}, reference, where="x")
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=5))
    summed = summed_by(genes, np.array(rows), chosen)
    expected = np.zeros_like(summed)
    for c, row in enumerate(chosen):
        for n, count in enumerate(rows[row]):
            gene = reference.map_names([words[n]]).gene_ids[0]
            expected[c, genes.gene_ids.tolist().index(gene)] += count
    assert (summed == expected).all()
    assert summed.sum() == np.array(rows)[chosen].sum()
    assert genes.gene_ids.tolist() == sorted(set(genes.gene_ids.tolist()))


def test_a_column_of_ensembl_ids_is_taken_before_an_index_of_symbols(reference: GeneReference):
    columns = {
        "index": names("G1", "G2", "G3"),
        "gene_ids": names("ENSG00000000001", "ENSG00000000002", "ENSG00000000003"),
    }
    assert choose_names(columns, reference, named=None, where="x")[0] == "gene_ids"


def test_the_column_with_most_known_names_is_taken_where_none_has_ids(reference: GeneReference):
    columns = {"index": names("1", "2", "3"), "symbol": names("G1", "nope", "G3")}
    assert choose_names(columns, reference, named=None, where="x")[0] == "symbol"


def test_a_column_that_is_not_there_is_refused_with_the_nearest(reference: GeneReference):
    with pytest.raises(SourceError, match=r"no column 'symbl'.*did you mean 'symbol'"):
        choose_names({"symbol": names("G1")}, reference, named="symbl", where="x.h5ad")


def test_no_known_gene_is_refused_with_the_first_five_names(reference: GeneReference):
    columns = {"index": names("Actb", "Gapdh", "Tp53", "Myc", "Fos", "Jun")}
    with pytest.raises(NoGenesError) as caught:
        harmonise(columns, reference, where="mouse.h5ad")
    message = str(caught.value)
    assert "mouse.h5ad: no gene recognised" in message
    assert "'Actb', 'Gapdh', 'Tp53', 'Myc', 'Fos'" in message
    assert "Jun" not in message
    assert "ENSG00000141510" in message


def test_a_few_chance_hits_do_not_make_a_list_of_genes(reference: GeneReference):
    columns = {"index": names("G1", *(f"feature{i}" for i in range(99)))}
    with pytest.raises(NoGenesError, match="only 1 of 100"):
        harmonise(columns, reference, where="x")


def test_half_of_the_coding_genes_make_no_panel(reference: GeneReference):
    few = harmonise({"index": names("G1", "G2", "G3")}, reference, where="x")
    assert few.panel and few.coding_share == pytest.approx(3 / 26)
    many = harmonise({"index": names(*(f"G{i}" for i in range(1, 15)))}, reference, where="x")
    assert not many.panel
    assert not many.measures_mitochondria


def test_ids_behind_a_genomes_prefix_are_ids(reference: GeneReference):
    columns = {
        "index": names("GRCh38_G1", "GRCh38_G2", "GRCh38_G3"),
        "id": names("GRCh38_ENSG00000000001", "GRCh38_ENSG00000000002", "GRCh38_ENSG00000000003"),
    }
    genes = harmonise(columns, reference, where="x")
    assert genes.column == "id"
    assert genes.n_mapped == 3
    assert genes.notes == (
        "3 gene names begin with 'GRCh38_', the name of a genome: it was taken off",
    )


@pytest.mark.parametrize(
    ("words", "sign"),
    [
        (
            ("Actb", "Gapdh", "Tp53", "G1"),
            "looks like mouse: 75% are symbols written like Actb, as mouse and rat write them",
        ),
        (
            tuple(f"ENSMUSG{i:011d}" for i in range(9)),
            "looks like mouse: 100% are ids that begin with ENSMUSG",
        ),
        (
            tuple(f"ENSDARG{i:011d}" for i in range(9)),
            "looks like zebrafish: 100% are ids that begin with ENSDARG",
        ),
        (("mm10_Actb", "mm10_Gapdh"), "looks like mouse: 100% are names that begin with mm10_"),
    ],
    ids=["symbols", "ids", "fish", "genome"],
)
def test_another_species_is_named(reference: GeneReference, words: tuple[str, ...], sign: str):
    padded = words * 3 if "G1" not in words else (*words[:3] * 10, *["x1"] * 9, "G1")
    with pytest.raises(NoGenesError) as caught:
        harmonise({"index": names(*padded)}, reference, where="x.h5ad")
    assert sign in str(caught.value)
    assert "`orthologs`" in str(caught.value)


def test_two_species_in_one_file_give_the_human_genes_and_say_so(reference: GeneReference):
    human = [f"hg19_G{i}" for i in range(1, 9)]
    mouse = [f"mm10_Gene{i}" for i in range(9)]
    genes = harmonise({"index": names(*human, *mouse)}, reference, where="x")
    assert genes.n_mapped == 8
    assert genes.kinds == {"other_species": 9, "symbol": 8}
    assert "9 gene names are of another species, outside the corpus: 9 mouse" in genes.notes
    assert genes.coding_share == pytest.approx(8 / 26)


def test_dates_and_unclear_names_are_listed_up_to_twenty(reference: GeneReference):
    unknown = [f"nope{i}" for i in range(30)]
    columns = {"index": names("G1", "G2", "G3", "TWICE", "1-Mar", *unknown)}
    notes = harmonise(columns, reference, where="x").notes
    assert "1 gene names are of several genes: TWICE" in notes
    listed = next(line for line in notes if line.startswith("31 gene names are not known"))
    assert listed.endswith("nope18, ...") and "1-Mar" in listed


def test_a_source_of_another_species_is_mapped_through_orthologs(reference: GeneReference):
    orthologs = Orthologs(
        human_of={"Actb": "ENSG00000000001", "Gapdh": "ENSG00000000002"},
        several=frozenset({"Both"}),
        sha256="",
    )
    columns = {"index": names("a", "b", "c", "d"), "sym": names("Actb", "Gapdh", "Both", "Gm1")}
    genes = harmonise(columns, reference, where="x", orthologs=orthologs)
    assert genes.column == "sym"
    assert genes.gene_ids.tolist() == [
        "ENSG00000000001", "ENSG00000000002", "unmapped:Both", "unmapped:Gm1",
    ]  # fmt: skip
    assert genes.kinds == {"ambiguous": 1, "ortholog": 2, "other_species": 1}
    assert "2 gene names were mapped through orthologs, one to one" in genes.notes


def test_real_entrez_ids_lead_to_the_genes_of_the_symbols_beside_them(
    resources: Path, human: GeneReference
):
    path = resources / "mait_mast/mait_96cells_log2tpm_entrez.h5ad"
    entrez, symbols = (column_of(path, f"var/{column}") for column in ("entrez", "symbolid"))
    by_id, by_symbol = human.map_names(entrez), human.map_names(symbols)
    both = (by_id.kinds == "entrez") & (by_symbol.kinds == "symbol")
    assert both.sum() > 12_000
    assert (by_id.gene_ids == by_symbol.gene_ids)[both].mean() > 0.998


def test_real_names_behind_hg19_are_mapped(resources: Path, human: GeneReference):
    path = resources / "eccite_pbmc_mimitou2019/eccite_500cells_rna_adt_hto.h5mu"
    columns = {"index": column_of(path, "mod/rna/var/_index")}
    genes = harmonise(columns, human, where=str(path))
    assert genes.n_mapped / genes.n_names > 0.7
    assert genes.notes[0].startswith("19521 gene names begin with 'hg19_'")


def test_row_numbers_of_a_real_file_are_not_taken_for_entrez_ids(
    resources: Path, human: GeneReference
):
    path = resources / "pbmc_scvi_7480/pbmc_7480cells_200genes.h5ad"
    columns = {
        "index": names(*map(str, range(200))),
        "gene_names": column_of(path, "var/gene_names"),
    }
    assert harmonise(columns, human, where=str(path)).column == "gene_names"


def test_dates_that_a_spreadsheet_left_in_a_real_file_are_read_as_genes(
    resources: Path, human: GeneReference
):
    path = resources / "embryo_yan2013/yan_90cells_rpkm_genes_x_cells.csv.gz"
    with gzip.open(path, "rt") as file:
        words = [line.split(",", 1)[0].strip('"') for line in file][1:]
    mapping = human.map_names(words)
    assert mapping.counts()["date"] == 24
    assert mapping.counts()["ambiguous_date"] == 2
    by_name = dict(zip(words, human.symbol_of(mapping.gene_ids), strict=True))
    assert (by_name["41154"], by_name["41244"], by_name["40971"]) == (
        "SEPTIN2",
        "DELEC1",
        "MARCHF3",
    )
    assert by_name["40969"] == "40969"  # 2012-03-01: MARCHF1 or MTARC1
