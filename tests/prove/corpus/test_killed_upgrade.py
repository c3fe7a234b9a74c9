"""An upgrade is killed at every point that it reaches; the same command finishes it."""

import shutil
from pathlib import Path

import pytest
from cytolake.corpus.change.upgrade import upgrade
from cytolake.platform.faults import DEAD
from cytolake.tests.corpus.lifting import GOLDEN, die, is_lifted_whole, points

pytestmark = [pytest.mark.prove, pytest.mark.timeout(900)]


def test_an_upgrade_killed_at_any_point_is_finished_by_the_same_command(tmp_path: Path) -> None:
    reached = points()
    assert len(reached) > 40
    for number, (point, nth) in enumerate(reached):
        folder = Path(shutil.copytree(GOLDEN, tmp_path / str(number)))
        assert die(folder, point, nth) == DEAD, point
        upgrade(folder)
        assert is_lifted_whole(folder), point
