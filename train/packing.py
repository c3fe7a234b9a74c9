"""Cells' tokens laid end to end in packs of a token budget. Knows no gene and no model.

A pack has no padding: the model is told where each cell begins and ends. Packs are made inside
one group of cells, so what they hold does not depend on how many ranks there are.
Array suffixes: c cell, t token position.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

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
    longest = max(lengths, default=0)
    if longest > budget:
        raise TrainingError(
            f"a cell has {longest} tokens, a pack holds {budget}: set pack_tokens to at "
            "least the encoding's length"
        )
    packs: list[list[int]] = []
    room: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        length = lengths[row]
        if not length:
            continue
        place = next((i for i, left in enumerate(room) if left >= length), None)
        if place is None:
            packs.append([])
            room.append(budget)
            place = len(packs) - 1
        packs[place].append(row)
        room[place] -= length
    return [sorted(rows) for rows in packs]


def pack_cells(batch: TokenBatch, budget: int) -> list[Pack]:
    """Pack a batch's cells; see `pack_rows`."""
    return [pack_of(batch, rows) for rows in pack_rows(batch.lengths.tolist(), budget)]


def pack_of(batch: TokenBatch, rows: Sequence[int]) -> Pack:
    """One pack of some cells, in the order given; each must have a token."""
    lengths_c = batch.lengths[list(rows)]
    offsets_c = np.concatenate([[0], np.cumsum(lengths_c)])
    parts = [batch.cell(row) for row in rows]
    keys_c = batch.keys[list(rows)].astype(np.uint64).view(np.int64)
    positions_t = np.arange(offsets_c[-1]) - np.repeat(offsets_c[:-1], lengths_c)
    return Pack(
        tokens=torch.from_numpy(np.concatenate(parts).astype(np.int64)),
        positions=torch.from_numpy(positions_t.astype(np.int64)),
        offsets=torch.from_numpy(offsets_c.astype(np.int32)),
        lengths=tuple(lengths_c.tolist()),
        keys=torch.from_numpy(np.repeat(keys_c, lengths_c)),
        rows=tuple(int(row) for row in rows),
    )


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
