"""Which genes shift a cell more than others of the SAME RANK: z, p and FDR. Knows no model.

A raw shift is mostly rank: taking out a gene moves all behind it up by one, so an early gene
shifts any model, trained or not. Each deletion is therefore compared with the deletions of OTHER
genes that stood at the same rank, in any of the screened cells.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ...platform.errors import EvaluationError

MIN_CELLS = 3
"""Genes deleted in fewer cells get no statistic: they are counted."""

MIN_PEERS = 50
"""Where fewer deletions than this stand at a rank, ranks to both sides are taken in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedDeletions:
    """Each deletion against its peers: other genes at the same rank.

    Attributes:
        z: (shift - mean of peers) / standard deviation of peers. Shape (n,).
        percentile: where the shift falls among its peers, ties in the middle, 0 to 1.
            Shape (n,). Uniform where a gene is like any other of its rank.
        reach: ranks taken in to each side to have enough peers. Shape (n,).
        n_peers: how many peers. Shape (n,).
    """

    z: NDArray[np.float64]
    percentile: NDArray[np.float64]
    reach: NDArray[np.int64]
    n_peers: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneStatistics:
    """A screen's answer, one entry a gene, largest z first.

    Attributes:
        genes: tokens. Shape (n_genes,).
        n_cells: cells in which the gene was deleted. Shape (n_genes,).
        mean_shift: mean raw shift over these cells. Shape (n_genes,).
        mean_rank: mean rank of the gene in these cells. Shape (n_genes,).
        z: Stouffer's sum of the cells' z over the root of their number. Shape (n_genes,).
        p: one-sided, more shift than others of the rank: the sum of the cells' percentiles
            under the Irwin-Hall distribution, the exact law of a sum of uniforms; cells are
            taken as independent. Shape (n_genes,).
        fdr: p after Benjamini and Hochberg. Shape (n_genes,).
        n_untested: genes left out, deleted in fewer than the least number of cells.
    """

    genes: NDArray[np.int64]
    n_cells: NDArray[np.int64]
    mean_shift: NDArray[np.float64]
    mean_rank: NDArray[np.float64]
    z: NDArray[np.float64]
    p: NDArray[np.float64]
    fdr: NDArray[np.float64]
    n_untested: int


def against_same_rank(
    shifts: NDArray[np.floating],
    ranks: NDArray[np.integer],
    genes: NDArray[np.integer],
    *,
    min_peers: int = MIN_PEERS,
) -> RankedDeletions:
    """Compare each deletion with the deletions of other genes at the same rank.

    The window of ranks grows by one to both sides until it holds `min_peers` deletions of other
    genes, or all there are.

    Args:
        shifts: raw shifts, one a deletion. Shape (n,).
        ranks: rank of the deleted gene in its cell. Shape (n,).
        genes: the deleted gene. Shape (n,).
        min_peers: deletions wanted in the window.

    Raises:
        EvaluationError: lengths differ, a shift is not finite, or a deletion has fewer than
            two peers at any rank.
    """
    if not len(shifts) == len(ranks) == len(genes):
        raise EvaluationError(
            f"{len(shifts)} shifts, {len(ranks)} ranks and {len(genes)} genes: expected as many"
        )
    if not np.isfinite(shifts).all():
        raise EvaluationError("a shift is not finite: the model gave no usable cell state")
    order = np.argsort(ranks, kind="stable")
    by_rank = np.asarray(ranks)[order]
    values = np.asarray(shifts, dtype=np.float64)[order]
    names = np.asarray(genes)[order]
    n = len(order)
    z, percentile = np.empty(n), np.empty(n)
    reach, n_peers = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    widest = int(by_rank[-1] - by_rank[0]) if n else 0
    for at in range(n):
        width = 0
        while True:
            begin = np.searchsorted(by_rank, by_rank[at] - width, side="left")
            end = np.searchsorted(by_rank, by_rank[at] + width, side="right")
            if end - begin > min_peers or width >= widest:
                peers = values[begin:end][names[begin:end] != names[at]]
                if len(peers) >= min_peers or width >= widest:
                    break
            width += 1
        z[at], percentile[at] = _place(values[at], peers)
        reach[at], n_peers[at] = width, len(peers)
    back = np.empty(n, dtype=np.int64)
    back[order] = np.arange(n)
    return RankedDeletions(
        z=z[back], percentile=percentile[back], reach=reach[back], n_peers=n_peers[back]
    )


def gene_statistics(
    shifts: NDArray[np.floating],
    ranks: NDArray[np.integer],
    genes: NDArray[np.integer],
    compared: RankedDeletions,
    *,
    min_cells: int = MIN_CELLS,
) -> GeneStatistics:
    """Gather each gene's deletions over the cells; the unit is the cell.

    Args:
        shifts: raw shifts, one a deletion. Shape (n,).
        ranks: rank of the deleted gene in its cell. Shape (n,).
        genes: the deleted gene. Shape (n,).
        compared: what `against_same_rank` says of them.
        min_cells: genes with fewer deletions are left out and counted.
    """
    names, position, n_cells = np.unique(genes, return_inverse=True, return_counts=True)

    def total(values: NDArray[np.floating]) -> NDArray[np.float64]:
        weights = np.asarray(values, dtype=np.float64)
        sums = np.bincount(position, weights=weights, minlength=len(names))
        return sums.astype(np.float64)

    tested = n_cells >= min_cells
    number = n_cells[tested]
    z = total(compared.z)[tested] / np.sqrt(number)
    p = more_than_uniform(total(compared.percentile)[tested], number)
    fdr = np.asarray(stats.false_discovery_control(p)) if len(p) else p
    order = np.argsort(-z, kind="stable")
    return GeneStatistics(
        genes=names[tested][order].astype(np.int64),
        n_cells=number[order].astype(np.int64),
        mean_shift=(total(np.asarray(shifts))[tested] / number)[order],
        mean_rank=(total(np.asarray(ranks, dtype=np.float64))[tested] / number)[order],
        z=z[order],
        p=p[order],
        fdr=fdr[order],
        n_untested=int((~tested).sum()),
    )


def more_than_uniform(
    sums: NDArray[np.float64], n_terms: NDArray[np.integer]
) -> NDArray[np.float64]:
    """The chance that a sum of `n_terms` independent uniforms on (0, 1) is at least `sums`.

    Irwin-Hall up to 50 terms; above that the normal with its mean and variance, which differs
    by less than 0.001 there, while the exact form costs ever more.
    """
    p = np.empty(len(sums))
    for number in np.unique(n_terms):
        here = n_terms == number
        if number <= 50:
            p[here] = stats.irwinhall.sf(sums[here], int(number))
        else:
            p[here] = stats.norm.sf((sums[here] - number / 2) / np.sqrt(number / 12))
    return np.clip(p, 0.0, 1.0)


def _place(value: float, peers: NDArray[np.float64]) -> tuple[float, float]:
    if len(peers) < 2:
        raise EvaluationError(
            f"a deletion has {len(peers)} peers at any rank, expected at least 2: "
            "screen cells with more genes, or more cells"
        )
    spread = float(peers.std(ddof=1))
    gap = value - float(peers.mean())
    # Peers that are all alike have no scale: a value like theirs is 0, any other is not defined
    # as a multiple of nothing, and is 0 too; its percentile still tells.
    z = gap / spread if spread > 0 else 0.0
    below, equal = int((peers < value).sum()), int((peers == value).sum())
    return z, (below + 0.5 * equal + 0.5) / (len(peers) + 1)
