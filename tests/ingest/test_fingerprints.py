"""Files are hashed while Ray starts, each once, whoever comes to it first."""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cytolake.ingest import job
from cytolake.ingest.admission import Candidate
from cytolake.ingest.sources_toml import SourceEntry


@pytest.fixture
def candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Candidate]:
    monkeypatch.setattr(job, "HASHED_AT_HOME", 0)
    found: list[Candidate] = []
    for number in range(5):
        path = tmp_path / f"{number}.h5ad"
        path.write_bytes(b"cells" * number)
        found.append(Candidate(entry=SourceEntry(path=str(path)), path=path))
    return found


def hashes(candidates: Sequence[Candidate]) -> list[str]:
    return [hashlib.sha256(b"cells" * number).hexdigest() for number in range(len(candidates))]


class Workers:
    """What goes to Ray's workers; done here, and written down."""

    def __init__(self) -> None:
        self.took: list[int] = []

    def __call__(self, work: str, tasks: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        self.took = [task["source"] for task in tasks]
        yield from job._at_home(work, tasks)


def test_what_is_not_begun_when_ray_is_there_goes_to_its_workers(
    candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, here = threading.Event(), threading.Event(), list[int]()
    at_home, workers = job._at_home, Workers()

    def hash_slowly(work: str, tasks: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        if tasks and threading.current_thread() is not threading.main_thread():
            here.extend(task["source"] for task in tasks)
            begun.set()
            assert go_on.wait(60)
        yield from at_home(work, tasks)

    def in_parallel(work: str, tasks: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        go_on.set()
        yield from workers(work, tasks)

    monkeypatch.setattr(job, "_at_home", hash_slowly)
    monkeypatch.setattr(job, "_in_parallel", in_parallel)
    job._fingerprint(candidates, lambda: assert_set(begun))
    assert (here, workers.took) == ([0], [1, 2, 3, 4])
    assert [candidate.sha256 for candidate in candidates] == hashes(candidates)
    assert [candidate.n_bytes for candidate in candidates] == [0, 5, 10, 15, 20]


def assert_set(event: threading.Event) -> None:
    assert event.wait(60)


def test_what_is_hashed_when_ray_is_there_is_not_hashed_again(
    candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_home, workers, done = job._at_home, Workers(), threading.Semaphore(0)

    def hash_and_tell(work: str, tasks: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        yield from at_home(work, tasks)
        if tasks:
            done.release(len(tasks))

    def open_ray() -> None:
        for _ in candidates:
            assert done.acquire(timeout=60)

    monkeypatch.setattr(job, "_at_home", hash_and_tell)
    monkeypatch.setattr(job, "_in_parallel", workers)
    job._fingerprint(candidates, open_ray)
    assert workers.took == []
    assert [candidate.sha256 for candidate in candidates] == hashes(candidates)


def test_a_ray_that_does_not_start_is_the_error_and_hashing_ends(
    candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_ray() -> None:
        raise RuntimeError("no Ray")

    monkeypatch.setattr(job, "_in_parallel", Workers())
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="no Ray"):
        job._fingerprint(candidates, open_ray)
    assert threading.active_count() == before


def test_a_file_that_is_gone_is_refused_and_the_others_are_hashed(
    candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_in_parallel", Workers())
    monkeypatch.setattr(job, "_size", lambda candidate: 1)
    assert candidates[1].path is not None
    candidates[1].path.unlink()
    job._fingerprint(candidates, lambda: None)
    assert candidates[1].outcome is not None and candidates[1].outcome.status == "refused"
    wanted = hashes(candidates)
    assert [candidates[i].sha256 for i in (0, 2, 3, 4)] == [wanted[i] for i in (0, 2, 3, 4)]
