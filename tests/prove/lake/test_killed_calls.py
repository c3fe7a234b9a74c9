"""Commands killed at every durable step, and with -9 in the system calls under the corpus.

After each death the corpus opens, verifies deep, holds exactly the old or the new, and the same
command finishes the work.
"""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from cytolake.tests.faults.commands import COMMANDS
from cytolake.tests.faults.killing import kill_at, rehearse
from cytolake.tests.faults.tracing import calls_of, kill_at_calls, sample

pytestmark = [pytest.mark.prove, pytest.mark.timeout(3600)]

MOST_CALLS = 60


def told(left: Counter[int], n_states: int) -> str:
    """How many deaths left which snapshot."""
    between = sum(left[state] for state in range(1, n_states - 1))
    return f"left: {left[0]} old, {between} between two commits, {left[n_states - 1]} new"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_death_at_a_step_leaves_the_old_or_the_new(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rehearsal = rehearse(name, tmp_path / "rehearsal")
    faults = rehearsal.faults()
    left = Counter(state for _, state in kill_at(rehearsal, faults, tmp_path))
    assert left.total() == len(faults) > 0
    with capsys.disabled():
        n_kinds, n_states = len(rehearsal.faults_by_kind()), len(rehearsal.states)
        print(f"\n{name}: died at {len(faults)} points of {n_kinds} kinds; {told(left, n_states)}")


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_kill_in_any_system_call_leaves_the_old_or_the_new(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rehearsal = rehearse(name, tmp_path / "rehearsal")
    listed = calls_of(rehearsal, tmp_path / "listed")
    chosen = sample(listed, MOST_CALLS)
    deaths = list(kill_at_calls(rehearsal, chosen, tmp_path / "kills"))
    hit = Counter(call.name for call, died, _ in deaths if died)
    missed = [call for call, died, _ in deaths if not died]
    left = Counter(state for _, _, state in deaths)
    with capsys.disabled():
        n_kinds = len({call.kind for call in listed})
        print(f"\n{name}: {hit.total()} of {len(chosen)} calls hit, of {len(listed)} listed")
        print(f"  of {n_kinds} kinds; {told(left, len(rehearsal.states))}; {dict(hit)}")
        print(*(f"  not met again: {call}" for call in missed), sep="\n")
    assert len(deaths) == len(chosen) > 0
    assert hit.total() >= 0.8 * len(chosen), f"the list is of another run: {missed}"
