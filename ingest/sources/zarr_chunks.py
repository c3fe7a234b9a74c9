"""Where the bytes of a zarr array's chunks lie: a file each, or several in a shard.

Knows names and places; unpacks nothing.
"""

import math
import struct

from ...platform.errors import SourceError
from .zarr_codecs import crc32c_checked
from .zarr_layout import ArrayLayout
from .zarr_store import Store

_NOT_STORED = (2**64 - 1, 2**64 - 1)


class ChunkFiles:
    """The files of one array's chunks. The index of the last shard is kept.

    A shard ends (or begins) with offset and length of each of its chunks, u64, and mostly their
    crc32c. Source: Zarr v3 specification, sharding codec 1.0.
    """

    def __init__(self, store: Store, name: str, layout: ArrayLayout) -> None:
        """Of the array at the place `name`."""
        self._store = store
        self._name = name
        self._layout = layout
        self._index: tuple[str, list[tuple[int, int]]] | None = None

    def n_missing(self) -> tuple[int, int]:
        """Files that are not stored, and how many there could be."""
        layout = self._layout
        outer = layout.sharding.shape if layout.sharding else layout.chunks
        most = math.prod(-(-n // size) for n, size in zip(layout.shape, outer, strict=True))
        return max(0, most - _n_files(self._store, self._name)), most

    def read(self, numbers: tuple[int, ...]) -> bytes | None:
        """The bytes of a chunk, None where it is not stored.

        Args:
            numbers: the chunk's number on each axis.

        Raises:
            SourceError: its shard is damaged.
        """
        layout, store = self._layout, self._store
        if layout.sharding is None:
            return store.read(f"{self._name}/{layout.file_of(numbers)}")
        per_shard = [
            outer // own for outer, own in zip(layout.sharding.shape, layout.chunks, strict=True)
        ]
        shard = tuple(number // n for number, n in zip(numbers, per_shard, strict=True))
        file = f"{self._name}/{layout.file_of(shard)}"
        place = 0
        for number, n in zip(numbers, per_shard, strict=True):
            place = place * n + number % n
        if self._index is None or self._index[0] != file:
            self._index = (file, self._index_of(file, math.prod(per_shard)))
        index = self._index[1]
        if not index or index[place] == _NOT_STORED:
            return None
        offset, length = index[place]
        size = store.size(file) or 0
        if offset + length > size:
            raise SourceError(
                f"{layout.where}: shard {file} of {size} bytes says that a chunk ends at "
                f"{offset + length}: the store is damaged"
            )
        return store.read(file, offset, length)

    def _index_of(self, file: str, n_chunks: int) -> list[tuple[int, int]]:
        """Offset and length of each chunk of a shard; none where the shard is not stored."""
        sharding, store = self._layout.sharding, self._store
        size = store.size(file)
        if size is None or sharding is None:
            return []
        length = 16 * n_chunks + (4 if sharding.index_checked else 0)
        offset = size - length if sharding.index_at_end else 0
        data = store.read(file, offset, length) if 0 <= offset and length <= size else None
        try:
            if data is None or len(data) != length:
                raise ValueError(f"{size} bytes hold no index of {n_chunks} chunks")
            body = crc32c_checked(data) if sharding.index_checked else data
        except ValueError as error:
            raise SourceError(f"{self._layout.where}: shard {file} is damaged: {error}") from error
        words = struct.unpack(f"<{2 * n_chunks}Q", body)
        return list(zip(words[::2], words[1::2], strict=True))


def _n_files(store: Store, place: str) -> int:
    """Files below a place that are no metadata: the listing is bounded by what is there."""
    found = 0
    for name in store.children(place):
        if name.startswith(".") or name == "zarr.json":
            continue
        below = f"{place}/{name}"
        found += 1 if store.size(below) is not None else _n_files(store, below)
    return found
