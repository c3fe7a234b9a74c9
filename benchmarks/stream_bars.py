"""The bars of the stream: shuffled batches beside annbatch's, encoded and packed, memory, mixing.

    python -m benchmarks.stream_bars --folder bars --peer peer/bin/python

Makes once, in `folder`, a corpus of 60,000 cells x 2,019 non-zeros in 20 segments of 4 sources, 1 %
of them deleted in its newest snapshot, and annbatch's own collection of as many such cells. Each
way runs in a process of its own, in turns; writes the dated note. Processor time stands beside
the clock's: a machine that others use too changes the second far more than the first.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from cytolake.corpus.order import BLOCK, BUFFER, epoch_order
from cytolake.corpus.store import Corpus
from cytolake.corpus.stream import Stream
from cytolake.platform.screen import results, table
from cytolake.platform.settings import load_settings
from numpy.typing import NDArray

from benchmarks.source_statistics import default_statistics
from benchmarks.synthetic_corpus import build_corpus
from benchmarks.synthetic_h5ad import write_h5ad

HERE = Path(__file__).parent
N_CELLS, N_SEGMENTS, N_SOURCES, DEPTH = 60_000, 20, 4, 2019.0
BATCH, LENGTH, PACK_TOKENS = 256, 2048, 16_384
BLOCKS = (1, 16, BLOCK, 256, 1024)
EPOCHS = 3
"""Of each process; the first warms it and does not count."""


def prepare(folder: Path, peer: Path | None) -> Path:
    """The corpus, and annbatch's collection, where they are not there yet."""
    known = default_statistics(load_settings())
    lake = folder / "lake"
    if not lake.exists():
        build_corpus(lake, known, N_CELLS, N_SEGMENTS, N_SOURCES, 0, depth=DEPTH)
        Corpus.open(lake).delete("hash(cell_id) % 100 = 3")
    if peer is not None and not (folder / "peer").exists():
        cells = folder / "cells.h5ad"
        write_h5ad(cells, known, N_CELLS, 0, depth=DEPTH)
        words = [str(peer), str(HERE / "annbatch_convert.py"), str(cells), str(folder / "peer")]
        subprocess.run([*words, "--shuffle"], check=True)
        cells.unlink()
    return lake


def raw_once(lake: Path, snapshot: int | None, block: int) -> dict[str, Any]:
    """Whole epochs of raw batches; the last has its cells counted and its counts summed."""
    corpus = Corpus.open(lake, snapshot)
    chosen = corpus.select()
    stream = Stream(corpus, chosen, seed=0, cells_per_group=BATCH, block=block)
    times: list[tuple[float, float]] = []
    for epoch in range(EPOCHS):
        began, cpu = time.perf_counter(), time.process_time()
        n_cells = sum(batch.n_cells for [batch] in stream.epoch(epoch))
        times.append((time.perf_counter() - began, time.process_time() - cpu))
        if n_cells != chosen.n_cells:
            raise SystemExit(f"an epoch has {n_cells} cells, expected {chosen.n_cells}")
    stream.close()
    return _answer(times, chosen.n_cells)


def encoded_once(lake: Path) -> dict[str, Any]:
    """Whole epochs through a feed of one rank: encoded and packed; and encoding alone."""
    import torch
    from cytolake.corpus.medians import MediansSet
    from cytolake.corpus.rooms import Rooms
    from cytolake.corpus.vocabularies import Vocabulary
    from cytolake.train.encodings.rank_value import RankValueEncoding
    from cytolake.train.encodings.tokens import TokenBatch
    from cytolake.train.feeding import Feed, plan_of
    from cytolake.train.objectives.masked_genes import MaskedPack
    from cytolake.train.packing import empty_pack, packs_of

    corpus = Corpus.open(lake)
    stream = Stream(corpus, corpus.select(), seed=0, cells_per_group=BATCH)
    coding = corpus.sql("SELECT DISTINCT gene_id FROM genes WHERE biotype = 'protein_coding'")
    genes = tuple(sorted(coding.column("gene_id").to_pylist()))
    drawn = np.random.default_rng(0).uniform(0.5, 5, len(genes))  # any medians cost the same
    medians = MediansSet(gene_ids=genes, medians=drawn)
    vocabulary = Vocabulary(gene_ids=genes, special=("<pad>", "<mask>"))
    encoding = RankValueEncoding(vocabulary, medians, LENGTH)
    none = torch.zeros(0, dtype=torch.int64)

    class Unmasked:
        """Packs of which nothing is hidden: encoding and packing alone are timed."""

        def packs(
            self, tokens: TokenBatch, budget: int, epoch: int, rooms: Rooms | None
        ) -> list[MaskedPack]:
            del epoch
            return [
                MaskedPack(pack=pack, rows=none, labels=none)
                for pack in packs_of(tokens, budget, rooms)
            ]

        def nothing(self, epoch: int) -> MaskedPack:
            del epoch
            return MaskedPack(pack=empty_pack(), rows=none, labels=none)

    plan = plan_of(stream.n_groups, groups_per_step=8, epochs=EPOCHS)
    feed = Feed(stream, encoding, Unmasked(), plan, pack_tokens=PACK_TOKENS)
    times: list[tuple[float, float]] = []
    for epoch in range(EPOCHS):
        began, cpu = time.perf_counter(), time.process_time()
        for step in range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch):
            feed.work(step)
        times.append((time.perf_counter() - began, time.process_time() - cpu))
    feed.close()
    batches = [stream.group(0, index)[0] for index in range(24)]
    stream.close()
    alone: list[float] = []
    for batch in batches:
        cpu = time.process_time()
        encoding.encode(batch)
        alone.append((time.process_time() - cpu) / batch.n_cells)
    answer = _answer(times, stream.selection.n_cells)
    return answer | {"encode_a_core": 1 / statistics.median(alone)}


def _answer(times: list[tuple[float, float]], n_cells: int) -> dict[str, Any]:
    status = Path("/proc/self/status").read_text()
    return {
        "seconds": [clock for clock, _ in times],
        "cpu_seconds": [cpu for _, cpu in times],
        "n_cells": n_cells,
        "peak_mb": int(status.split("VmHWM:")[1].split()[0]) // 1024,
    }


def entropy_of_batches(labels: NDArray[np.int64], size: int) -> float:
    """Mean entropy, in bits, of a label within batches of `size` neighbours."""
    found: list[float] = []
    for start in range(0, len(labels) - size + 1, size):
        share = np.bincount(labels[start : start + size]) / size
        share = share[share > 0]
        found.append(float(-(share * np.log2(share)).sum()))
    return statistics.fmean(found)


def mixing(n_cells: int, n_labels: int) -> list[dict[str, Any]]:
    """How much of an independent draw's entropy a batch has, on data sorted by the label."""
    labels = np.arange(n_cells) * n_labels // n_cells
    iid = entropy_of_batches(np.random.default_rng(0).permutation(labels), BATCH)
    rows: list[dict[str, Any]] = []
    for block in BLOCKS:
        order = epoch_order(n_cells, seed=0, epoch=0, block=block)
        entropy = entropy_of_batches(labels[order], BATCH)
        rows.append({"block": block, "bits": round(entropy, 3), "of iid": round(entropy / iid, 4)})
    return rows


def _child(*words: str) -> dict[str, Any]:
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compared(lake: Path, peer: Path | None, turns: int) -> dict[str, list[dict[str, Any]]]:
    """Every way, in turns."""
    me = (sys.executable, "-m", "benchmarks.stream_bars", "--folder", str(lake.parent))
    whole = str(Corpus.open(lake).snapshot - 1)
    ways: dict[str, tuple[str, ...]] = {"raw, 1 % deleted": (*me, "--once", "raw")}
    if peer is not None:  # side by side, so that they meet the same load
        script, folder = str(HERE / "annbatch_stream.py"), str(lake.parent / "peer")
        ways["annbatch"] = (str(peer), script, folder, "--epochs", str(EPOCHS))
    ways["raw, none deleted"] = (*me, "--once", "raw", "--snapshot", whole)
    ways["encoded and packed"] = (*me, "--once", "encoded")
    ways |= {
        f"raw, block {block}": (*me, "--once", "raw", "--block", str(block))
        for block in BLOCKS
        if block != BLOCK
    }
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, words in ways.items():
            answers[name].append(_child(*words))
            print(f"{name}: {answers[name][-1]}", flush=True)
    return answers


def rows_of(answers: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row a way: of all its epochs but each process's first."""
    rows: list[dict[str, Any]] = []
    for name, found in answers.items():
        rates = [one["n_cells"] / s for one in found for s in one["seconds"][1:]]
        cpu = [s / one["n_cells"] for one in found for s in one["cpu_seconds"][1:]]
        row = {
            "what": name,
            "cells/s": round(statistics.median(rates)),
            "of all epochs": f"{min(rates):,.0f} to {max(rates):,.0f}",
            "CPU us a cell": round(statistics.median(cpu) * 1e6, 1),
            "peak MB": max(one.get("peak_mb", 0) for one in found) or "",
        }
        rows.append(row)
    known = {row["what"]: row for row in rows}
    peer = known.get("annbatch")
    for row in rows:
        row["x annbatch"] = round(row["cells/s"] / peer["cells/s"], 2) if peer else ""
        row["x its CPU"] = round(peer["CPU us a cell"] / row["CPU us a cell"], 2) if peer else ""
    return rows


def write_note(rows: list[dict[str, Any]], mixed: list[dict[str, Any]], said: list[str]) -> Path:
    """The dated note."""
    used = ("numcodecs", "numba", "pyarrow", "torch", "zarr")
    versions = ", ".join(f"{name} {version(name)}" for name in used)

    def drawn(some: list[dict[str, Any]]) -> list[str]:
        names = list(some[0])
        lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
        return lines + [f"| {' | '.join(str(row[name]) for name in names)} |" for row in some]

    lines = [
        f"# {date.today()}: the stream",
        "",
        "Command: `python -m benchmarks.stream_bars --folder FOLDER --peer PYTHON3.12`.",
        f"{N_CELLS:,} synthetic cells of {DEPTH:,.0f} genes seen in {N_SEGMENTS} segments, warm;",
        f"batches of {BATCH}; blocks of {BLOCK} in buffers of {BUFFER:,} unless said. annbatch:",
        f"chunks of 64, 256 of them held. {os.cpu_count()} cores, load at the end",
        f"{os.getloadavg()[0]:.1f}; peak memory is the process's, what it imports included.",
        f"Versions: {versions}.",
        "",
        *drawn(rows),
        "",
        *said,
        "",
        f"Entropy of the source in batches of {BATCH}: {N_CELLS:,} cells sorted by {N_SEGMENTS}",
        "sources.",
        "",
        *drawn(mixed),
        "",
    ]
    path = HERE / f"{date.today()}-stream.md"
    path.write_text("\n".join(lines))
    return path


def main(
    folder: Annotated[Path, typer.Option(help="Where the cells are made, once.")],
    peer: Annotated[Path | None, typer.Option(help="A Python that has annbatch.")] = None,
    turns: Annotated[int, typer.Option(help="How often each way runs.")] = 3,
    once: Annotated[str | None, typer.Option(hidden=True)] = None,
    snapshot: Annotated[int | None, typer.Option(hidden=True)] = None,
    block: Annotated[int, typer.Option(hidden=True)] = BLOCK,
) -> None:
    """Measure the stream beside annbatch."""
    lake = folder / "lake"
    if once is not None:
        once_more = raw_once(lake, snapshot, block) if once == "raw" else encoded_once(lake)
        print(json.dumps(once_more))
        return
    answers = compared(prepare(folder, peer), peer, turns)
    rows, mixed = rows_of(answers), mixing(N_CELLS, N_SEGMENTS)
    alone = statistics.median(one["encode_a_core"] for one in answers["encoded and packed"])
    said = [f"Encoding alone, by processor time: {alone:,.0f} cells/s a core."]
    results().print(table(rows, title=f"{N_CELLS:,} cells"))
    print(write_note(rows, mixed, said))


if __name__ == "__main__":
    typer.run(main)
