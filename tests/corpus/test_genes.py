import os
from pathlib import Path

import pytest
from cytolake.corpus.genes import GeneReference, Vocabulary, ensembl_id, official_vocabulary
from cytolake.platform.errors import ResourceError, VocabularyError
from hypothesis import given
from hypothesis import strategies as st


def resources() -> Path:
    folder = os.environ.get("CYTOLAKE_RESOURCES")
    if not folder:
        pytest.skip("CYTOLAKE_RESOURCES is not set: the official tables are there")
    return Path(folder)


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


def test_biotypes_answer_what_quality_rules_ask(fake_reference: GeneReference) -> None:
    ids = [*fake_reference.gene_ids, "ENSG00000999999", "unmapped:X"]
    assert fake_reference.is_coding(ids).tolist() == [True] * 4 + [False] * 3
    assert fake_reference.is_coding_or_mirna(ids).tolist() == [True] * 5 + [False] * 2
    assert fake_reference.is_mitochondrial(ids).tolist() == [False] * 3 + [True] + [False] * 3
    assert fake_reference.symbol_of(ids).tolist()[4:] == ["MIR21", "ENSG00000999999", "X"]
    assert fake_reference.n_coding == 4


def test_both_shapes_of_gene_tables_are_read(tmp_path: Path) -> None:
    plain = tmp_path / "genes.csv"
    plain.write_text('ENSG00000000001,"ACTB",2,100,protein_coding\n')
    headed = tmp_path / "genes.tsv"
    headed.write_text(
        "ensembl_id\tsymbol\tbiotype\taliases\nENSG00000000001\tACTB\tprotein_coding\tBA|BB\n"
    )
    assert GeneReference.load(plain).symbols == ("ACTB",)
    assert GeneReference.load(headed).aliases == (("BA", "BB"),)


def test_a_file_that_is_no_gene_table_is_refused_by_name(tmp_path: Path) -> None:
    wrong = tmp_path / "cells.csv"
    wrong.write_text("barcode,n\nAAA,1\n")
    with pytest.raises(ResourceError, match=r"cells\.csv: no gene table"):
        GeneReference.load(wrong)


@given(st.integers(0, 10**11 - 1), st.integers(0, 99))
def test_a_version_never_changes_the_gene(number: int, version: int) -> None:
    name = f"ENSG{number:011d}"
    assert ensembl_id(f"{name}.{version}") == name == ensembl_id(name)


def test_tokens_count_from_the_special_ones_and_pass_through_the_mapping() -> None:
    vocabulary = Vocabulary(gene_ids=("A", "B"), mapping={"OLD": "B"})
    assert vocabulary.tokens_of(["B", "A", "OLD", "X"]).tolist() == [3, 2, 3, -1]
    assert vocabulary.size == 4
    assert vocabulary.gene_of(3) == "B"
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


@pytest.mark.parametrize("token", [0, 1, 4, -1])
def test_a_token_that_is_no_gene_is_refused(token: int) -> None:
    with pytest.raises(VocabularyError, match="no gene"):
        Vocabulary(gene_ids=("A", "B")).gene_of(token)


def test_a_vocabulary_with_a_gene_twice_is_refused() -> None:
    with pytest.raises(VocabularyError, match="twice"):
        Vocabulary(gene_ids=("A", "A"))


@pytest.mark.parametrize(
    ("version", "folder", "size", "n_special"),
    [("v1", "v1_gc30M", 25_426, 2), ("v2", "v2_gc95M", 20_275, 4)],
)
def test_the_official_vocabularies_have_their_published_sizes(
    version: str, folder: str, size: int, n_special: int
) -> None:
    vocabulary = official_vocabulary(resources() / "geneformer" / folder, version)
    assert (vocabulary.size, len(vocabulary.special)) == (size, n_special)
    assert bool(vocabulary.mapping) == (version == "v2")


def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="did you mean 'v2'"):
        official_vocabulary(tmp_path, "v2x")
