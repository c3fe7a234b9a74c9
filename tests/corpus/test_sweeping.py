"""What a vacuum spares and takes away: staged units, leases, orphans, removals cut short."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cytolake.corpus.change.deletion import delete
from cytolake.corpus.log.leases import lease, live_leases, remove_dead_leases
from cytolake.corpus.payload.records import SegmentRecord
from cytolake.corpus.store import Corpus
from cytolake.corpus.upkeep.sweeping import remove_named
from cytolake.corpus.upkeep.vacuum import plan_vacuum, vacuum
from cytolake.platform.errors import ConflictError
from cytolake.platform.faults import watching
from cytolake.tests.faults.commands import ingest_source, prepare_part

from .vacuumed import NOW, folders, held


def staged(corpus: Corpus) -> Path:
    """A segment that is prepared and not committed, and a folder of staging."""
    record = prepare_part(corpus, "skin", 0)
    (corpus.folder / "staging" / "key").mkdir(parents=True)
    (corpus.folder / "staging" / "key" / "survey.json").write_text("{}")
    return record.folder


def test_staged_units_are_spared_while_an_ingest_holds_a_lease(two: Corpus) -> None:
    folder = staged(two)
    with lease(two.folder):
        assert plan_vacuum(two.folder, **NOW).n_leases == 1
        assert vacuum(two.folder, **NOW).snapshot is None
        assert folder.exists() and (two.folder / "staging/key").exists()
    done = vacuum(two.folder, **NOW)
    assert (done.removed.n_segments, done.removed.n_staged) == (1, 1)
    assert not folder.exists() and not (two.folder / "staging/key").exists()


def test_an_ingest_whose_staged_unit_a_vacuum_took_is_refused_and_can_be_run_again(
    two: Corpus,
) -> None:
    staged(two)
    taken: list[int] = []

    def come_in(point: str) -> None:
        if point == "before cells/write" and not taken:
            taken.append(1)
            vacuum(two.folder, older_than_ms=0)

    with watching(come_in), pytest.raises(ConflictError, match="removed by a vacuum"):
        ingest_source(two, "skin")
    ingest_source(two, "skin")
    after = Corpus.open(two.folder)
    assert after.find_source("skin") is not None and after.verify(deep=True) == []


def test_what_a_vacuum_named_and_left_is_gone_before_an_ingest_could_adopt_it(
    two: Corpus, tmp_path: Path
) -> None:
    folder = staged(two)
    shutil.copytree(folder, tmp_path / "left")
    vacuum(two.folder, **NOW)
    shutil.copytree(tmp_path / "left", folder)  # as if it had died before it took it away
    living = folders(two) - {folder.name}
    remove_named(two.folder)
    assert folders(two) == living
    ingest_source(two, "skin")
    assert held(two.folder)


def test_a_lease_of_a_dead_holder_is_over(two: Corpus) -> None:
    with lease(two.folder) as name:
        assert live_leases(two.folder) == [name]
        assert live_leases(two.folder, besides=name) == []
    assert live_leases(two.folder) == []
    dead = two.folder / "leases" / "dead"
    dead.touch()
    os.utime(dead, (time.time() - 300, time.time() - 300))
    assert live_leases(two.folder) == []
    remove_dead_leases(two.folder)
    assert not dead.exists()


def test_orphans_younger_than_the_grace_are_spared_and_counted(two: Corpus) -> None:
    orphan = two.folder / "cells" / f"{'0' * 64}.parquet"
    orphan.write_bytes(b"x")
    leftover = two.folder / "cells" / ".leftover.tmp"
    leftover.write_bytes(b"x")
    witness = two.folder / "cells" / ".newest.json"  # hidden, and not left over
    os.utime(witness, (time.time() - 7200, time.time() - 7200))
    assert vacuum(two.folder, older_than_ms=0).removed.n_young == 1
    assert orphan.exists() and leftover.exists()
    old = time.time() - 7200
    for path in (orphan, leftover):
        os.utime(path, (old, old))
    assert vacuum(two.folder, older_than_ms=0).removed.n_files == 1
    assert not orphan.exists() and not leftover.exists()
    assert witness.exists()


def test_files_of_ended_snapshots_go_however_young_they_are(two: Corpus) -> None:
    delete(two.folder, "donor_id = 'blood-d1'")
    done = vacuum(two.folder, older_than_ms=0)
    assert done.removed.n_files > 0 and done.removed.n_young == 0


def test_a_vacuum_that_died_between_its_phases_is_finished_by_the_next(two: Corpus) -> None:
    delete(two.folder, "donor_id = 'blood-d1'")
    before = held(two.folder)

    class PowerCutError(Exception):
        pass

    def cut(point: str) -> None:
        if point == "after cells/commit":
            raise PowerCutError

    with watching(cut), pytest.raises(PowerCutError):
        vacuum(two.folder, older_than_ms=0)
    assert held(two.folder) == before
    assert {"blood-0", "blood-1"} <= folders(two)
    done = vacuum(two.folder, older_than_ms=0)
    assert done.snapshot is None and done.removed.n_segments == 2
    assert folders(two) == set(Corpus.open(two.folder).state.segments)


def test_a_segment_prepared_anew_under_a_removed_name_is_spared(two: Corpus) -> None:
    folder = staged(two)
    block = SegmentRecord.load(folder).block

    def come_in(point: str) -> None:
        if point == "after cells/commit" and SegmentRecord.load(folder).block == block:
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            folder.rmdir()
            prepare_part(two, "skin", 0)
            (two.folder / "leases" / "of-an-ingest").touch()

    with watching(come_in):
        assert vacuum(two.folder, older_than_ms=0).removed.n_segments == 0
    assert SegmentRecord.load(folder).block != block


_RACER = """
import sys
from pathlib import Path
from cytolake.corpus.log.leases import lease
from cytolake.corpus.store import Corpus
from cytolake.corpus.upkeep.vacuum import vacuum
from cytolake.tests.faults.commands import ingest_source
folder = Path(sys.argv[2])
if sys.argv[1] == "vacuum":
    for _ in range(3):
        vacuum(folder, older_than_ms=0)
else:
    with lease(folder):
        for name in ("skin", "liver"):
            ingest_source(Corpus.open(folder), name)
"""


def test_two_vacuums_and_an_ingest_in_processes_of_their_own(two: Corpus) -> None:
    delete(two.folder, "donor_id = 'blood-d1'")
    ids = held(two.folder).ids
    racers = [
        subprocess.Popen([sys.executable, "-c", _RACER, what, str(two.folder)])
        for what in ("vacuum", "vacuum", "ingest")
    ]
    assert [racer.wait(120) for racer in racers] == [0, 0, 0]
    after = held(two.folder)
    assert {name: after.ids[name] for name in ids} == ids
    assert len(after.ids) == len(ids) + 96
    vacuum(two.folder, older_than_ms=0)
    assert folders(two) == set(Corpus.open(two.folder).state.segments)
