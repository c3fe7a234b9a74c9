"""URIs to places, and bytes that stay: durable writes, checksums, frozen files.

Knows no cell and no corpus. A file written here is there whole after a power cut, or not at all.
"""

import hashlib
import os
import stat
from pathlib import Path
from urllib.parse import unquote, urlparse

from .errors import SettingsError

_READ_SIZE = 1 << 20


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


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that after any crash it is there whole or not at all.

    A temporary sibling is written and synced, then renamed over `path`, then the folder is synced.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


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
