"""A count file to encoded tokens, straight from the file: cells a second, beside a plain loop.

The peer in the same run is the published recipe written plainly (numpy, a cell at a time). The
official tokenizer cannot be installed from the package index; its stated figure is 730 to 800
cells/s on a machine of this size (not the same run).
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cytolake.corpus.cells import CellBatch
from cytolake.corpus.genes import GeneReference
from cytolake.corpus.medians import MediansSet
from cytolake.corpus.vocabularies import Vocabulary
from cytolake.ingest.reading import read_cells
from cytolake.ingest.survey import gene_table
from cytolake.platform.screen import results, table
from cytolake.platform.settings import load_settings
from cytolake.train.encodings.rank_value import RankValueEncoding

LENGTH = 2048
REPEATS = 5


def plain_loop(batch: CellBatch, tokens_g: np.ndarray, medians_g: np.ndarray) -> list[np.ndarray]:
    """The recipe as one would write it first: count / n_counts x 10,000 / median, argsort."""
    encoded: list[np.ndarray] = []
    for c in range(batch.n_cells):
        cell = slice(batch.indptr[c], batch.indptr[c + 1])
        genes, counts = batch.indices[cell], batch.counts[cell]
        known = tokens_g[genes] >= 0
        value = counts[known] / batch.n_counts[c] * 1e4 / medians_g[genes[known]]
        encoded.append(tokens_g[genes[known]][np.argsort(-value)][:LENGTH])
    return encoded


def best(seconds: Sequence[float], n_cells: int) -> float:
    """Cells a second of the median repeat."""
    return n_cells / float(np.median(seconds))


def main() -> None:
    """Measure on the cells of the resource that the benchmark names, or of a path given."""
    import sys

    path = Path(sys.argv[1])
    settings = load_settings()
    reference = GeneReference.load(gene_table(settings))
    began = time.perf_counter()
    batches = list(read_cells(path, reference))
    reading = time.perf_counter() - began
    n_cells = sum(batch.n_cells for batch in batches)
    gene_ids = sorted({str(gene) for batch in batches for gene in batch.gene_ids})
    of_use = reference.is_coding_or_mirna(gene_ids)
    coding = [gene for gene, use in zip(gene_ids, of_use, strict=True) if use]
    vocabulary = Vocabulary(gene_ids=tuple(coding), special=("<pad>", "<mask>"))
    drawn = np.random.default_rng(0).uniform(0.5, 5, len(coding))  # any medians cost the same
    medians = MediansSet(gene_ids=tuple(coding), medians=drawn)
    encoding = RankValueEncoding(vocabulary, medians, LENGTH)
    encoding.encode(batches[0])  # compiles
    ours: list[float] = []
    plain: list[float] = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for batch in batches:
            encoding.encode(batch)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        for batch in batches:
            tokens_g = vocabulary.tokens_of(batch.gene_ids)
            plain_loop(batch, tokens_g, medians.of(batch.gene_ids))
        plain.append(time.perf_counter() - began)
    whole = reading + float(np.median(ours))
    rows = [
        {"what": "encode alone, cytolake", "cells/s": best(ours, n_cells)},
        {"what": "encode alone, plain numpy loop", "cells/s": best(plain, n_cells)},
        {
            "what": "file to tokens, cytolake",
            "cells/s": n_cells / whole,
        },
        {"what": "file to tokens, official (not the same run)", "cells/s": 765.0},
    ]
    results().print(table(rows, title=f"{path.name}: {n_cells:,} cells, one process"))


if __name__ == "__main__":
    main()
