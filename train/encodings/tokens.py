"""TokenBatch: some cells as tokens, end to end. Knows no gene and no model.

Array suffixes: c cell, t token position.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...platform.errors import VocabularyError


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenBatch:
    """Some cells' tokens, one cell after the other, in the order of the cells they came from.

    Attributes:
        tokens: tokens of a vocabulary. Shape (n_tokens,), int32.
        offsets: where each cell begins and ends in `tokens`; a cell may be empty.
            Shape (n_cells + 1,), int64.
        keys: the first 64 bits of each cell's content hash: what masks are drawn from.
            Shape (n_cells,), uint64.
        cell_ids: each cell's id in its corpus, -1 for a cell that comes straight from a file.
            Shape (n_cells,), int64.
    """

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    keys: NDArray[np.uint64]
    cell_ids: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Check the lengths that every reader relies on."""
        n_cells = len(self.offsets) - 1
        if not len(self.keys) == len(self.cell_ids) == n_cells:
            raise VocabularyError(
                f"{n_cells} cells of tokens have {len(self.keys)} keys and "
                f"{len(self.cell_ids)} ids, expected one of each a cell"
            )
        if int(self.offsets[-1]) != len(self.tokens):
            raise VocabularyError(
                f"offsets end at {self.offsets[-1]}, expected {len(self.tokens)} (all tokens)"
            )

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Each cell's number of tokens. Shape (n_cells,)."""
        return np.diff(self.offsets)

    def cell(self, index: int) -> NDArray[np.int32]:
        """One cell's tokens. Shape (its length,)."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def part(self, first: int, last: int) -> "TokenBatch":
        """The cells from `first` up to and without `last`; arrays are shared, not copied."""
        begin, end = self.offsets[first], self.offsets[last]
        return TokenBatch(
            tokens=self.tokens[begin:end],
            offsets=self.offsets[first : last + 1] - begin,
            keys=self.keys[first:last],
            cell_ids=self.cell_ids[first:last],
        )

    @classmethod
    def of_cells(
        cls,
        cells: Sequence[NDArray[np.int32]],
        *,
        keys: NDArray[np.uint64],
        cell_ids: NDArray[np.int64] | None = None,
    ) -> "TokenBatch":
        """Join single cells' tokens."""
        lengths = [len(cell) for cell in cells]
        return cls(
            tokens=np.concatenate([*cells, np.empty(0, dtype=np.int32)]).astype(np.int32),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            keys=keys,
            cell_ids=np.full(len(cells), -1, dtype=np.int64) if cell_ids is None else cell_ids,
        )

    @classmethod
    def concatenate(cls, batches: Sequence["TokenBatch"]) -> "TokenBatch":
        """Join batches, in their order; no batch gives an empty one, a single one itself."""
        if len(batches) == 1:
            return batches[0]
        none = np.empty(
            0, dtype=np.int32
        )  # joined with, so that no batch at all gives empty arrays too
        lengths = np.concatenate([none, *(batch.lengths for batch in batches)])
        return cls(
            tokens=np.concatenate([none, *(b.tokens for b in batches)]).astype(np.int32),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            keys=np.concatenate([none.astype(np.uint64), *(b.keys for b in batches)]),
            cell_ids=np.concatenate([none.astype(np.int64), *(b.cell_ids for b in batches)]),
        )
