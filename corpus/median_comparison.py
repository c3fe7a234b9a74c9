"""Two medians sets beside each other: how alike they rank genes, and where they differ.

Knows no corpus. Ranks are what counts: rank-value encoding divides by the median and sorts.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..platform.errors import VocabularyError
from .medians import MediansSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FREQUENT = 100
"""Cells that must express a gene for its median to say something of the gene."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MedianComparison:
    """How two sets agree on the genes that both have.

    Attributes:
        name: what the other set is called.
        genes: `gene_id`, `median`, `other`, ascending ids; the genes that both have.
        spearman: rank correlation of the medians.
        n_frequent: genes that at least `FREQUENT` cells express in the first set; 0 if unknown.
        spearman_frequent: rank correlation of these; NaN where they are under three. A gene of a
            few cells has the median of a single count, which says how deep the cells are.
        ratio: the median over genes of median / other.
        within_twofold: share of genes whose ratio, divided by `ratio`, is within 1/2 and 2.
        n_only_here: genes that only the first has.
        n_only_there: genes that only the other has.
    """

    name: str
    genes: pa.Table
    spearman: float
    n_frequent: int
    spearman_frequent: float
    ratio: float
    within_twofold: float
    n_only_here: int
    n_only_there: int

    @property
    def text(self) -> str:
        """In one line."""
        return (
            f"{self.genes.num_rows:,} genes in common with {self.name} ({self.n_only_here:,} only "
            f"here, {self.n_only_there:,} only there): Spearman {self.spearman:.3f}"
            + (
                f", {self.spearman_frequent:.3f} over the {self.n_frequent:,} genes of {FREQUENT} "
                "cells or more"
                if self.n_frequent > 2
                else ""
            )
            + "; the typical "
            f"median is {self.ratio:.2f} times theirs, and {self.within_twofold:.0%} of genes are "
            "within twofold of that"
        )

    def furthest(self, n_genes: int = 10) -> pa.Table:
        """The genes that differ most from the typical ratio, with their fold change."""
        folds = self._folds()
        order = np.argsort(-np.abs(np.log2(folds)), kind="stable")[:n_genes]
        return self.genes.take(pa.array(order)).append_column("fold", pa.array(folds[order]))

    def plot(self) -> "Figure":
        """Each gene's median in both sets, log-log; the line is the typical ratio."""
        from matplotlib.figure import Figure

        ours, theirs = (self.genes.column(name).to_numpy() for name in ("median", "other"))
        figure = Figure(figsize=(5.2, 5), layout="constrained")
        axes = figure.subplots()
        axes.scatter(theirs, ours, s=4, alpha=0.35, linewidths=0, color="#0b6e7f", rasterized=True)
        ends = np.array([theirs.min(), theirs.max()])
        axes.plot(ends, ends * self.ratio, color="#a8500f", linewidth=1)
        axes.set(
            xscale="log",
            yscale="log",
            xlabel=f"non-zero median, {self.name}",
            ylabel="non-zero median, here (counts per 10,000)",
            title=f"{len(ours):,} genes, Spearman {self.spearman:.3f}",
        )
        return figure

    def _folds(self) -> Any:
        ratios = self.genes.column("median").to_numpy() / self.genes.column("other").to_numpy()
        return ratios / self.ratio


def compare_medians(one: MediansSet, other: MediansSet, name: str) -> MedianComparison:
    """Hold a medians set against another.

    Args:
        one: the set.
        other: the one that it is held against.
        name: what to call that one.

    Raises:
        VocabularyError: they have fewer than three genes in common.
    """
    from scipy.stats import spearmanr

    common = sorted(set(one.gene_ids) & set(other.gene_ids))
    if len(common) < 3:
        raise VocabularyError(
            f"the set has {len(common)} genes in common with {name}, expected three or more: are "
            "both of the same species?"
        )
    medians, others = one.of(common), other.of(common)
    ratios = medians / others
    ratio = float(np.median(ratios))
    correlation: Any = spearmanr(medians, others)
    cells_of = dict(zip(one.gene_ids, one.n_cells.tolist(), strict=False))
    frequent = np.array([cells_of.get(gene_id, 0) >= FREQUENT for gene_id in common])
    among: Any = spearmanr(medians[frequent], others[frequent]) if frequent.sum() > 2 else None
    return MedianComparison(
        name=name,
        genes=pa.table({"gene_id": common, "median": medians, "other": others}),
        spearman=float(correlation.statistic),
        n_frequent=int(frequent.sum()),
        spearman_frequent=float("nan") if among is None else float(among.statistic),
        ratio=ratio,
        within_twofold=float((np.abs(np.log2(ratios / ratio)) <= 1).mean()),
        n_only_here=len(one.gene_ids) - len(common),
        n_only_there=len(other.gene_ids) - len(common),
    )
