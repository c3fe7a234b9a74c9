"""The timings of `gpu.py`: our trainer, its stock peer, and both side by side.

Knows our trainer and its stock peer; checks nothing.
"""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu_parts import CheckFailedError, Report, Trainer, objective_of
from benchmarks.pretraining_peers import (
    Shape,
    batches,
    drawn_cells,
    encoding_of,
    padded,
    stock_model,
    stock_step,
    timed,
)


def time_ours(report: Report, name: str, trainer: Trainer, n_steps: int) -> float:
    """Real tokens a second, end to end, over three stretches; the median."""
    from cytolake.train.peak import Roof, peak_of

    peak = peak_of(trainer.device, "bf16" if trainer.half else "fp32")
    roof = Roof(shape=trainer.shape.cost(), flops=peak.flops)
    trainer.go(3)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    rates: list[float] = []
    for _ in range(3):
        began = time.perf_counter()
        metrics = trainer.go(n_steps)
        # The loop's own clock begins when its first pack is asked for.
        rates.append(metrics.tokens_per_s)
        seconds = time.perf_counter() - began
    groups = [trainer.stream.group(0, g)[0] for g in range(trainer.stream.n_groups)]
    lengths = np.concatenate(
        [np.minimum(np.diff(group.indptr), trainer.shape.length) for group in groups]
    )
    rate = statistics.median(rates)
    mfu = roof.utilisation(
        n_tokens=rate,
        sum_squares=rate * float((lengths**2).sum() / lengths.sum()),
        n_scored=0.15 * rate,
        seconds=1.0,
    )
    report.tell(
        f"{name}, packs of {trainer.tokens}, {trainer.groups_per_step} groups a step",
        tokens_per_s=rate,
        least=min(rates),
        most=max(rates),
        cells_per_s=rate / float(lengths.mean()),
        mfu=mfu,
        peak=peak.origin,
        data_wait=metrics.data_wait,
        real_share=_real_share(trainer),
        cells_per_step=trainer.groups_per_step * groups[0].n_cells,
        mean_length=float(lengths.mean()),
        peak_gb=torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0,
        loss=metrics.loss,
        last_stretch_s=seconds,
    )
    return rate


def _real_share(trainer: Trainer) -> float:
    """The share of the packs' places that real tokens have, over an epoch's groups."""
    real, n_packs = 0, 0
    for group in range(trainer.stream.n_groups):
        tokens = trainer.encoding.encode(trainer.stream.group(0, group)[0])
        packs = trainer.objective.packs(tokens, trainer.tokens, 0, None)
        real, n_packs = real + sum(pack.n_tokens for pack in packs), n_packs + len(packs)
    return real / (n_packs * trainer.tokens)


def time_stock(
    report: Report, shape: Shape, device: torch.device, *, half: bool, rows: int, n_steps: int
) -> dict[str, float]:
    """Stock BERT over padded batches of the same kind of cells: random and length-grouped."""
    from cytolake.train.encodings.tokens import TokenBatch

    stream = drawn_cells(shape, 4, max(rows * 8, 64))
    encoding = encoding_of(shape)
    tokens = TokenBatch.concatenate([encoding.encode(stream.group(0, g)[0]) for g in range(4)])
    masks = objective_of(shape, torch.device("cpu"))
    model = stock_model(shape, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.001, fused=True)
    step = stock_step(model, optimizer, half)
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    rates: dict[str, float] = {}
    for kind in ("random", "grouped"):
        order = batches(tokens.lengths, rows, grouped=kind == "grouped", seed=0)
        chosen = np.linspace(0, len(order) - 1, min(n_steps + 3, len(order))).round().astype(int)
        made = [padded(tokens, order[i], masks, 0).to(device) for i in chosen]
        seconds = list(timed(step, made, warm=3, wait=wait))
        real = sum(batch.n_tokens for batch in made[3:])
        rates[kind] = real / sum(seconds)
        laid = sum(batch.inputs.numel() for batch in made[3:])
        report.tell(
            f"stock, {kind}, {rows} cells a batch",
            tokens_per_s=rates[kind],
            real_share=real / laid,
            batches=len(seconds),
        )
    return rates


def beside(
    report: Report,
    name: str,
    ours: Sequence[float | None],
    theirs: Sequence[dict[str, float] | None],
) -> None:
    """Our best rate over the best of each kind of stock batches.

    Args:
        report: where it is told.
        name: of the model.
        ours: rates of ours; None for a part that gave none.
        theirs: rates of stock, by kind of batches; None for a part that gave none.

    Raises:
        CheckFailedError: one side has no rate at all.
    """
    rates, stock = [rate for rate in ours if rate], [rates for rates in theirs if rates]
    if not rates or not stock:
        raise CheckFailedError("there is no rate of ours, or none of stock, to compare")
    best = {kind: max(each[kind] for each in stock) for kind in stock[0]}
    report.tell(
        f"ours beside stock, {name}", **{kind: max(rates) / rate for kind, rate in best.items()}
    )


def profiled(trainer: Trainer, folder: Path) -> None:
    """Where a step's time goes, as torch's own profiler tells it."""
    from torch.profiler import ProfilerActivity, profile

    trainer.go(2)  # what is compiled is no step's time
    kinds = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(ProfilerActivity.CUDA)
    with profile(activities=kinds) as seen:
        trainer.go(5)
    by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    (folder / "profile.txt").write_text(seen.key_averages().table(sort_by=by, row_limit=40))
