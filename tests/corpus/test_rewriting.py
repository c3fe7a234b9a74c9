"""Files of `cells` written anew, on the fake corpus: one file a source, three rows each."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cytolake.corpus.change.deletion import delete
from cytolake.corpus.log import rewriting
from cytolake.corpus.log.chain import TableState, load_table
from cytolake.corpus.log.rewriting import Rewriter
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import StorageError
from cytolake.platform.faults import watching


@pytest.fixture
def state(build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path) -> TableState:
    return load_table(build_fake_corpus(tmp_path / "corpus").folder / "cells")


def ids(state: TableState, *barcodes: str) -> pa.Table:
    rows = pa.concat_tables(pq.read_table(state.folder / name) for name in state.files)
    chosen = [name.as_py() in barcodes for name in rows.column("barcode")]
    return rows.select(["cell_id"]).filter(pa.array(chosen))


def on_disk(state: TableState) -> set[str]:
    return {path.name for path in state.folder.glob("*.parquet")}


def test_files_without_such_cells_stay_and_rows_keep_their_order(state: TableState) -> None:
    done = Rewriter(state.folder).apply(state, ids(state, "AAC"), state.columns)
    assert (len(done.removes), len(done.adds), done.n_cells) == (1, 1, 1)
    rows = pq.read_table(state.folder / done.adds[0].name)
    assert rows.column("barcode").to_pylist() == ["AAA", "AAG"]
    assert rows.schema.remove_metadata().equals(state.columns.remove_metadata())


def test_small_files_are_put_together_and_large_ones_are_not(
    state: TableState, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = ids(state, "AAC", "CCC")
    together = Rewriter(state.folder).apply(state, change, state.columns)
    assert [file.n_rows for file in together.adds] == [4] and len(together.removes) == 2
    monkeypatch.setattr(rewriting, "ROWS_PER_FILE", 3)
    apart = Rewriter(state.folder).apply(state, change, state.columns)
    assert [file.n_rows for file in apart.adds] == [2, 2]


def test_a_file_of_which_no_row_is_left_is_not_written(state: TableState) -> None:
    before = on_disk(state)
    done = Rewriter(state.folder).apply(
        state, ids(state, "AAA", "AAC", "AAG", "CCC", "GGG"), state.columns
    )
    assert done.adds == () and len(done.removes) == 2 and on_disk(state) == before


def test_values_are_replaced_where_the_change_names_them(state: TableState) -> None:
    change = ids(state, "AAG").append_column("sex", [["female"]])
    done = Rewriter(state.folder, {"sex": "x.sex"}).apply(state, change, state.columns)
    rows = pq.read_table(state.folder / done.adds[0].name)
    assert rows.column("sex").to_pylist() == [None, None, "female"]
    assert rows.column("donor_id").to_pylist() == ["d1", "d2", "d1"]


def test_after_a_loss_only_what_the_winner_touched_is_written_again(
    state: TableState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewriting, "ROWS_PER_FILE", 3)
    rewriter, change = Rewriter(state.folder), ids(state, "AAC", "CCC")
    first = rewriter.apply(state, change, state.columns)
    delete(state.folder.parent, "barcode = 'GGG'")
    newer = load_table(state.folder)
    points: list[str] = []
    with watching(points.append):
        second = rewriter.apply(newer, change, newer.columns)
    assert points.count("after cells/write") == 1
    kept = {file.name for file in first.adds} & {file.name for file in second.adds}
    assert len(kept) == 1 and sorted(file.n_rows for file in second.adds) == [1, 2]
    rewriter.discard(second.adds)
    assert on_disk(state) == {*state.files, *newer.files, *(f.name for f in second.adds)}


def test_what_stands_when_the_disk_says_no_can_be_taken_away(
    state: TableState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewriting, "ROWS_PER_FILE", 3)
    before, rewriter, points = on_disk(state), Rewriter(state.folder), list[str]()

    def full(point: str) -> None:
        points.append(point)
        if points.count("before cells/write") == 2:
            raise StorageError("the disk is full")

    with watching(full), pytest.raises(StorageError, match="full"):
        rewriter.apply(state, ids(state, "AAC", "CCC"), state.columns)
    assert len(on_disk(state)) == len(before) + 1
    rewriter.discard()
    assert on_disk(state) == before
