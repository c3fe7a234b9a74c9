import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cytolake.corpus.genes import GeneReference
from cytolake.ingest.harmonise import Harmonised, harmonise
from cytolake.ingest.quality import (
    CellMeasures,
    Thresholds,
    freeze_thresholds,
    join_measures,
    measure,
    reasons,
)
from cytolake.ingest.rules import QualityRules
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse


@pytest.fixture
def genes(reference: GeneReference):
    return harmonise({"index": np.array(reference.gene_ids, dtype=object)}, reference, where="x")


def oracle(
    counts: pd.DataFrame, mitochondrial: Any, coding: Any, n_sd: Any = 3.0, min_genes: Any = 7
) -> list[str]:
    """The rules, cell by cell, as a reader of the paper would write them."""
    totals = counts.sum(axis=1)
    fractions = counts[mitochondrial].sum(axis=1) / totals
    low, high = totals.mean() - n_sd * totals.std(ddof=0), totals.mean() + n_sd * totals.std(ddof=0)
    least = fractions.mean() - n_sd * fractions.std(ddof=0)
    most = fractions.mean() + n_sd * fractions.std(ddof=0)
    why = []
    for cell in counts.index:
        if not low <= totals[cell] <= high:
            why.append("total_counts")
        elif fractions[cell] < least or fractions[cell] > most:
            why.append("mitochondrial")
        elif (counts.loc[cell, coding] > 0).sum() < min_genes:
            why.append("min_genes")
        else:
            why.append("")
    return why


def test_the_rules_agree_with_a_pandas_computation(
    adata: Any, reference: GeneReference, genes: Harmonised
):
    frame = adata.to_df()
    coding = [g for g, b in zip(reference.gene_ids, reference.biotypes, strict=True)
              if b in ("protein_coding", "miRNA")]  # fmt: skip
    measures = measure(sparse.csr_matrix(adata.X).astype(np.int64), genes)
    thresholds = freeze_thresholds(measures, QualityRules(), n_mitochondrial_genes=6, panel=False)
    why = reasons(measures, thresholds, np.zeros(40, dtype=bool))
    assert why.tolist() == oracle(frame, list(reference.gene_ids[20:26]), coding)
    assert why[7] == "total_counts" and why[8] == "min_genes" and why[9] == "mitochondrial"


def test_measures_do_not_depend_on_how_the_cells_are_cut(adata: Any, genes: Harmonised):
    matrix: Any = sparse.csr_matrix(adata.X).astype(np.int64)
    whole = measure(matrix, genes)
    parts = join_measures([measure(matrix[:13], genes), measure(matrix[13:], genes)])
    for name in CellMeasures.__slots__:
        assert (getattr(whole, name) == getattr(parts, name)).all()


def test_totals_are_of_the_source_and_detected_genes_of_the_reference(reference: GeneReference):
    names = np.array(["G1", "OLD1", "G2", "junk", "LNC29"], dtype=object)
    genes = harmonise({"index": names}, reference, where="x")
    measures = measure(sparse.csr_matrix(np.array([[1, 1, 1, 5, 5]])), genes)
    assert measures.n_counts_c.tolist() == [13]
    assert measures.n_genes_c.tolist() == [5]  # names with counts
    assert measures.n_coding_c.tolist() == [2]  # G1 (twice) and G2


def test_a_panel_and_a_set_without_mitochondria_skip_that_rule_and_say_so(
    adata: Any, genes: Harmonised
):
    measures = measure(sparse.csr_matrix(adata.X).astype(np.int64), genes)
    panel = freeze_thresholds(measures, QualityRules(), n_mitochondrial_genes=6, panel=True)
    assert "panel" in panel.skipped["mitochondrial"]
    few = freeze_thresholds(measures, QualityRules(), n_mitochondrial_genes=4, panel=False)
    assert few.skipped["mitochondrial"].startswith("4 mitochondrial genes")
    assert "mitochondrial_low" not in few.bounds


def test_marked_cells_are_dropped_first_unless_switched_off(adata: Any, genes: Harmonised):
    measures = measure(sparse.csr_matrix(adata.X).astype(np.int64), genes)
    marked = np.ones(40, dtype=bool)
    rules = freeze_thresholds(measures, QualityRules(), n_mitochondrial_genes=6, panel=False)
    assert set(reasons(measures, rules, marked)) == {"mutational_burden"}
    off = QualityRules(mutational_burden=False, total_counts_sd=None, mitochondrial_sd=None,
                       min_genes=0)  # fmt: skip
    none = freeze_thresholds(measures, off, n_mitochondrial_genes=6, panel=False)
    assert set(reasons(measures, none, marked)) == {""}
    assert set(none.skipped) == {"mutational_burden", "total_counts", "mitochondrial", "min_genes"}


def test_seven_detected_genes_are_enough_and_six_are_not(
    reference: GeneReference, genes: Harmonised
):
    counts = np.zeros((2, 30), dtype=np.int64)
    counts[0, :7] = 1
    counts[1, :6] = 1
    measures = measure(sparse.csr_matrix(counts), genes)
    rules = QualityRules(total_counts_sd=None, mitochondrial_sd=None)
    thresholds = freeze_thresholds(measures, rules, n_mitochondrial_genes=6, panel=False)
    assert reasons(measures, thresholds, np.zeros(2, dtype=bool)).tolist() == ["", "min_genes"]


def measured(totals: Any, mitochondrial: Any = None, detected: Any = None, coding: Any = None):
    """Measures that are made up."""
    n_cells = len(totals)
    given = {"n_mitochondrial_c": mitochondrial, "n_genes_c": detected, "n_coding_c": coding}
    filled = {
        name: np.full(n_cells, 10) if values is None else np.array(values, dtype=np.int64)
        for name, values in given.items()
    }
    return CellMeasures(n_counts_c=np.array(totals, dtype=np.int64), **filled)


def frozen(
    measures: CellMeasures, *, n_mitochondrial: int = 13, panel: bool = False, **values: Any
):
    return freeze_thresholds(
        measures, QualityRules(**values), n_mitochondrial_genes=n_mitochondrial, panel=panel
    )


def judged(measures: CellMeasures, thresholds: Thresholds) -> list[str]:
    return reasons(measures, thresholds, np.zeros(len(measures.n_counts_c), dtype=bool)).tolist()


def middle_of(values: list[float]) -> float:
    """The median, by sorting."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


@given(
    totals=st.lists(st.integers(0, 5000), min_size=1, max_size=60),
    n=st.sampled_from([0.5, 1.0, 3.0]),
    scale=st.sampled_from(["counts", "log1p"]),
)
@settings(max_examples=150, deadline=None)
def test_mad_bounds_are_the_median_and_its_absolute_deviations(
    totals: list[int], n: float, scale: str
):
    thresholds = frozen(
        measured(totals), method="mad", total_counts_mad=n, total_counts_scale=scale
    )
    values = [math.log1p(total) if scale == "log1p" else float(total) for total in totals]
    middle = middle_of(values)
    spread = 1.4826 * middle_of([abs(value - middle) for value in values])
    if spread == 0:
        assert "half of the cells" in thresholds.skipped["total_counts"]
        assert "total_counts_low" not in thresholds.bounds
        return
    bounds = [middle - n * spread, middle + n * spread]
    if scale == "log1p":
        bounds = [math.expm1(bound) for bound in bounds]
    assert thresholds.bounds["total_counts_low"] == pytest.approx(bounds[0], rel=1e-9, abs=1e-9)
    assert thresholds.bounds["total_counts_high"] == pytest.approx(bounds[1], rel=1e-9, abs=1e-9)


@given(
    cells=st.lists(
        st.tuples(st.integers(0, 900), st.integers(0, 90), st.integers(0, 40)),
        min_size=1, max_size=40,
    ),
    low=st.none() | st.integers(0, 500),
    high=st.none() | st.integers(500, 900),
    fewest=st.none() | st.integers(0, 40),
    most_mito=st.none() | st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_stated_thresholds_stand_instead_of_the_statistic(
    cells: Any, low: Any, high: Any, fewest: Any, most_mito: Any
):
    totals = [total for total, _, _ in cells]
    mito = [min(some, total) for total, some, _ in cells]
    detected = [n_genes for _, _, n_genes in cells]
    measures = measured(totals, mito, detected)
    off: dict[str, Any] = {} if most_mito is not None else {"mitochondrial_sd": "off"}
    off |= {} if low is not None or high is not None else {"total_counts_sd": "off"}
    thresholds = frozen(
        measures, min_counts=low, max_counts=high, min_genes_detected=fewest,
        max_mito_fraction=most_mito, min_genes=0, **off,
    )  # fmt: skip
    for total, some, n_genes, why in zip(
        totals, mito, detected, judged(measures, thresholds), strict=True
    ):
        if (low is not None and total < low) or (high is not None and total > high):
            assert why == "total_counts"
        elif fewest is not None and n_genes < fewest:
            assert why == "genes_detected"
        elif most_mito is not None and total and some / total > most_mito:
            assert why == "mitochondrial"
        else:
            assert why == ""


def test_cells_below_a_stated_threshold_shape_no_statistic():
    cells, droplets = [1000, 1100, 900, 1050], [1] * 96
    mito = [50, 60, 40, 55] + [1] * 96
    measures = measured(cells + droplets, mito)
    alone = frozen(measured(cells, mito[:4]), min_counts=500)
    raw = frozen(measures, min_counts=500)
    assert raw == alone
    assert judged(measures, raw) == [""] * 4 + ["total_counts"] * 96
    assert "total_counts_high" not in raw.bounds and raw.bounds["total_counts_low"] == 500


def test_a_panel_is_judged_by_mitochondria_only_if_a_threshold_asks_for_it():
    measures = measured([100, 100], [90, 1])
    assert "mitochondrial" in frozen(measures, panel=True).skipped
    asked = frozen(measures, panel=True, max_mito_fraction=0.5)
    assert judged(measures, asked) == ["mitochondrial", ""]
    few = frozen(measures, n_mitochondrial=4, max_mito_fraction=0.5)
    assert few.skipped["mitochondrial"].startswith("4 mitochondrial genes")
    assert "mitochondrial_high" not in few.bounds


def test_a_filter_speaks_first_and_a_doublet_last():
    measures = measured([100, 100, 100, 1], detected=[10, 10, 2, 10])
    thresholds = frozen(measures, min_counts=5, min_genes_detected=3, mitochondrial_sd="off")
    why = reasons(
        measures, thresholds, np.array([True, False, False, True]),
        filtered_c=np.array(["filter:qc", "", "", ""], dtype=object),
        doublet_c=np.array([True, True, True, True]),
    )  # fmt: skip
    assert why.tolist() == ["filter:qc", "doublet", "genes_detected", "mutational_burden"]
