"""The table of docs/conflicts.md: each change is made anew after each other has come in between."""

import shutil
from itertools import product
from pathlib import Path

import pytest
from cytolake.corpus.store import Corpus
from cytolake.platform.faults import watching
from cytolake.tests.faults.conflicts import CHANGES, COMMIT, content_of, prepare


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conflicts") / "start"
    prepare(folder)
    return folder


@pytest.mark.parametrize(("loser", "winner"), [*product(CHANGES, CHANGES)])
def test_a_change_that_was_second_is_made_anew(
    loser: str, winner: str, start: Path, tmp_path: Path
) -> None:
    in_turn, met = tmp_path / "in-turn", tmp_path / "met"
    for folder in (in_turn, met):
        shutil.copytree(start, folder)
    CHANGES[winner](in_turn)
    CHANGES[loser](in_turn)
    came: list[str] = []

    def come_between(point: str) -> None:
        if point == COMMIT and not came:
            came.append(winner)
            CHANGES[winner](met)

    with watching(come_between):
        CHANGES[loser](met)
    assert came == [winner]
    assert content_of(met) == content_of(in_turn)
    assert Corpus.open(met).verify(deep=True) == []
