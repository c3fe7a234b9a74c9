"""The bars of an ingest: a file into a corpus beside annbatch's conversion, and a file to tokens.

    python -m benchmarks.ingest_bars --cells 60000 --peer peer/bin/python
    python -m benchmarks.ingest_bars --file atlas.h5ad      # one ingest: rate and peak memory

Makes the cells (`benchmarks.synthetic`, 2,000 genes seen a cell), as a plain h5ad and gzipped, then
runs each way in a process of its own, one after the other, in turns; writes the dated note.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from cytolake.platform.screen import results, table
from cytolake.platform.settings import load_settings

from benchmarks.source_statistics import default_statistics
from benchmarks.synthetic_h5ad import write_h5ad

HERE = Path(__file__).parent
DEPTH = 2000.0
REPEATS = 3
OFFICIAL = 765.0
"""Cells a second that the official tokenizer gave on a machine of this size: not the same run."""


@contextmanager
def watching_workers() -> Generator[dict[int, int]]:
    """The most memory that each Ray worker has held, in MB, by process; of those that come now."""
    before, peaks, over = set(_workers()), dict[int, int](), threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            for pid, peak in _workers().items():
                if pid not in before:
                    peaks[pid] = max(peaks.get(pid, 0), peak)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        over.set()
        watcher.join()


def _workers() -> dict[int, int]:
    found: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and (folder / "cmdline").read_bytes().startswith(b"ray::"):
                status = (folder / "status").read_text()
                found[int(folder.name)] = int(status.split("VmHWM:")[1].split()[0]) // 1024
        except (OSError, IndexError):  # it has just ended
            continue
    return found


def ingest_once(path: Path) -> dict[str, Any]:
    """One ingest, all in: Ray started, both passes, segments, the commit; nothing warmed before."""
    began = time.perf_counter()
    from cytolake.corpus.store import Corpus
    from cytolake.ingest.job import ingest
    from cytolake.ingest.sources_toml import plan_of

    with tempfile.TemporaryDirectory(dir=path.parent) as folder, watching_workers() as peaks:
        report = ingest(f"{folder}/lake", plan_of([str(path)]), load_settings())
        seconds = time.perf_counter() - began
        (source,) = report.sources
        if source.receipt is None or source.status != "added":
            raise SystemExit(f"{path}: {source.status}: {source.error}")
        corpus = Corpus.open(f"{folder}/lake")
        n_stored = sum(entry.n_nonzero for entry in corpus.state.segments.values())
        segments = corpus.segments_folder.rglob("*")
        n_bytes = sum(file.stat().st_size for file in segments if file.is_file())
    return {
        "seconds": seconds,
        "n_cells": source.receipt.n_read,
        "n_kept": source.receipt.n_kept,
        "n_stored": n_stored,
        "n_bytes": n_bytes,
        "peak_mb": max(peaks.values(), default=0),
    }


def tokens_once(path: Path) -> dict[str, Any]:
    """A file to encoded tokens, straight from the file, in this one process; kernels compiled."""
    import numpy as np
    from cytolake.corpus.medians import MediansSet
    from cytolake.corpus.vocabularies import Vocabulary
    from cytolake.ingest.reading import read_cells
    from cytolake.ingest.survey import gene_table, load_reference
    from cytolake.train.encodings.rank_value import RankValueEncoding

    reference = load_reference(gene_table(load_settings()))
    first = next(iter(read_cells(path, reference)))
    gene_ids = [str(gene) for gene in first.gene_ids]
    of_use = reference.is_coding_or_mirna(gene_ids)
    coding = tuple(gene for gene, use in zip(gene_ids, of_use, strict=True) if use)
    drawn = np.random.default_rng(0).uniform(0.5, 5, len(coding))  # any medians cost the same
    vocabulary = Vocabulary(gene_ids=coding, special=("<pad>", "<mask>"))
    encoding = RankValueEncoding(vocabulary, MediansSet(gene_ids=coding, medians=drawn), 2048)
    encoding.encode(first)
    began = time.perf_counter()
    n_cells = n_tokens = 0
    for batch in read_cells(path, reference):
        n_tokens += len(encoding.encode(batch).tokens)
        n_cells += batch.n_cells
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "n_cells": n_cells, "n_tokens": n_tokens}


def _child(*words: str) -> dict[str, Any]:
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _peer(python: Path, path: Path, *flags: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        return _child(str(python), str(HERE / "annbatch_convert.py"), str(path), folder, *flags)


def compared(folder: Path, n_cells: int, peer: Path | None) -> list[dict[str, Any]]:
    """Every way, `REPEATS` times, in turns; a row each with the median."""
    known = default_statistics(load_settings())
    plain, packed = folder / "plain.h5ad", folder / "gzip.h5ad"
    write_h5ad(plain, known, n_cells, 0, depth=DEPTH)
    write_h5ad(packed, known, n_cells, 0, depth=DEPTH, compression="gzip")
    me = (sys.executable, "-m", "benchmarks.ingest_bars")
    ways: dict[str, Any] = {
        "ingest, plain h5ad": lambda: _child(*me, "--once", str(plain)),
        "ingest, gzip h5ad": lambda: _child(*me, "--once", str(packed)),
        "plain h5ad to tokens, one process": lambda: _child(*me, "--tokens", str(plain)),
        "gzip h5ad to tokens, one process": lambda: _child(*me, "--tokens", str(packed)),
    }
    if peer is not None:
        ways["annbatch converts and shuffles, plain"] = lambda: _peer(peer, plain, "--shuffle")
        ways["annbatch converts, not shuffled, plain"] = lambda: _peer(peer, plain)
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            answers[name].append(way())
            print(f"{name}: {answers[name][-1]}", flush=True)
    rows: list[dict[str, Any]] = []
    for name, found in answers.items():
        rates = [n_cells / one["seconds"] for one in found]
        rate = statistics.median(rates)
        rows.append(
            {
                "what": name,
                "cells/s, machine": round(rate),
                "of all runs": f"{min(rates):,.0f} to {max(rates):,.0f}",
                "cells/s a core": round(rate / (1 if "process" in name else os.cpu_count() or 1)),
                "MB": round(found[0].get("n_bytes", 0) / 1e6) or "",
                "peak MB a worker": max(one.get("peak_mb", 0) for one in found) or "",
            }
        )
    return rows


def write_note(rows: list[dict[str, Any]], n_cells: int) -> Path:
    """The dated note, with what its rows say of the bars."""
    names = list(rows[0])
    used = ("ray", "pyarrow", "zarr", "h5py", "numba")
    versions = ", ".join(f"{name} {version(name)}" for name in used)
    lines = [
        f"# {date.today()}: ingest",
        "",
        f"Command: `python -m benchmarks.ingest_bars --cells {n_cells} --peer PYTHON3.12`, median",
        f"of {REPEATS} runs in turns, each in a process of its own; Ray's start is in the time.",
        f"{n_cells:,} synthetic cells of {DEPTH:,.0f} genes seen; {os.cpu_count()} cores, load at",
        f"the end {os.getloadavg()[0]:.1f}. Versions: {versions}.",
        "",
        f"| {' | '.join(names)} |",
        f"|{'---|' * len(names)}",
        *(f"| {' | '.join(str(row[name]) for name in names)} |" for row in rows),
        "",
        f"The official tokenizer: {OFFICIAL:,.0f} cells/s (not the same run).",
        "",
    ]
    path = HERE / f"{date.today()}-ingest.md"
    path.write_text("\n".join(lines))
    return path


def main(
    cells: Annotated[int, typer.Option(help="How many cells to make.")] = 60_000,
    peer: Annotated[Path | None, typer.Option(help="A Python that has annbatch.")] = None,
    file: Annotated[Path | None, typer.Option(help="Ingest this file once instead.")] = None,
    once: Annotated[Path | None, typer.Option(hidden=True)] = None,
    tokens: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure an ingest beside annbatch's conversion, and a file to tokens."""
    single = once or file
    if single is not None or tokens is not None:
        answer = ingest_once(single) if single is not None else tokens_once(Path(str(tokens)))
        print(json.dumps(answer))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = compared(Path(folder), cells, peer)
    results().print(table(rows, title=f"{cells:,} cells"))
    print(write_note(rows, cells))


if __name__ == "__main__":
    typer.run(main)
