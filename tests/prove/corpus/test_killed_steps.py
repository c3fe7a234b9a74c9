"""Every command that commits dies at every kind of durable step, and can be finished."""

from pathlib import Path

import pytest
from cytolake.tests.faults.commands import COMMANDS
from cytolake.tests.faults.killing import kill_at, rehearse


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_a_death_at_any_kind_of_step_leaves_the_old_or_the_new_and_can_be_finished(
    tmp_path: Path,
) -> None:
    died: set[str] = set()
    for name in COMMANDS:
        rehearsal = rehearse(name, tmp_path / name / "rehearsal")
        faults = [
            fault
            for fault in rehearsal.faults_by_kind()
            if fault.point not in died or fault.point.endswith(" cells/commit")
        ]
        assert {"before cells/commit", "after cells/commit"} <= {fault.point for fault in faults}
        assert len([*kill_at(rehearsal, faults, tmp_path / name)]) == len(faults)
        died.update(fault.point for fault in faults)
