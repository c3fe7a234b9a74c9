"""Bytes that stay: durable writes, removals, checksums, frozen files.

Knows no cell and no corpus. A file written here is there whole after a power cut, or not at all.
A path in a mirror (`platform.mirrors`) stands for a place in a bucket: what is done to it here is
done there first.
Each durable action is a named step (`platform.faults`): the caller says what it is done to, the
function adds what it does: `step="segment"` makes `publish` the step `segment/rename`.
"""

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from .faults import durable
from .mirrors import REMOVED, hidden_sibling
from .places import mirror_at
from .refusals import storing_in

_READ_SIZE = 1 << 20


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_SIZE):
            digest.update(block)
    return digest.hexdigest()


def write_durably(path: Path, data: bytes, step: str = "file") -> None:
    """Write a file, over one of that name, so that after any crash it is there whole or not at all.

    A temporary sibling is written and synced (step `.../write`), then renamed over `path` and the
    folder synced (`.../rename`).

    Raises:
        StorageError: the disk says no.
    """
    with _written_beside(path, data, step) as temporary:
        publish(temporary, path, step)


def create_durably(path: Path, data: bytes, step: str = "file") -> None:
    """Write a file that must not be there yet: of several writers one succeeds, whole.

    A temporary sibling is written and synced (step `.../write`), then linked to the name
    (`.../link`): a link, unlike a rename, is refused where the name is taken. In a bucket the
    object is created first (`.../put`), which decides.

    Raises:
        FileExistsError: the name is taken.
        StorageError: the disk says no.
    """
    mirror = mirror_at(path)
    if mirror is not None:
        with durable(f"{step}/put"):
            mirror.create(path, data)
        path.unlink(missing_ok=True)  # what was here is not there any more
    with _written_beside(path, data, step) as temporary, storing_in(path.parent):
        with durable(f"{step}/link"):
            os.link(temporary, path)
            sync_folder(path.parent)
        with durable(f"{step}/unlink"):
            temporary.unlink()


def publish(temporary: Path, final: Path, step: str = "file", *, last: str = "") -> None:
    """Give a synced file or folder its final name, in one step: `.../rename`.

    Args:
        temporary: what it is called now.
        final: what it is to be called.
        step: see `platform.faults`.
        last: of a folder, the file that makes it whole: in a bucket, where a folder has no name
            of its own, it comes last (all of it is the step `.../put`).

    Raises:
        OSError: a folder that holds something has the name.
        StorageError: the disk says no.
    """
    mirror = mirror_at(final)
    if mirror is not None:
        with durable(f"{step}/put"):
            if temporary.is_dir():
                mirror.put_folder(temporary, final, last)
                mirror.forget(final)  # what was here is not there any more
            else:
                mirror.put(final, temporary)
    with storing_in(final.parent), durable(f"{step}/rename"):
        temporary.rename(final)
        sync_folder(final.parent)


def remove_durably(path: Path, step: str = "file") -> None:
    """Remove a file or a folder so that nobody sees it half removed; what is not there is no fault.

    It is renamed to a hidden sibling (step `.../hide`), which then goes (`.../remove`). What a
    crash leaves of the sibling, `finish_removals` takes away. From a bucket it goes before
    (`.../take`).

    Raises:
        StorageError: the disk says no.
    """
    mirror = mirror_at(path)
    if mirror is not None:
        with durable(f"{step}/take"):
            mirror.remove(path)
    hidden = path.with_name(f"{REMOVED}{path.name}.{secrets.token_hex(4)}")
    with storing_in(path.parent):
        try:
            with durable(f"{step}/hide"):
                path.rename(hidden)
                sync_folder(path.parent)
        except FileNotFoundError:
            return
        _remove(hidden, step)


def discard(path: Path) -> None:
    """Remove a file that nothing names; what is not there is no fault.

    Raises:
        OSError: the disk says no.
    """
    mirror = mirror_at(path)
    if mirror is not None:
        mirror.remove(path)
    path.unlink(missing_ok=True)


def touch(path: Path) -> None:
    """Make an empty file, or give the one that is there the time of now.

    Raises:
        OSError: the disk says no.
    """
    mirror = mirror_at(path)
    if mirror is not None:
        mirror.put(path, b"")
    path.touch()


def finish_removals(folder: Path, step: str = "file") -> None:
    """Take away what interrupted calls of `remove_durably` left in a folder.

    Raises:
        StorageError: the disk says no.
    """
    with storing_in(folder):
        for hidden in sorted(folder.glob(REMOVED + "*")):
            _remove(hidden, step)


def _remove(hidden: Path, step: str) -> None:
    with durable(f"{step}/remove"):
        while hidden.is_dir() and not hidden.is_symlink():
            with suppress(FileNotFoundError):  # another process is at it too: what is left?
                shutil.rmtree(hidden)
        hidden.unlink(missing_ok=True)
        sync_folder(hidden.parent)


@contextmanager
def _written_beside(path: Path, data: bytes, step: str) -> Generator[Path]:
    """A synced, hidden sibling that holds the bytes; it goes if what follows fails."""
    temporary = hidden_sibling(path)
    with storing_in(path.parent):
        try:
            with durable(f"{step}/write"), temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def sync_file(path: Path) -> None:
    """Flush a file that another library wrote to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    sync_file(path)


def freeze(path: Path) -> None:
    """Take write permission from a file: a payload is written once."""
    path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
