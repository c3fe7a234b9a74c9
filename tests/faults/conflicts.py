"""Two changes that meet: what each of the five does, and a corpus that all five can be done to.

Knows no fault. `python -m cytolake.tests.faults.conflicts CHANGE FOLDER [SIGNALS]` makes a change
in a process of its own; with a folder for signals it stops right before its first commit, says so
by the file `waiting` there, and goes on when there is a file `go`.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from cytolake.corpus.change.annotation import annotate
from cytolake.corpus.change.deletion import delete
from cytolake.corpus.log.leases import lease
from cytolake.corpus.store import Corpus
from cytolake.corpus.upkeep.compaction import compact
from cytolake.corpus.upkeep.vacuum import vacuum
from cytolake.platform.faults import watching
from cytolake.tests.faults.commands import ingest_source

COMMIT = "before cells/commit"


def prepare(folder: Path) -> None:
    """Two sources of two segments each; some cells are deleted, so that vacuum has work."""
    corpus = Corpus.create(folder)
    ingest_source(corpus, "blood")
    ingest_source(corpus, "lung")
    delete(folder, "barcode LIKE '%-7'")


def _ingest(folder: Path) -> None:
    with lease(folder):
        ingest_source(Corpus.open(folder), "skin")


def _annotate(folder: Path) -> None:
    barcodes = [f"{source}-{part}-{n}" for source in SOURCES for part in (0, 1) for n in (3, 5, 9)]
    table = {
        "source_id": [barcode.split("-")[0] for barcode in barcodes],
        "barcode": barcodes,
        "disease": ["asthma"] * len(barcodes),
    }
    annotate(folder, pa.table(table), origin="a test")


def _delete(folder: Path) -> None:
    delete(folder, "barcode LIKE '%-3' OR disease = 'asthma'")


def _compact(folder: Path) -> None:
    compact(folder)


def _vacuum(folder: Path) -> None:
    vacuum(folder, older_than_ms=0)


SOURCES = ("blood", "lung", "skin")
CHANGES: dict[str, Callable[[Path], None]] = {
    "ingest": _ingest,
    "annotate": _annotate,
    "delete": _delete,
    "compact": _compact,
    "vacuum": _vacuum,
}


def content_of(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    """What the corpus holds, wherever it lies: cells, their counts, dropped cells, totals."""
    corpus = Corpus.open(folder)
    queries = {
        "cells": "SELECT COLUMNS(lambda c: c NOT IN ('cell_id', 'segment', 'row')) FROM cells",
        "counts": "SELECT source_id, barcode, gene_id, count FROM expression JOIN (SELECT cell_id, "
        "source_id, barcode FROM cells) USING (cell_id)",
        "source_obs": "SELECT source_id, barcode, cluster FROM source_obs JOIN (SELECT cell_id, "
        "source_id, barcode FROM cells) USING (cell_id)",
        "dropped": "SELECT source_id, barcode, reason FROM dropped",
        "genes": "SELECT gene_id, n_cells, total FROM genes",
    }
    return {
        name: [tuple(row.values()) for row in corpus.sql(f"{query} ORDER BY ALL").to_pylist()]
        for name, query in queries.items()
    }


def _wait(signals: Path) -> Callable[[str], None]:
    def stop(point: str) -> None:
        if point == COMMIT and not (signals / "waiting").exists():
            (signals / "waiting").touch()
            while not (signals / "go").exists():
                time.sleep(0.01)

    return stop


if __name__ == "__main__":
    if len(sys.argv) > 3:
        with watching(_wait(Path(sys.argv[3]))):
            CHANGES[sys.argv[1]](Path(sys.argv[2]))
    else:
        CHANGES[sys.argv[1]](Path(sys.argv[2]))
