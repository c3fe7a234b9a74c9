"""A file's bytes held against what was committed, once in a process. Knows no segment, no table.

What a file was found to be is kept by (path, inode, size, times of change): a file that was
replaced or written to is hashed anew before its next use.
"""

import threading
import time
from pathlib import Path

from ...platform.errors import DamageError
from ...platform.places import bring, bring_anew, named
from ...platform.storage import sha256_file

WAY_OUT = "restore it from a copy, or ingest the source again"
"""What one can do about a damaged file."""

_SETTLED_NS = 2_000_000_000
"""Times of change tick coarsely: one this young may also be that of a later write."""

_hashes: dict[tuple[str, int, int, int, int], str] = {}
_hashing = threading.Lock()


def check_file(path: Path, size: int, sha256: str | None) -> None:
    """Hold a file's bytes against what was committed; they are read once in this process.

    A file that a bucket has is fetched first; a copy of it that is not what was committed is
    fetched once more.

    Args:
        path: the file.
        size: how many bytes were written.
        sha256: their SHA-256 as 64 hex digits; None where only the size is known.

    Raises:
        DamageError: it is missing, unreadable, or its bytes are others.
    """
    try:
        bring([path])
        try:
            _check_here(path, size, sha256)
        except DamageError:
            if not bring_anew(path):
                raise
            _check_here(path, size, sha256)
    except FileNotFoundError:  # neither here nor in the bucket
        raise DamageError(
            f"{named(path)} is missing ({size} bytes were written): {WAY_OUT}"
        ) from None


def _check_here(path: Path, size: int, sha256: str | None) -> None:
    now = time.time_ns()
    try:
        found = path.stat()
        if found.st_size != size:
            raise DamageError(f"{path} has {found.st_size} bytes, {size} were written: {WAY_OUT}")
        if sha256 is None:
            return
        # The change time too: it moves where someone restores the time of modification.
        times = (found.st_mtime_ns, found.st_ctime_ns)
        key = (str(path), found.st_ino, found.st_size, *times)
        with _hashing:
            digest = _hashes.get(key)
        if digest is None:  # two threads may hash the same file at once: no harm but the time
            digest = sha256_file(path)
            if now - max(times) > _SETTLED_NS:
                with _hashing:
                    _hashes[key] = digest
    except FileNotFoundError as error:
        raise DamageError(f"{path} is missing ({size} bytes were written): {WAY_OUT}") from error
    except OSError as error:
        raise DamageError(f"{path} cannot be read: {error}: {WAY_OUT}") from error
    if digest != sha256:
        raise DamageError(
            f"{path} has other bytes than were written (sha256 {digest:.12}, "
            f"expected {sha256:.12}): {WAY_OUT}"
        )
