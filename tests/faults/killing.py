"""Kills a command at its durable steps and checks what is left: the old or the new, nothing else.

Knows the table of commands and the steps that they say they take; knows no system call.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CorpusError
from cytolake.platform.faults import DEAD
from cytolake.tests.faults.commands import COMMANDS

VIEWS = ("cells", "expression", "source_obs", "dropped", "sources", "measured")
# What is drawn at random, tells the time, or may change while the cells stay what they are.
_VOLATILE = {"cell_id", "segment", "segment_id", "row", "snapshot", "committed_at"}


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """Everything that a snapshot holds, whatever the order and the places on disk.

    Attributes:
        rows: view -> its rows as text, sorted; without columns that may differ between two runs.
        counts: (source, barcode, gene, count) of all living cells, sorted.
        ids: (source, barcode) -> cell_id.
    """

    rows: dict[str, list[str]]
    counts: list[tuple[object, ...]]
    ids: dict[tuple[str, str], int]

    @property
    def content(self) -> tuple[dict[str, list[str]], list[tuple[object, ...]]]:
        """What two runs of a command agree on; ids of new cells are drawn at random."""
        return self.rows, self.counts


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One death: the `nth` time that a point is reached."""

    point: str
    nth: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rehearsal:
    """A command that was run once to its end, undisturbed.

    Attributes:
        name: of the command.
        start: the corpus that it starts from; never touched.
        end: the same after the command; never touched either.
        states: what the corpus held before, after each commit between, and at the end.
        points: the points of durable steps that it reached, in order.
    """

    name: str
    start: Path
    end: Path
    states: tuple[State, ...]
    points: tuple[str, ...]

    def copy(self, folder: Path) -> Path:
        """The starting corpus anew, in a folder that is not there yet."""
        shutil.copytree(self.start, folder)
        return folder

    def faults(self) -> list[Fault]:
        """Every point that was reached, each time."""
        return [
            Fault(point=point, nth=self.points[: place + 1].count(point))
            for place, point in enumerate(self.points)
        ]

    def faults_by_kind(self) -> list[Fault]:
        """One fault a point: the last time, for the first ones are often of another commit."""
        return [Fault(point=p, nth=self.points.count(p)) for p in dict.fromkeys(self.points)]


def state_of(corpus: Corpus) -> State:
    """What a snapshot holds."""
    rows: dict[str, list[str]] = {}
    for view in VIEWS:
        table = corpus.sql(f"SELECT * FROM {view}")
        kept = [name for name in sorted(table.column_names) if name not in _VOLATILE]
        rows[view] = sorted(repr(row) for row in table.select(kept).to_pylist())
    counts = corpus.sql(
        "SELECT source_id, barcode, gene_id, count FROM expression JOIN "
        "(SELECT cell_id, source_id, barcode FROM cells) USING (cell_id) ORDER BY ALL"
    )
    ids = corpus.sql("SELECT source_id, barcode, cell_id FROM cells").to_pylist()
    return State(
        rows=rows,
        counts=[tuple(row.values()) for row in counts.to_pylist()],
        ids={(row["source_id"], row["barcode"]): row["cell_id"] for row in ids},
    )


def child_words(name: str, folder: Path, *more: object) -> list[str]:
    """The command line of a child that runs a command; see `faults.child`."""
    words = (sys.executable, "-m", "cytolake.tests.faults.child", name, folder, *more)
    return [str(word) for word in words]


def run_child(name: str, folder: Path, *more: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a child to its end, whichever that is."""
    words = child_words(name, folder, *more)
    return subprocess.run(words, capture_output=True, text=True, check=False)


def rehearse(name: str, folder: Path) -> Rehearsal:
    """Make a command's starting corpus and run the command once, undisturbed.

    Args:
        name: of the table of commands.
        folder: where to put both; not there yet.
    """
    start, end = folder / "start", folder / "end"
    folder.mkdir(parents=True)
    COMMANDS[name].prepare(start)
    before = Corpus.open(start)
    shutil.copytree(start, end)
    ran = run_child(name, end)
    assert ran.returncode == 0, ran.stderr
    after = Corpus.open(end)
    states = [state_of(before)]
    for snapshot in range(before.snapshot + 1, after.snapshot):
        try:
            states.append(state_of(Corpus.open(end, snapshot)))
        except CorpusError:  # the command has ended that snapshot
            continue
    return Rehearsal(
        name=name,
        start=start,
        end=end,
        states=(*states, _verified_state(end)),
        points=tuple(json.loads(ran.stdout)),
    )


def check_what_is_left(rehearsal: Rehearsal, folder: Path) -> int:
    """Hold a corpus whose command was killed to all that is promised, and finish the command.

    Returns:
        Which of the states of `Rehearsal.states` the death had left.

    Raises:
        AssertionError: the corpus does not verify, holds something between the old and the new, or
            the same command does not finish its work.
    """
    left = _verified_state(folder)
    contents = [state.content for state in rehearsal.states]
    assert left.content in contents, (
        f"neither the old nor the new; against the old {difference(left, rehearsal.states[0])}; "
        f"against the new {difference(left, rehearsal.states[-1])}"
    )
    COMMANDS[rehearsal.name].run(folder)
    finished = _verified_state(folder)
    assert finished.content == contents[-1], (
        f"the same command does not finish: {difference(finished, rehearsal.states[-1])}"
    )
    for earlier in (rehearsal.states[0].ids, left.ids):
        changed = {n: i for n, i in earlier.items() if finished.ids.get(n, i) != i}
        assert not changed, f"cells changed their ids: {changed}"
    return contents.index(left.content)


def kill_at(
    rehearsal: Rehearsal, faults: Sequence[Fault], folder: Path
) -> Iterator[tuple[Fault, int]]:
    """Let a command die at each of some faults, and check what each death has left.

    Args:
        rehearsal: of the command.
        faults: where it dies, each time from the starting corpus.
        folder: where the corpora are made; each is removed after its check.

    Yields:
        The fault, and which of the states of `Rehearsal.states` it had left.

    Raises:
        AssertionError: a fault was not reached, or what it left breaks a promise; it names it.
    """

    def die(number: int) -> Path:
        fault = faults[number]
        corpus = rehearsal.copy(folder / str(number))
        ended = run_child(rehearsal.name, corpus, fault.point, fault.nth)
        assert ended.returncode == DEAD, f"{fault} is not reached: {ended}"
        return corpus

    yield from ((faults[number], left) for number, left in check_all(rehearsal, len(faults), die))


def check_all(
    rehearsal: Rehearsal, n_deaths: int, die: Callable[[int], Path]
) -> Iterator[tuple[int, int]]:
    """Check what deaths leave, while the next ones die in children beside.

    Args:
        rehearsal: of the command.
        n_deaths: how many.
        die: given a number, kills a command and gives the corpus.

    Yields:
        The number, and which of the states of `Rehearsal.states` was left.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        dying = {pool.submit(die, number): number for number in range(n_deaths)}
        for dead in as_completed(dying):
            corpus = dead.result()
            try:
                left = check_what_is_left(rehearsal, corpus)
            except Exception as error:
                raise AssertionError(f"{rehearsal.name}, death {dying[dead]}: {error}") from error
            shutil.rmtree(corpus)
            yield dying[dead], left


def _verified_state(folder: Path) -> State:
    corpus = Corpus.open(folder)
    problems = corpus.verify(deep=True)
    assert not problems, f"does not verify: {problems}"
    return state_of(corpus)


def difference(found: State, expected: State) -> str:
    """The first few rows that one state has and the other lacks."""
    told: list[str] = []
    for view, rows in found.rows.items():
        more, fewer = set(rows) - set(expected.rows[view]), set(expected.rows[view]) - set(rows)
        if more or fewer:
            told.append(f"{view} has {len(more)} more {sorted(more)[:1]}")
            told.append(f"{view} has {len(fewer)} fewer {sorted(fewer)[:1]}")
    if not told and found.counts != expected.counts:
        told.append(f"{len(found.counts)} counts for {len(expected.counts)}, or others")
    return "; ".join(told) or "nothing differs"
