"""Cell kNN in the order of medians: what can be told without biology from the genes beside a mask.

A cell's genes stand by falling count / median. Where counts are equal, most of them 1, that is the
order of the medians: a hidden gene between two visible ones has its median between theirs. The
chances of the cell kNN are multiplied by how much more often, in pretraining cells, the true gene
stands where a candidate does: between the two neighbours, or so far before or after them in the
order of medians, for that width of the gap. A model that beats the kNN and not this one may have
learnt the order of medians and nothing of cells. Knows no model.

Array suffixes: m masked position, v token of the vocabulary, w width of a gap, k place beside it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..corpus.medians import MediansSet
from ..corpus.vocabularies import Vocabulary
from ..platform.errors import EvaluationError
from ..train.encodings.tokens import TokenBatch
from .hidden_genes import NOBODY, beside
from .metrics import places_and_losses
from .neighbours import CellNeighbours, apart, cells_to_try


@dataclass(frozen=True, kw_only=True, slots=True)
class MedianOrder:
    """The order of medians, and what standing in it tells.

    Attributes:
        order_v: each gene's place by ascending median, special tokens -1. Shape (v,).
        ratio_wk: how much more often than the cell kNN expects a true gene stands at a place beside
            a gap of a width. Shape (w, k).
        neighbours: the cell kNN.
    """

    order_v: NDArray[np.int64]
    ratio_wk: NDArray[np.float64]
    neighbours: CellNeighbours

    def at_ranks(
        self,
        ranks_m: NDArray[np.integer],
        visible: NDArray[np.integer],
        before_m: NDArray[np.integer],
        after_m: NDArray[np.integer],
        *,
        false_share: float,
        allowed: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float64]:
        """Probabilities of every token at some ranks of one cell. Shape (m, v).

        One of the neighbours may not be the cell's own; in that share of cases the order tells
        nothing, and the chances are those of the cell kNN.

        Args:
            ranks_m: the masked ranks. Shape (m,).
            visible: the tokens that are seen. Shape (n_visible,).
            before_m: the nearest visible gene before each; `NOBODY` for none. Shape (m,).
            after_m: the same after each. Shape (m,).
            false_share: which share of the visible tokens is not the cell's own, > 0.
            allowed: which pretraining cells may be asked; all where None.
        """
        found_mv = self.neighbours.at_ranks(
            ranks_m, visible, false_share=false_share, allowed=allowed
        )
        width_m, place_mv = places_beside(self.order_v, before_m, after_m)
        told_mv = found_mv * self.ratio_wk[width_m[:, None], place_mv]
        told_mv /= told_mv.sum(axis=1, keepdims=True)
        misled = 1.0 - (1.0 - false_share) ** 2
        return (1.0 - misled) * told_mv + misled * found_mv

    def guess(
        self,
        ranks_m: NDArray[np.integer],
        truth_m: NDArray[np.integer],
        visible: NDArray[np.integer],
        before_m: NDArray[np.integer],
        after_m: NDArray[np.integer],
        *,
        false_share: float,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The places of the true genes (0 is first) and their cross-entropies. Shapes (m,)."""
        found_mv = self.at_ranks(ranks_m, visible, before_m, after_m, false_share=false_share)
        return places_and_losses(found_mv, truth_m)


def order_of_medians(vocabulary: Vocabulary, medians: MediansSet) -> NDArray[np.int64]:
    """Each token's place by ascending median; equals by token, genes without one last. (v,)."""
    n_special = len(vocabulary.special)
    by_median = np.argsort(medians.of(vocabulary.gene_ids), kind="stable")  # NaN goes last
    order_v = np.full(vocabulary.size, NOBODY, dtype=np.int64)
    order_v[n_special + by_median] = np.arange(len(by_median))
    return order_v


def places_beside(
    order_v: NDArray[np.int64], before_m: NDArray[np.integer], after_m: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where every token stands in the order beside each gap.

    Returns:
        The gap's width class: 0 where the neighbours stand the other way round, else 1 + the
        number of binary digits of the number of genes between them; shape (m,). And each token's
        place: 0 between the neighbours, else by the binary digits of its distance, those before
        first; shape (m, v).
    """
    n_genes = int(order_v.max()) + 1
    n_digits = int(n_genes).bit_length()
    digits = np.array([number.bit_length() for number in range(n_genes + 2)], dtype=np.int64)
    low_m = np.where(before_m == NOBODY, -1, order_v[before_m])
    high_m = np.where(after_m == NOBODY, n_genes, order_v[after_m])
    is_crossed = low_m >= high_m
    width_m = np.where(is_crossed, 0, 1 + digits[np.maximum(high_m - low_m - 1, 0)])
    first_m, last_m = np.minimum(low_m, high_m), np.maximum(low_m, high_m)
    under_mv = digits[np.clip(first_m[:, None] - order_v[None, :], 0, n_genes + 1)]
    over_mv = digits[np.clip(order_v[None, :] - last_m[:, None], 0, n_genes + 1)]
    return width_m, under_mv + np.where(over_mv > 0, n_digits + 1 + over_mv, 0)


def fit_median_order(
    pretraining: TokenBatch,
    neighbours: CellNeighbours,
    order_v: NDArray[np.int64],
    *,
    units_c: NDArray[np.object_] | None = None,
    false_share: float = 1e-6,
    seed: int = 0,
) -> MedianOrder:
    """Learn from pretraining cells what the order tells beyond the cell kNN.

    The same genes of the same cells are hidden as for the cell kNN's settings, and again a cell
    is told of cells of other donors only. A ratio is (truths + 1) / (truths
    that the kNN expects + 1).

    Args:
        pretraining: the cells that the kNN holds.
        neighbours: the cell kNN.
        order_v: from `order_of_medians`.
        units_c: each cell's donor; see `neighbours.fit_neighbours`.
        false_share: as in `MedianOrder.at_ranks`.
        seed: of the choice of the cells.

    Raises:
        EvaluationError: other cells than the kNN's, or an order of another vocabulary.
    """
    if pretraining.n_cells != neighbours.n_cells or len(order_v) != len(neighbours.weight_v):
        raise EvaluationError(
            f"{pretraining.n_cells} cells and {len(order_v)} tokens, expected those of the cell "
            f"kNN: {neighbours.n_cells} and {len(neighbours.weight_v)}"
        )
    unit_c = apart(pretraining.n_cells, units_c)
    n_digits = int(order_v.max() + 1).bit_length()
    truths_wk = np.zeros((n_digits + 2, 2 * n_digits + 3))
    expected_wk = np.zeros_like(truths_wk)
    n_places = truths_wk.shape[1]
    for known, asked in cells_to_try(neighbours, pretraining.keys, unit_c, seed):
        ranks, visible, truth_m = asked.rank_m, asked.visible, asked.truth_m
        tokens = np.insert(visible, ranks - np.arange(len(ranks)), truth_m)
        before_m, after_m = beside(tokens, ~np.isin(np.arange(len(tokens)), ranks), ranks)
        found_mv = known.at_ranks(
            ranks, visible, false_share=false_share, allowed=unit_c != unit_c[asked.row]
        )
        width_m, place_mv = places_beside(order_v, before_m, after_m)
        flat_mv = width_m[:, None] * n_places + place_mv
        expected_wk += np.bincount(
            flat_mv.ravel(), weights=found_mv.ravel(), minlength=truths_wk.size
        ).reshape(truths_wk.shape)
        np.add.at(truths_wk, (width_m, place_mv[np.arange(len(truth_m)), truth_m]), 1)
    return MedianOrder(
        order_v=order_v,
        ratio_wk=(truths_wk + 1.0) / (expected_wk + 1.0),
        neighbours=neighbours,
    )
