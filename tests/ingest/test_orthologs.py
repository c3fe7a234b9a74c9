from collections.abc import Sequence
from pathlib import Path

import pytest
from cytolake.corpus.genes import GeneReference
from cytolake.ingest.orthologs import load_orthologs, map_through_orthologs
from cytolake.platform.errors import SourceError
from hypothesis import given, settings
from hypothesis import strategies as st

TABLE = (
    "mouse\thuman\ttype\n"
    "ENSMUSG00000000001.2\tENSG00000000001\tone\n"
    "M1\tENSG00000000001\tone\n"
    "M2\tG2\tone\n"
    "Many\tENSG00000000003\tone2many\n"
    "Many\tENSG00000000004\tone2many\n"
    "Left\tENSG00000000005\tmany2one\n"
    "Right\tENSG00000000005\tmany2one\n"
    "None\t\tnone\n"
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "orthologs.tsv"
    path.write_text(TABLE)
    return path


def test_only_pairs_that_are_one_to_one_are_used(table: Path, reference: GeneReference):
    orthologs = load_orthologs(table, reference)
    assert orthologs.human_of == {
        "ENSMUSG00000000001": "ENSG00000000001",
        "M1": "ENSG00000000001",
        "M2": "ENSG00000000002",
    }
    assert orthologs.several == {"Many", "Left", "Right"}
    assert len(orthologs.sha256) == 64


def test_names_become_human_genes_or_say_why_not(table: Path, reference: GeneReference):
    orthologs = load_orthologs(table, reference)
    names = ["M1", "ENSMUSG00000000001.7", "Many", "Left", "Gm1", "ENSMUSG00000000009",
             "ENSG00000000007.1", "M2"]  # fmt: skip
    mapping = map_through_orthologs(names, orthologs, reference)
    assert mapping.gene_ids.tolist() == [
        "ENSG00000000001", "ENSG00000000001", "unmapped:Many", "unmapped:Left", "unmapped:Gm1",
        "ENSMUSG00000000009", "ENSG00000000007", "ENSG00000000002",
    ]  # fmt: skip
    assert mapping.counts() == {
        "ambiguous": 2, "ensembl": 1, "ortholog": 3, "other_species": 2,
    }  # fmt: skip


def one_to_one(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Pairs none of whose sides stands in another pair, by comparing all with all."""
    found: dict[str, str] = {}
    for left, right in pairs:
        others = [pair for pair in pairs if pair != (left, right)]
        if all(left != one and right != two for one, two in others):
            found[left] = right
    return found


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from(["G1", "G2", "G3", "G4"])), min_size=1
    )
)
def test_one_to_one_means_that_no_other_pair_has_either_side(
    tmp_path_factory: pytest.TempPathFactory,
    reference: GeneReference,
    pairs: list[tuple[str, str]],
):
    path = tmp_path_factory.mktemp("orthologs") / "pairs.csv"
    path.write_text("\n".join(",".join(pair) for pair in pairs) + "\n")
    ids = dict(zip(reference.symbols, reference.gene_ids, strict=True))
    orthologs = load_orthologs(path, reference)
    expected = {left: ids[right] for left, right in one_to_one(pairs).items()}
    assert orthologs.human_of == expected
    assert orthologs.several == {left for left, _ in pairs} - expected.keys()


@pytest.mark.parametrize("text", ["", "M1\n", "M1\tG-none\n"], ids=["empty", "a column", "unknown"])
def test_a_table_without_human_genes_is_refused(
    tmp_path: Path, reference: GeneReference, text: str
):
    path = tmp_path / "wrong.tsv"
    path.write_text(text)
    with pytest.raises(SourceError, match=r"wrong\.tsv: no line names a human gene"):
        load_orthologs(path, reference)


def test_a_table_that_is_not_there_is_refused(tmp_path: Path, reference: GeneReference):
    with pytest.raises(SourceError, match="cannot be read as a table of orthologs"):
        load_orthologs(tmp_path / "none.tsv", reference)


def test_a_real_table_maps_most_mouse_symbols(
    tmp_path: Path, resources: Path, human: GeneReference
):
    real = resources / "reference/Ensembl105_Human2Mouse_Genes.csv"
    pairs = [line.split(",") for line in real.read_text().splitlines()]
    turned = tmp_path / "mouse2human.csv"
    turned.write_text("\n".join(f"{mouse},{human}" for human, mouse in pairs if mouse) + "\n")
    orthologs = load_orthologs(turned, human)
    mapping = map_through_orthologs(["Actb", "Myc", "Trp53", "Cd3d", "Gm1"], orthologs, human)
    assert human.symbol_of(mapping.gene_ids).tolist()[:4] == ["ACTB", "MYC", "TP53", "CD3D"]
    assert mapping.kinds.tolist()[-1] == "other_species"
    assert len(orthologs.human_of) > 12_000
