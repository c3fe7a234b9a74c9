from typing import Any

import numpy as np
import pandas as pd
import pytest
from cytolake.corpus.genes import GeneReference
from cytolake.ingest.harmonise import Harmonised, harmonise
from cytolake.ingest.quality import (
    CellMeasures,
    QualityRules,
    freeze_thresholds,
    join_measures,
    measure,
    reasons,
)
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
