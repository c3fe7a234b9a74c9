"""The files of a zarr store, in a folder or in a zip: names and bytes.

Knows no array and no AnnData. Nothing is unpacked to disk; a name cannot lead out of the store.
"""

import zipfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol

from ...platform.errors import SourceError
from .archives import MOST_TIMES

MOST_BYTES = 2**31
"""The largest file of a store, and the largest chunk when unpacked, that is read."""

_SURELY_FINE = 2**28
_ROOT_FILES = ("zarr.json", ".zgroup", ".zattrs")


_DAMAGED = (
    OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError,
    OverflowError, MemoryError, zlib.error,
)  # fmt: skip
"""What reading raises where a damaged store holds another thing than its metadata says."""


class Store(Protocol):
    """Files by name, the names as zarr spells them: parts between slashes."""

    @property
    def path(self) -> Path:
        """The folder or zip."""
        ...

    def size(self, key: str) -> int | None:
        """Bytes of a file, None where there is none of that name."""
        ...

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes | None:
        """The bytes of a file (or some of them), None where there is none of that name."""
        ...

    def children(self, key: str) -> list[str]:
        """Names of the files and folders in a folder, in a fixed order."""
        ...


class FolderStore:
    """A store in a folder."""

    def __init__(self, path: Path) -> None:
        """Of the folder `path`."""
        self.path = path

    def size(self, key: str) -> int | None:
        """Bytes of a file."""
        place = self.path / _safe(key)
        return place.stat().st_size if place.is_file() else None

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes | None:
        """The bytes of a file."""
        place = self.path / _safe(key)
        try:
            with place.open("rb") as file:
                file.seek(offset)
                return file.read(_bounded(self.path, key, self.size(key) or 0, offset, length))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def children(self, key: str) -> list[str]:
        """Names in a folder."""
        place = self.path / _safe(key)
        return sorted(item.name for item in place.iterdir()) if place.is_dir() else []


class ZipStore:
    """A store in a zip, at its root or in the one folder that the zip was made of."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        """Of the open `archive` at `path`."""
        self.path = path
        self._archive = archive
        names = archive.namelist()
        roots = [name for name in names if name.rpartition("/")[2] in _ROOT_FILES]
        root = min((name.rpartition("/")[0] for name in roots), key=_depth, default="")
        self._root = f"{root}/" if root else ""
        self._folders: dict[str, set[str]] = {}
        for name in names:
            if not name.startswith(self._root):
                continue
            parts = name.removeprefix(self._root).split("/")
            for depth, part in enumerate(parts):
                if part:
                    self._folders.setdefault("/".join(parts[:depth]), set()).add(part)

    def size(self, key: str) -> int | None:
        """Bytes of a file."""
        info = self._archive.NameToInfo.get(self._root + _safe(key))
        return info.file_size if info is not None else None

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes | None:
        """The bytes of a file; a whole file is held against the zip's checksum."""
        size = self.size(key)
        if size is None:
            return None
        n_bytes = _bounded(self.path, key, size, offset, length)
        packed = self._archive.NameToInfo[self._root + key].compress_size
        if size > max(_SURELY_FINE, MOST_TIMES * packed):
            raise SourceError(
                f"{self.path}: {key} unpacks to {size:,} bytes from {packed:,}: it looks made to "
                "fill the memory. Unpack the zip yourself if you know better"
            )
        with self._archive.open(self._root + _safe(key)) as file:
            file.seek(offset)
            data = file.read(n_bytes)
            if offset == 0 and n_bytes == size:
                file.read(1)  # the checksum is looked at when the end is seen
            return data

    def children(self, key: str) -> list[str]:
        """Names in a folder."""
        return sorted(self._folders.get(_safe(key), ()))


@contextmanager
def open_store(path: Path) -> Generator[Store]:
    """Open a store for reading; what cannot be read becomes a SourceError that names it.

    Args:
        path: a folder or a zip.
    """
    try:
        if path.is_dir():
            yield FolderStore(path)
        else:
            with zipfile.ZipFile(path) as archive:
                yield ZipStore(path, archive)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise SourceError(
            f"{path}: not a whole zip (cut short, or still being written?): {error}"
        ) from error
    except _DAMAGED as error:
        raise SourceError(f"{path}: the zarr store is damaged: {error!r}") from error


def is_store(path: Path) -> bool:
    """Whether a folder or a zip is a zarr store by the files in it."""
    if path.is_dir():
        return any((path / name).is_file() for name in _ROOT_FILES)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError):
        return False
    return any(name.rpartition("/")[2] in _ROOT_FILES and _depth(name) <= 2 for name in names)


def _depth(name: str) -> int:
    return name.count("/") + bool(name)


def _safe(key: str) -> str:
    if ".." in PurePosixPath(key).parts or key.startswith("/"):
        raise SourceError(f"{key!r} leads out of the zarr store: not followed")
    return key


def _bounded(path: Path, key: str, size: int, offset: int, length: int | None) -> int:
    n_bytes = size - offset if length is None else length
    if not 0 <= n_bytes <= MOST_BYTES:
        raise SourceError(
            f"{path}: {key} has {n_bytes:,} bytes, expected at most {MOST_BYTES:,}: write the "
            "store with smaller chunks"
        )
    return n_bytes
