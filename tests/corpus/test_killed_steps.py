"""Commands that die at a durable step: the old or the new corpus is left, and they can finish."""

from collections import Counter
from pathlib import Path

import pytest
from cytolake.corpus.store import Corpus
from cytolake.tests.faults.commands import ingest_source
from cytolake.tests.faults.killing import Rehearsal, check_what_is_left, kill_at, rehearse

ABOUT_THE_COMMIT = {"before cells/commit", "after cells/commit"}


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    """Of ingest: blood is there, lung and skin come."""
    return rehearse("ingest", tmp_path_factory.mktemp("rehearsal") / "ingest")


def test_an_ingest_that_dies_about_its_commit_can_be_finished(
    rehearsal: Rehearsal, tmp_path: Path
) -> None:
    """At every kind of step, and every other command: `tests/prove/corpus/test_killed_steps.py`."""
    faults = [fault for fault in rehearsal.faults_by_kind() if fault.point in ABOUT_THE_COMMIT]
    assert [left for _, left in kill_at(rehearsal, faults, tmp_path)]
    assert {fault.point for fault in faults} == ABOUT_THE_COMMIT


def test_a_step_has_a_point_before_and_after(rehearsal: Rehearsal) -> None:
    points = Counter(rehearsal.points)
    assert points["before segment/rename"] == points["after segment/rename"] == 4
    nths = [fault.nth for fault in rehearsal.faults() if fault.point == "after segment/rename"]
    assert nths == [1, 2, 3, 4]


def test_a_point_that_is_not_reached_is_a_failure(rehearsal: Rehearsal, tmp_path: Path) -> None:
    fault = rehearsal.faults()[0]
    never = type(fault)(point=fault.point, nth=1000)
    with pytest.raises(AssertionError, match="is not reached"):
        list(kill_at(rehearsal, [never], tmp_path))


def test_a_corpus_between_old_and_new_is_a_failure(rehearsal: Rehearsal, tmp_path: Path) -> None:
    folder = rehearsal.copy(tmp_path / "corpus")
    ingest_source(Corpus.open(folder), "skin", lifted="region")  # lung should have come first
    with pytest.raises(AssertionError, match="neither the old nor the new"):
        check_what_is_left(rehearsal, folder)


def test_a_damaged_corpus_is_a_failure(rehearsal: Rehearsal, tmp_path: Path) -> None:
    folder = rehearsal.copy(tmp_path / "corpus")
    next((folder / "segments").glob("*/obs.parquet")).unlink()
    with pytest.raises(AssertionError, match=r"obs\.parquet"):
        check_what_is_left(rehearsal, folder)
