"""URIs to places, and bytes that stay: durable writes, removals, checksums, frozen files.

Knows no cell and no corpus. A file written here is there whole after a power cut, or not at all.
Each durable action is a named step (`platform.faults`): the caller says what it is done to, the
function adds what it does: `step="segment"` makes `publish` the step `segment/rename`.
"""

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlparse

from .errors import CytolakeError, SettingsError, StorageError
from .faults import durable

_READ_SIZE = 1 << 20
_REMOVED = ".removed-"
_ERRNO = re.compile(r"(?:os error |errno )(\d+)", re.IGNORECASE)
_TROUBLES = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the quota is used up; free some space and run the same command again",
    errno.EROFS: "the disk is read-only; it can be read from, not written to",
    errno.EACCES: "permission is denied; let its owner do it, or ask for the right to write",
    errno.EPERM: "the system forbids it; is the folder marked immutable, or of another owner?",
    errno.EIO: "the disk fails; look at the system's log before going on",
}


def local_path(uri: str | Path) -> Path:
    """The local folder or file that a URI names.

    Args:
        uri: a path, with `~` allowed, or a `file://` URI.

    Raises:
        SettingsError: the URI has another scheme.
    """
    if isinstance(uri, Path):
        return uri.expanduser()
    scheme = urlparse(uri).scheme
    if scheme == "file":
        return Path(unquote(urlparse(uri).path))
    if scheme and "://" in uri:
        raise SettingsError(f"{uri}: {scheme}:// is not supported; give a path or a file:// URI")
    return Path(uri).expanduser()


def absolute_uri(uri: str) -> str:
    """The same place, told so that a process in another working folder finds it too.

    Raises:
        SettingsError: as in `local_path`.
    """
    return uri if "://" in uri else str(local_path(uri).absolute())


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_SIZE):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def storing_in(folder: Path) -> Generator[None]:
    """Tell a disk that says no as an error of ours; every other error passes unchanged.

    Libraries tell it in their own ways: as an OSError, or in words that hold the system's number.

    Raises:
        StorageError: the disk is full, read-only or failing, or the folder is not ours to write.
    """
    try:
        yield
    except CytolakeError:
        raise
    except Exception as error:
        told = _ERRNO.search(str(error))
        number = int(told[1]) if told else error.errno if isinstance(error, OSError) else None
        trouble = _TROUBLES.get(number or 0)
        if trouble is None:
            raise
        raise StorageError(f"{folder} cannot be written: {trouble}") from error


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
    (`.../link`): a link, unlike a rename, is refused where the name is taken.

    Raises:
        FileExistsError: the name is taken.
        StorageError: the disk says no.
    """
    with _written_beside(path, data, step) as temporary, storing_in(path.parent):
        with durable(f"{step}/link"):
            os.link(temporary, path)
            sync_folder(path.parent)
        with durable(f"{step}/unlink"):
            temporary.unlink()


def publish(temporary: Path, final: Path, step: str = "file") -> None:
    """Give a synced file or folder its final name, in one step: `.../rename`.

    Raises:
        OSError: a folder that holds something has the name.
        StorageError: the disk says no.
    """
    with storing_in(final.parent), durable(f"{step}/rename"):
        temporary.rename(final)
        sync_folder(final.parent)


def remove_durably(path: Path, step: str = "file") -> None:
    """Remove a file or a folder so that nobody sees it half removed; what is not there is no fault.

    It is renamed to a hidden sibling (step `.../hide`), which then goes (`.../remove`). What a
    crash leaves of the sibling, `finish_removals` takes away.

    Raises:
        StorageError: the disk says no.
    """
    hidden = path.with_name(f"{_REMOVED}{path.name}.{secrets.token_hex(4)}")
    with storing_in(path.parent):
        try:
            with durable(f"{step}/hide"):
                path.rename(hidden)
                sync_folder(path.parent)
        except FileNotFoundError:
            return
        _remove(hidden, step)


def finish_removals(folder: Path, step: str = "file") -> None:
    """Take away what interrupted calls of `remove_durably` left in a folder.

    Raises:
        StorageError: the disk says no.
    """
    with storing_in(folder):
        for hidden in sorted(folder.glob(_REMOVED + "*")):
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
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
