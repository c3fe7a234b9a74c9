import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest
from cytolake.corpus.payload import integrity
from cytolake.corpus.payload.integrity import check_file
from cytolake.platform.errors import DamageError

DATA = b"counts"
SHA256 = sha256(DATA).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were hashed, each time."""
    seen: list[Path] = []
    original: Callable[[Path], str] = integrity.sha256_file

    def spy(path: Path) -> str:
        seen.append(path)
        return original(path)

    monkeypatch.setattr(integrity, "sha256_file", spy)
    return seen


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the files be older than the clock's ticks."""
    monkeypatch.setattr(integrity, "_SETTLED_NS", -1)


def test_a_file_that_is_what_was_committed_passes(path: Path) -> None:
    check_file(path, len(DATA), SHA256)
    check_file(path, len(DATA), None)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"count", "has 5 bytes, 6 were written"),
        (b"counts!", "has 7 bytes, 6 were written"),
        (b"Counts", "has other bytes than were written"),
        (None, "is missing"),
    ],
)
def test_other_bytes_are_told_by_name_with_a_way_out(
    path: Path, data: bytes | None, expected: str
) -> None:
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(DamageError, match=f"{path} {expected}.*restore it from a copy"):
        check_file(path, len(DATA), SHA256)


def test_a_folder_in_the_place_of_a_file_is_damage(tmp_path: Path) -> None:
    with pytest.raises(DamageError):
        check_file(tmp_path, tmp_path.stat().st_size, SHA256)


def test_a_settled_file_is_read_once(
    path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    for _ in range(3):
        check_file(path, len(DATA), SHA256)
    assert hashed == [path]


def test_a_file_that_has_just_been_written_is_read_each_time(
    path: Path, hashed: list[Path]
) -> None:
    for _ in range(3):
        check_file(path, len(DATA), SHA256)
    assert hashed == [path] * 3


def test_damage_is_told_again_and_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    path.write_bytes(b"Counts")
    for _ in range(2):
        with pytest.raises(DamageError):
            check_file(path, len(DATA), SHA256)


def test_a_file_overwritten_under_its_old_time_is_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    check_file(path, len(DATA), SHA256)
    old = path.stat()
    for _ in range(1000):  # until the clock of the file system has ticked
        path.write_bytes(b"Counts")
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
        if path.stat().st_ctime_ns != old.st_ctime_ns:
            break
    with pytest.raises(DamageError):
        check_file(path, len(DATA), SHA256)


def test_many_threads_may_check_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / str(i) for i in range(20)]
    for i, path in enumerate(paths):
        path.write_bytes(DATA if i % 2 else b"Counts")

    def is_sound(path: Path) -> bool:
        try:
            check_file(path, len(DATA), SHA256)
        except DamageError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(is_sound, paths * 10))
    assert found == [bool(i % 2) for i in range(20)] * 10
