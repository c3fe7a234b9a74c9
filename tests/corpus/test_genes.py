import os
from pathlib import Path
from typing import Any

import pytest
from cytolake.corpus.genes import UNMAPPED, GeneReference
from cytolake.corpus.spellings import ensembl_id, names_of_date, renamed_family, spreadsheet_date
from cytolake.platform.errors import VocabularyError
from hypothesis import given, settings
from hypothesis import strategies as st

ROWS: list[tuple[str, str, str, tuple[str, ...], tuple[str, ...], str]] = [
    ("ENSG00000000001", "ACTB", "protein_coding", ("BETA", "SHARED"), ("OLDACT",), "653635"),
    ("ENSG00000000002", "TP53", "protein_coding", ("p53", "SHARED", "HALF"), (), "100287102"),
    ("ENSG00000000003", "C1orf112", "protein_coding", ("OLDACT",), ("C1orf99",), "81010"),
    ("ENSG00000000004", "SEPTIN2", "protein_coding", ("SEPT2",), (), "12"),
    ("ENSG00000000005", "SEPTIN6", "protein_coding", ("SEPT2", "C9orf7"), (), "13"),
    ("ENSG00000000006", "MARCHF1", "protein_coding", (), (), "14"),
    ("ENSG00000000007", "MTARC1", "protein_coding", (), (), "15"),
    ("ENSG00000000008", "LNC", "lncRNA", ("HALF",), (), "16"),
    ("ENSG00000000009", "TWIN", "lncRNA", (), (), "17"),
    ("ENSG00000000010", "TWIN", "lncRNA", (), (), "17"),
]


def made(rows: list[tuple[str, str, str, tuple[str, ...], tuple[str, ...], str]]) -> GeneReference:
    ids, symbols, biotypes, aliases, previous, entrez = zip(*rows, strict=True)
    return GeneReference(
        gene_ids=ids,
        symbols=symbols,
        biotypes=biotypes,
        aliases=aliases,
        previous=previous,
        entrez_ids=entrez,
    )


@pytest.fixture(scope="module")
def genes() -> GeneReference:
    return made(ROWS)


@pytest.mark.parametrize(
    ("name", "gene_id", "kind"),
    [
        ("ENSG00000000002", "ENSG00000000002", "ensembl"),
        ("ENSG00000000002.14", "ENSG00000000002", "ensembl"),
        ("CD3D", "ENSG00000000002", "symbol"),
        ("BETA", "ENSG00000000002", "alias"),
        ("ENSG00000999999.2", "ENSG00000999999", "retired"),
        ("NOPE1", "unmapped:NOPE1", "unmapped"),
    ],
)
def test_a_name_is_understood_and_its_kind_is_told(
    fake_reference: GeneReference, name: str, gene_id: str, kind: str
) -> None:
    mapping = fake_reference.map_names([name])
    assert mapping.gene_ids.tolist() == [gene_id]
    assert mapping.kinds.tolist() == [kind]


@pytest.mark.parametrize(
    ("name", "gene", "kind"),
    [
        ("OLDACT", "ACTB", "previous"),  # an alias of C1orf112 as well
        ("SHARED", None, "ambiguous"),
        ("HALF", "TP53", "alias"),  # of a coding gene and of another
        ("SEPT2", "SEPTIN2", "previous"),  # an alias of two genes
        ("MARC1", "MTARC1", "previous"),
        ("C1ORF112", "C1orf112", "case"),
        ("C1ORF99", "C1orf112", "case"),
        ("C9ORF7", "SEPTIN6", "case"),
        ("P53", None, "unmapped"),  # an alias in other letters is another word
        ("Actb", None, "unmapped"),  # mouse's, not ACTB
        ("LOC653635", "ACTB", "entrez"),
        ("LOC17", None, "ambiguous"),
        ("2-Sep", "SEPTIN2", "date"),
        ("1-Mar", None, "ambiguous_date"),
        ("2001-03-01 00:00:00", None, "ambiguous_date"),
        ("3-Oct", None, "unmapped"),
        ("44076", "SEPTIN2", "date"),  # 2020-09-02
        ("ENSMUSG00000059552.3", "ENSMUSG00000059552", "other_species"),
        ("FBgn0000042", None, "other_species"),
    ],
)
def test_other_names_of_a_gene_lead_to_it_in_the_order_of_their_strength(
    genes: GeneReference, name: str, gene: str | None, kind: str
) -> None:
    mapping = genes.map_names([name, *["ACTB"] * 30])
    assert mapping.kinds[0] == kind
    given = genes.symbol_of(mapping.gene_ids[:1])[0]
    assert given == (gene or name)
    assert mapping.gene_ids[0].startswith(UNMAPPED) == (gene is None)


def test_a_renamed_family_whose_symbol_is_of_several_genes_stays_ambiguous() -> None:
    genes = GeneReference(
        gene_ids=("ENSG00000000001", "ENSG00000000002"),
        symbols=("SEPTIN9", "SEPTIN9"),
        biotypes=("lncRNA", "lncRNA"),
        aliases=((), ()),
    )
    mapping = genes.map_names(["SEPT9", "9-Sep"])
    assert mapping.gene_ids.tolist() == ["unmapped:SEPT9", "unmapped:9-Sep"]
    assert mapping.kinds.tolist() == ["ambiguous", "ambiguous_date"]


def test_numbers_are_entrez_ids_where_most_of_a_column_are_known_ones(genes: GeneReference) -> None:
    mapping = genes.map_names(["653635", "653635.1", "100287102", "17", "999", "AK310751", "TP53"])
    assert mapping.kinds.tolist() == [
        "entrez", "entrez", "entrez", "ambiguous", "unmapped", "unmapped", "symbol",
    ]  # fmt: skip
    assert mapping.gene_ids[:3].tolist() == [
        "ENSG00000000001", "ENSG00000000001", "ENSG00000000002",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "names",
    [
        ["653635", "ACTB", "TP53"],
        [str(row) for row in range(12, 18)],  # all of them somebody's Entrez id
        ["653635", "100287102", "1", "2"],  # half: not most
    ],
    ids=["among symbols", "rows of a table", "half unknown"],
)
def test_a_number_is_no_entrez_id_elsewhere(genes: GeneReference, names: list[str]) -> None:
    mapping = genes.map_names(names)
    assert "entrez" not in mapping.kinds.tolist()


def test_numbers_of_rows_are_no_dates() -> None:
    names = [str(row) for row in range(33_000)]
    assert set(made(ROWS).map_names(names).kinds) == {"unmapped"}


def test_a_genomes_prefix_is_taken_off_where_most_names_have_one(genes: GeneReference) -> None:
    mapping = genes.map_names(["hg19_ACTB", "hg19_ENSG00000000002.4", "hg19_NOPE", "spike"])
    assert mapping.gene_ids.tolist() == [
        "ENSG00000000001", "ENSG00000000002", "unmapped:NOPE", "unmapped:spike",
    ]  # fmt: skip
    assert mapping.prefixes == {"hg19_": 3}
    alone = genes.map_names(["hg19_ACTB", "ACTB", "TP53"])
    assert alone.kinds.tolist() == ["unmapped", "symbol", "symbol"]
    assert alone.prefixes == {}


def test_of_two_genomes_only_human_names_are_mapped(genes: GeneReference) -> None:
    names = ["GRCh38_ACTB", "GRCh38______TP53", "mm10_Actb", "mm10___ENSMUSG00000059552"]
    mapping = genes.map_names(names)
    assert mapping.gene_ids.tolist() == [
        "ENSG00000000001", "ENSG00000000002", "unmapped:mm10_Actb", "ENSMUSG00000059552",
    ]  # fmt: skip
    assert mapping.counts() == {"other_species": 2, "symbol": 2}
    assert mapping.n_recognised == 2


def test_a_symbol_of_several_genes_goes_to_the_only_coding_one_or_stays_unmapped() -> None:
    reference = GeneReference(
        gene_ids=("ENSG00000000001", "ENSG00000000002", "ENSG00000000003", "ENSG00000000004"),
        symbols=("TWIN", "TWIN", "MANY", "MANY"),
        biotypes=("protein_coding", "lncRNA", "lncRNA", "misc_RNA"),
        aliases=((), (), (), ("TWIN",)),
    )
    mapping = reference.map_names(["TWIN", "MANY"])
    assert mapping.gene_ids.tolist() == ["ENSG00000000001", "unmapped:MANY"]
    assert mapping.counts() == {"symbol": 1, "ambiguous": 1}


def slowly(genes: GeneReference, name: str) -> tuple[str, str]:
    """One name understood by looking through all genes, rule by rule."""
    rows = range(len(genes.gene_ids))
    if (given := ensembl_id(name)) is not None:
        return given, "ensembl" if given in genes.gene_ids else "retired"
    today = renamed_family(name)
    orfs = [
        {
            other.upper()
            for other in (
                genes.symbols[row],
                *genes.previous[row],
                *(alias for alias in genes.aliases[row] if "orf" in alias),
            )
            if other != other.upper()
        }
        for row in rows
    ]
    tiers = [
        ("symbol", [row for row in rows if genes.symbols[row] == name]),
        ("previous", [row for row in rows if name in genes.previous[row]]),
        ("previous", [row for row in rows if genes.symbols[row] == today]),
        ("alias", [row for row in rows if name in genes.aliases[row]]),
        ("entrez", [row for row in rows if f"LOC{genes.entrez_ids[row]}" == name]),
        ("case", [row for row in rows if name in orfs[row]]),
    ]
    for kind, found in tiers:
        coding = [row for row in found if genes.biotypes[row] == "protein_coding"]
        if len(found) == 1:
            return genes.gene_ids[found[0]], kind
        if len(coding) == 1 or (coding and (kind == "symbol" or today == genes.symbols[found[0]])):
            return min(genes.gene_ids[row] for row in coding), kind
        if found:
            return UNMAPPED + name, "ambiguous"
    if (day := spreadsheet_date(name)) is not None:
        meant = [row for row in rows if genes.symbols[row] in names_of_date(*day)]
        coding = [row for row in meant if genes.biotypes[row] == "protein_coding"]
        if len({genes.symbols[row] for row in meant}) == 1 and (len(meant) == 1 or coding):
            return min(genes.gene_ids[row] for row in (coding or meant)), "date"
        if meant:
            return UNMAPPED + name, "ambiguous_date"
    return UNMAPPED + name, "unmapped"


WORDS = ["A1", "B2", "C1orf1", "SEPTIN3", "MARCHF3", "MTARC3", "LNC", "OLD", "c2orf2", "C2orf2"]
ASKED = [
    *WORDS, "C1ORF1", "SEPT3", "3-Sep", "Mar-03", "LOC7", "LOC90000", "NOPE", "ENSG00000000001",
    "ENSG00000000009.1", "a1", "MARC3", "C2ORF2",
]  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_the_index_says_what_looking_through_all_genes_says(data: st.DataObject) -> None:
    n_genes = data.draw(st.integers(1, 6))
    names = st.lists(st.sampled_from(WORDS), max_size=3).map(tuple)
    rows = [
        (
            f"ENSG{row:011d}",
            data.draw(st.sampled_from(WORDS)),
            data.draw(st.sampled_from(["protein_coding", "lncRNA"])),
            data.draw(names),
            data.draw(names),
            data.draw(st.sampled_from(["", "7", "90000"])),
        )
        for row in range(1, n_genes + 1)
    ]
    genes = made(rows)
    asked = data.draw(st.lists(st.sampled_from(ASKED), min_size=1, max_size=12))
    mapping = genes.map_names(asked)
    understood = list(zip(mapping.gene_ids.tolist(), mapping.kinds.tolist(), strict=True))
    assert understood == [slowly(genes, name) for name in asked]


@settings(deadline=None)
@given(st.permutations(ASKED))
def test_what_a_symbol_means_does_not_depend_on_its_place(names: list[str]) -> None:
    genes = made(ROWS)
    mapping = genes.map_names(names)
    by_name = dict(zip(names, mapping.gene_ids.tolist(), strict=True))
    again = genes.map_names(ASKED)
    assert by_name == dict(zip(ASKED, again.gene_ids.tolist(), strict=True))


def test_biotypes_answer_what_quality_rules_ask(fake_reference: GeneReference) -> None:
    ids = [*fake_reference.gene_ids, "ENSG00000999999", "unmapped:X"]
    assert fake_reference.is_coding(ids).tolist() == [True] * 4 + [False] * 3
    assert fake_reference.is_coding_or_mirna(ids).tolist() == [True] * 5 + [False] * 2
    assert fake_reference.is_mitochondrial(ids).tolist() == [False] * 3 + [True] + [False] * 3
    assert fake_reference.symbol_of(ids).tolist()[4:] == ["MIR21", "ENSG00000999999", "X"]
    assert fake_reference.n_coding == 4


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(VocabularyError, match=r"lengths \[1, 2\]"):
        GeneReference(
            gene_ids=("ENSG00000000001",),
            symbols=("A",),
            biotypes=("lncRNA",),
            aliases=((),),
            entrez_ids=("1", "2"),
        )


def test_the_digest_knows_every_name_that_decides(genes: GeneReference) -> None:
    changed = [
        made([(*ROWS[0][:3], ("BETA",), *ROWS[0][4:]), *ROWS[1:]]),
        made([(*ROWS[0][:4], (), ROWS[0][5]), *ROWS[1:]]),
        made([(*ROWS[0][:5], "7"), *ROWS[1:]]),
    ]
    assert len({genes.digest, *(other.digest for other in changed)}) == 4
    assert made(ROWS).digest == genes.digest


def test_symbols_of_a_real_file_agree_with_the_ids_beside_them() -> None:
    folder = os.environ.get("CYTOLAKE_RESOURCES")
    if not folder:
        pytest.skip("CYTOLAKE_RESOURCES is not set: no real data at hand")
    import h5py

    reference = GeneReference.load(Path(folder) / "reference/gene_table_human_gencode.tsv.gz")
    with h5py.File(Path(folder) / "pbmc3k_10x/pbmc3k_10xv3_layout.h5") as file:
        features: Any = file["matrix/features"]
        ids, symbols = ([t.decode() for t in features[name][:]] for name in ("id", "name"))
    by_id, by_symbol = reference.map_names(ids), reference.map_names(symbols)
    known = by_id.kinds == "ensembl"
    same = by_id.gene_ids == by_symbol.gene_ids
    for kind, least in (("symbol", 0.99), ("alias", 0.98), ("previous", 0.95), ("case", 0.7)):
        these = known & (by_symbol.kinds == kind)
        assert not these.any() or same[these].mean() >= least, kind
