import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cytolake.platform.session import ray_session
from cytolake.platform.tasks import in_parallel, warm_up

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    with ray_session(n_cpus=2):
        yield


def meet(row: dict[str, str]) -> dict[str, str]:
    """Come, and wait for the other to come."""
    mine, other = Path(row["mine"]), Path(row["other"])
    mine.touch()
    deadline = time.monotonic() + 60
    while not other.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return {"met": str(other.exists()), "name": mine.name}


def touch(path: str) -> None:
    Path(path).touch()


def test_as_many_tasks_as_cores_are_under_way_at_once_from_the_first_on(tmp_path: Path) -> None:
    names = ["a", "b"]
    rows = [{"mine": str(tmp_path / n), "other": str(tmp_path / m)}
            for n, m in zip(names, reversed(names), strict=True)]  # fmt: skip
    found = sorted(in_parallel(meet, rows), key=lambda row: row["name"])
    assert found == [{"met": "True", "name": name} for name in names]


def accelerator(row: dict[str, str]) -> dict[str, str]:
    """What a worker's environment tells DeepSpeed."""
    return {"named": os.environ.get(row["variable"], "nothing")}


def test_a_worker_is_not_told_which_accelerator_it_has() -> None:
    # Only a worker itself knows its device; named here, DeepSpeed would move models away from it.
    assert list(in_parallel(accelerator, [{"variable": "DS_ACCELERATOR"}])) == [
        {"named": os.environ.get("DS_ACCELERATOR", "nothing")}
    ]


def test_no_task_gives_no_answer() -> None:
    assert list(in_parallel(meet, [])) == []


def test_workers_get_ready_before_there_is_work(tmp_path: Path) -> None:
    warm_up(touch, str(tmp_path / "ready"))
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
