"""Some cells of a snapshot, in an order that is a pure function of seed and epoch.

Knows no file and no model. The order depends neither on the number of ranks nor of threads, and
is the same in a corpus built anew from the same files: rows are sorted by (source sha256, first
row of the unit, row), and permutations sort integer hashes, so that no random generator's version
matters.
"""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .cells import CellBatch

if TYPE_CHECKING:
    from .store import Corpus

BLOCK = 64
"""Neighbouring cells that travel together: about one chunk of a segment."""

BUFFER = 16_384
"""Cells that are mixed with one another."""


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


def epoch_order(
    selection: Selection, *, seed: int, epoch: int, block: int = BLOCK, buffer: int = BUFFER
) -> NDArray[np.int64]:
    """The epoch's order of a selection: blocks permuted, then cells within buffers.

    Args:
        selection: the cells.
        seed: of the run.
        epoch: from 0.
        block: neighbouring cells that travel together to the buffer.
        buffer: cells that are mixed with one another; quality depends on buffer / block.

    Returns:
        Positions in the selection, each once. Shape (n_cells,).
    """
    n_cells = selection.n_cells
    blocks = np.arange(-(-n_cells // block))
    blocks = blocks[np.argsort(_scatter(blocks, seed, epoch, 1), kind="stable")]
    order = (blocks[:, None] * block + np.arange(block)[None, :]).ravel()
    order = order[order < n_cells]
    mixed = _scatter(order, seed, epoch, 2)
    buffer_of = np.arange(n_cells) // buffer
    return order[np.lexsort((mixed, buffer_of))]


def groups(order: NDArray[np.int64], cells_per_group: int) -> list[NDArray[np.int64]]:
    """Cut an order into groups of a fixed number of cells; the last may have fewer."""
    return [order[i : i + cells_per_group] for i in range(0, len(order), cells_per_group)]


def selection_digest(hashes: NDArray[np.uint64]) -> str:
    """The digest of cells by their content hashes, shape (n_cells, 2), in order."""
    data = np.ascontiguousarray(hashes.astype("<u8")).tobytes()
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _scatter(values: NDArray[np.int64], seed: int, epoch: int, use: int) -> NDArray[np.uint64]:
    """Hash integers under a key: splitmix64's finaliser, twice."""
    key = hashlib.blake2b(f"{seed}/{epoch}/{use}".encode(), digest_size=8).digest()
    mixed = values.astype(np.uint64) + np.frombuffer(key, dtype="<u8")
    for _ in range(2):
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed


class Stream:
    """Groups of an epoch's cells, by number: any rank asks for the groups that are its own.

    A whole buffer is read at once, block by block, by a thread of its own, one buffer ahead of its
    use; groups are picked from memory. A selection that fits one buffer is read once and for all.
    Price: two buffers in memory (16,384 cells of 2,000 non-zeros are 0.26 GB each).
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
    ) -> None:
        """Prepare; nothing is read before the first group.

        Args:
            corpus: where the cells lie.
            selection: which cells.
            seed: of the run.
            cells_per_group: cells in a group; the last of an epoch may have fewer.
            columns: columns of `cells` that the batches carry beside `cell_id`.
            block: as in `epoch_order`.
            buffer: as in `epoch_order`; a multiple of `cells_per_group` reads fastest.
        """
        self.corpus, self.selection = corpus, selection
        self.seed, self.cells_per_group = seed, cells_per_group
        self._columns = tuple(columns)
        self._block, self._buffer = block, buffer
        self._orders: dict[int, NDArray[np.int64]] = {}
        self._held: dict[str, Future[_HeldCells]] = {}
        self._lock = threading.Lock()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="cytolake-stream")

    @property
    def n_groups(self) -> int:
        """Groups in an epoch."""
        return -(-self.selection.n_cells // self.cells_per_group)

    def group(self, epoch: int, index: int) -> list[CellBatch]:
        """The cells of one group, one batch a segment, exactly as `Corpus.read` gives them."""
        order = self._order(epoch)
        start = index * self.cells_per_group
        positions = order[start : start + self.cells_per_group]
        number = start // self._buffer
        if (start + len(positions) - 1) // self._buffer != number:
            return self.corpus.read(self.selection, positions, columns=self._columns)
        held = self._hold(order, number)
        if (number + 1) * self._buffer < len(order):
            self._hold(order, number + 1)
        return held.result().take(positions)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[list[CellBatch]]:
        """The groups of an epoch in order, from group `start` on."""
        for index in range(start, self.n_groups):
            yield self.group(epoch, index)

    def close(self) -> None:
        """Let the reading thread go."""
        self._reader.shutdown(wait=True, cancel_futures=True)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        with self._lock:
            if epoch not in self._orders:
                order = epoch_order(
                    self.selection,
                    seed=self.seed,
                    epoch=epoch,
                    block=self._block,
                    buffer=self._buffer,
                )
                self._orders = {epoch: order}
            return self._orders[epoch]

    def _hold(self, order: NDArray[np.int64], number: int) -> "Future[_HeldCells]":
        positions = np.sort(order[number * self._buffer : (number + 1) * self._buffer])
        key = hashlib.blake2b(positions.tobytes(), digest_size=16).hexdigest()
        with self._lock:
            held = self._held.pop(key, None) or self._reader.submit(self._read, positions)
            self._held[key] = held  # the newest stands last
            while len(self._held) > 2:
                self._held.pop(next(iter(self._held)))
        return held

    def _read(self, positions: NDArray[np.int64]) -> "_HeldCells":
        batches = self.corpus.read(self.selection, positions, columns=self._columns)
        return _HeldCells(selection=self.selection, positions=positions, batches=batches)


@dataclass(frozen=True, kw_only=True, slots=True)
class _HeldCells:
    """Cells in memory: ascending positions of a selection, one batch a segment."""

    selection: Selection
    positions: NDArray[np.int64]
    batches: list[CellBatch]

    def take(self, positions: NDArray[np.int64]) -> list[CellBatch]:
        held, starts = np.unique(self.selection.segment[self.positions], return_index=True)
        segment = self.selection.segment[positions]
        taken: list[CellBatch] = []
        for number, start, batch in zip(held, starts, self.batches, strict=True):
            wanted = positions[segment == number]
            if wanted.size:
                taken.append(batch.take(np.searchsorted(self.positions, wanted) - start))
        return taken
