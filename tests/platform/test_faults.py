"""Fault points: watched by tests, silent otherwise, deadly where told."""

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cytolake.platform.faults import DEAD, death, durable, watching

ROOT = Path(__file__).resolve().parents[2]

THREE_STEPS = """
import sys
from cytolake.platform.faults import death, durable, watching

with watching(death(sys.argv[1], int(sys.argv[2]))):
    for number in range(3):
        with durable("segment/rename"):
            print(number, flush=True)
print("alive", flush=True)
"""


def test_a_step_is_watched_before_and_after() -> None:
    points: list[str] = []
    with watching(points.append), durable("segment/rename"):
        points.append("the step itself")
    assert points == ["before segment/rename", "the step itself", "after segment/rename"]


def test_a_step_that_fails_has_no_after() -> None:
    points: list[str] = []
    with pytest.raises(OSError, match="full"), watching(points.append), durable("file/write"):
        raise OSError("full")
    assert points == ["before file/write"]


def test_nothing_is_watched_once_the_watching_ends() -> None:
    outer: list[str] = []
    inner: list[str] = []
    with watching(outer.append):
        with watching(inner.append), durable("a"):
            pass
        with durable("b"):
            pass
    with durable("c"):
        pass
    assert (inner, outer) == (["before a", "after a"], ["before b", "after b"])


@pytest.mark.parametrize(
    ("at", "nth", "steps_done"),
    [
        ("before segment/rename", 1, ""),
        ("after segment/rename", 1, "0\n"),
        ("before segment/rename", 3, "0\n1\n"),
        ("after segment/rename", 3, "0\n1\n2\n"),
    ],
)
def test_death_comes_at_its_point_and_time(at: str, nth: int, steps_done: str) -> None:
    words = [sys.executable, "-c", THREE_STEPS, at, str(nth)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (DEAD, steps_done), ended.stderr


def test_a_point_that_is_not_reached_kills_nothing() -> None:
    words = [sys.executable, "-c", THREE_STEPS, "before segment/rename", "4"]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ended.stdout.endswith("alive\n")


def test_death_counts_over_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    exits: list[int] = []
    monkeypatch.setattr("os._exit", exits.append)
    die = death("before a", nth=800)
    together = threading.Barrier(8)

    def reach() -> None:
        together.wait()
        for _ in range(100):
            die("before a")
            die("before b")

    threads = [threading.Thread(target=reach) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert exits == [DEAD]


def test_no_code_but_the_tests_can_set_a_watcher() -> None:
    rooms = ("platform", "corpus", "ingest", "train", "evaluate")
    files = [*ROOT.glob("*.py"), *(path for room in rooms for path in (ROOT / room).rglob("*.py"))]
    setting = re.compile(r"\bwatching\(|\bdeath\(|_watcher\b")
    assert [path.name for path in files if setting.search(path.read_text())] == ["faults.py"]
