"""The baselines of hidden genes together: counted once, asked at the very positions of a model.

Knows pretraining cells and positions; knows no model. Array suffix: m masked position.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..train.checkpoints import Checkpoint
from ..train.encodings.tokens import TokenBatch
from .baselines import RankUnigram, fit_rank_unigram
from .cells import genes_of
from .hidden_genes import Guesses, HiddenGenes, false_share_of, hide_genes
from .median_order import MedianOrder, fit_median_order, order_of_medians
from .neighbours import CellNeighbours, fit_neighbours

UNIGRAM, BY_RANK = "unigram", "rank-unigram"
BY_RANK_UNSEEN, NEIGHBOURS = "rank-unigram without visible genes", "cell kNN"
IN_ORDER = "cell kNN in the order of medians"
BASELINES = (UNIGRAM, BY_RANK, BY_RANK_UNSEEN, NEIGHBOURS, IN_ORDER)


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneGuessers:
    """What guesses genes without a model.

    Attributes:
        table: gene frequencies, by rank and over all.
        neighbours: the pretraining cells near a cell.
        in_order: the same, with what the order of medians tells.
    """

    table: RankUnigram
    neighbours: CellNeighbours
    in_order: MedianOrder


def hide_for(
    checkpoint: Checkpoint, tokens: TokenBatch, *, seed: int, pack_tokens: int
) -> HiddenGenes:
    """Hide genes of some cells as a checkpoint's own objective does."""
    return hide_genes(
        tokens,
        checkpoint.info.pretrain_recipe.objective,
        seed=seed,
        n_special=len(checkpoint.vocabulary.special),
        vocabulary_size=checkpoint.vocabulary.size,
        leading=int("<cls>" in checkpoint.vocabulary.special),
        pack_tokens=pack_tokens,
    )


def fit_guessers(
    checkpoint: Checkpoint,
    pretraining: TokenBatch,
    units_c: NDArray[np.object_] | None,
    *,
    seed: int,
) -> GeneGuessers:
    """Count genes in pretraining cells, and choose the settings on the same cells.

    Args:
        checkpoint: its vocabulary, encoding and objective are used; its weights are not.
        pretraining: the cells.
        units_c: each cell's donor; see `fit_neighbours`. Shape (pretraining.n_cells,).
        seed: of the cells that settings are tried on.

    Raises:
        EvaluationError: too few cells to count.
    """
    n_special = len(checkpoint.vocabulary.special)
    genes = genes_of(pretraining, n_special)
    table = fit_rank_unigram(
        genes.token_o,
        genes.rank_o,
        n_tokens=checkpoint.vocabulary.size,
        n_special=n_special,
        length=checkpoint.encoding.length,
    )
    share = false_share_of(checkpoint.info.pretrain_recipe.objective)
    neighbours = fit_neighbours(
        pretraining,
        table,
        n_special=n_special,
        units_c=units_c,
        false_share=share,
        seed=seed,
    )
    in_order = fit_median_order(
        pretraining,
        neighbours,
        order_of_medians(checkpoint.vocabulary, checkpoint.medians),
        units_c=units_c,
        false_share=share,
        seed=seed,
    )
    return GeneGuessers(table=table, neighbours=neighbours, in_order=in_order)


def guesses_of_baselines(guessers: GeneGuessers, hidden: HiddenGenes) -> dict[str, Guesses]:
    """Each baseline's work at each position, by name."""
    table, share = guessers.table, hidden.false_share
    by_cell = {BY_RANK_UNSEEN: table.guess_unseen, NEIGHBOURS: guessers.neighbours.guess}
    found = {
        UNIGRAM: Guesses.joined([table.guess_anywhere(hidden.truth_m)]),
        BY_RANK: Guesses.joined([table.guess(hidden.rank_m, hidden.truth_m)]),
    }
    for name, guess in by_cell.items():
        found[name] = Guesses.joined(
            [
                guess(
                    hidden.rank_m[cell.positions],
                    hidden.truth_m[cell.positions],
                    cell.visible,
                    false_share=share,
                )
                for cell in hidden.cells
            ]
        )
    found[IN_ORDER] = Guesses.joined(
        [
            guessers.in_order.guess(
                hidden.rank_m[cell.positions],
                hidden.truth_m[cell.positions],
                cell.visible,
                hidden.before_m[cell.positions],
                hidden.after_m[cell.positions],
                false_share=share,
            )
            for cell in hidden.cells
        ]
    )
    return found
