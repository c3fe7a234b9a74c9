"""The sketch's medians and a t-digest's beside exact ones: error and speed, in one run.

    python -m benchmarks.median_sketch FILE

The peer is crick's t-digest (C), one a gene, as the published recipe uses t-digests; it is fed the
same values. Both are built over parts of the cells and merged, as a corpus of many files must be.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from crick import TDigest
from cytolake.corpus.genes import GeneReference
from cytolake.corpus.sketches import Sketch
from cytolake.ingest.reading import read_cells
from cytolake.ingest.survey import gene_table
from cytolake.platform.screen import results, table
from cytolake.platform.settings import load_settings

PARTS = 8
BANDS = ((1, 3), (4, 30), (31, 300), (301, 10**9))


def timed(work: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """What it gives, and the seconds it took."""
    began = time.perf_counter()
    found = work()
    return found, time.perf_counter() - began


def main() -> None:
    """Measure on the cells of a file."""
    reference = GeneReference.load(gene_table(load_settings()))
    batches = list(read_cells(Path(sys.argv[1]), reference))
    gene_ids = batches[0].gene_ids
    whole = [
        batch.take(rows)
        for batch in batches
        for rows in np.array_split(np.arange(batch.n_cells), PARTS)
        if len(rows)
    ]
    values: list[list[np.ndarray]] = [[] for _ in gene_ids]
    for batch in whole:
        totals = np.repeat(batch.n_counts, np.diff(batch.indptr))
        scaled = batch.counts / totals * 1e4
        order = np.argsort(batch.indices, kind="stable")
        starts = np.searchsorted(batch.indices[order], np.arange(len(gene_ids) + 1))
        for gene in range(len(gene_ids)):
            values[gene].append(scaled[order[starts[gene] : starts[gene + 1]]])
    exact = np.array([np.median(np.concatenate(v)) if sum(map(len, v)) else np.nan for v in values])
    n_values = np.array([sum(map(len, v)) for v in values])

    def sketched() -> np.ndarray:
        parts = [Sketch.of(b.gene_ids, b.indptr, b.indices, b.counts, b.n_counts) for b in whole]
        return Sketch.merge(parts).medians()

    def digested() -> np.ndarray:
        found = np.full(len(gene_ids), np.nan)
        for gene, parts in enumerate(values):
            merged = TDigest()
            for part in parts:
                if len(part):
                    digest = TDigest()
                    digest.update(part)
                    merged.merge(digest)
            if n_values[gene]:
                found[gene] = merged.quantile(0.5)
        return found

    sketched()  # compiled once
    answers = {"sketch": timed(sketched), "t-digest (crick)": timed(digested)}
    rows = []
    for low, high in BANDS:
        chosen = (n_values >= low) & (n_values <= high)
        for name, (found, _) in answers.items():
            error = np.abs(found[chosen] / exact[chosen] - 1)
            rows.append(
                {
                    "cells that express the gene": f"{low} or more"
                    if high > 10**8
                    else f"{low} to {high}",
                    "genes": int(chosen.sum()),
                    "by": name,
                    "typical error": f"{np.median(error):.3%}",
                    "worst error": f"{error.max():.3%}",
                }
            )
    results().print(table(rows))
    for name, (_, seconds) in answers.items():
        results().print(f"{name}: {seconds:.2f} s for {n_values.sum():,} values")


if __name__ == "__main__":
    main()
