"""Chunks of one sharded Zarr array: written, read, checked. Knows no cell and no table.

Nothing that a file says is believed before it is checked: places in the shard, the chunk's crc32c,
the sizes in its blosc header (c-blosc reads as many bytes as the header says). What does not fit
is a DamageError, never zeros.
"""

import json
import os
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

from ...platform.errors import DamageError
from .integrity import WAY_OUT
from .pieces import Pieces
from .unpacking import HEADER, unpack_pieces

CHUNK = 1 << 17
"""Elements a chunk: 57 to 90 typical cells, the best of a sweep over 16, 64 and 256 cells."""

SEGMENT_ATTRIBUTE = "cytolake.segment"
_BLOSC = Blosc(cname="zstd", clevel=1, shuffle=Blosc.SHUFFLE)
"""How chunks are packed; one that is read says itself what it was packed with."""
_MISSING = 2**64 - 1
_ROOM = CHUNK * 4
_THREADS = min(4, os.cpu_count() or 1)
_mine = threading.local()


def write_shards(folder: Path, values: NDArray[Any], chunks_per_shard: int) -> None:
    """Write the shards of an array whose `zarr.json` says how; zarr takes twice as long.

    Args:
        folder: the array's folder.
        values: the array's values, of its type. Shape (n,).
        chunks_per_shard: how many chunks a shard has room for.
    """
    starts = range(0, len(values), CHUNK)
    for shard in range(-(-len(starts) // chunks_per_shard)):
        path = folder / "c" / str(shard)
        path.parent.mkdir(exist_ok=True)
        index = np.full((chunks_per_shard, 2), _MISSING, dtype="<u8")
        with path.open("xb") as file:
            mine = starts[shard * chunks_per_shard : (shard + 1) * chunks_per_shard]
            for place, start in enumerate(mine):
                chunk = values[start : start + CHUNK]
                if len(chunk) < CHUNK:
                    chunk = np.concatenate([chunk, np.zeros(CHUNK - len(chunk), values.dtype)])
                index[place, 0] = file.tell()
                index[place, 1] = _write_checked(file, _BLOSC.encode(np.ascontiguousarray(chunk)))
            _write_checked(file, index.tobytes())


class ShardedArray:
    """Whole chunks of one array that `corpus.arrays` wrote, or pieces of them.

    A shard's file ends with its index (offset and length of each chunk, u64) and the index's
    crc32c; each chunk ends with its own. Source: Zarr v3 specification, sharding codec 1.0.

    Attributes:
        length: elements of the array.
        n_chunks: chunks that hold them; the last is filled up.
        n_shards: shards that hold the chunks.
    """

    def __init__(self, folder: Path, segment_id: str, dtypes: Collection[str]) -> None:
        """Read what `zarr.json` says.

        Args:
            folder: the array's folder.
            segment_id: the segment that the array must be of.
            dtypes: the types of number that it may hold.

        Raises:
            DamageError: it is not such an array.
        """
        try:
            metadata = json.loads((folder / "zarr.json").read_bytes())
            sharding = metadata["codecs"][0]["configuration"]
            codecs = [codec["name"] for codec in sharding["codecs"]]
            (self.length,) = metadata["shape"]
            (shard,) = metadata["chunk_grid"]["configuration"]["chunk_shape"]
            chunk = sharding["chunk_shape"]
            dtype = metadata["data_type"]
            owner = metadata["attributes"][SEGMENT_ATTRIBUTE]
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise DamageError(
                f"{folder}/zarr.json is not what was written ({error!r}): {WAY_OUT}"
            ) from error
        if owner != segment_id:
            raise DamageError(f"{folder} says it is of segment {owner!r}, expected {segment_id!r}")
        if chunk != [CHUNK] or codecs != ["bytes", "blosc", "crc32c"]:
            raise DamageError(
                f"{folder} has chunks {chunk} of codecs {codecs}, expected [{CHUNK}] of "
                "bytes, blosc, crc32c"
            )
        if dtype not in dtypes:
            raise DamageError(f"{folder} holds {dtype!r}, expected {' or '.join(dtypes)}")
        sizes = (self.length, shard)
        if any(type(size) is not int for size in sizes) or self.length < 0 or shard < CHUNK:
            raise DamageError(f"{folder} has length {self.length!r} in shards of {shard!r}")
        self.n_chunks = -(-self.length // CHUNK)
        self._dtype = np.dtype(dtype)
        self._folder = folder
        self._per_shard = shard // CHUNK
        self.n_shards = -(-self.n_chunks // self._per_shard)
        self._indexes: dict[int, tuple[NDArray[np.uint64], int]] = {}
        self._paths: dict[int, Path] = {}

    def check_shards(self) -> None:
        """Read the index of every shard, so that `n_chunks` is no more than what is there.

        Raises:
            DamageError: a shard is missing or has no whole index.
        """
        for shard in range(self.n_shards):  # ends at the first that is missing
            with self._open(shard) as file:
                self._index(shard, file)

    def shard_of(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The shard that holds each element. Shape of `places`."""
        return places // (CHUNK * self._per_shard)

    def room(self, n_chunks: int) -> NDArray[Any]:
        """Room for some chunks, to be used again and again. Shape (n_chunks * CHUNK,)."""
        return np.empty(n_chunks * CHUNK, dtype=self._dtype)

    def chunks(
        self,
        numbers: NDArray[np.int64],
        *,
        threads: int = _THREADS,
        room: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Some chunks one after the other. Shape (len(numbers) * CHUNK,).

        Args:
            numbers: of the chunks.
            threads: how many decode.
            room: where to put them, of `room`; None for new memory.

        Raises:
            DamageError: one of them is not what was written.
        """
        out = (self.room(len(numbers)) if room is None else room)[: len(numbers) * CHUNK]
        slots = [out[i * CHUNK : (i + 1) * CHUNK] for i in range(len(numbers))]
        if len(slots) > 1 and threads > 1:
            with ThreadPoolExecutor(min(len(slots), threads)) as pool:
                for _ in pool.map(self._decode, numbers.tolist(), slots):
                    pass
        else:
            for number, slot in zip(numbers.tolist(), slots, strict=True):
                self._decode(number, slot)
        return out

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of number as it is stored."""
        return self._dtype

    def fill(self, pieces: Pieces, out: NDArray[Any]) -> None:
        """Unpack pieces to their places, in this thread; each chunk is read and checked once.

        Args:
            pieces: which.
            out: where to; of the array's type, or of a wider one.

        Raises:
            DamageError: a chunk is not what was written.
        """
        starts = np.flatnonzero(np.diff(pieces.chunk, prepend=-1)).tolist()
        numbers = pieces.chunk[starts].tolist()
        with ExitStack() as opened:
            shard, file = -1, None
            for number, start, stop in zip(numbers, starts, [*starts[1:], None], strict=True):
                if file is None or number // self._per_shard != shard:
                    shard = number // self._per_shard
                    file = opened.enter_context(self._open(shard))
                mine = slice(start, stop)
                self._unpack(
                    number,
                    self._packed(number, file),
                    (pieces.first[mine], pieces.length[mine], pieces.place[mine]),
                    out,
                )

    def _unpack(
        self,
        number: int,
        packed: NDArray[np.uint8],
        pieces: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
        out: NDArray[Any],
    ) -> None:
        """Pieces of a chunk: their first elements, lengths and places."""
        try:
            unpack_pieces(packed, *pieces, out, self._dtype, CHUNK)
        except (RuntimeError, ValueError) as error:
            raise DamageError(
                f"{self._path(number // self._per_shard)}: chunk {number} cannot be unpacked "
                f"({error}): {WAY_OUT}"
            ) from error

    def _decode(self, number: int, out: NDArray[Any]) -> None:
        with self._open(number // self._per_shard) as file:
            packed = self._packed(number, file)
            whole = np.array([0]), np.array([CHUNK]), np.array([0])
            self._unpack(number, packed, whole, out)

    def _packed(self, number: int, file: FileIO) -> NDArray[np.uint8]:
        """A chunk as it is packed, its checksum and sizes checked: good until the next is read."""
        shard, place = divmod(number, self._per_shard)
        path = self._path(shard)
        index, end = self._index(shard, file)
        offset, length = index[place].tolist()
        if offset + length > end:  # a chunk that is not there has 2**64 - 1 for both
            raise DamageError(
                f"{path}: chunk {number} is missing (the index places it at {offset}, "
                f"{length} bytes long, of {end}): {WAY_OUT}"
            )
        packed = _checked(_read(file, path, offset, length))
        if packed is None:
            raise DamageError(
                f"{path}: chunk {number} is not what was written (crc32c differs): {WAY_OUT}"
            )
        n_bytes, n_values, n_packed, size = CHUNK * self._dtype.itemsize, 0, 0, 0
        if len(packed) >= HEADER.size:
            _, _, _, size, n_values, _, n_packed = HEADER.unpack_from(packed.data)
        if (n_values, n_packed, size) != (n_bytes, len(packed), self._dtype.itemsize):
            raise DamageError(
                f"{path}: chunk {number} says it holds {n_values} bytes in {n_packed}, expected "
                f"{n_bytes} in {len(packed)}: {WAY_OUT}"
            )
        return packed

    def _index(self, shard: int, file: FileIO) -> tuple[NDArray[np.uint64], int]:
        """Where each chunk of a shard lies, and where the chunks end."""
        found = self._indexes.get(shard)
        if found is None:
            path = self._path(shard)
            size = self._per_shard * 16 + 4
            end = os.fstat(file.fileno()).st_size - size
            data = _checked(_read(file, path, end, size)) if end >= 0 else None
            if data is None:
                raise DamageError(
                    f"{path}: the index is not what was written (crc32c differs): {WAY_OUT}"
                )
            found = data.copy().view("<u8").reshape(-1, 2), end
            self._indexes[shard] = found
        return found

    def _path(self, shard: int) -> Path:
        known = self._paths.get(shard)
        if known is None:  # asked for with every chunk; to make one takes microseconds
            known = self._paths[shard] = self._folder / "c" / str(shard)
        return known

    def _open(self, shard: int) -> FileIO:
        path = self._path(shard)
        try:
            return path.open("rb", buffering=0)
        except FileNotFoundError as error:
            raise DamageError(f"{path} is missing: {WAY_OUT}") from error
        except OSError as error:
            raise DamageError(f"{path} cannot be read ({error}): {WAY_OUT}") from error


def _read(file: FileIO, path: Path, offset: int, length: int) -> NDArray[np.uint8]:
    """Some bytes, in memory of this thread's: good until it reads again."""
    room: NDArray[np.uint8] | None = getattr(_mine, "room", None)
    if room is None or len(room) < length:  # new memory for each would take longer than reading
        room = _mine.room = np.empty(max(_ROOM, length), dtype=np.uint8)
    try:
        n_read = os.preadv(file.fileno(), [room[:length].data], offset)
    except OSError as error:
        raise DamageError(f"{path} cannot be read ({error}): {WAY_OUT}") from error
    if n_read != length:
        raise DamageError(
            f"{path} ends {length - n_read} bytes early at {offset + n_read}: {WAY_OUT}"
        )
    return room[:length]


def _checked(stored: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """What stands before a crc32c; None where it is another's."""
    data, end = stored[:-4], stored[-4:].tobytes()
    found: int = google_crc32c.value(data)
    return data if found == int.from_bytes(end, "little") and end else None


def _write_checked(file: BufferedWriter, data: bytes) -> int:
    """Write some bytes and their crc32c; tell how many bytes that were."""
    return file.write(data) + file.write(google_crc32c.value(data).to_bytes(4, "little"))
