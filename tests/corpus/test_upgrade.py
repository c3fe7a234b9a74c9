"""A corpus of format 1 is lifted in place: the same cells, ids and numbers, whatever kills it."""

import shutil
from pathlib import Path

import pytest
from cytolake.corpus.change.format_1 import _NAMED  # pyright: ignore[reportPrivateUsage]
from cytolake.corpus.change.upgrade import upgrade
from cytolake.corpus.log.chain import load_table
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import (
    CorpusError,
    DamageError,
    NewerFormatError,
    NotACorpusError,
    OlderFormatError,
)
from cytolake.platform.faults import DEAD, watching
from deltalake import DeltaTable, Field
from deltalake.schema import PrimitiveType

from .lifting import GOLDEN, N_SNAPSHOTS, die, is_lifted_whole, new_cells, old_cells


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "corpus"))


def test_an_older_corpus_is_refused_with_the_way_out(folder: Path) -> None:
    with pytest.raises(OlderFormatError, match="corpus upgrade"):
        Corpus.open(folder)


def test_every_snapshot_holds_the_same_cells_under_the_same_number(folder: Path) -> None:
    done = upgrade(folder)
    assert done is not None
    assert (done.before, done.now, done.n_snapshots, done.n_segments) == (1, 2, N_SNAPSHOTS, 3)
    for version in range(N_SNAPSHOTS):
        assert new_cells(folder, version) == old_cells(version)


def test_times_receipts_and_refusals_are_kept(folder: Path) -> None:
    times = [entry["timestamp"] for entry in DeltaTable(GOLDEN / "cells").history()]
    upgrade(folder)
    corpus = Corpus.open(folder)
    assert [entry["at"] for entry in corpus.log()] == times
    assert [entry["what"] for entry in corpus.log()] == [
        "added skin",
        "columns age",
        "added lung",
        "added blood",
        "created",
    ]
    sources = corpus.sql("SELECT source_id, status, snapshot FROM sources ORDER BY 1").to_pylist()
    assert [(row["source_id"], row["status"], row["snapshot"]) for row in sources] == [
        ("blood", "accepted", 1),
        ("lung", "accepted", 2),
        ("not-raw", "refused", 2),
        ("skin", "accepted", 4),
    ]


def test_what_was_lifted_is_whole_and_nothing_old_is_left(folder: Path) -> None:
    upgrade(folder)
    assert Corpus.open(folder).verify(deep=True) == []
    assert {path.name for path in folder.iterdir()} == {"cells", "sources", "segments"}
    assert [path.stat().st_mode & 0o222 for path in folder.glob("cells/*.parquet")] == [0, 0, 0]


def test_lifting_once_more_does_nothing(folder: Path) -> None:
    upgrade(folder)
    before = load_table(folder / "cells").records
    assert upgrade(folder) is None
    assert load_table(folder / "cells").records == before


def test_a_folder_without_a_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotACorpusError):
        upgrade(tmp_path)


def test_a_newer_format_is_refused(folder: Path) -> None:
    for log in folder.glob("cells/_delta_log/*.json"):
        log.write_text(log.read_text().replace('"cytolake.format":"1"', '"cytolake.format":"99"'))
    with pytest.raises(NewerFormatError, match="99"):
        upgrade(folder)


@pytest.mark.parametrize("victim", ["cells/*.parquet", "segments/lung-0/segment.json"])
def test_damage_is_found_and_nothing_is_changed(folder: Path, victim: str) -> None:
    path = min(folder.glob(victim))
    data = path.read_bytes()
    middle = data.index(b'"n_cells": 3') + 11 if path.suffix == ".json" else len(data) // 2
    path.chmod(0o644)
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    with pytest.raises(DamageError):
        upgrade(folder)
    path.write_bytes(data)
    assert upgrade(folder) is not None


def test_what_an_older_cytolake_commits_meanwhile_is_not_lost(folder: Path) -> None:
    def commit_by_an_older_one(point: str) -> None:
        if point == "before upgrade/aside":
            late = Field("late", PrimitiveType("string"))
            DeltaTable(folder / "cells").alter.add_columns([late])

    with (
        watching(commit_by_an_older_one),
        pytest.raises(CorpusError, match="older cytolake committed"),
    ):
        upgrade(folder)
    assert DeltaTable(folder / "cells").version() == N_SNAPSHOTS


def test_a_lifted_warning_names_no_cell() -> None:
    line = "2 rows repeat a barcode (the first is AA(1)-1): their counts were added (see above): x"
    assert _NAMED.sub("", line) == (
        "2 rows repeat a barcode: their counts were added (see above): x"
    )


@pytest.mark.parametrize(
    ("point", "nth"),
    [
        ("after cells/create", 1),
        ("before upgrade/commit", 2),
        ("before lifted/rename", 1),
        ("after upgrade/rename", 1),
        ("before upgrade/rename", 3),
        ("before upgrade/rename", 4),
        ("after upgrade/rename", 4),
        ("before upgrade/remove", 1),
    ],
)
def test_a_killed_upgrade_is_finished_by_the_same_command(
    folder: Path, point: str, nth: int
) -> None:
    assert die(folder, point, nth) == DEAD
    upgrade(folder)
    assert is_lifted_whole(folder)
