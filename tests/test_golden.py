"""Every format that cytolake ever wrote is opened, queried and verified by the code of today."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from cytolake.corpus.cells import CellBatch
from cytolake.corpus.change.upgrade import upgrade
from cytolake.corpus.content import content_hashes, content_keys
from cytolake.corpus.schema import FORMAT
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import OlderFormatError, WithdrawnError

GOLDEN = Path(__file__).parent / "golden"
FORMATS = sorted(int(path.name.removeprefix("format-")) for path in GOLDEN.glob("format-*"))
CHECKPOINTS = sorted(GOLDEN.glob("checkpoint-*"))
LARGEST = 1_500_000

# (source_id, barcode) -> counts of ACTB, CD3D, MS4A1, MT-CO1, MIR21
COUNTS = {
    ("blood", "AAA"): [2, 4, 0, 1, 0],
    ("blood", "AAC"): [1, 0, 0, 0, 2],
    ("blood", "AAG"): [3, 0, 5, 0, 0],
    ("lung", "AAA"): [0, 2, 0, 0, 0],
    ("lung", "CCC"): [3, 0, 5, 0, 0],
    ("lung", "GGG"): [70000, 0, 0, 0, 0],
    ("skin", "SKA"): [0, 7, 1, 0, 0],
    ("skin", "SKC"): [4, 4, 0, 0, 0],
}
GONE = {1: set[tuple[str, str]](), 2: {("blood", "AAC"), ("skin", "SKC")}}


@pytest.fixture
def copy(tmp_path: Path):
    """A golden corpus of a format, as it would lie on a disk, lifted if it is older than ours."""

    def make(number: int) -> Corpus:
        folder = Path(shutil.copytree(GOLDEN / f"format-{number}", tmp_path / str(number)))
        if number < FORMAT:
            with pytest.raises(OlderFormatError):
                Corpus.open(folder)
            upgrade(folder)
        return Corpus.open(folder)

    return make


def test_there_is_a_corpus_of_every_format_and_none_is_large() -> None:
    assert FORMATS == list(range(1, FORMAT + 1))
    files = [path for path in GOLDEN.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST


@pytest.mark.parametrize("number", FORMATS)
def test_every_cell_has_the_counts_that_were_written(copy, number: int) -> None:
    corpus = copy(number)
    expected = {cell: counts for cell, counts in COUNTS.items() if cell not in GONE[number]}
    adata = corpus.to_anndata(genes=["ACTB", "CD3D", "MS4A1", "MT-CO1", "MIR21"])
    cells = zip(adata.obs["source_id"], adata.obs["barcode"], strict=True)
    found = dict(zip(cells, adata.X.toarray().astype(int).tolist(), strict=True))
    assert found == expected
    by_sql = corpus.sql(
        "SELECT source_id, barcode, sum(count)::BIGINT AS total FROM expression "
        "JOIN cells USING (cell_id) GROUP BY ALL"
    ).to_pylist()
    assert {(row["source_id"], row["barcode"]): row["total"] for row in by_sql} == {
        cell: sum(counts) for cell, counts in expected.items()
    }


@pytest.mark.parametrize("number", FORMATS)
def test_every_byte_is_sound(copy, number: int) -> None:
    corpus = copy(number)
    assert corpus.verify() == [] and corpus.verify(deep=True) == []


@pytest.mark.parametrize("number", FORMATS)
def test_receipts_dropped_cells_and_own_columns_are_there(copy, number: int) -> None:
    corpus = copy(number)
    rows = corpus.sql("SELECT source_id, status, n_kept FROM sources ORDER BY 1").to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("blood", "accepted", 3),
        ("lung", "accepted", 3),
        ("not-raw", "refused", 3),
        ("skin", "accepted", 2),
    ]
    assert corpus.sql("SELECT barcode FROM dropped").to_pylist() == [{"barcode": "TTT"}]
    assert corpus.why("TTT")[0]["reason"] == "total_counts"
    ages = corpus.sql("SELECT DISTINCT age FROM cells WHERE source_id = 'skin'").to_pylist()
    assert ages == [{"age": 41}]


@pytest.mark.parametrize("number", FORMATS)
def test_a_source_can_be_added_to_it(copy, number: int, prepare_source) -> None:
    corpus = copy(number)
    n_before = corpus.sql("SELECT count(*) AS n FROM cells").to_pylist()[0]["n"]
    corpus.commit_source(*prepare_source(corpus, "blood", source_id="more", sha256="f" * 64))
    now = Corpus.open(corpus.uri)
    assert now.sql("SELECT count(*) AS n FROM cells").to_pylist() == [{"n": n_before + 3}]
    assert now.verify(deep=True) == []


def test_what_format_2_knows_besides_is_read(copy) -> None:
    corpus = copy(2)
    assert {name: tag.snapshot for name, tag in corpus.tags().items()} == {"blood-and-lung": 2}
    [use] = corpus.uses()
    assert (use.kind, use.name, use.snapshot, use.where) == (
        "pretrain",
        "tiny",
        2,
        "tissue = 'blood'",
    )
    kinds = [entry["kind"] for entry in reversed(corpus.log())]
    assert kinds[:2] == ["created", "ingest"]
    assert set(kinds) >= {"columns", "annotate", "delete", "withdraw", "compact"}
    assert len(Corpus.open(corpus.uri, "blood-and-lung").to_anndata()) == 6
    with pytest.raises(WithdrawnError, match="consent ended"):
        Corpus.open(corpus.uri, kinds.index("withdraw") - 1)


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda path: path.name)
def test_a_checkpoint_gives_the_states_that_it_gave(folder: Path) -> None:
    from cytolake.evaluate.embeddings import cell_states
    from cytolake.train.checkpoints import load_checkpoint
    from cytolake.train.retention import newest_checkpoint

    expected = json.loads((folder / "expected.json").read_text())
    counts_cg = np.array(expected["counts"], dtype=np.uint32)
    rows, genes = np.nonzero(counts_cg)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(counts_cg)))])
    stored, genes = counts_cg[rows, genes], genes.astype(np.int32)
    cells = CellBatch(
        gene_ids=np.array(expected["gene_ids"], dtype=object),
        indptr=indptr.astype(np.int64),
        indices=genes,
        counts=stored,
        n_counts=counts_cg.sum(axis=1).astype(np.int64),
        content_keys=content_keys(content_hashes(expected["gene_ids"], indptr, genes, stored)),
        obs=pa.table({"cell_id": np.arange(len(counts_cg))}),
    )
    checkpoint = load_checkpoint(newest_checkpoint(folder))
    states = cell_states(checkpoint, [cells], layer=-1, pack_tokens=64)
    assert states == pytest.approx(np.array(expected["states"]), abs=1e-5)
