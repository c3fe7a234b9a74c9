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
class PackedCells:
    """The cells of a pack, whatever the pack looks like.

    Attributes:
        lengths: each cell's number of tokens, > 0.
    """

    lengths: tuple[int, ...]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.lengths)

    @property
    def n_tokens(self) -> int:
        """Number of their tokens."""
        return sum(self.lengths)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack(PackedCells):
    """Some cells' tokens end to end, ready for a model.

    Attributes:
        tokens: Shape (n_tokens,), int64.
        positions: each token's place in its own cell, from 0. Shape (n_tokens,), int64.
        offsets: where each cell begins and ends; the same as `lengths`. Shape (n_cells + 1,),
            int32.
        keys: the content key of each token's cell, as two's complement. Shape (n_tokens,), int64.
        rows: each cell's row in the TokenBatch that was packed. Shape (n_cells,).
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    offsets: torch.Tensor
    keys: torch.Tensor
    rows: tuple[int, ...]

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


Limit = tuple[NDArray[np.int64], int]
"""What each cell takes of something, shape (n_cells,), and how much of it a pack has."""


def pack_rows(
    lengths: Sequence[int], budget: int, *, also: Sequence[Limit] = ()
) -> list[list[int]]:
    """Deal cells to packs: longest first, each into the first pack that has room.

    Cells without tokens are left out. Pure: the same lengths give the same packs.

    Args:
        lengths: each cell's number of tokens.
        budget: the most tokens a pack holds.
        also: more that a pack has only so much of.

    Returns:
        The rows of each pack's cells, ascending inside a pack.

    Raises:
        TrainingError: a cell alone is over the budget, or over another limit.
    """
    rows_c, borders_p = _dealt(np.array(lengths, dtype=np.int64), budget, also)
    return [rows.tolist() for rows in np.split(rows_c, borders_p[1:-1]) if len(rows)]


def _dealt(
    lengths_c: NDArray[np.int64], budget: int, also: Sequence[Limit] = ()
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of `pack_rows` pack after pack, and where each pack's begin and end."""
    _refuse_long(lengths_c, budget)
    for taken_c, most in also:
        if len(taken_c) and int(taken_c.max()) > most:
            raise TrainingError(f"a cell takes {taken_c.max()} of a pack's {most} scored rows")
    taken_kc = np.stack([lengths_c, *(taken_c for taken_c, _ in also)])
    room_k = np.array([budget, *(most for _, most in also)], dtype=np.int64)
    pack_c = _first_fit(taken_kc, np.argsort(-lengths_c, kind="stable"), room_k)
    return _by_pack(pack_c)


def _refuse_long(lengths_c: NDArray[np.int64], budget: int) -> None:
    longest = int(lengths_c.max(initial=0))
    if longest > budget:
        raise TrainingError(
            f"a cell has {longest} tokens, a pack holds {budget}: set pack_tokens to at "
            "least the encoding's length"
        )


def _by_pack(pack_c: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows_c = np.argsort(pack_c, kind="stable")[np.count_nonzero(pack_c < 0) :]
    return rows_c, np.concatenate([[0], np.cumsum(np.bincount(pack_c[rows_c]))]).astype(np.int64)


@numba.njit(cache=True, nogil=True)
def _first_fit(
    taken_kc: NDArray[np.int64], order: NDArray[np.int64], room_k: NDArray[np.int64]
) -> NDArray[np.int64]:  # pragma: no cover - compiled
    """The number of each cell's pack, the first that has room; -1 for a cell without tokens."""
    n_kinds, n_cells = taken_kc.shape
    pack_c = np.full(n_cells, -1, dtype=np.int64)
    room_pk = np.empty((n_cells, n_kinds), dtype=np.int64)
    for pack in range(n_cells):
        room_pk[pack] = room_k
    for row in order:
        if not taken_kc[0, row]:
            continue
        pack = 0
        while True:
            fits = True
            for kind in range(n_kinds):
                fits &= taken_kc[kind, row] <= room_pk[pack, kind]
            if fits:
                break
            pack += 1
        for kind in range(n_kinds):
            room_pk[pack, kind] -= taken_kc[kind, row]
        pack_c[row] = pack
    return pack_c


def pack_cells(batch: TokenBatch, budget: int) -> list[Pack]:
    """Pack a batch's cells; see `pack_rows`."""
    return list(packs_of(batch, budget))


def packs_of(
    batch: TokenBatch, budget: int, rooms: Rooms | None = None, *, also: Sequence[Limit] = ()
) -> Iterator[Pack]:
    """A batch's packs, each made when it is asked for, so that it is used while it is in cache.

    Args:
        batch: the cells.
        budget: as in `pack_rows`.
        rooms: where memory for all of them comes from; None for new memory.
        also: as in `pack_rows`.
    """
    return _packs(batch, *_dealt(batch.lengths, budget, also), rooms)


def padded_packs_of(batch: TokenBatch, budget: int, rooms: Rooms | None = None) -> Iterator[Pack]:
    """A batch's packs for one cell a row: cells of like lengths together, longest first.

    A pack has at most `budget` tokens WITH the padding that makes its rows as long as its longest.
    Source: length grouping as in Geneformer's trainer (Theodoris et al. 2023), inside one group.
    """
    lengths_c = batch.lengths
    _refuse_long(lengths_c, budget)
    return _packs(batch, *_by_pack(_like_lengths(lengths_c, budget)), rooms)


def _like_lengths(lengths_c: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """The number of each cell's pack; -1 for a cell without tokens."""
    pack_c = np.full(len(lengths_c), -1, dtype=np.int64)
    pack, n_rows, longest = -1, 0, 0
    for row in np.argsort(-lengths_c, kind="stable"):
        if not lengths_c[row]:
            break
        if pack < 0 or (n_rows + 1) * longest > budget:
            pack, n_rows, longest = pack + 1, 0, int(lengths_c[row])
        n_rows += 1
        pack_c[row] = pack
    return pack_c


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
