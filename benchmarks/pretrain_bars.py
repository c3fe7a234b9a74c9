"""Pretraining on two CPU cores, per real cell, beside stock Hugging Face over padded batches.

    python -m benchmarks.pretrain_bars [--cells 48] [--steps 4] [--lengths paper pbmc3k]

Ours runs end to end: cells are read, encoded, packed and masked while the step before runs. The
stock side gets its padded batches ready-made; making them is not timed. Same weights at the start,
same masks, same dropout, same optimizer, same number of cells a step, fp32, in one run and in
turns. `pbmc3k` needs CYTOLAKE_RESOURCES.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.pretraining_peers import (
    V1_10M,
    Adam,
    CellsInMemory,
    Shape,
    batches,
    encoding_of,
    padded,
    stock_model,
    stock_step,
    timed,
)

ROWS = 12
"""Cells of a step on both sides: the paper's batch on each of its GPUs."""


def ours(shape: Shape, stream: Any, encoding: Any, n_steps: int) -> dict[str, float]:
    """Steps of the packed trainer, the first left out; per real cell."""
    from cytolake.train.engines import TorchEngine
    from cytolake.train.feeding import Feed, plan_of
    from cytolake.train.loop import Metrics, train
    from cytolake.train.models.bert import fresh_bert
    from cytolake.train.objectives.masked_genes import MaskedGenes

    objective = MaskedGenes(fresh_bert(shape.config(), 0).train(), n_special=2, seed=1)
    adam: Any = Adam()
    plan = plan_of(stream.n_groups, groups_per_step=1, epochs=1, steps=n_steps + 1)
    feed = Feed(stream, encoding, objective, plan, pack_tokens=8192)
    reports: list[Metrics] = []
    cpu: list[float] = []

    def report(metrics: Metrics) -> None:
        reports.append(metrics)
        cpu.append(time.process_time())

    train(TorchEngine(objective, adam), feed, plan, adam, seed=1, log_seconds=0, report=report)
    feed.close()
    seconds = [m.n_cells / m.cells_per_s for m in reports[1:]]
    cells = sum(m.n_cells for m in reports[1:])
    return {
        "s_a_cell": sum(seconds) / cells,
        "cpu_s_a_cell": (cpu[-1] - cpu[0]) / cells,
        "tokens_per_s": sum(m.tokens_per_s * s for m, s in zip(reports[1:], seconds, strict=True))
        / sum(seconds),
        "data_wait": sum(m.data_wait * s for m, s in zip(reports[1:], seconds, strict=True))
        / sum(seconds),
        "loss": reports[-1].loss,
    }


def stock(shape: Shape, tokens: Any, *, grouped: bool, n_steps: int) -> dict[str, float]:
    """Steps of the stock trainer over padded batches, the first left out; per real cell."""
    from cytolake.train.models.bert import fresh_bert
    from cytolake.train.objectives.masked_genes import MaskedGenes

    masks = MaskedGenes(fresh_bert(shape.config(), 0), n_special=2, seed=1)
    order = batches(tokens.lengths, ROWS, grouped=grouped, seed=0)
    chosen = np.linspace(0, len(order) - 1, n_steps + 1).round().astype(int)
    made = [padded(tokens, order[number], masks, 0) for number in chosen]
    model = stock_model(shape, torch.device("cpu"))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=0.001, fused=True
    )
    cpu = time.process_time()
    one = stock_step(model, optimizer, half=False)
    one(made[0])
    cpu = time.process_time()
    seconds = list(timed(one, made[1:], warm=0, wait=lambda: None))
    cells = ROWS * n_steps
    real = sum(batch.n_tokens for batch in made[1:])
    laid = sum(batch.inputs.numel() for batch in made[1:])
    return {
        "s_a_cell": sum(seconds) / cells,
        "cpu_s_a_cell": (time.process_time() - cpu) / cells,
        "tokens_per_s": real / sum(seconds),
        "real_share": real / laid,
    }


def corpus_stream(folder: Path) -> Any:
    """pbmc3k as a corpus of its own, streamed."""
    from cytolake.corpus.store import Corpus
    from cytolake.corpus.stream import Stream
    from cytolake.platform.settings import load_settings

    resources = load_settings().resources
    if not resources:
        raise SystemExit("pbmc3k needs CYTOLAKE_RESOURCES, the folder with the real data")
    source = resources[0] / "pbmc3k_10x" / "pbmc3k_filtered_gene_bc_matrices.tar.gz"
    words = ["ingest", str(source), "--corpus", str(folder / "lake")]
    subprocess.run([sys.executable, "-m", "cytolake", *words], check=True)
    corpus = Corpus.open(str(folder / "lake"))
    return Stream(corpus, corpus.select(), seed=0, cells_per_group=ROWS)


def compared(
    name: str, shape: Shape, stream: Any, encoding: Any, n_cells: int, n_steps: int
) -> dict[str, float]:
    """A row for each side on the same kind of cells."""
    from cytolake.train.encodings.tokens import TokenBatch

    groups = [stream.group(0, index)[0] for index in range(-(-n_cells // ROWS))]
    tokens = TokenBatch.concatenate([encoding.encode(group) for group in groups])
    lengths = tokens.lengths
    print(
        f"{name}: {tokens.n_cells} cells, tokens a cell: mean {lengths.mean():.0f}, "
        f"deciles {np.quantile(lengths, np.linspace(0.1, 0.9, 9)).round().astype(int).tolist()}, "
        f"most {lengths.max()}",
        flush=True,
    )
    rows: dict[str, list[dict[str, float]]] = {"ours": [], "random": [], "grouped": []}
    for _ in range(2):  # in turns
        rows["ours"].append(ours(shape, stream, encoding, n_steps))
        rows["random"].append(stock(shape, tokens, grouped=False, n_steps=n_steps))
        rows["grouped"].append(stock(shape, tokens, grouped=True, n_steps=n_steps))
    for side, measured in rows.items():
        print(json.dumps({"lengths": name, "side": side, "turns": measured}), flush=True)
    return (
        {side: statistics.mean(r["s_a_cell"] for r in some) for side, some in rows.items()}
        | {
            f"{side}_cpu": statistics.mean(r["cpu_s_a_cell"] for r in some)
            for side, some in rows.items()
        }
        | {"data_wait": statistics.mean(r["data_wait"] for r in rows["ours"])}
    )


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cells", type=int, default=480)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lengths", nargs="+", default=["paper", "pbmc3k"])
    asked = parser.parse_args(words)
    torch.set_num_threads(asked.threads)
    table: list[str] = []
    for name in asked.lengths:
        with tempfile.TemporaryDirectory() as folder:
            if name == "paper":
                stream: Any = CellsInMemory(V1_10M, -(-asked.cells // ROWS), ROWS)
                encoding = encoding_of(V1_10M)
            else:
                stream, encoding = corpus_stream(Path(folder)), official_encoding()
            found = compared(name, V1_10M, stream, encoding, asked.cells, asked.steps)
        table.append(
            f"| {name} | {1 / found['ours']:.2f} | {1 / found['random']:.2f} | "
            f"{1 / found['grouped']:.2f} | {found['random'] / found['ours']:.2f} "
            f"({found['random_cpu'] / found['ours_cpu']:.2f}) | "
            f"{found['grouped'] / found['ours']:.2f} "
            f"({found['grouped_cpu'] / found['ours_cpu']:.2f}) | {found['data_wait']:.1%} |"
        )
    print(
        "\n| lengths | ours, cells/s | stock, random | stock, grouped | ours against random (by "
        "processor time) | against grouped | data wait |\n|---|---|---|---|---|---|---|"
    )
    print("\n".join(table))


def official_encoding() -> Any:
    """Geneformer V1's own vocabulary and medians."""
    from cytolake.platform.settings import load_settings
    from cytolake.train.encodings.rank_value import RankValueEncoding
    from cytolake.train.vocabularies import official_set

    vocabulary, medians = official_set("geneformer-v1", load_settings())
    return RankValueEncoding(vocabulary, medians, V1_10M.length)


if __name__ == "__main__":
    main()
