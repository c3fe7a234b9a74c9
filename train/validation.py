"""Loss and accuracy on held-out cells, the same cells and masks every time. Knows no engine.

Cells are chosen by a hash, put into groups, and groups are dealt to ranks: what is packed together
and what is hidden depend neither on the number of ranks nor on the step. Nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ..corpus.order import epoch_order
from .encodings.rank_value import RankValueEncoding
from .encodings.tokens import TokenBatch
from .engines import n_ranks, sum_over_ranks, this_rank
from .objectives.masked_genes import MaskedGenes

if TYPE_CHECKING:
    from ..corpus.store import Corpus
    from ..corpus.stream import Selection
    from .recipe import PretrainRecipe

EPOCH = 2**31 - 1
"""The epoch whose masks validation has: no training comes that far."""

_ORDER_SEED = 0  # not the run's: runs of several seeds are held against each other on equal cells


@dataclass(frozen=True, kw_only=True, slots=True)
class Validated:
    """What held-out cells say of a model.

    Attributes:
        loss: mean cross-entropy at chosen tokens, in nats.
        accuracy: the share of chosen tokens guessed right.
        mask_accuracy: the same of those that show `<mask>`; None where none does.
        n_masked: number of chosen tokens.
    """

    loss: float
    accuracy: float
    mask_accuracy: float | None
    n_masked: int


def validation_selection(recipe: PretrainRecipe, corpus: Corpus) -> Selection | None:
    """The cells a recipe holds out, of which at most `validation.cells` are looked at.

    Returns:
        The cells; None where the recipe validates on none.

    Raises:
        NoCellsError: the part is empty.
    """
    part = recipe.validation.part
    if part is None:
        return None
    held_out = corpus.select(recipe.data.where, split=recipe.split, part=part)
    most = recipe.validation.cells
    if held_out.n_cells <= most:
        return held_out
    chosen = np.zeros(held_out.n_cells, dtype=np.bool_)
    chosen[epoch_order(held_out.n_cells, seed=_ORDER_SEED, epoch=0, block=1)[:most]] = True
    return held_out.only(chosen, f"validation on {most}")


class Validation:
    """Held-out cells as tokens, in memory, ready to be asked again and again."""

    def __init__(
        self,
        corpus: Corpus,
        selection: Selection,
        encoding: RankValueEncoding,
        objective: MaskedGenes,
        *,
        cells_per_group: int,
        pack_tokens: int,
    ) -> None:
        """Read and encode this rank's cells: 4 bytes a token are kept.

        Args:
            corpus: where the cells lie.
            selection: the held-out cells.
            encoding: what turns cells into tokens.
            objective: the one that learns; it is asked in evaluation mode.
            cells_per_group: cells that are packed and dealt together.
            pack_tokens: the most tokens of a pack; in the padded layout with its padding.
        """
        self._objective, self._pack_tokens = objective, pack_tokens
        order = np.argsort(selection.segment, kind="stable")  # as `read` gives them
        groups = [
            order[first : first + cells_per_group]
            for first in range(0, len(order), cells_per_group)
        ][this_rank() :: n_ranks()]
        tokens = _encoded(corpus, selection, encoding, groups)
        borders = np.cumsum([0, *(len(group) for group in groups)]).tolist()
        self._groups = [tokens.part(first, last) for first, last in pairwise(borders)]

    def __call__(self) -> Validated:
        """Ask the model as it is now; every rank must call it, and each is told the same."""
        sums = torch.zeros(5, dtype=torch.float64, device=self._objective.model.device)
        was_training = self._objective.training
        self._objective.eval()
        with torch.no_grad():
            for tokens in self._groups:
                self._ask(tokens, sums)
        self._objective.train(was_training)
        loss, right, mask_right, mask_asked, n_masked = sum_over_ranks(sums.tolist())
        weight = max(n_masked, 1.0)
        return Validated(
            loss=loss / weight,
            accuracy=right / weight,
            mask_accuracy=mask_right / mask_asked if mask_asked else None,
            n_masked=int(n_masked),
        )

    def _ask(self, tokens: TokenBatch, sums: torch.Tensor) -> None:
        for pack in self._objective.packs(tokens, self._pack_tokens, EPOCH, None):
            loss, guesses = self._objective(pack)
            sums[0] += loss
            sums[1:4] += guesses
            sums[4] += pack.n_masked


def _encoded(
    corpus: Corpus,
    selection: Selection,
    encoding: RankValueEncoding,
    groups: Sequence[NDArray[np.int64]],
) -> TokenBatch:
    if not groups:
        return TokenBatch.concatenate([])
    batches = corpus.read(selection, np.concatenate(groups))
    return TokenBatch.concatenate([encoding.encode(batch) for batch in batches])
