"""Cell kNN: the genes that the most similar pretraining cells have at a rank. Knows no model.

A cell is the set of its genes, each with the weight log((1 + n) / (1 + n_g)), where n_g of the n
pretraining cells have the gene; near is a high cosine of an asked cell's VISIBLE genes and a
pretraining cell's genes (equals by row). The k nearest are counted: how often does each gene
stand in the rank bin that is asked? These counts are smoothed with the rank-unigram, genes that
are seen in the cell are struck down, and the rest is scaled to sum to 1.

k and the smoothing are chosen on pretraining cells alone: each is told of cells of OTHER donors
only, by neighbours and by the rank-unigram alike. (The genes' weights are of all cells.)
Array suffixes: c pretraining cell, b rank bin, v token of the vocabulary, m masked position.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..platform.errors import EvaluationError
from ..train.encodings.tokens import TokenBatch
from .baselines import RankUnigram, smoothed_bins
from .cells import genes_of, scattered
from .metrics import places_and_losses

NUMBERS = (10, 30, 100, 300, 1000)
STRENGTHS = tuple(10.0**power for power in range(5))
N_TRIED = 200
"""Pretraining cells that k and smoothing are tried on."""

HIDE_EVERY = 7
"""Of a cell that is tried every seventh gene is hidden: about the objective's 15 %."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TriedCell:
    """A pretraining cell with some of its genes hidden, to choose settings on.

    Attributes:
        row: which cell.
        rank_m: the hidden ranks. Shape (m,).
        truth_m: the genes that stand there. Shape (m,).
        visible: the other genes. Shape (n_visible,).
    """

    row: int
    rank_m: NDArray[np.int64]
    truth_m: NDArray[np.int64]
    visible: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class CellNeighbours:
    """Pretraining cells, ready to be asked for those near a cell.

    Attributes:
        unit_cv: each cell's weighted genes, scaled to length 1. Shape (c, v).
        weight_v: the weight of each gene.
        tokens: the cells' genes, special tokens left out, cell after cell.
        offsets: where each cell begins and ends in `tokens`. Shape (c + 1,).
        bins: the rank bin of each of `tokens`.
        table: gene frequencies by rank.
        prior_bv: what bins are smoothed with: those frequencies, unless some cells are left out.
            Shape (b, v).
        n_neighbours: k.
        strength: how many genes' worth of `prior_bv` each bin is smoothed with.
    """

    unit_cv: sparse.csr_matrix
    weight_v: NDArray[np.float64]
    tokens: NDArray[np.int64]
    offsets: NDArray[np.int64]
    bins: NDArray[np.int64]
    table: RankUnigram
    prior_bv: NDArray[np.float64]
    n_neighbours: int
    strength: float

    @property
    def n_cells(self) -> int:
        """Number of pretraining cells."""
        return len(self.offsets) - 1

    def nearest(
        self, visible: NDArray[np.integer], *, allowed: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """The rows of the k nearest cells, nearest first; of those allowed where that is given."""
        asked_v = np.zeros(len(self.weight_v))
        asked_v[visible] = self.weight_v[visible]
        near_c = np.asarray(self.unit_cv @ asked_v)  # the asked cell's own length orders nothing
        if allowed is not None:
            near_c = np.where(allowed, near_c, -np.inf)
        order = np.argsort(-near_c, kind="stable")[: self.n_neighbours].astype(np.int64)
        return order if allowed is None else order[allowed[order]]

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """How often each gene stands in each rank bin of some cells. Shape (b, v)."""
        n_bins, n_tokens = self.table.bins_bv.shape
        flat = [
            self.bins[begin:end] * n_tokens + self.tokens[begin:end]
            for begin, end in zip(self.offsets[rows], self.offsets[rows + 1], strict=True)
        ]
        joined = np.concatenate([*flat, np.empty(0, dtype=np.int64)])
        counted = np.bincount(joined, minlength=n_bins * n_tokens)
        return counted.reshape(n_bins, n_tokens).astype(np.float64)

    def at_ranks(
        self,
        ranks_m: NDArray[np.integer],
        visible: NDArray[np.integer],
        *,
        false_share: float,
        allowed: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float64]:
        """Probabilities of every token at some ranks of one cell. Shape (m, v).

        Args:
            ranks_m: the masked ranks. Shape (m,).
            visible: the tokens that are seen. Shape (n_visible,).
            false_share: which share of the visible tokens is not the cell's own, > 0.
            allowed: which cells may be asked; all where None. Shape (c,).
        """
        counts_bv = self.counts(self.nearest(visible, allowed=allowed))
        return self._smoothed(counts_bv, ranks_m, visible, false_share)

    def guess(
        self,
        ranks_m: NDArray[np.integer],
        truth_m: NDArray[np.integer],
        visible: NDArray[np.integer],
        *,
        false_share: float,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The places of the true genes (0 is first) and their cross-entropies. Shapes (m,)."""
        found_mv = self.at_ranks(ranks_m, visible, false_share=false_share)
        return places_and_losses(found_mv, truth_m)

    def smoothed_without(
        self, left_out: NDArray[np.int64], counts_bv: NDArray[np.float64]
    ) -> "CellNeighbours":
        """The same, smoothed with the gene frequencies of the other cells.

        Args:
            left_out: the rows of the cells whose genes do not count.
            counts_bv: `counts` of all cells.
        """
        is_gene_v = self.table.unigram_v > 0
        left_bg = (counts_bv - self.counts(left_out))[:, is_gene_v]
        prior_bv = np.zeros_like(self.prior_bv)
        prior_bv[:, is_gene_v] = smoothed_bins(left_bg, self.table.strength)
        return replace(self, prior_bv=prior_bv)

    def _smoothed(
        self,
        counts_bv: NDArray[np.float64],
        ranks_m: NDArray[np.integer],
        visible: NDArray[np.integer],
        false_share: float,
    ) -> NDArray[np.float64]:
        bins_m = self.table.bins_of(ranks_m)
        found_mv = counts_bv[bins_m] + self.strength * self.prior_bv[bins_m]
        found_mv[:, np.unique(visible)] *= false_share
        return found_mv / found_mv.sum(axis=1, keepdims=True)


def fit_neighbours(
    pretraining: TokenBatch,
    table: RankUnigram,
    *,
    n_special: int,
    units_c: NDArray[np.object_] | None = None,
    false_share: float = 1e-6,
    seed: int = 0,
) -> CellNeighbours:
    """Take pretraining cells in, and choose k and smoothing on them.

    Args:
        pretraining: the cells.
        table: gene frequencies by rank in the same cells.
        n_special: how many special tokens the vocabulary begins with.
        units_c: each cell's donor. A cell that is tried is told of cells of other donors; of all
            other cells where None, or where fewer than two are named. Shape (c,).
        false_share: as in `CellNeighbours.at_ranks`.
        seed: of the choice of the cells that are tried.

    Raises:
        EvaluationError: fewer than two cells, or not one unit a cell.
    """
    if pretraining.n_cells < 2:
        raise EvaluationError(
            f"{pretraining.n_cells} pretraining cells to look for neighbours in, expected at "
            "least 2"
        )
    if units_c is not None and len(units_c) != pretraining.n_cells:
        raise EvaluationError(
            f"{len(units_c)} units of {pretraining.n_cells} pretraining cells: expected one a cell"
        )
    known = _of_cells(pretraining, table, n_special)
    unit_c = apart(pretraining.n_cells, units_c)
    losses = _tried(cells_to_try(known, pretraining.keys, unit_c, seed), unit_c, false_share)
    n_neighbours, strength = min(losses, key=lambda setting: (losses[setting], setting))
    return replace(known, n_neighbours=n_neighbours, strength=strength)


def _of_cells(pretraining: TokenBatch, table: RankUnigram, n_special: int) -> CellNeighbours:
    genes = genes_of(pretraining, n_special)
    tokens, offsets = genes.token_o, genes.offsets
    n_cells, n_tokens = pretraining.n_cells, table.bins_bv.shape[1]
    # A cell has a gene once, so the number of a gene's tokens is that of its cells.
    n_having_v = np.bincount(tokens, minlength=n_tokens)
    weight_v = np.log((1.0 + n_cells) / (1.0 + n_having_v))
    found_cv = sparse.csr_matrix((weight_v[tokens], tokens, offsets), shape=(n_cells, n_tokens))
    length_c = np.sqrt(np.asarray(found_cv.multiply(found_cv).sum(axis=1))).ravel()
    scaled = sparse.diags_array(1.0 / np.where(length_c > 0, length_c, 1.0)) @ found_cv
    return CellNeighbours(
        unit_cv=sparse.csr_matrix(scaled),
        weight_v=weight_v,
        tokens=tokens,
        offsets=offsets,
        bins=table.bins_of(genes.rank_o),
        table=table,
        prior_bv=table.bins_bv,
        n_neighbours=NUMBERS[0],
        strength=STRENGTHS[0],
    )


def cells_to_try(
    known: CellNeighbours, keys: NDArray[np.uint64], unit_c: NDArray[np.int64], seed: int
) -> Iterator[tuple[CellNeighbours, TriedCell]]:
    """Some pretraining cells with every seventh gene hidden, to choose settings on.

    Args:
        known: the pretraining cells.
        keys: their content keys. Shape (c,).
        unit_c: from `apart`. Shape (c,).
        seed: of the choice of cells.

    Yields:
        The neighbours, smoothed without the cell's own unit, and the cell; unit after unit.
    """
    rows = np.sort(scattered(keys, seed)[:N_TRIED])
    all_bv = known.counts(np.arange(known.n_cells))
    for unit in np.unique(unit_c[rows]).tolist():
        others = known.smoothed_without(np.flatnonzero(unit_c == unit), all_bv)
        for row in rows[unit_c[rows] == unit].tolist():
            tokens = known.tokens[known.offsets[row] : known.offsets[row + 1]]
            ranks = np.arange(len(tokens))
            is_hidden = (ranks + row) % HIDE_EVERY == 0
            if is_hidden.any():
                yield (
                    others,
                    TriedCell(
                        row=row,
                        rank_m=ranks[is_hidden],
                        truth_m=tokens[is_hidden],
                        visible=tokens[~is_hidden],
                    ),
                )


def apart(n_cells: int, units_c: NDArray[np.object_] | None) -> NDArray[np.int64]:
    """A number a cell; cells of one number do not ask each other. Shape (c,)."""
    names = [] if units_c is None else sorted({str(u) for u in units_c if u is not None})
    if units_c is None or len(names) < 2:
        return np.arange(n_cells)
    number = {name: place for place, name in enumerate(names)}
    return np.array([number.get(str(unit), -1) for unit in units_c], dtype=np.int64)


def _tried(
    cells: Iterable[tuple[CellNeighbours, TriedCell]],
    unit_c: NDArray[np.int64],
    false_share: float,
) -> dict[tuple[int, float], float]:
    """The summed cross-entropy of every setting over the hidden genes of the chosen cells.

    The same as `CellNeighbours.guess` gives, without the genes that are not looked at.
    """
    n_cells = len(unit_c)
    numbers: Sequence[int] = [k for k in NUMBERS if k < n_cells] or [n_cells - 1]
    losses = {(k, strength): 0.0 for k in numbers for strength in STRENGTHS}
    struck = 1.0 - false_share
    for known, asked in cells:
        visible, truth_m = asked.visible, asked.truth_m
        bins_m, prior_bv = known.table.bins_of(asked.rank_m), known.prior_bv
        prior_m = prior_bv[bins_m, truth_m]
        prior_left_m = 1 - struck * _on(prior_bv, bins_m, visible)
        widest = replace(known, n_neighbours=max(numbers))
        order = widest.nearest(visible, allowed=unit_c != unit_c[asked.row])
        for k in numbers:
            counts_bv = known.counts(order[:k])
            own_m = counts_bv[bins_m, truth_m]
            left_m = counts_bv.sum(axis=1)[bins_m] - struck * _on(counts_bv, bins_m, visible)
            for strength in STRENGTHS:
                chances_m = (own_m + strength * prior_m) / (left_m + strength * prior_left_m)
                losses[k, strength] -= float(np.log(chances_m).sum())
    return losses


def _on(
    values_bv: NDArray[np.float64], bins_m: NDArray[np.int64], tokens: NDArray[np.int64]
) -> NDArray[np.float64]:
    """What some tokens have together in the bin of each position. Shape (m,)."""
    return values_bv[:, tokens].sum(axis=1)[bins_m]
