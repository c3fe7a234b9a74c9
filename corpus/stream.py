"""Some cells of a snapshot, in an order that is a pure function of seed and epoch.

Knows no file and no model. The order depends neither on the number of ranks nor of threads, and
is the same in a corpus built anew from the same files: rows are sorted by (source sha256, first
row of the unit, row) before `corpus.order` permutes them.
"""

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .cells import CellBatch
from .gene_axis import GeneAxis
from .held_cells import HeldCells, hold
from .order import BLOCK, BUFFER, epoch_order
from .rooms import Rooms
from .sparse_counts import Rows

if TYPE_CHECKING:
    from .store import Corpus


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Cells of a snapshot that a query chose, in canonical order. All arrays: shape (n_cells,).

    Attributes:
        segment_ids: the segments that hold them.
        segment: position in `segment_ids`, int32.
        row: row in the segment, int32.
        cell_id: int64.
        content_key: first 64 bits of the content hash, uint64.
        n_counts: each cell's total before gene mapping, int64.
        digest: hash of the content hashes in order: the same cells in a corpus built anew have it.
        snapshot: the snapshot's number.
        where: the query; None for all.
        part: the part of the split; None without one.
        primary_only: equal contents appear once.
        n_bulk_left_out: bulk samples that the query chose among cells, and that are not here.
    """

    segment_ids: tuple[str, ...]
    segment: NDArray[np.int32]
    row: NDArray[np.int32]
    cell_id: NDArray[np.int64]
    content_key: NDArray[np.uint64]
    n_counts: NDArray[np.int64]
    digest: str
    snapshot: int
    where: str | None = None
    part: str | None = None
    primary_only: bool = True
    n_bulk_left_out: int = 0

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.row)

    def only(self, chosen: NDArray[np.bool_], why: str) -> "Selection":
        """Some of the cells.

        Args:
            chosen: which. Shape (n_cells,).
            why: what decides them, with all its settings; becomes part of the digest.
        """
        digest = hashlib.blake2b(f"{self.digest}\n{why}".encode(), digest_size=16).hexdigest()
        return replace(
            self,
            segment=self.segment[chosen],
            row=self.row[chosen],
            cell_id=self.cell_id[chosen],
            content_key=self.content_key[chosen],
            n_counts=self.n_counts[chosen],
            digest=digest,
        )


def selection_digest(hashes: NDArray[np.uint64]) -> str:
    """The digest of cells by their content hashes, shape (n_cells, 2), in order."""
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, len(hashes), 1 << 16):  # no second copy of all of them
        digest.update(hashes[start : start + (1 << 16)].astype("<u8").tobytes())
    return digest.hexdigest()


class Stream:
    """Groups of an epoch's cells, by number: any rank asks for the groups that are its own.

    A group is one batch over one gene list, that of all segments of the selection joined; a gene
    that is absent from a cell is 0 or was not measured (view `measured` says which). A whole
    buffer is read at once by threads of the stream's own, one buffer ahead of its use; groups are
    taken from memory. A selection that fits one buffer is read once and for all. Price: two
    buffers in memory (16,384 cells of 2,000 non-zeros are 0.13 GB each).
    """

    def __init__(
        self,
        corpus: "Corpus",
        selection: Selection,
        *,
        seed: int,
        cells_per_group: int,
        columns: Sequence[str] = (),
        block: int = BLOCK,
        buffer: int = BUFFER,
        threads: int | None = None,
    ) -> None:
        """Prepare; nothing is read before the first group.

        Args:
            corpus: where the cells lie.
            selection: which cells.
            seed: of the run.
            cells_per_group: cells in a group; the last of an epoch may have fewer.
            columns: columns of `cells` that the batches carry beside `cell_id`.
            block: the number that sets how well cells are mixed; see `epoch_order`.
            buffer: as in `epoch_order`; a multiple of `cells_per_group` reads fastest.
            threads: that unpack; as many as there are cores, 4 at most, where None.
        """
        self.corpus, self.selection = corpus, selection
        self.seed, self.cells_per_group = seed, cells_per_group
        self._columns = tuple(name for name in columns if name != "cell_id")
        self._block, self._buffer = block, buffer
        self._orders: dict[int, NDArray[np.int64]] = {}
        self._held: dict[tuple[int, int], Future[HeldCells]] = {}
        self._joint: tuple[GeneAxis, NDArray[np.int32]] | None = None
        self._lock = threading.Lock()
        # Two buffers of two arrays: both may be let go before either's memory is asked for.
        self._buffer_rooms, self._batch_rooms = Rooms(kept=4), Rooms(kept=16)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="cytolake-stream")
        self._unpackers = ThreadPoolExecutor(
            threads or min(4, os.cpu_count() or 1), thread_name_prefix="cytolake-unpack"
        )

    @property
    def n_groups(self) -> int:
        """Groups in an epoch."""
        return -(-self.selection.n_cells // self.cells_per_group)

    @property
    def gene_ids(self) -> NDArray[np.object_]:
        """The gene list of every batch. Shape (n_genes,), dtype object (str)."""
        return self._axis()[0].gene_ids

    def group(self, epoch: int, index: int) -> list[CellBatch]:
        """The cells of one group, in the epoch's order, as one batch.

        Raises:
            DamageError: what is stored is not what was written.
        """
        order = self._order(epoch)
        start = index * self.cells_per_group
        stop = min(start + self.cells_per_group, len(order))
        axis, _ = self._axis()
        taken: list[Rows] = []
        for number in range(start // self._buffer, (stop - 1) // self._buffer + 1):
            first, last = number * self._buffer, (number + 1) * self._buffer
            held = self._hold(order, epoch, number)
            if last < len(order):
                self._hold(order, epoch, number + 1)
            positions = order[max(start, first) : min(stop, last)]
            taken.append(held.result().take(positions, axis, self._batch_rooms))
        rows = taken[0] if len(taken) == 1 else _joined(taken)
        chosen, names = self.selection, axis.gene_ids
        return [self.corpus.batch_of(chosen, order[start:stop], names, rows, self._columns)]

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[list[CellBatch]]:
        """The groups of an epoch in order, from group `start` on."""
        for index in range(start, self.n_groups):
            yield self.group(epoch, index)

    def close(self) -> None:
        """Let the reading threads go."""
        self._reader.shutdown(wait=True, cancel_futures=True)
        self._unpackers.shutdown(wait=True, cancel_futures=True)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        with self._lock:
            if epoch not in self._orders:
                order = epoch_order(
                    self.selection.n_cells,
                    seed=self.seed,
                    epoch=epoch,
                    block=self._block,
                    buffer=self._buffer,
                )
                self._orders = {epoch: order}
            return self._orders[epoch]

    def _axis(self) -> tuple[GeneAxis, NDArray[np.int32]]:
        """The joint gene list, and the number in it of each segment's list."""
        with self._lock:
            if self._joint is None:
                ids = self.selection.segment_ids
                lists: dict[int, NDArray[np.object_]] = {}
                list_of = np.full(len(ids), -1, dtype=np.int32)
                for number in np.unique(self.selection.segment).tolist():
                    with self.corpus.state.telling_of_its_end():
                        names = self.corpus.segment(ids[number]).gene_ids
                    lists.setdefault(id(names), names)  # equal lists are one object
                    list_of[number] = list(lists).index(id(names))
                self._joint = GeneAxis.of(list(lists.values())), list_of
            return self._joint

    def _hold(self, order: NDArray[np.int64], epoch: int, number: int) -> "Future[HeldCells]":
        # All cells in one buffer: an epoch's buffer is any other's.
        key = (epoch, number) if len(order) > self._buffer else (0, 0)
        with self._lock:
            held = self._held.pop(key, None)
            while len(self._held) > 1:  # let go first, so that the memory is there for the next
                self._held.pop(next(iter(self._held)))
            if held is None:
                positions = np.sort(order[number * self._buffer : (number + 1) * self._buffer])
                held = self._reader.submit(self._read, positions)
            self._held[key] = held  # the newest stands last
        return held

    def _read(self, positions: NDArray[np.int64]) -> HeldCells:
        chosen, (_, list_of) = self.selection, self._axis()
        self.corpus.check_selection(chosen)
        numbers, starts = np.unique(chosen.segment[positions], return_index=True)
        parts = [
            (
                self.corpus.segment(chosen.segment_ids[number]),
                int(list_of[number]),
                chosen.row[mine].astype(np.int64),
                chosen.content_key[mine],
            )
            for number, mine in zip(numbers, np.split(positions, starts[1:]), strict=True)
        ]
        with self.corpus.state.telling_of_its_end():
            return hold(positions, parts, self._buffer_rooms, self._unpackers)


def _joined(taken: Sequence[Rows]) -> Rows:
    """Rows of several buffers, one after the other."""
    lengths = np.concatenate([np.diff(indptr) for indptr, _, _ in taken])
    return (
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([indices for _, indices, _ in taken]),
        np.concatenate([counts for _, _, counts in taken]),
    )
