"""Pretraining on two CPU cores, per real cell, beside stock Hugging Face over padded batches.

    python -m benchmarks.pretrain_bars [--batches 4] [--turns 2] [--lengths paper pbmc3k]

The very same cells on all sides. Of a long list sorted by length, as in Geneformer's mega-batches
of 1,000 batches, batches are taken at even quantiles: these are the stock trainer's grouped ones.
Their cells, shuffled, are its random ones, and ours. Ours runs end to end: cells are read, encoded,
packed and masked while the step before runs. The stock side gets its padded batches ready-made;
making them is not timed. Same weights at the start, same masks, same dropout, same optimizer, same
number of cells a step, fp32, in one run; the order of sides turns round. `pbmc3k` needs
CYTOLAKE_RESOURCES.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.pretraining_peers import (
    V1_10M,
    Adam,
    CellsInMemory,
    Shape,
    cells_of,
    encoding_of,
    padded,
    paper_lengths,
    stock_model,
    stock_step,
    timed,
)

ROWS = 12
"""Cells of a step on both sides: the paper's batch on each of its GPUs."""

Rows = dict[str, float]


def ours(shape: Shape, stream: Any, encoding: Any) -> Rows:
    """Two epochs of the packed trainer; the first warms up, the second is told, per real cell."""
    from cytolake.train.engines import TorchEngine
    from cytolake.train.feeding import Feed, plan_of
    from cytolake.train.loop import Metrics, train
    from cytolake.train.models.bert import fresh_bert
    from cytolake.train.objectives.masked_genes import MaskedGenes

    objective = MaskedGenes(fresh_bert(shape.config(), 0).train(), n_special=2, seed=1)
    adam: Any = Adam()
    plan = plan_of(stream.n_groups, groups_per_step=1, epochs=2, steps=None)
    feed = Feed(stream, encoding, objective, plan, pack_tokens=8192)
    reports: list[Metrics] = []
    cpu: list[float] = []

    def report(metrics: Metrics) -> None:
        reports.append(metrics)
        cpu.append(time.process_time())

    train(TorchEngine(objective, adam), feed, plan, adam, seed=1, log_seconds=0, report=report)
    feed.close()
    told = reports[stream.n_groups :]
    seconds = [m.n_cells / m.cells_per_s for m in told]
    tokens = sum(m.tokens_per_s * s for m, s in zip(told, seconds, strict=True))
    waited = sum(m.data_wait * s for m, s in zip(told, seconds, strict=True))
    return {
        "seconds": sum(seconds),
        "cpu": cpu[-1] - cpu[stream.n_groups - 1],
        "cells": sum(m.n_cells for m in told),
        "tokens": round(tokens),
        "waited": waited,
    }


def stock(shape: Shape, tokens: Any, order: list[NDArray[np.int64]]) -> Rows:
    """Steps of the stock trainer over padded batches, the first done once before as a warm-up."""
    from cytolake.train.models.bert import fresh_bert
    from cytolake.train.objectives.masked_genes import MaskedGenes

    masks = MaskedGenes(fresh_bert(shape.config(), 0), n_special=2, seed=1)
    made = [padded(tokens, rows, masks, 0) for rows in order]
    model = stock_model(shape, torch.device("cpu"))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=0.001, fused=True
    )
    one = stock_step(model, optimizer, half=False)
    one(made[0])
    cpu = time.process_time()
    seconds = list(timed(one, made, warm=0, wait=lambda: None))
    return {
        "seconds": sum(seconds),
        "cpu": time.process_time() - cpu,
        "cells": sum(len(rows) for rows in order),
        "tokens": sum(batch.n_tokens for batch in made),
        "laid": sum(batch.inputs.numel() for batch in made),
    }


def at_quantiles(
    lengths: NDArray[np.int64], n_batches: int, turn: int, n_turns: int
) -> list[NDArray[np.int64]]:
    """Batches of neighbours by length, at even quantiles; another turn, other ones. Pure."""
    order = np.argsort(lengths, kind="stable")
    last = len(order) - ROWS
    middles = (np.arange(n_batches) + (turn + 0.5) / n_turns) / n_batches
    firsts = np.clip((middles * len(order)).astype(int) - ROWS // 2, 0, last)
    return [order[first : first + ROWS] for first in firsts.tolist()]


class PaperCells:
    """Cells with lengths like the paper's, made when they are chosen."""

    def __init__(self) -> None:
        """Draw as many lengths as a mega-batch holds."""
        self.lengths = paper_lengths(1000 * ROWS, V1_10M.length, seed=0)
        self.encoding = encoding_of(V1_10M)

    def stream(self, chosen: NDArray[np.int64]) -> Any:
        """Some of them, in groups."""
        cells = cells_of(self.lengths[chosen], V1_10M.vocabulary_size - 2, seed=0)
        return CellsInMemory([cells.take(part) for part in np.split(*_in_rows(len(chosen)))])


class Pbmc3kCells:
    """pbmc3k as a corpus of its own, read from the disk."""

    def __init__(self, folder: Path) -> None:
        """Ingest it, and see how long each cell is."""
        from cytolake.corpus.store import Corpus
        from cytolake.platform.settings import load_settings
        from cytolake.train.encodings.rank_value import RankValueEncoding
        from cytolake.train.vocabularies import official_set

        settings = load_settings()
        if not settings.resources:
            raise SystemExit("pbmc3k needs CYTOLAKE_RESOURCES, the folder with the real data")
        source = settings.resources[0] / "pbmc3k_10x" / "pbmc3k_filtered_gene_bc_matrices.tar.gz"
        words = ["ingest", str(source), "--corpus", str(folder / "lake")]
        subprocess.run([sys.executable, "-m", "cytolake", *words], check=True)
        self._corpus = Corpus.open(str(folder / "lake"))
        self._every = self._corpus.select()
        vocabulary, medians = official_set("geneformer-v1", settings)
        self.encoding = RankValueEncoding(vocabulary, medians, V1_10M.length)
        read = [self.encoding.encode(cells).lengths for cells in self._corpus.read(self._every)]
        self.lengths = np.concatenate(read)

    def stream(self, chosen: NDArray[np.int64]) -> Any:
        """Some of them, in groups."""
        from cytolake.corpus.stream import Stream

        here = np.zeros(len(self.lengths), dtype=bool)
        here[chosen] = True
        some = self._every.only(here, "chosen")
        return Stream(self._corpus, some, seed=0, cells_per_group=ROWS)


def _in_rows(n_cells: int) -> tuple[NDArray[np.int64], list[int]]:
    return np.random.default_rng(1).permutation(n_cells), list(range(ROWS, n_cells, ROWS))


def compared(name: str, cells: "PaperCells | Pbmc3kCells", n_batches: int, n_turns: int) -> str:
    """A row of the table: each side on the same cells."""
    from cytolake.train.encodings.tokens import TokenBatch

    sums: dict[str, Rows] = {"ours": {}, "random": {}, "grouped": {}}
    lengths: list[int] = []
    for turn in range(n_turns):
        chosen = np.concatenate(at_quantiles(cells.lengths, n_batches, turn, n_turns))
        stream = cells.stream(chosen)
        groups = [stream.group(0, index)[0] for index in range(stream.n_groups)]
        tokens = TokenBatch.concatenate([cells.encoding.encode(group) for group in groups])
        lengths += tokens.lengths.tolist()
        by_length = np.argsort(tokens.lengths, kind="stable")
        sides: list[tuple[str, Callable[[], Rows]]] = [
            ("ours", partial(ours, V1_10M, stream, cells.encoding)),
            ("random", partial(stock, V1_10M, tokens, np.split(*_in_rows(tokens.n_cells)))),
            ("grouped", partial(stock, V1_10M, tokens, np.split(by_length, n_batches))),
        ]
        for side, measure in sides[:: 1 if turn % 2 == 0 else -1]:
            found = measure()
            print(json.dumps({"lengths": name, "turn": turn, "side": side, **found}), flush=True)
            for key, value in found.items():
                sums[side][key] = sums[side].get(key, 0.0) + value
    print(
        f"{name}: {len(lengths)} cells, {sum(lengths):,} tokens; tokens a cell: mean "
        f"{np.mean(lengths):.0f} (of all {len(cells.lengths):,}: {cells.lengths.mean():.0f}), "
        f"deciles {np.quantile(lengths, np.linspace(0.1, 0.9, 9)).round().astype(int).tolist()}, "
        f"most {max(lengths)}",
        flush=True,
    )
    if len({(found["cells"], found["tokens"]) for found in sums.values()}) != 1:
        raise SystemExit(f"{name}: the sides did not learn from the same cells: {sums}")
    mine, words = sums["ours"], [name]
    words += [f"{found['cells'] / found['seconds']:.3f}" for found in sums.values()]
    for side in ("random", "grouped"):
        other = sums[side]
        by_cpu, real = other["cpu"] / mine["cpu"], other["tokens"] / other["laid"]
        words.append(f"{other['seconds'] / mine['seconds']:.2f} ({by_cpu:.2f}; {real:.0%} real)")
    words += [f"{mine['tokens'] / mine['seconds']:,.0f}", f"{mine['waited'] / mine['seconds']:.1%}"]
    return f"| {' | '.join(words)} |"


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--batches", type=int, default=4, help="of a turn, of 12 cells each")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lengths", nargs="+", default=["paper", "pbmc3k"])
    asked = parser.parse_args(words)
    torch.set_num_threads(asked.threads)
    table: list[str] = []
    for name in asked.lengths:
        with tempfile.TemporaryDirectory() as folder:
            cells = PaperCells() if name == "paper" else Pbmc3kCells(Path(folder))
            table.append(compared(name, cells, asked.batches, asked.turns))
    print(
        "\n| lengths | ours, cells/s | stock, random | stock, grouped | ours against random (by "
        "processor time; its real tokens) | against grouped | ours, tokens/s | data wait |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    print("\n".join(table))


if __name__ == "__main__":
    main()
