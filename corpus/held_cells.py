"""Some cells' counts held in memory as they are stored, and batches taken from them.

Knows segments' counts; knows no order and no epoch. Counts stay as narrow as they are stored (two
bytes a gene, two a count) until a batch is taken; a batch is one pass over its own cells.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ..platform.errors import DamageError
from .gene_axis import GeneAxis
from .payload.integrity import WAY_OUT
from .payload.segments import Segment
from .rooms import Rooms
from .sparse_counts import Rows


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldCells:
    """Counts of some cells of a selection.

    Attributes:
        positions: of the cells, ascending. Shape (n_cells,).
        begins: where each cell begins in `indices` and `counts`. Shape (n_cells + 1,), int64.
        list_of: each cell's gene list, a number of the axis. Shape (n_cells,), int32.
        segment_of: number of each cell's segment in `segments`. Shape (n_cells,), int32.
        segments: those that hold the cells.
        indices: gene positions in each cell's own list, as stored. Shape (n_nonzero,).
        counts: as stored. Shape (n_nonzero,).
    """

    positions: NDArray[np.int64]
    begins: NDArray[np.int64]
    list_of: NDArray[np.int32]
    segment_of: NDArray[np.int32]
    segments: tuple[Segment, ...]
    indices: NDArray[Any]
    counts: NDArray[Any]

    def take(self, positions: NDArray[np.int64], axis: GeneAxis, rooms: Rooms) -> Rows:
        """Some of the cells in the order asked for, their genes as places in the joint list.

        Args:
            positions: of the selection, all of them held. Shape (n_rows,).
            axis: joins the gene lists that `list_of` names.
            rooms: where memory comes from.

        Raises:
            DamageError: a cell's genes do not ascend below its list's length, or a count is 0.
        """
        cells = np.searchsorted(self.positions, positions)
        lengths = self.begins[cells + 1] - self.begins[cells]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        indices = rooms.empty(int(indptr[-1]), np.int32)
        counts = rooms.empty(int(indptr[-1]), np.uint32)
        lists = self.list_of[cells]
        wrong = _take(
            self.indices,
            self.counts,
            self.begins[cells],
            indptr,
            axis.sizes[lists],
            axis.starts[lists],
            axis.places,
            indices,
            counts,
        )
        if wrong >= 0:
            folder = self.segments[self.segment_of[cells[wrong]]].record.folder
            raise DamageError(
                f"{folder}/rna.zarr/X: the genes of a cell do not ascend below its "
                f"{axis.sizes[lists[wrong]]} genes or a stored count is 0, so these are not the "
                f"counts that were written: {WAY_OUT}"
            )
        return indptr, indices, counts


def hold(
    positions: NDArray[np.int64],
    parts: Sequence[tuple[Segment, int, NDArray[np.int64], NDArray[np.uint64]]],
    rooms: Rooms,
    threads: Executor,
) -> HeldCells:
    """Read cells into memory, all threads at once.

    Args:
        positions: of the cells in the selection, ascending. Shape (n_cells,).
        parts: for each segment, in the order of the positions: the segment, the number of its
            gene list, the rows, ascending, and the cells' content keys.
        rooms: where memory comes from.
        threads: that unpack.

    Raises:
        DamageError: a chunk does not decode to what was written.
    """
    lengths = [np.diff(s.counts.indptr)[rows] for s, _, rows, _ in parts]
    begins = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    kinds = [segment.counts.dtypes for segment, *_ in parts]
    index_type, count_type = (np.result_type(*of_one) for of_one in zip(*kinds, strict=True))
    n = int(begins[-1])
    indices, counts = rooms.empty(n, index_type), rooms.empty(n, count_type)
    tasks: list[Callable[[], None]] = []
    first = 0
    for segment, _, rows, keys in parts:
        segment.prove(rows, keys)
        tasks += segment.counts.filling(rows, indices, counts, int(begins[first]))
        first += len(rows)
    for done in [threads.submit(task) for task in tasks]:
        done.result()
    sizes = [len(rows) for _, _, rows, _ in parts]
    return HeldCells(
        positions=positions,
        begins=begins,
        list_of=np.repeat([number for _, number, _, _ in parts], sizes).astype(np.int32),
        segment_of=np.repeat(np.arange(len(parts)), sizes).astype(np.int32),
        segments=tuple(segment for segment, *_ in parts),
        indices=indices,
        counts=counts,
    )


@numba.njit(cache=True, nogil=True)
def _take(
    indices: NDArray[Any],
    counts: NDArray[Any],
    begins: NDArray[np.int64],
    indptr: NDArray[np.int64],
    sizes: NDArray[np.int64],
    starts: NDArray[np.int64],
    places: NDArray[np.int32],
    out_indices: NDArray[np.int32],
    out_counts: NDArray[np.uint32],
) -> int:  # pragma: no cover - compiled
    """Copy cells, widened, their genes moved to the joint list; the first damaged one, or -1."""
    for c in range(len(begins)):
        length = indptr[c + 1] - indptr[c]
        if not length:
            continue
        # Slices first: what counts from 0 to their length is done many at once.
        genes = indices[begins[c] : begins[c] + length]
        found = counts[begins[c] : begins[c] + length]
        to_genes = out_indices[indptr[c] : indptr[c + 1]]
        to_counts = out_counts[indptr[c] : indptr[c + 1]]
        wrong = np.uint32(0)
        for i in range(len(to_genes)):
            to_genes[i] = genes[i]
        for i in range(len(to_counts)):
            to_counts[i] = found[i]
        for i in range(len(found)):
            wrong |= np.uint32(found[i] == 0)
        for i in range(len(genes) - 1):
            wrong |= np.uint32(genes[i + 1] <= genes[i])
        if wrong or to_genes[0] < 0 or to_genes[length - 1] >= sizes[c]:
            return c
        if len(places):
            own = places[starts[c] : starts[c] + sizes[c]]
            for i in range(len(to_genes)):
                to_genes[i] = own[to_genes[i]]
    return -1
