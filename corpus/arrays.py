"""A segment's counts as an AnnData Zarr group: written once, read by rows. Knows no table.

Chunks are read by our own few lines, which verify each one's crc32c: zarrs 0.2.3 skips it inside
shards (tried: of 300 flipped bits 269 gave wrong counts without a word), and zarr's own pipeline,
which verifies, is several times slower. A missing shard reads as zeros in both; here it raises,
and whoever opens a group has checked the files' sizes before (`corpus.segments`).

Array suffixes: c cell, g gene, n stored non-zero.
"""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Any

import google_crc32c
import numba
import numpy as np
import zarr
from numcodecs import Blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from ..platform.errors import DamageError

CHUNK = 1 << 17
"""Elements a chunk: 57 to 90 typical cells, the best of a sweep over 16, 64 and 256 cells."""

CHUNKS_PER_SHARD = 1 << 10
SEGMENT_ATTRIBUTE = "cytolake.segment"
_BLOSC = Blosc()  # what a chunk was packed with is told by the chunk itself
_THREADS = min(4, os.cpu_count() or 1)
_CSR = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0"}
_DICT = {"encoding-type": "dict", "encoding-version": "0.1.0"}


def write_counts(
    folder: Path,
    *,
    segment_id: str,
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    counts: NDArray[np.uint32],
    n_genes: int,
    obs: Mapping[str, Sequence[Any]],
    var: Mapping[str, Sequence[Any]],
) -> None:
    """Write one matrix of counts as an AnnData group.

    Counts are u16 where all fit, else u32; gene positions u16 where all fit, else i32.

    Args:
        folder: the group's folder, not there yet.
        segment_id: goes into every array's attributes.
        indptr: where each cell's non-zeros begin and end. Shape (n_cells + 1,).
        indices: gene positions, ascending within a cell. Shape (n_nonzero,).
        counts: raw counts, > 0. Shape (n_nonzero,).
        n_genes: number of columns.
        obs: columns of the cells; the first is the index.
        var: columns of the genes; the first is the index.
    """
    small = not counts.size or int(counts.max()) <= np.iinfo(np.uint16).max
    root = zarr.open_group(folder, mode="w", zarr_format=3)
    root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    matrix = root.create_group("X", attributes={**_CSR, "shape": [len(indptr) - 1, n_genes]})
    arrays: dict[str, NDArray[Any]] = {
        "data": counts.astype(np.uint16 if small else np.uint32),
        "indices": indices.astype(np.uint16 if n_genes <= 1 << 16 else np.int32),
        "indptr": indptr.astype(np.int64),
    }
    for name, values in arrays.items():
        _write_array(matrix, name, values, segment_id)
    for name in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
        root.create_group(name, attributes=_DICT)
    for name, columns in (("obs", obs), ("var", var)):
        _write_frame(root, name, columns, segment_id)


def _write_array(group: zarr.Group, name: str, values: NDArray[Any], segment_id: str) -> None:
    n_chunks = max(1, -(-len(values) // CHUNK))
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(CHUNK,),
        shards=(CHUNK * min(n_chunks, CHUNKS_PER_SHARD),),
        compressors=[
            BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=values.dtype.itemsize),
            Crc32cCodec(),
        ],
        fill_value=0,
        attributes={
            "encoding-type": "array",
            "encoding-version": "0.2.0",
            SEGMENT_ATTRIBUTE: segment_id,
        },
        config={"write_empty_chunks": True},
    )
    array[:] = values


def _write_frame(
    root: zarr.Group, name: str, columns: Mapping[str, Sequence[Any]], segment_id: str
) -> None:
    index, *others = columns
    frame = root.create_group(
        name,
        attributes={
            "encoding-type": "dataframe",
            "encoding-version": "0.2.0",
            "_index": index,
            "column-order": others,
        },
    )
    for column, values in columns.items():
        array = np.asarray(values)
        if array.dtype.kind in "iuf":
            _write_array(frame, column, array, segment_id)
            continue
        with warnings.catch_warnings():
            # AnnData's own text arrays: zarr says that the v3 specification lacks the type.
            warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification")
            text = frame.create_array(
                column,
                shape=(len(values),),
                dtype=str,
                chunks=(max(1, len(values)),),
                attributes={
                    "encoding-type": "string-array",
                    "encoding-version": "0.2.0",
                    SEGMENT_ATTRIBUTE: segment_id,
                },
            )
            text[:] = np.array([str(value) for value in values], dtype=object)


class CountsReader:
    """Rows of one segment's counts; keeps `indptr` in memory (8 bytes a cell)."""

    def __init__(self, folder: Path, segment_id: str) -> None:
        """Open the arrays of a group that `write_counts` wrote.

        Raises:
            DamageError: an array is of another segment, or the arrays contradict each other.
        """
        self._data = _ShardedArray(folder / "X" / "data", segment_id)
        self._indices = _ShardedArray(folder / "X" / "indices", segment_id)
        ends = _ShardedArray(folder / "X" / "indptr", segment_id)
        self.indptr: NDArray[np.int64] = ends.chunks(np.arange(ends.n_chunks))[: ends.length]
        end = int(self.indptr[-1])
        if self._data.length != end or self._indices.length != end:
            raise DamageError(
                f"{folder}: indptr ends at {end}, but data has {self._data.length} values "
                f"and indices {self._indices.length}"
            )

    @property
    def n_cells(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    def read(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint32]]:
        """Some rows, in the order asked for: indptr, indices, counts.

        Each chunk that holds some of them is decoded once.

        Args:
            rows: row numbers; any order, repeats allowed. Shape (n_rows,).

        Raises:
            DamageError: a chunk is not what was written.
        """
        starts, ends = self.indptr[rows], self.indptr[rows + 1]
        indptr = np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int64)
        indices = np.empty(indptr[-1], dtype=np.int32)
        counts = np.empty(indptr[-1], dtype=np.uint32)
        full = starts < ends
        starts, ends, into = starts[full], ends[full], indptr[:-1][full]
        needed = _chunks_between(starts // CHUNK, (ends - 1) // CHUNK)
        # Chunks in ascending order: a row that crosses into the next chunk stays in one piece.
        begins = np.searchsorted(needed, starts // CHUNK) * CHUNK + starts % CHUNK
        _scatter(self._indices.chunks(needed), begins, ends - starts, into, indices)
        _scatter(self._data.chunks(needed), begins, ends - starts, into, counts)
        return indptr, indices, counts


class _ShardedArray:
    """Whole chunks of one array that `_write_array` wrote: read, checked, decoded.

    A shard's file ends with its index (offset and length of each chunk, u64) and the index's
    crc32c; each chunk ends with its own. Source: Zarr v3 specification, sharding codec 1.0.
    """

    def __init__(self, folder: Path, segment_id: str) -> None:
        try:
            metadata = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
            sharding = metadata["codecs"][0]["configuration"]
            codecs = [codec["name"] for codec in sharding["codecs"]]
            (self.length,) = metadata["shape"]
            (shard,) = metadata["chunk_grid"]["configuration"]["chunk_shape"]
            chunk = sharding["chunk_shape"]
            self._dtype = np.dtype(metadata["data_type"])
            owner = metadata["attributes"][SEGMENT_ATTRIBUTE]
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise DamageError(f"{folder}/zarr.json is not what was written: {error!r}") from error
        if owner != segment_id:
            raise DamageError(f"{folder} says it is of segment {owner!r}, expected {segment_id!r}")
        if chunk != [CHUNK] or codecs != ["bytes", "blosc", "crc32c"]:
            raise DamageError(
                f"{folder} has chunks {chunk} of codecs {codecs}, expected [{CHUNK}] of "
                "bytes, blosc, crc32c"
            )
        self.n_chunks = -(-self.length // CHUNK)
        self._folder = folder
        self._per_shard = shard // CHUNK
        self._indexes: dict[int, NDArray[np.uint64]] = {}

    def chunks(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Some chunks one after the other. Shape (len(numbers) * CHUNK,)."""
        out = np.empty(len(numbers) * CHUNK, dtype=self._dtype)
        slots = [out[i * CHUNK : (i + 1) * CHUNK] for i in range(len(numbers))]
        if len(slots) == 1:
            self._decode(int(numbers[0]), slots[0])
        elif slots:
            with ThreadPoolExecutor(min(len(slots), _THREADS)) as pool:
                for _ in pool.map(self._decode, numbers.tolist(), slots):
                    pass
        return out

    def _decode(self, number: int, out: NDArray[Any]) -> None:
        shard, place = divmod(number, self._per_shard)
        path = self._folder / "c" / str(shard)
        try:
            with path.open("rb", buffering=0) as file:
                if shard not in self._indexes:
                    self._indexes[shard] = self._read_index(file, path)
                offset, length = self._indexes[shard][place].tolist()
                file.seek(offset)
                stored = file.read(length)
        except OSError as error:
            raise DamageError(f"{path} cannot be read: {error}") from error
        if len(stored) != length or not _has_its_checksum(stored):
            raise DamageError(f"{path}: chunk {number} is not what was written (crc32c differs)")
        _BLOSC.decode(stored[:-4], out=out)

    def _read_index(self, file: FileIO, path: Path) -> NDArray[np.uint64]:
        size = self._per_shard * 16 + 4
        file.seek(-size, os.SEEK_END)
        stored = file.read(size)
        if len(stored) != size or not _has_its_checksum(stored):
            raise DamageError(f"{path}: the index is not what was written (crc32c differs)")
        return np.frombuffer(stored[:-4], dtype="<u8").reshape(-1, 2)


def _has_its_checksum(stored: bytes) -> bool:
    return google_crc32c.value(stored[:-4]) == int.from_bytes(stored[-4:], "little")


def _chunks_between(first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every chunk of some inclusive ranges, each once, ascending."""
    lengths = last - first + 1
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.unique(np.repeat(first, lengths) + within)


@numba.njit(cache=True, nogil=True)
def _scatter(
    found: NDArray[Any],
    begins: NDArray[np.int64],
    lengths: NDArray[np.int64],
    into: NDArray[np.int64],
    out: NDArray[Any],
) -> None:  # pragma: no cover - compiled
    for piece in range(len(begins)):
        target = into[piece]
        for place in range(begins[piece], begins[piece] + lengths[piece]):
            out[target] = found[place]
            target += 1
