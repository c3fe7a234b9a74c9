"""Which cells are kept, and why not: Geneformer's rules, in two passes.

Pass 1 measures every cell of a source, from its raw matrix before gene mapping, and freezes the
thresholds; pass 2 judges each cell by them. Knows no file. Array suffix: c cell.

    filter:<column>     the source's own columns keep the cell out (`filters.py`); none by default
    mutational_burden   malignant cells and immortalised lines, by declared metadata
    total_counts        total counts within 3 SD of the source's mean
    genes_detected      detected genes of any kind within stated bounds; none by default
    mitochondrial       mitochondrial fraction within 3 SD of the source's mean
    min_genes           at least 7 detected protein-coding or miRNA genes (7 x 15 % >= 1 mask)
    doublet             what Scrublet calls a doublet (`doublets.py`); off by default

A dropped cell carries the first rule that it failed, in this order. Source: Theodoris et al. 2023,
Methods. SD is the population's (divided by n). A cell without counts has no mitochondrial fraction
and is left out of that mean. Cells that a filter or a stated threshold drops shape no statistic:
a raw matrix of empty droplets would else drown the cells in it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .harmonise import FEWEST_MITOCHONDRIAL, Harmonised
from .rules import QualityRules

RULES = (
    "mutational_burden", "total_counts", "genes_detected", "mitochondrial", "min_genes", "doublet"
)  # fmt: skip
MAD_TO_SD = 1.4826
"""1 / the third quartile of the standard normal: so many MAD are one SD where values are normal."""

DUPLICATE = "duplicate_barcode"
"""The reason of a row whose counts were added to an earlier row with the same barcode."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellMeasures:
    """What the rules look at. All arrays have shape (n_cells,).

    Attributes:
        n_counts_c: total counts over all of the source's genes.
        n_genes_c: detected genes (non-zero names of the source).
        n_mitochondrial_c: counts on mitochondrial genes.
        n_coding_c: detected protein-coding or miRNA genes.
    """

    n_counts_c: NDArray[np.int64]
    n_genes_c: NDArray[np.int32]
    n_mitochondrial_c: NDArray[np.int64]
    n_coding_c: NDArray[np.int32]

    @property
    def mito_fraction_c(self) -> NDArray[np.float64]:
        """Share of a cell's counts on mitochondrial genes; NaN where a cell has no counts."""
        totals = np.where(self.n_counts_c > 0, self.n_counts_c, 1)
        return np.where(self.n_counts_c > 0, self.n_mitochondrial_c / totals, np.nan)


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """The rules of one source, frozen before its first cell is judged.

    Attributes:
        bounds: by name: `total_counts_low`, `total_counts_high` and alike for `genes_detected` and
            `mitochondrial`, `min_genes`, `doublet_score`; absent where a rule has no such bound.
        skipped: for each rule that is not applied, why.
    """

    bounds: dict[str, float]
    skipped: dict[str, str]


def measure(matrix: sparse.csr_matrix, genes: Harmonised) -> CellMeasures:
    """Measure some cells.

    Args:
        matrix: integer counts, cells x the source's names, no stored zeros.
        genes: what the names are.
    """
    n_counts, n_mitochondrial, n_coding = _measure_rows(
        matrix.indptr,
        matrix.indices,
        matrix.data,
        genes.gene_of,
        genes.mitochondrial_g,
        genes.coding_or_mirna_g,
    )
    return CellMeasures(
        n_counts_c=n_counts,
        n_genes_c=np.diff(matrix.indptr).astype(np.int32),
        n_mitochondrial_c=n_mitochondrial,
        n_coding_c=n_coding,
    )


def join_measures(parts: Sequence[CellMeasures]) -> CellMeasures:
    """Measures of several blocks of cells, in their order."""
    none = np.zeros(0, dtype=np.int64)
    return CellMeasures(
        n_counts_c=np.concatenate([none, *(part.n_counts_c for part in parts)]),
        n_genes_c=np.concatenate([none, *(part.n_genes_c for part in parts)]).astype(np.int32),
        n_mitochondrial_c=np.concatenate([none, *(part.n_mitochondrial_c for part in parts)]),
        n_coding_c=np.concatenate([none, *(part.n_coding_c for part in parts)]).astype(np.int32),
    )


def freeze_thresholds(
    measures: CellMeasures, rules: QualityRules, *, n_mitochondrial_genes: int, panel: bool
) -> Thresholds:
    """The thresholds of a whole source.

    Args:
        measures: of every cell of the source, in the source's order: the same cells give the
            same bits whatever the units were.
        rules: the settings.
        n_mitochondrial_genes: how many mitochondrial genes the source measures.
        panel: whether it measures under half of the coding genes.
    """
    bounds = _stated(rules)
    skipped: dict[str, str] = {}
    shapes_c = np.ones(len(measures.n_counts_c), dtype=bool)
    for rule, values_c in (
        ("total_counts", measures.n_counts_c),
        ("genes_detected", measures.n_genes_c),
    ):
        shapes_c &= ~_outside(rule, values_c, bounds)
    if rules.total_counts_n is not None and shapes_c.any():
        totals = measures.n_counts_c[shapes_c].astype(np.float64)
        _settle("total_counts", totals, rules.total_counts_n, rules, bounds, skipped)
    elif rules.total_counts_n is None and not _has("total_counts", bounds):
        skipped["total_counts"] = "switched off"
    if rules.mitochondrial_n is None and "mitochondrial_high" not in bounds:
        skipped["mitochondrial"] = "switched off"
    elif panel and rules.mitochondrial_n is not None:  # a stated threshold asks for it all the same
        skipped["mitochondrial"] = "panel: under half of the coding genes are measured"
    elif n_mitochondrial_genes < FEWEST_MITOCHONDRIAL:
        skipped["mitochondrial"] = (
            f"{n_mitochondrial_genes} mitochondrial genes are measured, "
            f"expected {FEWEST_MITOCHONDRIAL} or more"
        )
    elif rules.mitochondrial_n is not None:
        fractions = measures.mito_fraction_c[shapes_c]
        fractions = fractions[~np.isnan(fractions)]
        if len(fractions):
            _settle("mitochondrial", fractions, rules.mitochondrial_n, rules, bounds, skipped)
    if "mitochondrial" in skipped:
        bounds.pop("mitochondrial_high", None)
    if rules.min_genes > 0:
        bounds["min_genes"] = float(rules.min_genes)
    else:
        skipped["min_genes"] = "switched off"
    if not rules.mutational_burden:
        skipped["mutational_burden"] = "switched off"
    return Thresholds(bounds=bounds, skipped=skipped)


def reasons(
    measures: CellMeasures,
    thresholds: Thresholds,
    burdened_c: NDArray[np.bool_],
    *,
    filtered_c: NDArray[np.object_] | None = None,
    doublet_c: NDArray[np.bool_] | None = None,
) -> NDArray[np.object_]:
    """Each cell's first failed rule, an empty string where it is kept. Shape (n_cells,).

    Args:
        measures: of the cells.
        thresholds: of their source.
        burdened_c: which cells the metadata marks as malignant or immortalised.
        filtered_c: what the source's filters say of each; nothing where None.
        doublet_c: which cells are to be dropped as doublets; none where None.
    """
    failed: dict[str, NDArray[Any]] = {}
    bounds = thresholds.bounds
    if "mutational_burden" not in thresholds.skipped:
        failed["mutational_burden"] = burdened_c
    for rule, values_c in (
        ("total_counts", measures.n_counts_c),
        ("genes_detected", measures.n_genes_c),
        ("mitochondrial", measures.mito_fraction_c),
    ):
        failed[rule] = _outside(rule, values_c, bounds)
    if "min_genes" in bounds:
        failed["min_genes"] = measures.n_coding_c < bounds["min_genes"]
    if doublet_c is not None:
        failed["doublet"] = doublet_c
    n_cells = len(measures.n_counts_c)
    result = np.full(n_cells, "", dtype=object) if filtered_c is None else filtered_c.copy()
    for rule in RULES:
        if rule in failed:
            result[(result == "") & failed[rule]] = rule
    return result


def _stated(rules: QualityRules) -> dict[str, float]:
    """The bounds that the settings give themselves."""
    given = {
        "total_counts_low": rules.min_counts,
        "total_counts_high": rules.max_counts,
        "genes_detected_low": rules.min_genes_detected,
        "genes_detected_high": rules.max_genes_detected,
        "mitochondrial_high": rules.max_mito_fraction,
    }
    return {name: float(bound) for name, bound in given.items() if bound is not None}


def _settle(
    rule: str,
    values: NDArray[np.float64],
    n: float,
    rules: QualityRules,
    bounds: dict[str, float],
    skipped: dict[str, str],
) -> None:
    """Put a rule's bounds, n spreads from the middle, among the others; or why there are none."""
    log = rule == "total_counts" and rules.total_counts_scale == "log1p"
    scaled = np.log1p(values) if log else values
    if rules.method == "sd":
        middle, spread = float(scaled.mean()), float(scaled.std())
    else:
        middle = float(np.median(scaled))
        spread = MAD_TO_SD * float(np.median(np.abs(scaled - middle)))
        if spread == 0:  # else every other cell would go
            skipped[rule] = "the MAD is 0: half of the cells or more have the same value"
            return
    low, high = middle - n * spread, middle + n * spread
    if log:
        low, high = math.expm1(low), math.expm1(high)
    bounds |= {f"{rule}_low": low, f"{rule}_high": high}


def _has(rule: str, bounds: Mapping[str, float]) -> bool:
    return f"{rule}_low" in bounds or f"{rule}_high" in bounds


def _outside(rule: str, values: NDArray[Any], bounds: Mapping[str, float]) -> NDArray[np.bool_]:
    """Which values lie outside a rule's bounds; no bound, none."""
    low, high = bounds.get(f"{rule}_low", -math.inf), bounds.get(f"{rule}_high", math.inf)
    with np.errstate(invalid="ignore"):
        return (values < low) | (values > high)  # NaN is not outside: nothing is known of it


@numba.njit(cache=True, nogil=True)
def _measure_rows(
    indptr: NDArray[Any],
    indices: NDArray[Any],
    counts: NDArray[Any],
    gene_of: NDArray[np.int32],
    mitochondrial_g: NDArray[np.bool_],
    coding_g: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:  # pragma: no cover - compiled
    """Total, mitochondrial counts and coding genes of each row; names of one gene are one gene."""
    n_cells = len(indptr) - 1
    totals = np.zeros(n_cells, dtype=np.int64)
    mitochondrial = np.zeros(n_cells, dtype=np.int64)
    coding = np.zeros(n_cells, dtype=np.int32)
    last_seen_g = np.full(len(coding_g), -1, dtype=np.int32)
    for cell in range(n_cells):
        for place in range(indptr[cell], indptr[cell + 1]):
            gene = gene_of[indices[place]]
            totals[cell] += counts[place]
            if mitochondrial_g[gene]:
                mitochondrial[cell] += counts[place]
            if coding_g[gene] and last_seen_g[gene] != cell:
                last_seen_g[gene] = cell
                coding[cell] += 1
    return totals, mitochondrial, coding
