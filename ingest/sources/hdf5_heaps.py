"""Heaps of text in an HDF5 file, looked at before HDF5 reads them: a damaged one makes it hang.

Knows how a global heap lies in a file; knows no dataset. HDF5 (2.0 and before) walks a heap by the
sizes of its objects, and stands still for ever at a piece of free space whose size is 0, as a block
of zeros in the file leaves it.
"""

import os
import re
import struct
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from ...platform.errors import SourceError

_SIGNATURE = b"GCOL\x01\x00\x00\x00"  # version 1, three reserved bytes
_SEARCHED = re.compile(re.escape(_SIGNATURE))
_HEADER = struct.Struct("<8sQ")
_OBJECT = struct.Struct("<HHIQ")
_NUMBERS = 2**64
_WINDOW = 2**21

Stamp = tuple[int, int]
"""Size of a file and time of its last change, in ns: another stamp, another content."""

_sound: dict[Path, Stamp] = {}
"""Files that were looked through, as they were then."""


def check_heaps(path: Path) -> None:
    """Refuse a file with a heap that HDF5 would not come back from.

    Costs a pass over the file's bytes for a signature (a third of a second a GiB where they are in
    the page cache), once in a process for a file that does not change, or `trust` for less.

    Args:
        path: an HDF5 file.

    Raises:
        SourceError: a heap is damaged so.
    """
    stamp = _stamp(path)
    if _sound.get(path) == stamp:
        return
    with path.open("rb", buffering=0) as file:
        for begin in _heaps(file):
            if _is_endless(file, begin, stamp[0]):
                raise SourceError(
                    f"{path}: a heap of text at byte {begin:,} is damaged (HDF5 would hang on "
                    "it): copy or download the file again"
                )
    _sound[path] = stamp


def found_sound(path: Path) -> Stamp | None:
    """What `trust` wants to hear of a file in another process; None where it was not looked at."""
    return _sound.get(path)


def trust(path: Path, stamp: Stamp) -> None:
    """Take another process's word for a file: as long as it does not change it is not searched."""
    _sound[path] = stamp


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _heaps(file: FileIO) -> Iterator[int]:
    """Where signatures stand; the file is read a window at a time."""
    start, overlap = 0, len(_SIGNATURE) - 1
    while window := os.pread(file.fileno(), _WINDOW + overlap, start):
        for found in _SEARCHED.finditer(window):  # four times as fast as `bytes.find` over zeros
            yield start + found.start()
        start += _WINDOW


def _is_endless(file: FileIO, begin: int, file_size: int) -> bool:
    """Whether some object of a heap leads to itself or to one before it."""
    if begin + _HEADER.size > file_size:
        return False
    size = _HEADER.unpack(os.pread(file.fileno(), _HEADER.size, begin))[1]
    end = begin + size
    if end > file_size:  # HDF5 refuses it, or it is none
        return False
    place = begin + _HEADER.size
    while place + _OBJECT.size <= end:
        index, _, _, length = _OBJECT.unpack(os.pread(file.fileno(), _OBJECT.size, place))
        # An object's size is that of its content, padded; that of free space has the header in it.
        step = length if index == 0 else (_OBJECT.size + (length + 7) // 8 * 8) % _NUMBERS
        if step == 0:
            return True
        place += step
    return False
