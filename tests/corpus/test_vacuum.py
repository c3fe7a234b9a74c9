"""Vacuum: what ends, what goes, what is spared, and that nothing of a withdrawn cell is left."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from cytolake.corpus.change.deletion import delete, withdraw
from cytolake.corpus.log.chain import TableState
from cytolake.corpus.log.ledger import Proposal, commit
from cytolake.corpus.log.rewriting import Rewriter
from cytolake.corpus.log.tags import tag, tags
from cytolake.corpus.payload.records import SegmentRecord
from cytolake.corpus.query.uses import Use, record_use
from cytolake.corpus.store import Corpus
from cytolake.corpus.upkeep import retention
from cytolake.corpus.upkeep.compaction import compact
from cytolake.corpus.upkeep.vacuum import DAY_MS, plan_vacuum, vacuum
from cytolake.platform.errors import CorpusError, WithdrawnError
from cytolake.tests.faults.commands import ingest_source
from cytolake.tests.faults.killing import state_of

from .vacuumed import NOW, folders, held


def test_dead_cells_go_from_the_disk_and_the_living_stay(two: Corpus) -> None:
    delete(two.folder, "donor_id = 'blood-d1'")
    before = held(two.folder)
    done = vacuum(two.folder, **NOW)
    after = Corpus.open(two.folder)
    assert held(two.folder) == before
    assert (done.n_rewritten, done.n_dead, done.removed.n_segments) == (2, 12, 2)
    assert done.ended == (0, 1, 2, 3) and done.removed.n_bytes > 0
    assert sum(entry.n_cells for entry in after.state.segments.values()) == 84
    assert folders(two) == set(after.state.segments)
    assert {path.name for path in after.state.files} == {
        path.name for path in (two.folder / "cells").glob("*.parquet")
    }


def test_a_dry_run_says_what_would_be_done_and_does_nothing(two: Corpus) -> None:
    delete(two.folder, "donor_id = 'blood-d1'")
    files = sorted(path for path in two.folder.rglob("*"))
    said = vacuum(two.folder, dry_run=True, **NOW)
    assert sorted(path for path in two.folder.rglob("*")) == files
    done = vacuum(two.folder, **NOW)
    assert said.dry_run and said.snapshot is None
    assert (said.ended, said.n_rewritten, said.n_dead) == (
        done.ended,
        done.n_rewritten,
        done.n_dead,
    )
    assert said.removed == done.removed


def test_a_second_vacuum_finds_nothing_to_do(two: Corpus) -> None:
    delete(two.folder, "donor_id = 'blood-d1'")
    vacuum(two.folder, **NOW)
    done = vacuum(two.folder, **NOW)
    assert (done.snapshot, done.ended, done.n_rewritten, done.removed.n_bytes) == (None, (), 0, 0)


def test_snapshots_whose_end_frees_nothing_do_not_end(two: Corpus) -> None:
    assert vacuum(two.folder, **NOW).snapshot is None
    assert Corpus.open(two.folder, 1).snapshot == 1


def test_what_was_lately_the_newest_stays_with_all_its_files(two: Corpus) -> None:
    delete(two.folder, "donor_id = 'blood-d1'")
    before = {version: state_of(Corpus.open(two.folder, version)) for version in (1, 2, 3)}
    done = vacuum(two.folder, older_than_ms=DAY_MS, grace_ms=0)
    assert done.n_rewritten == 2 and done.ended == () and done.removed.n_segments == 0
    for version, state in before.items():
        corpus = Corpus.open(two.folder, version)
        assert state_of(corpus) == state
        assert corpus.verify(deep=True) == []
    assert vacuum(two.folder, older_than_ms=DAY_MS, grace_ms=0).snapshot is None
    later = vacuum(two.folder, **NOW)
    assert later.n_rewritten == 0 and later.removed.n_segments == 2


def test_age_counts_from_the_next_commit_and_a_clock_set_back_adds_none(
    two: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = two.state.records
    since = retention._superseded(records)
    assert since == {0: records[1].at, 1: records[2].at}
    back = (records[0], records[1], replace(records[2], at=5))
    assert retention._superseded(back) == {0: records[1].at, 1: records[1].at}
    monkeypatch.setattr(retention, "now_ms", lambda: 0)  # this host's clock, set back
    delete(two.folder, "donor_id = 'blood-d1'")
    assert vacuum(two.folder, older_than_ms=1).ended == ()


def test_tagged_and_used_snapshots_stay_and_verify(two: Corpus) -> None:
    tag(two.folder, "best", 2)
    delete(two.folder, "donor_id = 'blood-d1'")
    record_use(two.folder, Use(kind="pretrain", name="run-1", snapshot=3))
    delete(two.folder, "donor_id = 'lung-d1'")
    before = {version: state_of(Corpus.open(two.folder, version)) for version in (2, 3)}
    done = vacuum(two.folder, **NOW)
    assert done.kept == {2: ("tag best",), 3: ("pretrain run-1",)}
    assert done.n_rewritten == 0  # all is pinned by the tag: to write it anew would free nothing
    for version, state in before.items():
        corpus = Corpus.open(two.folder, version)
        assert corpus.verify(deep=True) == []
        assert state_of(corpus) == state
    assert Corpus.open(two.folder, "best").snapshot == 2


def test_an_ended_snapshot_is_refused_by_name(two: Corpus) -> None:
    delete(two.folder, "donor_id = 'blood-d1'")
    vacuum(two.folder, **NOW)
    with pytest.raises(CorpusError, match="was ended by the vacuum that made snapshot 4"):
        Corpus.open(two.folder, 2)


def test_a_segment_without_living_cells_leaves_only_its_dropped_cells(two: Corpus) -> None:
    delete(two.folder, "barcode LIKE 'lung-0-%'")
    before = held(two.folder)
    assert vacuum(two.folder, **NOW).n_dead == 24
    after = Corpus.open(two.folder)
    [empty] = [entry for entry in after.state.segments.values() if not entry.n_cells]
    assert empty.n_dropped == 1
    assert held(two.folder) == before


def test_a_segment_without_anything_left_is_replaced_by_nothing(
    build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path
) -> None:
    corpus = build_fake_corpus(tmp_path / "corpus")
    delete(corpus.folder, "source_id = 'lung'")
    vacuum(corpus.folder, **NOW)
    assert folders(corpus) == {"blood-0"}
    assert Corpus.open(corpus.folder).verify(deep=True) == []


def test_a_reader_of_a_snapshot_that_ends_gets_an_error_and_never_wrong_cells(two: Corpus) -> None:
    reader = Corpus.open(two.folder)
    selection = reader.select()
    delete(two.folder, "donor_id = 'blood-d1'")
    vacuum(two.folder, **NOW)
    with pytest.raises(CorpusError, match="was ended by the vacuum"):
        reader.read(selection)
    with pytest.raises(CorpusError, match="was ended by the vacuum"):
        reader.sql("SELECT count(*) FROM cells")


def test_a_negative_age_is_refused(two: Corpus) -> None:
    with pytest.raises(CorpusError, match="expected 0 or more"):
        vacuum(two.folder, older_than_ms=-1)


# ---------------------------------------------------------------------------------- consent


def everything_in(folder: Path) -> bytes:
    """Every byte under a folder, and every value of its tables and arrays."""
    parts: list[bytes] = []
    for path in sorted(folder.rglob("*")):
        parts.append(path.name.encode())
        if path.is_file():
            parts.append(path.read_bytes())
        if path.suffix == ".parquet":
            parts.append(repr(pq.read_table(path).to_pydict()).encode())
        if path.name == "zarr.json" and b'"array"' in path.read_bytes():
            values = zarr.open_array(path.parent, mode="r")[:]
            parts.append(repr(np.asarray(values).tolist()).encode())
    return b"\n".join(parts)


def test_nothing_of_a_withdrawn_cell_is_left_in_any_file(two: Corpus) -> None:
    compact(two.folder, cells_per_segment=48)
    tag(two.folder, "before", 2)
    withdraw(two.folder, "barcode = 'blood-1-7'", "consent ended")
    assert b"blood-1-7" in everything_in(two.folder)
    before = held(two.folder)
    done = vacuum(two.folder, for_consent=True, **NOW)
    found = everything_in(two.folder)
    assert b"blood-1-7" not in found and b"blood-1-6" in found
    assert held(two.folder) == before
    assert [(h.kind, h.name, h.n_cells) for h in done.holders] == [("tag", "before", 1)]
    with pytest.raises(CorpusError, match="has no snapshot or tag 'before'"):
        Corpus.open(two.folder, "before")


def test_without_for_consent_a_tag_keeps_the_bytes_but_no_open_shows_them(two: Corpus) -> None:
    tag(two.folder, "before", 2)
    withdraw(two.folder, "barcode = 'blood-1-7'", "consent ended")
    vacuum(two.folder, **NOW)
    assert b"blood-1-7" in everything_in(two.folder)
    with pytest.raises(WithdrawnError, match="1 cells that were withdrawn"):
        Corpus.open(two.folder, "before")


def test_who_held_withdrawn_cells_is_listed_with_how_many_and_told_again(two: Corpus) -> None:
    uses = [
        Use(kind="pretrain", name="lungs", snapshot=2, where="tissue = 'lung'"),
        Use(kind="export", name="all.h5ad", snapshot=2, uri="/out/all.h5ad"),
        Use(kind="evaluate", name="screen", snapshot=2, where="tissue = 'blood'", part="test"),
        Use(kind="embed", name="odd", snapshot=2, where="no_such_column = 1"),
        Use(kind="embed", name="early", snapshot=0),
    ]
    for use in uses:
        record_use(two.folder, use)
    withdraw(two.folder, "donor_id = 'blood-d1'", "consent ended")
    expected = {
        ("pretrain", "lungs", 0, False),
        ("export", "all.h5ad", 12, False),
        ("evaluate", "screen", 12, True),
        ("embed", "odd", 12, True),
    }
    plan = plan_vacuum(two.folder, for_consent=True)
    done = vacuum(two.folder, for_consent=True)
    again = vacuum(two.folder, for_consent=True)
    for holders in (plan.holders, done.holders, again.holders):
        assert {(h.kind, h.name, h.n_cells, h.whole_snapshot) for h in holders} == expected


def test_for_consent_ends_what_reaches_withdrawn_cells_and_spares_the_rest(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "corpus")
    ingest_source(corpus, "lung")
    ingest_source(corpus, "blood")
    for number in (1, 2):
        tag(corpus.folder, f"at-{number}", number)
    withdraw(corpus.folder, "source_id = 'blood' AND donor_id = 'blood-d1'", "consent ended")
    tag(corpus.folder, "after", 3)  # holds none of the cells, but names the segment that does
    done = vacuum(corpus.folder, for_consent=True, grace_ms=0)
    assert done.ended == (2, 3)
    assert {(h.name, h.n_cells) for h in done.holders} == {("at-2", 12), ("after", 0)}
    assert Corpus.open(corpus.folder, "at-1").verify(deep=True) == []
    assert set(tags(corpus.folder)) == {"at-1"}


def test_dropped_cells_of_a_withdrawn_name_go_too(two: Corpus) -> None:
    """Rows of one barcode are summed at ingest: the later ones stand among the dropped."""
    path = two.segments_folder / "lung-1"
    assert b"lung-1-24" in everything_in(path)
    table = SegmentRecord.load(path).table("dropped.parquet")
    assert table.column("barcode").to_pylist() == ["lung-1-24"]
    _rename_cell(two, "lung-0-3", "lung-1-24")
    withdraw(two.folder, "source_id = 'lung' AND barcode = 'lung-1-24'", "consent ended")
    vacuum(two.folder, for_consent=True, **NOW)
    assert b"lung-1-24" not in everything_in(two.folder)


def _rename_cell(corpus: Corpus, old: str, new: str) -> None:
    ids = corpus.sql(f"SELECT cell_id FROM cells WHERE barcode = '{old}'")
    rewriter = Rewriter(corpus.folder / "cells", replace={"barcode": f"'{new}'"})

    def propose(state: TableState) -> Proposal:
        done = rewriter.apply(state, ids, state.columns)
        body = {"columns": ["barcode"], "origin": "test", "n_cells": 1}
        return Proposal(kind="annotate", body=body, adds=done.adds, removes=done.removes)

    commit(corpus.folder / "cells", propose)
