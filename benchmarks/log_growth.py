"""What a long log costs: a commit, an open and a first question after some hundred commits.

    python -m benchmarks.log_growth

Knows commits; measures nothing of counts. Two corpora grow: one by tiny sources, so that commits,
sources and segments grow together; one by deletions of a cell each, so that commits alone grow.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cytolake.corpus.store import Corpus
from cytolake.platform.settings import load_settings

from benchmarks.source_statistics import default_statistics
from benchmarks.synthetic_corpus import Cells, build_corpus, equal_sources, write_sources

MARKS = (50, 100, 200, 400)
N_GENES, CELLS_EACH, DEPTH = 500, 16, 30.0
LAST = 20
"""A commit's time is the median of so many before the mark."""

Row = dict[str, Any]


def growing_by_sources(folder: Path) -> Iterator[tuple[float, float]]:
    """Commit one tiny source after the other; seconds and processor time of each commit."""
    few = default_statistics(load_settings()).keep_genes(N_GENES)
    cells, n = Cells(statistics=few, seed=0, depth=DEPTH), MARKS[-1]
    corpus = Corpus.create(folder)
    for receipt, records in write_sources(corpus, cells, equal_sources(CELLS_EACH * n, n, n)):
        began, cpu = time.perf_counter(), time.process_time()
        corpus.commit_source(receipt, records)
        yield time.perf_counter() - began, time.process_time() - cpu


def growing_by_deletions(folder: Path) -> Iterator[tuple[float, float]]:
    """Delete one cell after the other; seconds and processor time of each deletion."""
    few = default_statistics(load_settings()).keep_genes(N_GENES)
    n = MARKS[-1]
    corpus = build_corpus(folder, few, 4 * n, 2, 1, 0, depth=DEPTH)
    ids = corpus.sql("SELECT cell_id FROM cells ORDER BY cell_id").column("cell_id").to_pylist()
    for cell_id in ids[:n]:
        began, cpu = time.perf_counter(), time.process_time()
        corpus.delete(f"cell_id = {cell_id}")
        yield time.perf_counter() - began, time.process_time() - cpu


GROWING = {"sources": growing_by_sources, "deletions": growing_by_deletions}


def measured(kind: str, folder: Path) -> list[Row]:
    """Grow a corpus; at each mark what it costs to commit, and in children to open and to ask."""
    rows: list[Row] = []
    spent: list[tuple[float, float]] = []
    for one in GROWING[kind](folder):
        spent.append(one)
        if len(spent) in MARKS:
            opened, asked = _in_a_child("open", folder), _in_a_child("sql", folder)
            log = (folder / "cells" / "_delta_log").glob("*.json")
            rows.append(
                {
                    "grown by": kind,
                    "commits": len(spent),
                    "commit ms": round(statistics.median(s for s, _ in spent[-LAST:]) * 1e3),
                    "CPU ms": round(statistics.median(s for _, s in spent[-LAST:]) * 1e3),
                    "open: CPU ms": round(opened["cpu_seconds"] * 1e3),
                    "open and first question: CPU ms": round(asked["cpu_seconds"] * 1e3),
                    "peak MB": round(asked["peak_mb"]),
                    "log MB": round(sum(path.stat().st_size for path in log) / 1e6, 2),
                }
            )
    return rows


def _in_a_child(stage: str, folder: Path) -> Row:
    words = [sys.executable, "-m", "benchmarks.scale_stages", stage, str(folder)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the rows, one a line."""
    for kind in GROWING:
        with tempfile.TemporaryDirectory() as folder:
            for row in measured(kind, Path(folder) / "lake"):
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
