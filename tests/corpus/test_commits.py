from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cytolake.corpus.log import commits, ledger
from cytolake.corpus.log.chain import TableState, load_table
from cytolake.corpus.log.snapshots import Snapshot
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import ConflictError, CorpusError, DamageError
from deltalake import DeltaTable, write_deltalake


@pytest.fixture
def empty_corpus(tmp_path: Path):
    return Corpus.create(tmp_path / "corpus")


def n_cells(corpus: Corpus) -> int:
    return Corpus.open(corpus.uri).sql("SELECT count(*) AS n FROM cells")["n"][0].as_py()


def test_a_source_is_one_commit_and_committing_it_again_adds_nothing(
    empty_corpus: Corpus, prepare_source: Callable[..., Any]
) -> None:
    receipt, segments = prepare_source(empty_corpus, "blood")
    first = empty_corpus.commit_source(receipt, segments)
    second = empty_corpus.commit_source(receipt, segments)
    assert (first.snapshot, first.added) == (1, True)
    assert (second.snapshot, second.added) == (1, False)
    assert n_cells(empty_corpus) == 3
    assert len(list((empty_corpus.folder / "cells").glob("*.parquet"))) == 1


def test_two_handles_loaded_before_either_commits_add_a_source_once(
    empty_corpus: Corpus, prepare_source: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt, segments = prepare_source(empty_corpus, "blood")
    stale = load_table(empty_corpus.folder / "cells")
    empty_corpus.commit_source(receipt, segments)
    versions: list[int] = []

    def stale_at_first(folder: Path) -> TableState:
        state = load_table(folder) if versions else stale
        versions.append(state.version)
        return state

    monkeypatch.setattr(ledger, "load_table", stale_at_first)
    commit = commits.commit_source(empty_corpus.folder, receipt, segments)
    assert versions[0] == 0 and set(versions[1:]) == {1}, "it lost on the stale handle"
    assert (commit.snapshot, commit.added) == (1, False)
    assert n_cells(empty_corpus) == 3


def test_writers_side_by_side_all_land_and_none_twice(
    empty_corpus: Corpus, prepare_source: Callable[..., Any]
) -> None:
    prepared = [
        prepare_source(empty_corpus, "blood", source_id=name, sha256=name * 64) for name in "abc"
    ]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda given: empty_corpus.commit_source(*given), prepared * 2))
    assert n_cells(empty_corpus) == 9
    snapshot = Snapshot.load(empty_corpus.folder)
    assert snapshot.version == 3
    assert sorted(source.receipt.source_id for source in snapshot.accepted) == ["a", "b", "c"]


def test_an_account_that_does_not_balance_is_refused(
    empty_corpus: Corpus, prepare_source: Callable[..., Any]
) -> None:
    receipt, segments = prepare_source(empty_corpus, "blood", n_read=5)
    with pytest.raises(CorpusError, match="5 cells read, but 3 kept \\+ 1 dropped"):
        empty_corpus.commit_source(receipt, segments)
    assert Snapshot.load(empty_corpus.folder).version == 0


def test_segments_that_hold_other_cells_than_the_receipt_says_are_refused(
    empty_corpus: Corpus, prepare_source: Callable[..., Any]
) -> None:
    receipt, segments = prepare_source(empty_corpus, "blood")
    with pytest.raises(CorpusError, match="hold 3 kept and 1 dropped"):
        empty_corpus.commit_source(replace(receipt, n_kept=2, n_read=3), segments)


def test_another_file_under_a_name_in_use_is_refused(
    empty_corpus: Corpus, prepare_source: Callable[..., Any]
) -> None:
    empty_corpus.commit_source(*prepare_source(empty_corpus, "blood"))
    lung, segments = prepare_source(empty_corpus, "lung")
    other = replace(segments[0], provenance={**segments[0].provenance, "source_id": "blood"})
    with pytest.raises(ConflictError, match="another name"):
        empty_corpus.commit_source(replace(lung, source_id="blood"), [other])


def test_a_block_of_ids_in_use_is_refused(
    empty_corpus: Corpus, prepare_source: Callable[..., Any]
) -> None:
    _, [blood] = prepared = prepare_source(empty_corpus, "blood")
    empty_corpus.commit_source(*prepared)
    receipt, [lung] = prepare_source(empty_corpus, "lung")
    with pytest.raises(ConflictError, match="block of cell ids is in use"):
        empty_corpus.commit_source(receipt, [replace(lung, block=blood.block)])


def test_a_segment_of_another_corpus_is_refused(
    empty_corpus: Corpus, prepare_source: Callable[..., Any], tmp_path: Path
) -> None:
    other = Corpus.create(tmp_path / "other")
    with pytest.raises(CorpusError, match="corpus_uuid"):
        empty_corpus.commit_source(*prepare_source(other, "blood"))


def test_a_segment_that_is_not_whole_is_refused(
    empty_corpus: Corpus, prepare_source: Callable[..., Any]
) -> None:
    receipt, [record] = prepare_source(empty_corpus, "blood")
    (record.folder / "dropped.parquet").unlink()
    with pytest.raises(DamageError, match=r"dropped\.parquet is missing"):
        empty_corpus.commit_source(receipt, [record])
    assert not list((empty_corpus.folder / "cells").glob("*.parquet"))


def test_a_refused_source_is_on_record_and_adds_no_cell(
    empty_corpus: Corpus, prepare_source: Callable[..., Any]
) -> None:
    receipt, _ = prepare_source(empty_corpus, "blood")
    empty_corpus.refuse_source(receipt, "X holds 0.5")
    corpus = Corpus.open(empty_corpus.uri)
    rows = corpus.sql("SELECT source_id, status, reason FROM sources").to_pylist()
    assert rows == [{"source_id": "blood", "status": "refused", "reason": "X holds 0.5"}]
    assert corpus.snapshot == 0


def test_a_reader_completes_the_sources_and_writes_nothing(
    empty_corpus: Corpus, prepare_source: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "project_sources", lambda folder: None)
    empty_corpus.commit_source(*prepare_source(empty_corpus, "blood"))
    before = {path: path.stat().st_mtime_ns for path in empty_corpus.folder.rglob("*")}
    corpus = Corpus.open(empty_corpus.uri)
    assert corpus.sql("SELECT source_id FROM sources")["source_id"].to_pylist() == ["blood"]
    assert corpus.verify() == []
    assert {path: path.stat().st_mtime_ns for path in empty_corpus.folder.rglob("*")} == before
    monkeypatch.undo()
    empty_corpus.commit_source(*prepare_source(empty_corpus, "lung"))
    projected = DeltaTable(empty_corpus.folder / "sources").to_pyarrow_table()
    assert projected["source_id"].to_pylist() == ["blood", "lung"]


def test_a_column_that_a_source_lifts_is_null_for_the_others(
    empty_corpus: Corpus, prepare_source: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    empty_corpus.commit_source(*prepare_source(empty_corpus, "blood"))
    receipt, [record] = prepare_source(empty_corpus, "lung")
    cells = record.cells()
    lifted = cells.append_column("smoker", [[True, None, False]])
    monkeypatch.setattr(type(record), "cells", lambda self: lifted)
    empty_corpus.commit_source(receipt, [record])
    corpus = Corpus.open(empty_corpus.uri)
    rows = corpus.sql("SELECT smoker FROM cells ORDER BY source_id, row")["smoker"].to_pylist()
    assert rows == [None, None, None, True, None, False]
    assert corpus.select("smoker").n_cells == 1


def test_old_snapshots_stay_as_they_were(fake_corpus: Corpus) -> None:
    first = Corpus.open(fake_corpus.uri, snapshot=1)
    assert first.sql("SELECT count(*) AS n FROM cells")["n"][0].as_py() == 3
    assert first.sql("SELECT source_id FROM sources")["source_id"].to_pylist() == ["blood"]
    assert first.sql("SELECT DISTINCT segment FROM measured")["segment"].to_pylist() == ["blood-0"]
    assert [entry["snapshot"] for entry in first.log()] == [1, 0]


def test_delta_itself_does_not_refuse_a_known_transaction_id(tmp_path: Path) -> None:
    """The reason for our own look-up: the day delta-rs refuses, it can go."""
    import pyarrow as pa
    from deltalake import CommitProperties, Transaction

    known = CommitProperties(app_transactions=[Transaction("unit:1", 1)])
    for _ in range(2):
        write_deltalake(
            tmp_path / "t", pa.table({"x": [1]}), mode="append", commit_properties=known
        )
    assert DeltaTable(tmp_path / "t").count() == 2
