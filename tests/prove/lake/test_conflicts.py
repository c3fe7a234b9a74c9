"""The table of docs/conflicts.md once more, with processes of their own."""

import shutil
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest
from cytolake.corpus.store import Corpus
from cytolake.tests.faults.conflicts import CHANGES, content_of, prepare

pytestmark = [pytest.mark.prove, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conflicts") / "start"
    prepare(folder)
    return folder


def child(change: str, folder: Path, *signals: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "cytolake.tests.faults.conflicts", change, folder, *signals]
    return subprocess.Popen([str(word) for word in words], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("loser", "winner"), [*product(CHANGES, CHANGES)])
def test_a_process_that_was_second_makes_its_change_anew(
    loser: str, winner: str, start: Path, tmp_path: Path
) -> None:
    in_turn, met, signals = tmp_path / "in-turn", tmp_path / "met", tmp_path / "signals"
    signals.mkdir()
    for folder in (in_turn, met):
        shutil.copytree(start, folder)
    CHANGES[winner](in_turn)
    CHANGES[loser](in_turn)
    second = child(loser, met, signals)
    while not (signals / "waiting").exists():
        assert second.poll() is None, second.communicate()
        time.sleep(0.01)
    first = child(winner, met)
    _, said = first.communicate()
    assert first.returncode == 0, said
    (signals / "go").touch()
    _, said = second.communicate()
    assert second.returncode == 0, said
    assert content_of(met) == content_of(in_turn)
    assert Corpus.open(met).verify(deep=True) == []
