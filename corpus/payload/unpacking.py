"""Part of a blosc chunk unpacked to where it belongs. Knows no file, no shard and no cell.

A blosc chunk is made of blocks that stand alone, so a part costs its own blocks only. numcodecs
has no call for that and holds its lock meanwhile; the C function lies in its library, though, and
is called there without the interpreter's lock. Where a build of numcodecs hides it, the whole chunk
is unpacked and the part copied: the same values, at the price of the rest.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

Getitem = Callable[[bytes, int, int, int], int]
"""`blosc_getitem`: chunk, first element, number of them, address; the bytes written, or < 0."""


def unpack_part(
    packed: bytes, first: int, out: NDArray[Any], n_elements: int, *, partly: bool = True
) -> None:
    """Elements of a chunk from `first` on.

    Args:
        packed: the chunk; who gives it has checked its checksum and the sizes in its header.
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
        address: int = out.__array_interface__["data"][0]
        written = getitem(packed, first, len(out), address)
        if written != out.nbytes:
            raise ValueError(f"blosc gave {written} bytes, expected {out.nbytes}")
        return
    whole = out if len(out) == n_elements else np.empty(n_elements, dtype=out.dtype)
    Blosc().decode(packed, out=whole)
    if whole is not out:
        out[:] = whole[first : first + len(out)]


@cache
def _getitem() -> Getitem | None:
    library = find_spec("numcodecs.blosc")
    found = getattr(ctypes.CDLL(library.origin), "blosc_getitem", None) if library else None
    if found is not None:
        found.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
        found.restype = ctypes.c_int
    return found
