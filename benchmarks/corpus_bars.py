"""The bars of a corpus: seconds and peak memory of every command, at a quarter and at a million.

    python -m benchmarks.corpus_bars

Makes two corpora of 400 segments (shallow cells: what is measured is the work per cell and per
segment, not per count) and one of deep cells for `verify --deep`; runs each command in a process of
its own, one after the other, and writes the dated note.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from cytolake import __version__
from cytolake.corpus.store import Corpus
from cytolake.platform.settings import load_settings
from cytolake.tests.faults.commands import ingest_source, prepare_part

from benchmarks.source_statistics import default_statistics
from benchmarks.synthetic_corpus import build_corpus

HERE = Path(__file__).parent
SIZES = (250_000, 1_000_000)
N_SEGMENTS, N_SOURCES, N_GENES, DEPTH = 400, 20, 4000, 30.0
DEEP_CELLS, DEEP_SEGMENTS, DEEP_DEPTH = 32_768, 4, 2000.0
CELLS_PER_SEGMENT = 50_000

Step = Callable[[Corpus], Any]


def _commit(corpus: Corpus) -> None:
    ingest_source(corpus, "small")


def _annotate(corpus: Corpus) -> int:
    chosen = corpus.sql("SELECT cell_id FROM cells WHERE cell_id % 100 = 7")
    labels = pc.if_else(pc.greater(chosen.column("cell_id"), 0), "relabelled", None)
    return corpus.annotate(chosen.append_column("cell_type", labels), origin="a table").n_changed


STEPS: dict[str, tuple[str, Step]] = {
    "open": ("open", lambda corpus: corpus.snapshot),
    "sql": (
        "SQL: cells by type",
        lambda corpus: corpus.sql("SELECT cell_type, count(*) AS n FROM cells GROUP BY 1").num_rows,
    ),
    "verify": ("verify (sizes)", lambda corpus: len(corpus.verify())),
    "deep": ("verify --deep", lambda corpus: len(corpus.verify(deep=True))),
    "commit": ("commit of a source of 2 prepared segments", _commit),
    "annotate": ("annotate 1 %", _annotate),
    "delete": ("delete 1 %", lambda corpus: corpus.delete("cell_id % 100 = 3").n_cells),
    "diff": ("diff of the first and the newest", lambda corpus: str(corpus.compare(20, 23))[:0]),
    "lineage": ("lineage of a source", lambda corpus: len(corpus.lineage("source:small"))),
    "vacuum": (
        "vacuum: 400 segments written anew",
        lambda corpus: corpus.vacuum(older_than_ms=0).n_rewritten,
    ),
    "compact": (
        f"compact to {CELLS_PER_SEGMENT:,} cells a segment",
        lambda corpus: corpus.compact(cells_per_segment=CELLS_PER_SEGMENT).n_after,
    ),
    "deep-again": ("verify --deep after all that", lambda corpus: len(corpus.verify(deep=True))),
}


def run_step(name: str, folder: Path) -> None:
    """In a process of its own: open the corpus, do one thing, print what it took."""
    if name == "commit":
        corpus = Corpus.open(folder)
        for part in range(2):
            prepare_part(corpus, "small", part)
    began = time.perf_counter()
    corpus = Corpus.open(folder)
    answer = STEPS[name][1](corpus)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb(), "answer": answer}))


def peak_mb() -> float:
    """The most memory this process has held, in MB; `getrusage` would tell its parent's, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measured(name: str, folder: Path) -> dict[str, Any]:
    """What one command took, in a child.

    Raises:
        CalledProcessError: it failed.
    """
    words = [sys.executable, "-m", "benchmarks.corpus_bars", name, str(folder)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Make the corpora, measure, write the note."""
    few = default_statistics(load_settings()).keep_genes(N_GENES)
    found: dict[int, dict[str, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for n_cells in SIZES:
            folder = Path(temporary) / str(n_cells)
            build_corpus(folder, few, n_cells, N_SEGMENTS, N_SOURCES, 0, depth=DEPTH)
            found[n_cells] = {}
            for name in STEPS:
                found[n_cells][name] = measured(name, folder)
                print(f"{n_cells:,} cells, {name}: {found[n_cells][name]}", flush=True)
        folder = Path(temporary) / "deep"
        statistics = default_statistics(load_settings())
        deep = build_corpus(folder, statistics, DEEP_CELLS, DEEP_SEGMENTS, 1, 0, depth=DEEP_DEPTH)
        n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        n_nonzero = sum(entry.n_nonzero for entry in deep.state.segments.values())
        whole = measured("deep", folder)
    (HERE / f"{date.today()}-corpus.md").write_text(note(found, whole, n_bytes, n_nonzero))


def note(
    found: dict[int, dict[str, dict[str, Any]]],
    whole: dict[str, Any],
    n_bytes: int,
    n_nonzero: int,
) -> str:
    """The note, in Markdown."""
    small, large = SIZES
    lines = [
        f"# {date.today()}: seconds and memory of every command of a corpus",
        "",
        f"Command: `python -m benchmarks.corpus_bars`; cytolake {__version__}, Python "
        f"{sys.version.split()[0]}, 2 cores. {N_SEGMENTS} segments of {N_SOURCES} sources, "
        f"{N_GENES:,} genes, {DEPTH:.0f} seen a cell; each command in a process of its own that "
        "opens the corpus first (its imports are not counted; in the peak they are).",
        "",
        f"| command | {small:,} cells | peak MB | {large:,} cells | peak MB |",
        "|---|---|---|---|---|",
    ]
    for name, (title, _) in STEPS.items():
        one, other = found[small][name], found[large][name]
        lines.append(
            f"| {title} | {one['seconds']:.2f} s | {one['peak_mb']:.0f} "
            f"| {other['seconds']:.2f} s | {other['peak_mb']:.0f} |"
        )
    rate = n_bytes / 1e6 / whole["seconds"]
    lines += [
        "",
        f"`verify --deep` of {DEEP_SEGMENTS} segments of {DEEP_CELLS // DEEP_SEGMENTS:,} cells, "
        f"{n_nonzero / DEEP_CELLS:,.0f} non-zeros a cell ({n_bytes / 1e6:.0f} MB, {n_nonzero:,} "
        f"non-zeros): {whole['seconds']:.1f} s, {rate:.0f} MB/s, peak {whole['peak_mb']:.0f} MB.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        run_step(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
