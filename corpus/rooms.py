"""Memory that is used again as soon as nobody looks into it. Knows no cell.

A page that the system hands out anew is cleared and mapped first: for batches that took three
times as long as filling them. A room goes back when the last array that views it is gone,
whoever held it; so an array can be kept for as long as one likes, and is never written to again.
"""

import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_LEAST = 1 << 16


class Rooms:
    """Rooms of one use, whose arrays are of like sizes."""

    def __init__(self, kept: int) -> None:
        """Keep so many free rooms at most."""
        self._free: deque[bytearray] = deque(maxlen=kept)

    def __reduce__(self) -> tuple[type["Rooms"], tuple[int]]:
        """Another process gets as many rooms to keep, and none of these."""
        return Rooms, (self._free.maxlen or 0,)

    def empty(self, n: int, dtype: DTypeLike) -> NDArray[Any]:
        """An array of any content. Shape (n,)."""
        n_bytes = n * np.dtype(dtype).itemsize
        room = self._room(n_bytes)
        array = np.frombuffer(room, dtype=dtype, count=n)
        # Views of the array hold the array, never the room alone.
        weakref.finalize(array, self._free.append, room).atexit = False
        return array

    def _room(self, n_bytes: int) -> bytearray:
        for _ in range(len(self._free)):
            try:
                room = self._free.pop()  # the last one left: it may be in cache still
            except IndexError:  # another thread was first
                break
            if len(room) >= n_bytes:
                return room
        return bytearray(max(_LEAST, n_bytes + n_bytes // 8))
