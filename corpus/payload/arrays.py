"""A segment's counts as an AnnData Zarr group: written once, read by rows. Knows no table.

Chunks are written and read by our own few lines (`corpus.shards`), which verify each one's crc32c:
zarrs 0.2.3 skips it inside shards (tried: of 300 flipped bits 269 gave wrong counts without a
word), and zarr's own pipeline, which verifies, is several times slower. A missing shard reads as
zeros in both; here it raises, and whoever opens a group has checked the files before
(`corpus.segments`).

Array suffixes: c cell, g gene, n stored non-zero.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from ...platform.errors import DamageError
from ..sparse_counts import Rows
from .integrity import WAY_OUT
from .pieces import Pieces
from .shards import CHUNK, SEGMENT_ATTRIBUTE, ShardedArray, write_shards

CHUNKS_PER_SHARD = 1 << 10
_CHUNKS_A_TASK = 8
_CSR = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0"}
_DICT = {"encoding-type": "dict", "encoding-version": "0.1.0"}


def write_counts(
    folder: Path,
    *,
    segment_id: str,
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    counts: NDArray[Any],
    n_genes: int,
    obs: Mapping[str, Sequence[Any]],
    var: Mapping[str, Sequence[Any]],
) -> None:
    """Write one matrix of counts as an AnnData group.

    Counts are u16 where all fit, else u32; gene positions u16 where all fit, else i32. Real
    values are f32, their zeros stored: what is not stored was not measured.

    Args:
        folder: the group's folder, not there yet.
        segment_id: goes into every array's attributes.
        indptr: where each cell's non-zeros begin and end. Shape (n_cells + 1,).
        indices: gene positions, ascending within a cell. Shape (n_nonzero,).
        counts: raw counts, > 0; or real values, float32. Shape (n_nonzero,).
        n_genes: number of columns.
        obs: columns of the cells; the first is the index.
        var: columns of the genes; the first is the index.
    """
    stored: type[np.generic] = np.float32
    if counts.dtype.kind != "f":
        small = not counts.size or int(counts.max()) <= np.iinfo(np.uint16).max
        stored = np.uint16 if small else np.uint32
    root = zarr.open_group(folder, mode="w", zarr_format=3)
    root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    matrix = root.create_group("X", attributes={**_CSR, "shape": [len(indptr) - 1, n_genes]})
    arrays: dict[str, NDArray[Any]] = {
        "data": counts.astype(stored),
        "indices": indices.astype(np.uint16 if n_genes <= 1 << 16 else np.int32),
        "indptr": indptr.astype(np.int64),
    }
    for name, values in arrays.items():
        _write_array(folder / "X", matrix, name, values, segment_id)
    for name in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
        root.create_group(name, attributes=_DICT)
    for name, columns in (("obs", obs), ("var", var)):
        _write_frame(folder / name, root, columns, segment_id)


def _write_array(
    folder: Path, group: zarr.Group, name: str, values: NDArray[Any], segment_id: str
) -> None:
    """Write an array into the group in `folder`: zarr its `zarr.json`, we its shards."""
    n_chunks = max(1, -(-len(values) // CHUNK))
    per_shard = min(n_chunks, CHUNKS_PER_SHARD)
    group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(CHUNK,),
        shards=(CHUNK * per_shard,),
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
    )
    write_shards(folder / name, values, per_shard)


def _write_frame(
    folder: Path, root: zarr.Group, columns: Mapping[str, Sequence[Any]], segment_id: str
) -> None:
    index, *others = columns
    frame = root.create_group(
        folder.name,
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
            _write_array(folder, frame, column, array, segment_id)
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

    def __init__(self, folder: Path, segment_id: str, n_genes: int, *, real: bool = False) -> None:
        """Open the arrays of a group that `write_counts` wrote.

        Args:
            folder: the group's folder.
            segment_id: the segment that the arrays must be of.
            n_genes: number of columns.
            real: whether they hold real values, not counts.

        Raises:
            DamageError: an array is of another segment, or the arrays contradict each other.
        """
        self._folder = folder
        self._n_genes = n_genes
        self._real = real
        stored = ("float32",) if real else ("uint16", "uint32")
        self._data = ShardedArray(folder / "X" / "data", segment_id, stored)
        self._indices = ShardedArray(folder / "X" / "indices", segment_id, ("uint16", "int32"))
        ends = ShardedArray(folder / "X" / "indptr", segment_id, ("int64",))
        for array in (ends, self._data, self._indices):
            array.check_shards()
        self.indptr: NDArray[np.int64] = ends.chunks(np.arange(ends.n_chunks))[: ends.length]
        if not ends.length or self.indptr[0] or (self.indptr[1:] < self.indptr[:-1]).any():
            raise DamageError(f"{folder}/X/indptr does not ascend from 0: {WAY_OUT}")
        end = int(self.indptr[-1])
        if self._data.length != end or self._indices.length != end:
            raise DamageError(
                f"{folder}: indptr ends at {end}, but data has {self._data.length} values "
                f"and indices {self._indices.length}: {WAY_OUT}"
            )

    @property
    def n_cells(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    def read(self, rows: NDArray[np.int64]) -> Rows:
        """Some rows, in the order asked for: indptr, indices, counts or real values.

        Each chunk that holds some of them is decoded once.

        Args:
            rows: row numbers; any order, repeats allowed. Shape (n_rows,).

        Raises:
            DamageError: a chunk is not what was written, or does not hold cells of these genes.
        """
        starts, ends = self.indptr[rows], self.indptr[rows + 1]
        indptr = np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int64)
        indices = np.empty(indptr[-1], dtype=np.int32)
        counts = np.empty(indptr[-1], dtype=np.float32 if self._real else np.uint32)
        full = starts < ends
        starts, ends, into = starts[full], ends[full], indptr[:-1][full]
        needed = _chunks_between(starts // CHUNK, (ends - 1) // CHUNK)
        # Chunks in ascending order: a row that crosses into the next chunk stays in one piece.
        begins = np.searchsorted(needed, starts // CHUNK) * CHUNK + starts % CHUNK
        found = self._indices.chunks(needed)
        if not _scatter_ascending(found, begins, ends - starts, into, indices, self._n_genes):
            raise DamageError(
                f"{self._folder}/X/indices: the genes of a cell do not ascend below "
                f"{self._n_genes}, so these are the indices of other cells: {WAY_OUT}"
            )
        positive = _scatter(self._data.chunks(needed), begins, ends - starts, into, counts)
        if self._real and not np.isfinite(counts).all():
            raise DamageError(
                f"{self._folder}/X/data: a stored value is not finite, so these are not the values "
                f"that were written: {WAY_OUT}"
            )
        if not self._real and not positive:
            raise DamageError(
                f"{self._folder}/X/data: a stored count is 0, so these are not the counts that "
                f"were written: {WAY_OUT}"
            )
        return indptr, indices, counts

    @property
    def dtypes(self) -> tuple[np.dtype[Any], np.dtype[Any]]:
        """How gene positions and counts are stored."""
        return self._indices.dtype, self._data.dtype

    def filling(
        self,
        rows: NDArray[np.int64],
        indices: NDArray[Any],
        counts: NDArray[Any],
        place: int,
    ) -> list[Callable[[], None]]:
        """What fills rows into memory as they are stored: for threads, in any order.

        Nothing is tested but the chunks' checksums: genes that do not ascend and counts of 0 are
        for whoever takes cells from that memory.

        Args:
            rows: row numbers, ascending, each once. Shape (n_rows,).
            indices: takes the gene positions; of `dtypes`, or wider.
            counts: takes the counts; of `dtypes`, or wider.
            place: where the first row is to begin; the others follow without a gap.
        """
        starts, stops = self.indptr[rows], self.indptr[rows + 1]
        starts, stops = starts[starts < stops], stops[starts < stops]
        if not len(starts):
            return []
        first = np.concatenate([[True], starts[1:] != stops[:-1]])  # of rows without a gap
        last = np.concatenate([first[1:], [True]])
        starts, stops = starts[first], stops[last]
        places = place + np.cumsum(stops - starts) - (stops - starts)
        tasks: list[Callable[[], None]] = []
        for some in Pieces.of(starts, stops, places, CHUNK).cut(_CHUNKS_A_TASK):
            tasks.append(partial(self._indices.fill, some, indices))
            tasks.append(partial(self._data.fill, some, counts))
        return tasks

    def blocks(
        self, n_chunks: int
    ) -> Iterator[tuple[int, NDArray[np.integer[Any]], NDArray[np.unsignedinteger[Any]]]]:
        """All non-zeros as they are stored, some chunks at a time, in this thread.

        Yields:
            The number of the first non-zero, the gene positions and the counts from there on:
            good until the next are asked for, which come to lie in the same memory.

        Raises:
            DamageError: a chunk does not decode to what was written.
        """
        rooms = self._indices.room(n_chunks), self._data.room(n_chunks)
        for start in range(0, self._data.n_chunks, n_chunks):
            numbers = np.arange(start, min(start + n_chunks, self._data.n_chunks))
            first = start * CHUNK
            n = min(len(numbers) * CHUNK, self._data.length - first)
            indices = self._indices.chunks(numbers, threads=1, room=rooms[0])[:n]
            yield first, indices, self._data.chunks(numbers, threads=1, room=rooms[1])[:n]

    @property
    def n_shards(self) -> int:
        """Shards that hold counts."""
        return self._data.n_shards

    def one_row_a_shard(self, rows: NDArray[np.int64]) -> list[tuple[int, int]]:
        """Each shard that holds some of the rows, and the place in `rows` of its first not empty.

        A row belongs to the shard that it begins in.
        """
        starts = self.indptr[rows]
        full = np.flatnonzero(starts < self.indptr[rows + 1])
        shards, first = np.unique(self._data.shard_of(starts[full]), return_index=True)
        return list(zip(shards.tolist(), full[first].tolist(), strict=True))


def _chunks_between(first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every chunk of some inclusive ranges, each once, ascending."""
    lengths = last - first + 1
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.unique(np.repeat(first, lengths) + within)


@numba.njit(cache=True, nogil=True)
def _scatter_ascending(
    found: NDArray[Any],
    begins: NDArray[np.int64],
    lengths: NDArray[np.int64],
    into: NDArray[np.int64],
    out: NDArray[np.int32],
    n_genes: int,
) -> bool:  # pragma: no cover - compiled
    """Copy the rows; tell whether each ascends strictly, from 0 up and below `n_genes`."""
    wrong = 0
    for piece in range(len(begins)):
        start, target, length = begins[piece], into[piece], lengths[piece]
        for i in range(length):
            out[target + i] = found[start + i]
        for i in range(1, length):  # without a branch it takes hardly any time
            wrong += out[target + i] <= out[target + i - 1]
        wrong += out[target] < 0 or out[target + length - 1] >= n_genes
    return wrong == 0


@numba.njit(cache=True, nogil=True)
def _scatter(
    found: NDArray[Any],
    begins: NDArray[np.int64],
    lengths: NDArray[np.int64],
    into: NDArray[np.int64],
    out: NDArray[Any],
) -> bool:  # pragma: no cover - compiled
    """Copy the rows; tell whether no number is 0."""
    zeros = 0
    for piece in range(len(begins)):
        start, target = begins[piece], into[piece]
        for i in range(lengths[piece]):
            count = found[start + i]
            out[target + i] = count
            zeros += count == 0
    return zeros == 0
