"""Storage: URIs to paths, writes that are whole or not at all, removals nobody sees half done."""

import errno
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cytolake.platform.errors import SettingsError, StorageError
from cytolake.platform.faults import watching
from cytolake.platform.places import local_path
from cytolake.platform.refusals import storing_in
from cytolake.platform.storage import (
    create_durably,
    finish_removals,
    freeze,
    publish,
    remove_durably,
    sha256_file,
    write_durably,
)


class PowerCutError(Exception):
    """What a watcher raises where the power is cut."""


def cut_at(point: str) -> Callable[[str], None]:
    def watcher(reached: str) -> None:
        if reached == point:
            raise PowerCutError(point)

    return watcher


def steps_of(action: Callable[[], None]) -> list[str]:
    """The steps that an action takes, in order; each must be finished before the next begins."""
    points: list[str] = []
    with watching(points.append):
        action()
    steps = [point.removeprefix("before ") for point in points[::2]]
    assert points == [f"{when} {step}" for step in steps for when in ("before", "after")]
    return steps


@pytest.mark.parametrize("uri", ["/data/cells", "file:///data/cells", Path("/data/cells")])
def test_a_uri_names_a_local_path(uri: str | Path) -> None:
    assert local_path(uri) == Path("/data/cells")


def test_an_unsupported_scheme_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"s3:// is not supported"):
        local_path("s3://bucket/cells")


def test_a_write_that_dies_before_its_rename_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "file"
    write_durably(place, b"old")

    def die(descriptor: int) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(OSError, match="power cut"):
        write_durably(place, b"new")
    assert place.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_write_over_a_file_is_two_steps(tmp_path: Path) -> None:
    place = tmp_path / "tag.json"
    place.write_bytes(b"old")
    assert steps_of(lambda: write_durably(place, b"new", "tag")) == ["tag/write", "tag/rename"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"tag.json": b"new"}


@pytest.mark.parametrize(
    ("point", "content"),
    [
        ("before tag/write", b"old"),
        ("after tag/write", b"old"),
        ("before tag/rename", b"old"),
        ("after tag/rename", b"new"),
    ],
)
def test_at_every_point_a_write_has_happened_or_not(
    tmp_path: Path, point: str, content: bytes
) -> None:
    place = tmp_path / "tag.json"
    place.write_bytes(b"old")
    with pytest.raises(PowerCutError), watching(cut_at(point)):
        write_durably(place, b"new", "tag")
    assert place.read_bytes() == content


def test_what_is_created_is_there_whole(tmp_path: Path) -> None:
    place = tmp_path / "tombstone.json"
    steps = steps_of(lambda: create_durably(place, b"gone", "tombstone"))
    assert steps == ["tombstone/write", "tombstone/link", "tombstone/unlink"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "tombstone.json": b"gone"
    }


def test_creating_what_is_there_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    place = tmp_path / "tombstone.json"
    create_durably(place, b"first")
    with pytest.raises(FileExistsError):
        create_durably(place, b"second")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "tombstone.json": b"first"
    }


def test_of_many_creators_one_succeeds(tmp_path: Path) -> None:
    place = tmp_path / "lease"

    def create(number: int) -> bool:
        try:
            create_durably(place, b"%d" % number)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        succeeded = list(pool.map(create, range(32)))
    assert succeeded.count(True) == 1
    assert place.read_bytes() == b"%d" % succeeded.index(True)


def test_a_folder_is_published_in_one_step(tmp_path: Path) -> None:
    making = tmp_path / ".making"
    making.mkdir()
    (making / "part").write_bytes(b"counts")
    assert steps_of(lambda: publish(making, tmp_path / "segment", "segment")) == ["segment/rename"]
    assert (tmp_path / "segment" / "part").read_bytes() == b"counts"
    assert not making.exists()


def test_publishing_over_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    for name in (".making", "segment"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text(name)
    with pytest.raises(OSError) as refusal:
        publish(tmp_path / ".making", tmp_path / "segment")
    assert refusal.value.errno in (errno.ENOTEMPTY, errno.EEXIST)
    assert (tmp_path / "segment" / "part").read_text() == "segment"


def make_file(place: Path) -> None:
    place.write_bytes(b"counts")
    freeze(place)


def make_folder(place: Path) -> None:
    (place / "deep").mkdir(parents=True)
    make_file(place / "deep" / "part")


@pytest.mark.parametrize("make", [make_file, make_folder], ids=["a file", "a folder"])
def test_a_removal_is_seen_whole_or_not_at_all(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    place = tmp_path / "segment"
    for point in ("before segment/hide", "after segment/hide", "before segment/remove"):
        make(place)
        with pytest.raises(PowerCutError), watching(cut_at(point)):
            remove_durably(place, "segment")
        left = [name for name in os.listdir(tmp_path) if not name.startswith(".removed-")]
        assert left == (["segment"] if point == "before segment/hide" else [])
        if left:
            remove_durably(place, "segment")
    assert len(os.listdir(tmp_path)) == 2
    assert steps_of(lambda: finish_removals(tmp_path, "segment")) == ["segment/remove"] * 2
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("make", [make_file, make_folder], ids=["a file", "a folder"])
def test_a_removal_is_two_steps(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "segment")
    steps = steps_of(lambda: remove_durably(tmp_path / "segment", "segment"))
    assert steps == ["segment/hide", "segment/remove"]
    assert os.listdir(tmp_path) == []


def test_removing_what_is_not_there_is_no_fault(tmp_path: Path) -> None:
    remove_durably(tmp_path / "segment")
    assert os.listdir(tmp_path) == []


def test_many_may_finish_a_removal_at_once(tmp_path: Path) -> None:
    for number in range(20):
        for part in range(20):
            folder = tmp_path / f".removed-{number}.0" / str(part)
            folder.mkdir(parents=True)
            (folder / "file").touch()
    with ThreadPoolExecutor(4) as pool:
        for finished in [pool.submit(finish_removals, tmp_path) for _ in range(4)]:
            finished.result()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full; free some"),
        (OSError("[Errno 28] Error writing bytes to file"), "the disk is full; free some"),
        (RuntimeError("LocalFileSystem: No space left (os error 28)"), "the disk is full; free"),
        (OSError(errno.EROFS, "Read-only file system"), "the disk is read-only"),
        (RuntimeError("cannot create: Permission denied (os error 13)"), "permission is denied"),
    ],
    ids=["python", "arrow", "delta", "read-only", "forbidden"],
)
def test_a_disk_that_says_no_is_told_as_an_error_of_ours(error: Exception, words: str) -> None:
    with pytest.raises(StorageError, match=re.escape(f"/lake cannot be written: {words}")) as told:
        with storing_in(Path("/lake")):
            raise error
    assert told.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [FileExistsError(errno.EEXIST, "exists"), ValueError("28 genes"), KeyError(28)]
)
def test_what_is_no_fault_of_the_disk_passes_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as told, storing_in(Path("/lake")):
        raise error
    assert told.value is error


def test_a_checksum_is_the_standard_one(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    known = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256_file(tmp_path / "empty") == known


def test_a_frozen_file_has_no_write_permission(tmp_path: Path) -> None:
    write_durably(tmp_path / "payload", b"counts")
    freeze(tmp_path / "payload")
    assert (tmp_path / "payload").stat().st_mode & 0o777 == 0o444
