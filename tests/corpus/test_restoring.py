"""An earlier snapshot's cells come back by a new commit; what was withdrawn does not."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cytolake.corpus.change.restoring import restore
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CorpusError, DamageError, WithdrawnError
from cytolake.platform.faults import DEAD, watching

DYING = """
import sys
from pathlib import Path
from cytolake.corpus.change.restoring import restore
from cytolake.platform.faults import death, watching
with watching(death(sys.argv[2])):
    restore(Path(sys.argv[1]), 2)
"""


@pytest.fixture
def corpus(build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path) -> Corpus:
    return build_fake_corpus(tmp_path / "corpus")


def cells_of(corpus: Corpus, snapshot: int | None = None) -> list[dict[str, object]]:
    opened = Corpus.open(corpus.uri, snapshot)
    return opened.sql("SELECT * FROM cells ORDER BY cell_id").to_pylist()


def barcodes_of(corpus: Corpus, snapshot: int | None = None) -> list[tuple[object, object]]:
    return sorted((row["source_id"], row["barcode"]) for row in cells_of(corpus, snapshot))


def test_deleted_cells_come_back_with_their_ids_and_counts(corpus: Corpus) -> None:
    before = cells_of(corpus)
    corpus.delete("source_id = 'blood'")
    done = corpus.restore(2)
    assert (done.snapshot, done.n_cells, done.n_withdrawn) == (4, 6, 0)
    assert cells_of(corpus) == before
    assert Corpus.open(corpus.uri).verify(deep=True) == []
    adata = Corpus.open(corpus.uri).to_anndata("source_id = 'blood' AND barcode = 'AAA'")
    assert adata.X.sum() == 7


def test_a_source_that_came_since_is_gone_and_may_be_ingested_again(
    corpus: Corpus, prepare_source: Callable[..., tuple[object, object]]
) -> None:
    corpus.restore(1)
    now = Corpus.open(corpus.uri)
    assert [s.receipt.source_id for s in now.state.accepted] == ["blood"]
    assert list(now.state.segments) == ["blood-0"]
    assert barcodes_of(corpus) == barcodes_of(corpus, 1)
    again = now.commit_source(*prepare_source(now, "lung"))  # pyright: ignore[reportArgumentType]
    assert again.added and barcodes_of(corpus) == barcodes_of(corpus, 2)
    assert Corpus.open(corpus.uri).verify(deep=True) == []


def test_the_log_tells_of_it_and_nothing_is_undone(corpus: Corpus) -> None:
    corpus.restore(1)
    log = Corpus.open(corpus.uri).log()
    assert [entry["kind"] for entry in log] == ["restore", "ingest", "ingest", "created"]
    assert (log[0]["what"], log[0]["n_cells"]) == ("restored snapshot 1", 3)
    assert len(barcodes_of(corpus, 2)) == 6


def test_restoring_what_stands_already_does_nothing(corpus: Corpus) -> None:
    assert corpus.restore(2).snapshot is None
    assert Corpus.open(corpus.uri).snapshot == 2
    corpus.restore(1)
    assert corpus.restore(1).snapshot is None


def test_withdrawn_cells_stay_out(corpus: Corpus) -> None:
    corpus.withdraw("donor_id = 'd1'", "consent ended")
    done = corpus.restore(2)
    assert (done.n_cells, done.n_withdrawn) == (4, 2)
    assert ("blood", "AAA") not in barcodes_of(corpus)
    assert corpus.restore(2).snapshot is None  # the same command again, after a kill say
    assert Corpus.open(corpus.uri).verify(deep=True) == []


def test_a_snapshot_of_withdrawn_cells_alone_is_not_restored(corpus: Corpus) -> None:
    corpus.withdraw("source_id = 'blood'", "consent ended")
    with pytest.raises(WithdrawnError, match="every one of the 3 cells"):
        corpus.restore(1)
    assert len(barcodes_of(corpus)) == 3


def test_an_ended_snapshot_is_not_restored(corpus: Corpus) -> None:
    corpus.delete("source_id = 'blood'")
    corpus.vacuum(older_than_ms=0)
    with pytest.raises(CorpusError, match="ended by the vacuum"):
        corpus.restore(2)


def test_annotations_of_then_come_back_and_new_columns_stay_empty(corpus: Corpus) -> None:
    import pyarrow as pa

    given = {"source_id": ["blood"], "barcode": ["AAA"], "cell_type": ["NK"], "grade": ["high"]}
    corpus.annotate(pa.table(given))
    corpus.restore(2)
    [cell] = [
        row for row in cells_of(corpus) if (row["source_id"], row["barcode"]) == ("blood", "AAA")
    ]
    assert (cell["cell_type"], cell["grade"]) == ("T cell", None)


def test_unknown_snapshots_and_missing_segments_are_told(corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match="no snapshot 99"):
        corpus.restore(99)
    corpus.restore(1)
    (corpus.segments_folder / "lung-0" / "segment.json").unlink()
    with pytest.raises(DamageError, match="lung-0"):
        corpus.restore(2)


def test_what_another_writer_commits_meanwhile_is_seen(corpus: Corpus) -> None:
    corpus.delete("source_id = 'lung'")
    other = Corpus.open(corpus.uri)
    came = [0]

    def withdraw_in_between(point: str) -> None:
        if point == "before cells/commit" and not came[0]:
            came[0] = 1
            other.withdraw("source_id = 'lung' AND barcode = 'AAA'", "consent ended")

    with watching(withdraw_in_between):
        done = restore(corpus.folder, 2)
    assert came and (done.n_cells, done.n_withdrawn) == (5, 1)
    assert ("lung", "AAA") not in barcodes_of(corpus)


@pytest.mark.parametrize("point", ["before cells/commit", "after cells/commit"])
def test_a_killed_restoration_is_finished_by_the_same_command(corpus: Corpus, point: str) -> None:
    corpus.delete("donor_id = 'd4'")
    corpus.withdraw("donor_id = 'd1'", "consent ended")
    words = [sys.executable, "-c", DYING, str(corpus.folder), point]
    assert subprocess.run(words, check=False).returncode == DEAD
    assert Corpus.open(corpus.uri).verify(deep=True) == []
    restore(corpus.folder, 2)
    assert Corpus.open(corpus.uri).verify(deep=True) == []
    assert len(barcodes_of(corpus)) == 4
