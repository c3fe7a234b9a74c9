"""Heaps of text in an HDF5 file, looked at before HDF5 reads them: a damaged one makes it hang.

Knows how a global heap lies in a file; knows no dataset. HDF5 (2.0 and before) walks a heap by the
sizes of its objects, and stands still for ever at a piece of free space whose size is 0, as a block
of zeros in the file leaves it.
"""

import mmap
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from ...platform.errors import SourceError

_SIGNATURE = b"GCOL\x01\x00\x00\x00"  # version 1, three reserved bytes
_HEADER = struct.Struct("<8sQ")
_OBJECT = struct.Struct("<HHIQ")
_NUMBERS = 2**64


def check_heaps(path: Path) -> None:
    """Refuse a file with a heap that HDF5 would not come back from.

    Costs a pass over the file's bytes for a signature (half a second a GiB where they are in the
    page cache), once in a process for a file that does not change.

    Args:
        path: an HDF5 file.

    Raises:
        SourceError: a heap is damaged so.
    """
    status = path.stat()
    at = _endless_heap(path, status.st_size, status.st_mtime_ns)
    if at is not None:
        raise SourceError(
            f"{path}: a heap of text at byte {at:,} is damaged (HDF5 would hang on it): copy or "
            "download the file again"
        )


@lru_cache(maxsize=64)
def _endless_heap(path: Path, size: int, modified: int) -> int | None:
    """Where the first heap begins that would be walked for ever; None where there is none."""
    if size < _HEADER.size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return next((begin for begin in _heaps(data) if _is_endless(data, begin)), None)


def _heaps(data: mmap.mmap) -> Iterator[int]:
    begin = data.find(_SIGNATURE)
    while begin >= 0:
        yield begin
        begin = data.find(_SIGNATURE, begin + 1)


def _is_endless(data: mmap.mmap, begin: int) -> bool:
    """Whether some object of a heap leads to itself or to one before it."""
    if begin + _HEADER.size > len(data):
        return False
    size = _HEADER.unpack_from(data, begin)[1]
    end = begin + size
    if end > len(data):  # HDF5 refuses it, or it is none
        return False
    place = begin + _HEADER.size
    while place + _OBJECT.size <= end:
        index, _, _, length = _OBJECT.unpack_from(data, place)
        # An object's size is that of its content, padded; that of free space has the header in it.
        step = length if index == 0 else (_OBJECT.size + (length + 7) // 8 * 8) % _NUMBERS
        if step == 0:
            return True
        place += step
    return False
