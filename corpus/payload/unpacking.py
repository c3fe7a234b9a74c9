"""Parts of a blosc chunk unpacked to where they belong. Knows no file, no shard and no cell.

A blosc chunk is made of blocks that stand alone, so a part costs its own blocks only. Chunks of
two-byte numbers, shuffled and packed by zstd, are unpacked block by block by the zstd in numcodecs'
library: each thread keeps one context, and from a block numbers go where they belong at once. blosc
makes a context a block and copies twice. It unpacks all other chunks, without the interpreter's
lock; where a build of numcodecs hides these functions, whole chunks are unpacked and parts copied:
the same values, at the price of the rest. Source: c-blosc, README_CHUNK_FORMAT.rst.
"""

import ctypes
import struct
import threading
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numba
import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

HEADER = struct.Struct("<4B3I")
"""Version, zstd's version, flags, bytes of a number; bytes unpacked, of a block, packed."""

Getitem = Callable[[int, int, int, int], int]
"""`blosc_getitem`: chunk, first element, number of them, address; the bytes written, or < 0."""

_INT = struct.Struct("<i")
_VERSION, _SHUFFLED_WHOLE_ZSTD = 2, 0b100_1_0001
_mine = threading.local()


def unpack_pieces(
    packed: NDArray[np.uint8],
    firsts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    places: NDArray[np.int64],
    out: NDArray[Any],
    stored: np.dtype[Any],
    n_elements: int,
    *,
    by_blocks: bool = True,
) -> None:
    """Pieces of a chunk, each to its own place.

    Args:
        packed: the chunk; who gives it has checked its checksum and the sizes in its header.
        firsts: first element of each piece; pieces ascend and do not overlap. Shape (n_pieces,).
        lengths: how many elements each has, > 0. Shape (n_pieces,).
        places: where in `out` each goes. Shape (n_pieces,).
        out: takes them; contiguous, of the chunk's type or a wider one.
        stored: the chunk's type.
        n_elements: of the chunk.
        by_blocks: whether to unpack block by block, where that can be done.

    Raises:
        ValueError: the chunk has fewer elements, or does not unpack.
        RuntimeError: it does not unpack.
    """
    begin, end = int(firsts[0]), int(firsts[-1] + lengths[-1])
    if begin < 0 or end > n_elements or (places < 0).any() or (places + lengths > len(out)).any():
        raise ValueError(f"elements {begin} to {end} of {n_elements} do not fit {len(out)} places")
    zstd = _zstd() if by_blocks and stored == np.uint16 else None
    if zstd is not None and _blocks_are_ours(packed, n_elements):
        _unpack_blocks(zstd, packed, firsts, lengths, places, out)
        return
    if out.dtype == stored and len(firsts) == 1:
        unpack_part(packed, begin, out[places[0] : places[0] + end - begin], n_elements)
        return
    room = np.empty(end - begin, dtype=stored)
    unpack_part(packed, begin, room, n_elements)
    for first, length, place in zip(firsts, lengths, places, strict=True):
        out[place : place + length] = room[first - begin : first - begin + length]


def unpack_part(
    packed: NDArray[np.uint8],
    first: int,
    out: NDArray[Any],
    n_elements: int,
    *,
    partly: bool = True,
) -> None:
    """Elements of a chunk from `first` on, by blosc.

    Args:
        packed: as in `unpack_pieces`.
        first: the first element wanted.
        out: where they go: contiguous, of the chunk's type, as many as are wanted. Shape (n,).
        n_elements: of the chunk.
        partly: whether to unpack no more than is needed, where that can be done.

    Raises:
        ValueError: the chunk has fewer elements, or does not unpack.
        RuntimeError: it does not unpack.
    """
    if first < 0 or first + len(out) > n_elements:
        raise ValueError(f"elements {first} to {first + len(out)} of {n_elements}")
    getitem = _getitem() if partly else None
    if getitem is not None:
        written = getitem(_address(packed), first, len(out), _address(out))
        if written != out.nbytes:
            raise ValueError(f"blosc gave {written} bytes, expected {out.nbytes}")
        return
    whole = out if len(out) == n_elements else np.empty(n_elements, dtype=out.dtype)
    Blosc().decode(packed, out=whole)
    if whole is not out:
        out[:] = whole[first : first + len(out)]


class _Workspace:
    """What a thread unpacks with: a context of zstd's, and room for a chunk's blocks."""

    def __init__(self, zstd: ctypes.CDLL) -> None:
        self._zstd = zstd
        self._context = zstd.ZSTD_createDCtx()
        if not self._context:
            raise MemoryError("zstd has no memory for a context")
        self.room = np.empty(0, dtype=np.uint8)

    def __del__(self) -> None:
        self._zstd.ZSTD_freeDCtx(self._context)

    def unpack(self, address: int, n_packed: int, to_address: int, n: int) -> bool:
        """Unpack one block; tell whether it has the bytes that it should."""
        # Where zstd tells of an error, it is a number that no block has.
        return n == self._zstd.ZSTD_decompressDCtx(self._context, to_address, n, address, n_packed)


def _blocks_are_ours(packed: NDArray[np.uint8], n_elements: int) -> bool:
    version, _, flags, size, n_bytes, n_block, _ = HEADER.unpack_from(packed.data)
    known = (_VERSION, _SHUFFLED_WHOLE_ZSTD, 2, 2 * n_elements)
    return (version, flags, size, n_bytes) == known and n_block > 0 and n_block % 2 == 0


def _unpack_blocks(
    zstd: ctypes.CDLL,
    packed: NDArray[np.uint8],
    firsts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    places: NDArray[np.int64],
    out: NDArray[Any],
) -> None:
    """See `unpack_pieces`; numbers of two bytes, each block their low bytes, then their high."""
    bytes_of = packed.data
    *_, n_bytes, n_block, _ = HEADER.unpack_from(bytes_of)
    n_blocks = -(-n_bytes // n_block)
    head, size = HEADER.size + 4 * n_blocks, len(packed)
    if head > size:
        raise ValueError(f"{n_blocks} blocks in {size} bytes")
    starts = struct.unpack_from(f"<{n_blocks}i", bytes_of, HEADER.size)
    workspace: _Workspace | None = getattr(_mine, "workspace", None)
    if workspace is None:
        workspace = _mine.workspace = _Workspace(zstd)
    if len(workspace.room) < n_bytes:
        workspace.room = np.empty(n_bytes, dtype=np.uint8)
    room = workspace.room[:n_bytes]
    address, to_address, to_do = _address(packed), _address(room), 0
    for first, length in zip(firsts.tolist(), lengths.tolist(), strict=True):
        last = (first + length - 1) * 2 // n_block
        for number in range(max(to_do, first * 2 // n_block), last + 1):
            start, place = starts[number], number * n_block
            n = min(n_block, n_bytes - place)
            if not head <= start <= size - 4:
                raise ValueError(f"block {number} begins at {start}, expected {head} to {size - 4}")
            (n_packed,) = _INT.unpack_from(bytes_of, start)
            start += 4
            if not 0 <= n_packed <= size - start:
                raise ValueError(f"block {number} lies at {start} of {size}: {n_packed} bytes")
            if n_packed == n:  # what would not shrink lies there as it is
                room[place : place + n] = packed[start : start + n]
            elif not workspace.unpack(address + start, n_packed, to_address + place, n):
                raise ValueError(f"block {number} of {n_packed} bytes does not give {n}")
        to_do = last + 1
    _place(room, n_block // 2, firsts, lengths, places, out)


@numba.njit(cache=True, nogil=True)
def _place(
    room: NDArray[np.uint8],
    a_block: int,
    firsts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    places: NDArray[np.int64],
    out: NDArray[Any],
) -> None:  # pragma: no cover - compiled
    """Put pieces where they belong; `room` has blocks of `a_block` numbers, the last the rest."""
    for piece in range(len(firsts)):
        place, stop = places[piece], firsts[piece] + lengths[piece]
        start = firsts[piece]
        while start < stop:
            begin = start // a_block * a_block  # of the block that it lies in
            n = min(a_block, len(room) // 2 - begin)
            end = min(stop, begin + n)
            at = begin + start  # each number took two bytes so far, one of this block's
            low, high = room[at : at + end - start], room[at + n : at + n + end - start]
            to = out[place : place + end - start]
            for i in range(len(to)):
                to[i] = np.uint16(low[i]) | (np.uint16(high[i]) << np.uint16(8))
            place += end - start
            start = end


def _address(array: NDArray[Any]) -> int:
    return array.__array_interface__["data"][0]


@cache
def _library() -> ctypes.CDLL | None:
    found = find_spec("numcodecs.blosc")
    return ctypes.CDLL(found.origin) if found else None


@cache
def _getitem() -> Getitem | None:
    found = getattr(_library(), "blosc_getitem", None)
    if found is not None:
        found.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
        found.restype = ctypes.c_int
    return found


@cache
def _zstd() -> ctypes.CDLL | None:
    """The library, where it shows the functions of zstd that are called here."""
    library = _library()
    names = ("ZSTD_createDCtx", "ZSTD_freeDCtx", "ZSTD_decompressDCtx")
    if library is None or any(getattr(library, name, None) is None for name in names):
        return None
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    library.ZSTD_createDCtx.argtypes, library.ZSTD_createDCtx.restype = [], pointer
    library.ZSTD_freeDCtx.argtypes, library.ZSTD_freeDCtx.restype = [pointer], size
    library.ZSTD_decompressDCtx.argtypes = [pointer, pointer, size, pointer, size]
    library.ZSTD_decompressDCtx.restype = size
    return library
