"""Packs of one static shape, so that a GPU compiles once and never waits. Knows no model.

A static pack has the same number of tokens, cells and scored rows whatever it holds: what is left
over is filled with pad tokens in cells of their own, which nothing chooses and nothing scores.
They cost what any token costs outside attention; inside it little, for these cells are short.
Which tokens are hidden is decided on the device; the host counts them, by the same hash, so that
none is ever dropped. Array suffixes: c cell, t token position.
"""

import math
from dataclasses import dataclass, replace

import torch

from .packing import Pack, PackedCells

_PLACES_OF_LONGEST = 8
"""A pack has places for cells of an eighth of the longest on average; more fill another pack."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StaticShape:
    """The shape that all packs of a run have.

    Attributes:
        n_tokens: tokens, with those that fill.
        n_cells: places for cells, with those that fill; empty ones cost nothing.
        n_scored: rows that the head scores.
        longest: the most tokens of a cell.
    """

    n_tokens: int
    n_cells: int
    n_scored: int
    longest: int

    @property
    def n_real_cells(self) -> int:
        """Cells that a pack may hold besides those that fill."""
        return self.n_cells - math.ceil(self.n_tokens / self.longest)


def static_shape(*, pack_tokens: int, length: int, share: float) -> StaticShape:
    """The shape for packs of a budget.

    Scored rows: the expected number of chosen tokens and six standard deviations more, in whole
    multiples of 128; a pack that would overflow is made smaller (`packing.packs_of`), and one cell
    always fits.

    Args:
        pack_tokens: the most tokens of a pack.
        length: the most tokens of a cell.
        share: the share of tokens that is chosen.
    """
    deviation = math.sqrt(share * (1 - share) * pack_tokens)
    rows = min(pack_tokens, max(share * pack_tokens + 6 * deviation, min(length, pack_tokens)))
    longest = min(length, pack_tokens)
    real_cells = math.ceil(pack_tokens * _PLACES_OF_LONGEST / longest)
    return StaticShape(
        n_tokens=pack_tokens,
        n_cells=real_cells + math.ceil(pack_tokens / longest),
        n_scored=128 * math.ceil(rows / 128),
        longest=longest,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class StaticPack(PackedCells):
    """Some cells' tokens, filled up to a static shape; nothing is hidden yet.

    `lengths`, `n_cells` and `n_tokens` are those of real cells.

    Attributes:
        tokens: pad tokens at the end. Shape (shape.n_tokens,), int32.
        offsets: where each cell begins and ends; places without a cell are empty.
            Shape (shape.n_cells + 1,), int32.
        keys: each cell's content key, as two's complement. Shape (shape.n_cells,), int64.
        begin: what the epoch's masks begin with. Shape (), int64.
        shape: the static shape.
        n_masked: tokens that will be chosen.
        cell_rows: each real cell's row in the TokenBatch that was packed.
    """

    tokens: torch.Tensor
    offsets: torch.Tensor
    keys: torch.Tensor
    begin: torch.Tensor
    shape: StaticShape
    n_masked: int
    cell_rows: tuple[int, ...]

    @property
    def n_laid(self) -> int:
        """Number of tokens that the model runs over: with those that fill."""
        return self.shape.n_tokens

    def pinned(self) -> "StaticPack":
        """The same in memory that a GPU copies from while the host goes on."""
        return self._with(*(x.pin_memory() for x in self._tensors))

    def to(self, device: torch.device) -> "StaticPack":
        """The same on a device; the host does not wait where this is pinned."""
        if self.tokens.device == device:
            return self
        return self._with(*(x.to(device, non_blocking=True) for x in self._tensors))

    @property
    def _tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.tokens, self.offsets, self.keys, self.begin

    def _with(
        self, tokens: torch.Tensor, offsets: torch.Tensor, keys: torch.Tensor, begin: torch.Tensor
    ) -> "StaticPack":
        return replace(self, tokens=tokens, offsets=offsets, keys=keys, begin=begin)


def static_pack(pack: Pack, shape: StaticShape, *, begin: int, n_masked: int) -> StaticPack:
    """Fill a pack up to a shape that has room for it.

    Args:
        pack: the cells.
        shape: at least as large.
        begin: what the epoch's masks begin with (`hashed_masks.Rule.begin`).
        n_masked: how many of the pack's tokens that epoch's masks choose.
    """
    n_tokens = pack.n_tokens
    tokens = torch.zeros(shape.n_tokens, dtype=torch.int32)
    tokens[:n_tokens] = pack.tokens
    offsets = torch.full((shape.n_cells + 1,), shape.n_tokens, dtype=torch.int32)
    n_offsets = len(pack.offsets)
    offsets[:n_offsets] = pack.offsets
    # Attention costs a cell's squared length: what fills is dealt to all places that are left.
    n_places, n_fill = shape.n_cells + 1 - n_offsets, shape.n_tokens - n_tokens
    offsets[n_offsets - 1 : -1] = n_tokens + torch.arange(n_places) * n_fill // n_places
    keys = torch.zeros(shape.n_cells, dtype=torch.int64)
    begins = pack.offsets[:-1].long()
    keys[: len(begins)] = pack.keys[begins]
    return StaticPack(
        tokens=tokens,
        offsets=offsets,
        keys=keys,
        begin=torch.tensor(begin, dtype=torch.int64),
        shape=shape,
        lengths=pack.lengths,
        n_masked=n_masked,
        cell_rows=pack.rows,
    )
