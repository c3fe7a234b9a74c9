"""Cells' tokens laid end to end in packs of a token budget. Knows no gene and no model.

A pack has no padding: the model is told where each cell begins and ends. Packs are made inside
one group of cells, so what they hold does not depend on how many ranks there are.
Array suffixes: c cell, t token position.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from ..corpus.rooms import Rooms
from ..platform.errors import TrainingError
from .encodings.tokens import TokenBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """Some cells' tokens end to end, ready for a model.

    Attributes:
        tokens: Shape (n_tokens,), int64.
        positions: each token's place in its own cell, from 0. Shape (n_tokens,), int64.
        offsets: where each cell begins and ends. Shape (n_cells + 1,), int32.
        lengths: each cell's number of tokens, > 0; the same as `offsets`, on the host.
        keys: the content key of each token's cell, as two's complement. Shape (n_tokens,), int64.
        rows: each cell's row in the TokenBatch that was packed. Shape (n_cells,).
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    offsets: torch.Tensor
    lengths: tuple[int, ...]
    keys: torch.Tensor
    rows: tuple[int, ...]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.lengths)

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return sum(self.lengths)

    def to(self, device: torch.device | str) -> "Pack":
        """The same pack on a device."""
        return Pack(
            tokens=self.tokens.to(device),
            positions=self.positions.to(device),
            offsets=self.offsets.to(device),
            lengths=self.lengths,
            keys=self.keys.to(device),
            rows=self.rows,
        )


def pack_rows(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Deal cells to packs: longest first, each into the first pack that has room.

    Cells without tokens are left out. Pure: the same lengths give the same packs.

    Args:
        lengths: each cell's number of tokens.
        budget: the most tokens a pack holds.

    Returns:
        The rows of each pack's cells, ascending inside a pack.

    Raises:
        TrainingError: a cell alone is over the budget.
    """
    rows_c, borders_p = _dealt(np.array(lengths, dtype=np.int64), budget)
    return [rows.tolist() for rows in np.split(rows_c, borders_p[1:-1]) if len(rows)]


def _dealt(
    lengths_c: NDArray[np.int64], budget: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of `pack_rows` pack after pack, and where each pack's begin and end."""
    longest = int(lengths_c.max(initial=0))
    if longest > budget:
        raise TrainingError(
            f"a cell has {longest} tokens, a pack holds {budget}: set pack_tokens to at "
            "least the encoding's length"
        )
    pack_c = _first_fit(lengths_c, np.argsort(-lengths_c, kind="stable"), budget)
    rows_c = np.argsort(pack_c, kind="stable")[np.count_nonzero(pack_c < 0) :]
    return rows_c, np.concatenate([[0], np.cumsum(np.bincount(pack_c[rows_c]))]).astype(np.int64)


@numba.njit(cache=True, nogil=True)
def _first_fit(
    lengths_c: NDArray[np.int64], order: NDArray[np.int64], budget: int
) -> NDArray[np.int64]:  # pragma: no cover - compiled
    """The number of each cell's pack, the first that has room; -1 for a cell without tokens."""
    pack_c = np.full(len(lengths_c), -1, dtype=np.int64)
    room = np.full(len(lengths_c), budget, dtype=np.int64)
    for row in order:
        if not lengths_c[row]:
            continue
        pack = 0
        while room[pack] < lengths_c[row]:
            pack += 1
        room[pack] -= lengths_c[row]
        pack_c[row] = pack
    return pack_c


def pack_cells(batch: TokenBatch, budget: int) -> list[Pack]:
    """Pack a batch's cells; see `pack_rows`."""
    return list(packs_of(batch, budget))


def packs_of(batch: TokenBatch, budget: int, rooms: Rooms | None = None) -> Iterator[Pack]:
    """A batch's packs, each made when it is asked for, so that it is used while it is in cache.

    Args:
        batch: the cells.
        budget: as in `pack_rows`.
        rooms: where memory for all of them comes from; None for new memory.
    """
    return _packs(batch, *_dealt(batch.lengths, budget), rooms)


def pack_of(batch: TokenBatch, rows: Sequence[int]) -> Pack:
    """One pack of some cells, in the order given; each must have a token."""
    rows_c = np.array(rows, dtype=np.int64)
    return next(_packs(batch, rows_c, np.array([0, len(rows_c)]), None))


def _packs(
    batch: TokenBatch,
    rows_c: NDArray[np.int64],
    borders_p: NDArray[np.int64],
    rooms: Rooms | None,
) -> Iterator[Pack]:
    """Packs of some rows, pack after pack; memory is asked for once, and each has its part."""
    begins_c = batch.offsets[rows_c]
    lengths_c = batch.offsets[rows_c + 1] - begins_c
    ends_c = np.concatenate([[0], np.cumsum(lengths_c)]).astype(np.int64)
    keys_c = batch.keys[rows_c].astype(np.uint64, copy=False).view(np.int64)
    size = 3 * int(ends_c[-1])
    room = np.empty(size, dtype=np.int64) if rooms is None else rooms.empty(size, np.int64)
    rows, lengths = rows_c.tolist(), lengths_c.tolist()
    for first, last in pairwise(borders_p.tolist()):
        begin, end = int(ends_c[first]), int(ends_c[last])
        laid = room[3 * begin : 3 * end].reshape(3, end - begin)
        offsets_c = ends_c[first : last + 1] - begin
        _lay(batch.tokens, begins_c[first:last], offsets_c, keys_c[first:last], laid)
        tokens_t, positions_t, keys_t = torch.from_numpy(laid).unbind()
        yield Pack(
            tokens=tokens_t,
            positions=positions_t,
            offsets=torch.from_numpy(offsets_c.astype(np.int32)),
            lengths=tuple(lengths[first:last]),
            keys=keys_t,
            rows=tuple(rows[first:last]),
        )


@numba.njit(cache=True, nogil=True)
def _lay(
    tokens: NDArray[np.int32],
    begins_c: NDArray[np.int64],
    offsets_c: NDArray[np.int64],
    keys_c: NDArray[np.int64],
    laid: NDArray[np.int64],
) -> None:  # pragma: no cover - compiled
    """Write each cell's tokens, positions and key, cell after cell."""
    for c in range(len(begins_c)):
        begin, end = offsets_c[c], offsets_c[c + 1]
        found = tokens[begins_c[c] : begins_c[c] + end - begin]
        to_tokens, to_positions = laid[0, begin:end], laid[1, begin:end]
        for i in range(len(to_tokens)):
            to_tokens[i] = found[i]
        for i in range(len(to_positions)):
            to_positions[i] = i
        laid[2, begin:end] = keys_c[c]


def empty_pack() -> Pack:
    """One pad token and no real cell: weight 0, for a rank that has no cells in a step."""
    return Pack(
        tokens=torch.zeros(1, dtype=torch.int64),
        positions=torch.zeros(1, dtype=torch.int64),
        offsets=torch.tensor([0, 1], dtype=torch.int32),
        lengths=(1,),
        keys=torch.zeros(1, dtype=torch.int64),
        rows=(),
    )
