"""Commands on a corpus in a bucket, killed where it is written to; their machine is lost.

After each death another machine, whose mirror is empty, opens the corpus: it verifies deep, holds
exactly the old or the new, and the same command finishes the work there.
"""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cytolake.platform.faults import DEAD
from cytolake.platform.places import place_of
from cytolake.tests.faults.commands import COMMANDS
from cytolake.tests.faults.killing import (
    Fault,
    check_what_is_left,
    child_words,
    rehearse,
)
from cytolake.tests.object_store import BUCKET, home, s3_server, upload

pytestmark = [pytest.mark.prove, pytest.mark.timeout(3600)]


REMOTE = ("put", "take", "commit", "columns")
"""Steps that write to the bucket; the others are killed on local corpora, too."""


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A client of an S3 server on loopback."""
    with s3_server() as client:
        yield client


def folder_on(machine: Path, prefix: str) -> Path:
    """The folder that stands for a prefix of the bucket on a machine."""
    with home(machine):
        return place_of(f"s3://{BUCKET}/{prefix}")


def run_on(
    machine: Path, name: str, prefix: str, *more: object
) -> subprocess.CompletedProcess[str]:
    """Run a command on a machine, to its end or its death."""
    folder = folder_on(machine, prefix)
    return subprocess.run(
        child_words(name, folder, *more),
        env={**os.environ, "CYTOLAKE_HOME": str(machine)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_death_on_a_lost_machine_leaves_the_old_or_the_new(
    name: str, client: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rehearsal = rehearse(name, tmp_path / "rehearsal")
    upload(client, rehearsal.start, f"{name}/whole")
    whole = run_on(tmp_path / "undisturbed", name, f"{name}/whole")
    assert whole.returncode == 0, whole.stderr
    points: list[str] = json.loads(whole.stdout)
    kinds = [point for point in dict.fromkeys(points) if point.rpartition("/")[2] in REMOTE]
    faults = [Fault(point=point, nth=points.count(point)) for point in kinds]

    def die(number: int) -> int:
        fault, prefix = faults[number], f"{name}/{number}"
        upload(client, rehearsal.start, prefix)
        ended = run_on(tmp_path / f"lost-{number}", name, prefix, fault.point, fault.nth)
        assert ended.returncode == DEAD, f"{fault} is not reached: {ended}"
        return number

    left: Counter[int] = Counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number in pool.map(die, range(len(faults))):
            corpus = folder_on(tmp_path / f"next-{number}", f"{name}/{number}")
            try:
                left[check_what_is_left(rehearsal, corpus)] += 1
            except Exception as error:
                raise AssertionError(f"{name}, {faults[number]}: {error}") from error
    assert left.total() == len(faults) > 0
    with capsys.disabled():
        print(f"\n{name} in a bucket: died at {len(faults)} kinds of points; left {dict(left)}")
