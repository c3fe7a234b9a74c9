"""Packed files from strangers: read as a stream, bounded, and never unpacked to disk.

Knows tar, gzip, bzip2 and xz; knows no matrix. What a small file may expand to is bounded, so that
one made to fill a disk or a memory is refused while it is read.
"""

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ...platform.errors import SourceError

MOST_TIMES = 200
"""How many times its packed size a file may hold. Text of counts packs 4 to 20 times."""

SURELY_FINE = 2**30
"""What any file may hold, however well it is packed."""

MOST_MEMBERS = 10_000
_AT_ONCE = 2**28

UNREADABLE = (
    tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError,
)  # fmt: skip
"""What packed files raise that are cut short or damaged."""


class BoundedReader(io.RawIOBase):
    """A stream that refuses to be read beyond a bound."""

    def __init__(self, file: Any, most: int, where: str) -> None:
        """Of the open `file`, up to `most` bytes; `where` is for the error."""
        super().__init__()
        self._file = file
        self._most = most
        self._where = where

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """As the file is."""
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place; places before the bound only."""
        if whence == 0 and offset > self._most:
            raise self._too_much()
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """The place in the unpacked bytes."""
        return int(self._file.tell())

    def read(self, size: int = -1, /) -> bytes:
        """Some bytes, or the rest."""
        if size > _AT_ONCE:
            raise self._too_much()
        data = self._file.read(min(size, _AT_ONCE) if size >= 0 else self._most + 1 - self.tell())
        if self.tell() > self._most:
            raise self._too_much()
        return data

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer."""
        data = self.read(min(len(buffer), _AT_ONCE))
        buffer[: len(data)] = data
        return len(data)

    def _too_much(self) -> SourceError:
        return SourceError(
            f"{self._where} unpacks to more than {self._most:,} bytes, far beyond its size: it "
            "looks made to fill the memory. Unpack it yourself if you know better"
        )


def most_bytes(packed: int) -> int:
    """What a file of `packed` bytes may hold."""
    return max(SURELY_FINE, MOST_TIMES * packed)


def unzipped(file: IO[bytes], packed: int, where: str) -> io.BufferedReader:
    """The bytes that a gzip holds, bounded.

    Args:
        file: open at the gzip's begin.
        packed: its size.
        where: its name, for errors.
    """
    raw = BoundedReader(gzip.GzipFile(fileobj=file), most_bytes(packed), where)
    return io.BufferedReader(raw, buffer_size=2**20)


@contextmanager
def open_tar(path: Path) -> Generator[tarfile.TarFile]:
    """A tar, packed or not, for `members_of`.

    Raises:
        SourceError: it is none, cut short, or unpacks to too much.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(6)
            file.seek(0)
            bounded = BoundedReader(
                _unpacking(file, begin), most_bytes(path.stat().st_size), str(path)
            )
            with tarfile.open(fileobj=bounded, mode="r:") as archive:
                yield archive
    except UNREADABLE as error:
        raise SourceError(f"{path}: not a whole tar: {error}") from error


def is_tar(path: Path) -> bool:
    """Whether a file begins as a tar does."""
    try:
        with open_tar(path):
            return True
    except SourceError:
        return False


def members_of(archive: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """The files of a tar, each looked at before the next is sought.

    Raises:
        SourceError: a path leads out of the tar, a member is a link or a device, or there are too
            many or too large ones: such a tar was not made by 10x's programs.
    """
    total, most = 0, most_bytes(path.stat().st_size)
    for number, member in enumerate(archive):
        name = PurePosixPath(member.name)
        fault = None
        if name.is_absolute() or ".." in name.parts:
            fault = "leads out of it"
        elif member.islnk() or member.issym():
            fault = f"is a link to {member.linkname!r:.80}"
        elif not member.isfile() and not member.isdir():
            fault = "is neither a file nor a folder"
        total += member.size
        if fault is None and (total > most or number >= MOST_MEMBERS):
            fault = (
                f"is its {number + 1:,}th and makes it {total:,} bytes, expected at most "
                f"{MOST_MEMBERS:,} and {most:,}"
            )
        if fault is not None:
            raise SourceError(
                f"{path}: the tar is refused: {member.name!r:.80} in it {fault}. If you trust it, "
                "unpack it yourself and give the folder"
            )
        if member.isfile():
            yield member


def _unpacking(file: IO[bytes], begin: bytes) -> IO[bytes]:
    if begin.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)  # pyright: ignore[reportReturnType]
    if begin.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if begin.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(file)
    return file
