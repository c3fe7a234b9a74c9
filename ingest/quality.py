"""Which cells are kept, and why not: Geneformer's rules, in two passes.

Pass 1 measures every cell of a source, from its raw matrix before gene mapping, and freezes the
thresholds; pass 2 judges each cell by them. Knows no file. Array suffix: c cell.

    mutational_burden   malignant cells and immortalised lines, by declared metadata
    total_counts        total counts within 3 SD of the source's mean
    mitochondrial       mitochondrial fraction within 3 SD of the source's mean
    min_genes           at least 7 detected protein-coding or miRNA genes (7 x 15 % >= 1 mask)

A dropped cell carries the first rule that it failed, in this order. Source: Theodoris et al. 2023,
Methods. SD is the population's (divided by n). A cell without counts has no mitochondrial fraction
and is left out of that mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..platform.configuration import Configuration
from .harmonise import FEWEST_MITOCHONDRIAL, Harmonised

RULES = ("mutational_burden", "total_counts", "mitochondrial", "min_genes")
DUPLICATE = "duplicate_barcode"
"""The reason of a row whose counts were added to an earlier row with the same barcode."""


class QualityRules(Configuration):
    """The rules' settings; the defaults are Geneformer's.

    Attributes:
        total_counts_sd: how many SD from the mean a cell's total may lie; None switches it off.
        mitochondrial_sd: the same for the mitochondrial fraction.
        min_genes: fewest detected coding or miRNA genes; 0 switches it off.
        mutational_burden: whether cells marked malignant or immortalised are dropped.
    """

    total_counts_sd: float | None = 3.0
    mitochondrial_sd: float | None = 3.0
    min_genes: int = 7
    mutational_burden: bool = True


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
        bounds: by name: `total_counts_low`, `total_counts_high`, `mitochondrial_low`,
            `mitochondrial_high`, `min_genes`; absent where the rule is skipped.
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
    by_name = genes.mitochondrial_g[genes.gene_of][matrix.indices]
    mitochondrial = np.where(by_name, matrix.data, 0).astype(np.int64)
    if genes.n_summed:
        by_gene = genes.sum_genes(matrix)
        coding, ends = genes.coding_or_mirna_g[by_gene.indices], by_gene.indptr
    else:
        coding, ends = genes.coding_or_mirna_g[genes.gene_of][matrix.indices], matrix.indptr
    return CellMeasures(
        n_counts_c=_sum_rows(matrix.data.astype(np.int64), matrix.indptr),
        n_genes_c=np.diff(matrix.indptr).astype(np.int32),
        n_mitochondrial_c=_sum_rows(mitochondrial, matrix.indptr),
        n_coding_c=_sum_rows(coding.astype(np.int64), ends).astype(np.int32),
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
    bounds: dict[str, float] = {}
    skipped: dict[str, str] = {}
    if rules.total_counts_sd is None:
        skipped["total_counts"] = "switched off"
    elif len(measures.n_counts_c):
        totals = measures.n_counts_c.astype(np.float64)
        bounds |= _within("total_counts", totals, rules.total_counts_sd)
    if rules.mitochondrial_sd is None:
        skipped["mitochondrial"] = "switched off"
    elif panel:
        skipped["mitochondrial"] = "panel: under half of the coding genes are measured"
    elif n_mitochondrial_genes < FEWEST_MITOCHONDRIAL:
        skipped["mitochondrial"] = (
            f"{n_mitochondrial_genes} mitochondrial genes are measured, "
            f"expected {FEWEST_MITOCHONDRIAL} or more"
        )
    else:
        fractions = measures.mito_fraction_c
        fractions = fractions[~np.isnan(fractions)]
        if len(fractions):
            bounds |= _within("mitochondrial", fractions, rules.mitochondrial_sd)
    if rules.min_genes > 0:
        bounds["min_genes"] = float(rules.min_genes)
    else:
        skipped["min_genes"] = "switched off"
    if not rules.mutational_burden:
        skipped["mutational_burden"] = "switched off"
    return Thresholds(bounds=bounds, skipped=skipped)


def reasons(
    measures: CellMeasures, thresholds: Thresholds, burdened_c: NDArray[np.bool_]
) -> NDArray[np.object_]:
    """Each cell's first failed rule, an empty string where it is kept. Shape (n_cells,).

    Args:
        measures: of the cells.
        thresholds: of their source.
        burdened_c: which cells the metadata marks as malignant or immortalised.
    """
    failed: dict[str, NDArray[Any]] = {}
    bounds = thresholds.bounds
    if "mutational_burden" not in thresholds.skipped:
        failed["mutational_burden"] = burdened_c
    if "total_counts_low" in bounds:
        failed["total_counts"] = _outside(
            measures.n_counts_c, bounds["total_counts_low"], bounds["total_counts_high"]
        )
    if "mitochondrial_low" in bounds:
        failed["mitochondrial"] = _outside(
            measures.mito_fraction_c, bounds["mitochondrial_low"], bounds["mitochondrial_high"]
        )
    if "min_genes" in bounds:
        failed["min_genes"] = measures.n_coding_c < bounds["min_genes"]
    result = np.full(len(measures.n_counts_c), "", dtype=object)
    for rule in RULES:
        if rule in failed:
            result[(result == "") & failed[rule]] = rule
    return result


def _within(rule: str, values: NDArray[np.float64], n_sd: float) -> dict[str, float]:
    mean, sd = float(values.mean()), float(values.std())
    return {f"{rule}_low": mean - n_sd * sd, f"{rule}_high": mean + n_sd * sd}


def _outside(values: NDArray[Any], low: float, high: float) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return (values < low) | (values > high)  # NaN is not outside: nothing is known of it


def _sum_rows(values: NDArray[np.int64], indptr: NDArray[Any]) -> NDArray[np.int64]:
    """Sums over CSR rows; empty rows give 0, which `add.reduceat` alone does not."""
    ends = np.concatenate([[0], np.cumsum(values)])
    return (ends[indptr[1:]] - ends[indptr[:-1]]).astype(np.int64)
