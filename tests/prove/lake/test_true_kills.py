"""Real commands killed -9 with all their processes, three times each: the old or the new is left.

An ingest and a compaction run on Ray. Moments are spread over the time in which the command
writes, which one whole run tells.
"""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CorpusError, NotACorpusError
from cytolake.tests.faults.commands import ingest_source
from cytolake.tests.faults.killing import State, difference, state_of

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1800)]

MOMENTS = (0.1, 0.5, 0.9)
PATIENCE = 120.0
_PROCESS = re.compile(r"( adopted by)? pid \d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """How a command ended.

    Attributes:
        status: its exit status; -9 where it was killed.
        said: all that it said.
        seconds: from the first change of the corpus to the end.
        n_killed: processes that were killed, its own among them.
    """

    status: int
    said: str
    seconds: float
    n_killed: int


def prepare_sources(lake: Path, _: Path, n_sources: int = 6) -> None:
    corpus = Corpus.create(lake)
    for number in range(n_sources):
        ingest_source(corpus, f"donor-{number}")


def for_annotate(lake: Path, beside: Path) -> Sequence[object]:
    prepare_sources(lake, beside)
    rows = Corpus.open(lake).sql("SELECT cell_id, donor_id FROM cells").to_pylist()
    with (beside / "ages.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["cell_id", "age"])
        lines.writerows([row["cell_id"], len(row["donor_id"])] for row in rows)
    return ["corpus", "annotate", beside / "ages.csv"]


def for_delete(lake: Path, beside: Path) -> Sequence[object]:
    prepare_sources(lake, beside)
    where = "cell_type = 'B cell' AND donor_id NOT LIKE '%d1'"
    return ["corpus", "delete", "--where", where, "--withdraw", "consent ended", "--yes"]


def for_compact(lake: Path, beside: Path) -> Sequence[object]:
    prepare_sources(lake, beside)
    return ["corpus", "compact"]


def for_vacuum(lake: Path, beside: Path) -> Sequence[object]:
    prepare_sources(lake, beside)
    Corpus.open(lake).withdraw("cell_type = 'B cell'", "consent ended")
    return ["corpus", "vacuum", "--older-than", "0m", "--for-consent"]


PREPARE: dict[str, Callable[[Path, Path], Sequence[object]]] = {
    "annotate": for_annotate,
    "delete": for_delete,
    "compact": for_compact,
    "vacuum": for_vacuum,
}
"""Verb -> what makes the corpus that it starts from, and gives its words."""


def run(words: Sequence[object], lake: Path, home: Path, kill_after: float | None = None) -> Run:
    """Run `cytolake WORDS --corpus LAKE`; kill it so many seconds after it first wrote."""
    home.mkdir(parents=True, exist_ok=True)
    # The environment that its processes inherit tells which they are, whatever group they are in.
    mark = f"CYTOLAKE_HOME={home}"
    before, began, n_killed = contents(lake), None, 0
    with (home / "said.txt").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "cytolake", *map(str, words), "--corpus", str(lake)],
            cwd=home,
            env={**os.environ, "CYTOLAKE_HOME": str(home)},
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        while process.poll() is None:
            now = time.monotonic()
            if began is None and contents(lake) != before:
                began = now
            if None not in (began, kill_after) and now - (began or 0) >= (kill_after or 0):
                n_killed = kill_all(process.pid, mark)
                process.wait()
                break
            time.sleep(0.002)
    ended = time.monotonic()
    if n_killed == 0:  # Ray's own processes may take a moment to follow
        while processes_of(mark) and time.monotonic() - ended < PATIENCE:
            time.sleep(0.1)
    assert processes_of(mark) == [], "processes of the command are left behind"
    told = (home / "said.txt").read_text()
    return Run(
        status=process.returncode,
        said=told,
        seconds=ended - (began or ended),
        n_killed=n_killed,
    )


def contents(lake: Path) -> dict[str, int]:
    """Every file of a corpus, and when it was last written."""
    found: dict[str, int] = {}
    for folder, _, names in os.walk(lake):
        for name in names:
            with suppress(FileNotFoundError):
                found[f"{folder}/{name}"] = os.stat(f"{folder}/{name}").st_mtime_ns
    return found


def processes_of(mark: str) -> list[int]:
    """The living processes that were started with a mark in their environment."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                is_dead = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
                if mark.encode() in (entry / "environ").read_bytes().split(b"\0") and not is_dead:
                    found.append(int(entry.name))
    return found


def kill_all(leader: int, mark: str) -> int:
    """Kill -9 a command's group, and every process of it that has left the group."""
    n_killed = len(processes_of(mark))
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
    until = time.monotonic() + PATIENCE
    while (left := processes_of(mark)) and time.monotonic() < until:
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)
    return n_killed


def whole_state(lake: Path) -> State | None:
    """What a corpus holds, which must verify; None where there is none yet, or an empty one."""
    try:
        corpus = Corpus.open(lake)
    except NotACorpusError:
        return None
    assert corpus.verify(deep=True) == []
    state = state_of(corpus)
    return state if state.ids else None


def content_of(state: State | None) -> object:
    """What two runs agree on: a receipt of an ingest names the processes that prepared it."""
    if state is None:
        return None
    rows = {view: [_PROCESS.sub("", row) for row in rows] for view, rows in state.rows.items()}
    return rows, state.counts


def kill_and_finish(name: str, words: Sequence[object], start: Path, folder: Path) -> list[str]:
    """Run whole once, then three times to a death, and again; says what each death left."""
    whole = folder / "whole"
    if start.exists():
        shutil.copytree(start, whole)
    old, first = whole_state(whole), Corpus.open(whole).snapshot if start.exists() else 0
    ended = run(words, whole, folder / "home")
    assert ended.status == 0, ended.said
    new = whole_state(whole)
    assert new is not None
    n_segments = len(list((whole / "segments").iterdir()))
    states = {"old": content_of(old), "new": content_of(new)}
    for snapshot in range(first + 1, Corpus.open(whole).snapshot):
        with suppress(CorpusError):  # a vacuum has ended it, or its cells were withdrawn
            between = state_of(Corpus.open(whole, snapshot))  # of a commit that adds columns
            states[f"snapshot {snapshot}"] = content_of(between if between.ids else None)
    told = [f"writes for {ended.seconds:.2f} s"]
    for number, moment in enumerate(MOMENTS):
        lake, home = folder / f"lake-{number}", folder / f"home-{number}"
        if start.exists():
            shutil.copytree(start, lake)
        died = run(words, lake, home, kill_after=moment * ended.seconds)
        assert died.status in (-signal.SIGKILL, 0), died.said
        left = whole_state(lake)
        found = content_of(left)
        which = [state for state, content in states.items() if content == found]
        assert which, f"{name}, killed at {moment}: neither the old nor the new"
        again = run(words, lake, home)
        assert again.status == 0, again.said
        finished = whole_state(lake)
        assert finished is not None
        assert content_of(finished) == states["new"], difference(finished, new)
        for earlier in (old, left):
            kept = {} if earlier is None else earlier.ids
            assert {name: finished.ids.get(name, i) for name, i in kept.items()} == kept
        assert len(list((lake / "segments").iterdir())) == n_segments, "something was left over"
        how = f"{died.n_killed} processes killed" if died.n_killed else "had ended"
        told.append(f"at {moment:.0%} {how}: {' = '.join(which)}")
    return told


@pytest.mark.parametrize("name", PREPARE)
def test_a_killed_command_leaves_the_old_or_the_new_and_is_finished_by_itself(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = PREPARE[name](tmp_path / "start", tmp_path)
    told = kill_and_finish(name, words, tmp_path / "start", tmp_path)
    assert told
    with capsys.disabled():
        print(f"\n{name}: {'; '.join(told)}")


def test_a_killed_ingest_with_its_ray_leaves_all_or_nothing_and_is_finished_by_itself(
    pbmc_sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = kill_and_finish("ingest", ["ingest", pbmc_sources], tmp_path / "start", tmp_path)
    assert told
    with capsys.disabled():
        print(f"\ningest: {'; '.join(told)}")
