"""One stage of a large corpus's life, in a process of its own: seconds and peak memory.

Knows a corpus and what is asked of it; knows no table of figures (`scale_bars` makes that).

    python -m benchmarks.scale_stages STAGE FOLDER [NUMBER...]

Prints one line of JSON. Stages that write work on a copy: `scale_bars` makes it of hard links.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cytolake.corpus.medians import medians_of
from cytolake.corpus.payload.records import SegmentRecord
from cytolake.corpus.payload.verification import verify_segment
from cytolake.corpus.splits import Split
from cytolake.corpus.store import Corpus
from cytolake.corpus.stream import Stream
from cytolake.corpus.upkeep.compaction import commit_prepared, plan_compaction
from cytolake.corpus.upkeep.remaking import prepare as prepare_group
from cytolake.platform.settings import load_settings

from benchmarks.corpus_bars import peak_mb
from benchmarks.source_statistics import default_statistics
from benchmarks.sql_bars import FILTER, GENES, MEAN_BY, PLAIN_MEAN
from benchmarks.synthetic_corpus import (
    Cells,
    SyntheticSource,
    equal_sources,
    receipt_of,
    write_sources,
)

DEPTH = 2000.0
CELLS_PER_SOURCE, SEGMENTS_PER_SOURCE = 31_250, 4
BATCH = 256
GROUPS = 4
"""So many segments a compaction makes, of two or three each."""

ONE_MORE = equal_sources(CELLS_PER_SOURCE, SEGMENTS_PER_SOURCE, 1)[0].sizes
Answer = dict[str, Any]


@dataclass(slots=True)
class Clock:
    """Seconds and processor time of parts of a stage, each with its number of cells."""

    parts: list[tuple[float, float, int]] = field(default_factory=list[tuple[float, float, int]])

    @contextmanager
    def __call__(self, n_cells: int) -> Generator[None]:
        """Time what happens inside."""
        began, cpu = time.perf_counter(), time.process_time()
        yield
        spent = time.perf_counter() - began, time.process_time() - cpu
        self.parts.append((*spent, n_cells))

    def answer(self, *, skip: int = 0) -> Answer:
        """The sum of all parts but the first `skip`."""
        seconds, cpu, n_cells = map(sum, zip(*self.parts[skip:], strict=True))
        return {"seconds": seconds, "cpu_seconds": cpu, "n_cells": n_cells}


def cells() -> Cells:
    """What all cells of these corpora are like."""
    known = default_statistics(load_settings())
    return Cells(statistics=known, seed=0, depth=DEPTH)


def base_sources(n_cells: int) -> list[SyntheticSource]:
    """The sources of a corpus of so many cells."""
    n_sources = max(1, n_cells // CELLS_PER_SOURCE)
    return equal_sources(n_cells, n_sources * SEGMENTS_PER_SOURCE, n_sources)


def build(corpus: Corpus, numbers: Sequence[int]) -> Answer:
    """Write the segments of some sources of a corpus of `numbers[0]` cells; commit none."""
    clock, sources = Clock(), base_sources(numbers[0])
    for _ in write_sources(corpus, cells(), [sources[n] for n in numbers[1:]], around=clock):
        continue
    return clock.answer()


def commit_all(corpus: Corpus, numbers: Sequence[int]) -> Answer:
    """Commit the sources that `build` wrote."""
    clock, known = Clock(), cells()
    for source in base_sources(numbers[0]):
        _commit(corpus, known, source, clock)
    return {**clock.answer(), "of_each": [part[0] for part in clock.parts]}


def write(corpus: Corpus, _: Sequence[int]) -> Answer:
    """One more source's segments: written, and read back whole; the first one warms the process."""
    writing, verifying = Clock(), Clock()
    source = SyntheticSource(number=len(corpus.state.accepted), sizes=ONE_MORE)
    for _, records in write_sources(corpus, cells(), [source], around=writing):
        for record in records:
            with verifying(record.n_cells):
                problems = verify_segment(record.folder, deep=True)
            if problems:
                raise SystemExit(f"{record.folder}: {problems}")
    first = writing.parts[0]
    return {
        **writing.answer(skip=1),
        "first_seconds": first[0],
        "verify": verifying.answer(skip=1),
    }


def commit(corpus: Corpus, _: Sequence[int]) -> Answer:
    """Commit what `write` wrote."""
    clock = Clock()
    source = SyntheticSource(number=len(corpus.state.accepted), sizes=ONE_MORE)
    _commit(corpus, cells(), source, clock)
    return clock.answer()


def _commit(corpus: Corpus, known: Cells, source: SyntheticSource, clock: Clock) -> None:
    folders = sorted(corpus.segments_folder.glob(f"{source.name}-*"))
    records = [SegmentRecord.load(folder) for folder in folders]
    receipt = receipt_of(source, known, records)
    with clock(sum(source.sizes)):
        corpus.commit_source(receipt, records)


def first_question(corpus: Corpus, _: Sequence[int]) -> Answer:
    """Cells by type: connects, and looks for equal contents."""
    corpus.sql("SELECT cell_type, count(*) AS n FROM cells GROUP BY 1")
    return {}


def _asked(corpus: Corpus, query: str) -> Answer:
    began, cpu = time.perf_counter(), time.process_time()
    corpus.sql(query.format(gene=GENES[0]))
    spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    for gene in GENES:
        corpus.sql(query.format(gene=gene))
    warm: list[float] = []
    for turn in range(9):
        began = time.perf_counter()
        corpus.sql(query.format(gene=GENES[turn % len(GENES)]))
        warm.append((time.perf_counter() - began) * 1e3)
    return {**spent, "warm_ms": statistics.median(warm), "least_ms": min(warm)}


def select(corpus: Corpus, _: Sequence[int]) -> Answer:
    """All primary cells."""
    chosen = corpus.select()
    names = ("segment", "row", "cell_id", "content_key", "n_counts")
    return {"held_bytes": sum(getattr(chosen, name).nbytes for name in names)}


def split(corpus: Corpus, _: Sequence[int]) -> Answer:
    """Nine tenths of the cells, by a hash of each."""
    cut = Split(kind="cells", fractions={"train": 0.9, "rest": 0.1}, stratify="cell_type")
    return {"n_cells": corpus.select(split=cut, part="train").n_cells}


def medians(corpus: Corpus, _: Sequence[int]) -> Answer:
    """The medians set of all primary cells; the selection is in the time."""
    found = medians_of(corpus, corpus.select())
    return {"n_genes": len(found.gene_ids)}


def stream(corpus: Corpus, _: Sequence[int]) -> Answer:
    """An epoch of raw batches after a first one that warms; the selection is not in the time."""
    chosen = corpus.select()
    before = peak_mb()
    feed = Stream(corpus, chosen, seed=0, cells_per_group=BATCH)
    opening, clock = Clock(), Clock()
    with opening(chosen.n_cells):
        _ = feed.gene_ids  # every segment is opened, before the first cell
    for epoch in range(2):
        with clock(chosen.n_cells):
            n_cells = sum(batch.n_cells for [batch] in feed.epoch(epoch))
        if n_cells != chosen.n_cells:
            raise SystemExit(f"an epoch has {n_cells} cells, expected {chosen.n_cells}")
    feed.close()
    return {
        **clock.answer(skip=1),
        "first_seconds": clock.parts[0][0],
        "selected_mb": before,
        "opening": opening.answer(),
    }


def compact(corpus: Corpus, _: Sequence[int]) -> Answer:
    """Some groups of small segments, in this process; what else could be compacted is let be."""
    plan = plan_compaction(corpus.state)[:GROUPS]
    prepared = [prepare_group(corpus.folder, group) for group in plan]
    done = [one for one in prepared if one is not None]
    commit_prepared(corpus.folder, done)
    return {"n_cells": sum(one.n_cells for one in done)}


Stage = Callable[[Corpus, Sequence[int]], Answer]

STAGES: dict[str, tuple[str, Stage]] = {
    "build": ("segments of the whole corpus", build),
    "commit-all": ("commits of the whole corpus", commit_all),
    "open": ("open", lambda corpus, _: {"version": corpus.snapshot}),
    "sql": ("first question: cells by type", first_question),
    "filter": ("count by filter on cells, first", lambda corpus, _: _asked(corpus, FILTER)),
    "mean": ("a gene's mean by type, first", lambda corpus, _: _asked(corpus, PLAIN_MEAN)),
    "macro": ("the same by mean_by(), first", lambda corpus, _: _asked(corpus, MEAN_BY)),
    "select": ("select all", select),
    "split": ("select a part of a split of cells", split),
    "medians": ("medians of all", medians),
    "stream": ("stream: an epoch of raw batches", stream),
    "write": ("writing 23,000 cells: arrays, expression, sketch", write),
    "commit": ("commit of a source of 31,250 cells", commit),
    "delete": (
        "delete 1 %, all over",
        lambda corpus, _: {"n_cells": corpus.delete("hash(cell_id) % 100 = 3").n_cells},
    ),
    "medians-again": ("medians of what is left, of every segment 1 % gone", medians),
    "compact": (f"compaction of {GROUPS} groups", compact),
    "verify": ("verify (sizes)", lambda corpus, _: {"n": _sound(corpus, deep=False)}),
    "deep": ("verify --deep", lambda corpus, _: {"n": _sound(corpus, deep=True)}),
}


def _sound(corpus: Corpus, *, deep: bool) -> int:
    if problems := corpus.verify(deep=deep):
        raise SystemExit(f"{len(problems)} problems, {problems[0]} the first")
    return 0


def main() -> None:
    """Run a stage; what it says itself of its time counts, else all of it, with the opening."""
    name, folder, *numbers = sys.argv[1:]
    began, cpu = time.perf_counter(), time.process_time()
    imported = peak_mb()
    corpus = Corpus.open(folder)
    answer = STAGES[name][1](corpus, [int(number) for number in numbers])
    spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    print(json.dumps({**spent, "imported_mb": imported, "peak_mb": peak_mb(), **answer}))


if __name__ == "__main__":
    main()
