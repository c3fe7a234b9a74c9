from typing import Any

import numpy as np
import pytest
from cytolake.corpus.genes import GeneReference
from cytolake.ingest.harmonise import choose_names, harmonise
from cytolake.platform.errors import NoGenesError, SourceError
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse


def names(*words: Any):
    return np.array(words, dtype=object)


def test_ids_symbols_and_aliases_of_one_gene_are_summed_and_counted(reference: GeneReference):
    columns = {"index": names("ENSG00000000001.4", "G2", "OLD1", "TWICE", "nonsense", "G2")}
    genes = harmonise(columns, reference, where="x.h5ad")
    counts = genes.sum_genes(sparse.csr_matrix([[1, 2, 4, 8, 16, 32]])).toarray()
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
    summed = genes.sum_genes(sparse.csr_matrix(np.array(rows))).toarray()
    expected = np.zeros_like(summed)
    for c, row in enumerate(rows):
        for n, count in enumerate(row):
            gene = reference.map_names([words[n]]).gene_ids[0]
            expected[c, genes.gene_ids.tolist().index(gene)] += count
    assert (summed == expected).all()
    assert summed.sum() == np.array(rows).sum()
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
