"""The parts of `gpu.py`: what is checked and timed on one GPU, each for itself.

Knows our trainer and its stock peer; knows no command line. Needs what `pretraining_peers` needs.
"""

import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.pretraining_peers import (
    Adam,
    Shape,
    batches,
    drawn_cells,
    encoding_of,
    padded,
    paper_lengths,
    stock_model,
    stock_step,
    timed,
)

PEAK_FLOPS = 989e12
"""Of an H100 or H200 in bf16, dense: what MFU is told against."""


class Report:
    """What was found, written down as it is found."""

    def __init__(self, out: Path, seconds: float) -> None:
        """Begin with nothing; parts begin for so many seconds."""
        self._path, self._end = out / "gpu.json", time.monotonic() + seconds
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._found: dict[str, Any] = {}

    def tell(self, name: str, **found: Any) -> None:
        """Print and keep."""
        self._found[name] = found
        shown = ", ".join(
            f"{key} {value:,.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in found.items()
        )
        print(f"{name}: {shown}", flush=True)
        self._path.write_text(json.dumps(self._found, indent=1))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part that may fail without ending the others; it is left out when time is up."""
        if time.monotonic() > self._end:
            self.tell(f"{name} left out", why="no time left")
            return
        try:
            yield
        except Exception as error:  # the parts after it are worth their time
            self.tell(f"{name} FAILED", error=f"{type(error).__name__}: {error}"[:2000])

    @property
    def failed(self) -> list[str]:
        """The parts that failed."""
        return [name for name in self._found if name.endswith("FAILED")]


def objective_of(shape: Shape, device: torch.device, *, tokens: int = 0, **more: Any) -> Any:
    """Our objective on a device, with packs of a static shape where `tokens` says how large."""
    from cytolake.train.models.bert import fresh_bert
    from cytolake.train.objectives.masked_genes import MaskedGenes
    from cytolake.train.static_packs import static_shape

    packs = static_shape(pack_tokens=tokens, length=shape.length, share=0.15) if tokens else None
    model = torch.nn.Module.to(fresh_bert(shape.config(), 0).train(), device)
    return MaskedGenes(model, n_special=2, seed=1, shape=packs, **more)


def without_dropout(shape: Shape) -> Shape:
    """The same shape, for checks of equal numbers."""
    return replace(shape, hidden_dropout=0.0)


def summed(objective: Any, tokens: Any, budget: int, epoch: int = 0) -> tuple[float, int, int]:
    """Loss, right guesses and chosen tokens of some cells; gradients are left in the model."""
    objective.model.zero_grad()
    loss, right, masked = 0.0, 0, 0
    for pack in objective.packs(tokens, budget, epoch, None):
        one, some = objective(pack)
        one.backward()
        loss, right, masked = loss + float(one.detach()), right + int(some), masked + pack.n_masked
    return loss, right, masked


def gradient_of(objective: Any) -> torch.Tensor:
    """All gradients end to end."""
    grads = (p.grad for p in objective.model.parameters() if p.grad is not None)
    return torch.cat([g.flatten().float() for g in grads])


# ---------------------------------------------------------------------------------- checks


def check_equal_to_stock(report: Report, shape: Shape, device: torch.device, half: bool) -> None:
    """Packed fp32 = stock padded fp32; static half = packed fp32 as near as half allows."""
    still = without_dropout(shape)
    tokens = encoding_of(shape).encode(drawn_cells(shape, 1, 8).group(0, 0)[0])
    plain = objective_of(still, device)
    n_masked = sum(pack.n_masked for pack in plain.packs(tokens, 4 * shape.length, 0, None))
    loss, right, _ = summed(plain, tokens, 4 * shape.length)
    expected = gradient_of(plain)
    stock = stock_model(still, device)
    batch = padded(tokens, np.arange(8), objective_of(still, torch.device("cpu")), 0).to(device)
    theirs = stock(input_ids=batch.inputs, attention_mask=batch.attention, labels=batch.labels).loss
    theirs.backward()
    report.tell(
        "packed fp32 beside stock fp32",
        loss=loss / n_masked,
        stock=float(theirs.detach()),
        difference=abs(loss / n_masked - float(theirs.detach())),
        chosen=n_masked,
    )
    static = objective_of(still, device, tokens=4 * shape.length, half=half)
    other, as_many, same = summed(static, tokens, 4 * shape.length)
    found = gradient_of(static)
    report.tell(
        "static packs" + (" bf16" if half else "") + " beside packed fp32",
        relative_loss=abs(other - loss) / loss,
        relative_gradient=float((found - expected).norm() / expected.norm()),
        chosen_alike=same == n_masked,
        right=f"{as_many} beside {right}",
    )
    if not half and abs(other - loss) > 1e-4 * loss:
        raise ValueError("static packs give another loss")


def check_masks(report: Report, device: torch.device) -> None:
    """The same bits on the host and on the device."""
    from cytolake.train.objectives.hashed_masks import hide_by_kernel, hide_by_torch, rule_of

    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 25_426, (200_000,), generator=draw)
    positions = torch.randint(0, 4096, (200_000,), generator=draw)
    keys = torch.randint(-(2**63), 2**63 - 1, (200_000,), generator=draw)
    rule = rule_of(
        seed=5,
        epoch=3,
        n_special=2,
        vocabulary_size=25_426,
        share=0.15,
        masked=0.8,
        random=0.1,
        mask=1,
    )
    here = hide_by_kernel(tokens, positions, keys, rule)
    there = hide_by_torch(tokens.to(device), positions.to(device), keys.to(device), rule)
    same = [torch.equal(one, other.cpu()) for one, other in zip(here, there, strict=True)]
    report.tell("masks on host and device", same=all(same), chosen=len(here[1]))
    if not all(same):
        raise ValueError("masks differ")


# ------------------------------------------------------------------------------------ ours


class Trainer:
    """Our trainer over cells in memory, with whatever the device offers."""

    def __init__(
        self,
        shape: Shape,
        device: torch.device,
        *,
        tokens: int,
        packs: int,
        half: bool,
        compiled: bool,
    ) -> None:
        """A step is one group of cells, which fill so many packs of so many tokens."""
        from cytolake.train.engines import TorchEngine

        self.shape, self.tokens, self.packs = shape, tokens, packs
        self.objective = objective_of(shape, device, tokens=tokens, half=half, compiled=compiled)
        self.adam: Any = Adam()
        self.engine = TorchEngine(self.objective, self.adam)
        drawn = paper_lengths(10_000, shape.length, 0)
        n_cells = packs * tokens / drawn.mean()
        n_cells -= 2 * math.sqrt(n_cells) * drawn.std() / drawn.mean()  # seldom a pack more
        self.stream = drawn_cells(shape, 6, max(2, int(n_cells)))
        self.encoding = encoding_of(shape)
        self.step = 0

    def go(
        self, n_steps: int, *, report: Callable[[Any], None] | None = None, log_seconds: float = 1e9
    ) -> list[Any]:
        """So many steps through the trainer's own loop; the reports."""
        from cytolake.train.feeding import Feed, plan_of
        from cytolake.train.loop import train

        plan = plan_of(self.stream.n_groups, groups_per_step=1, epochs=1, steps=self.step + n_steps)
        feed = Feed(self.stream, self.encoding, self.objective, plan, pack_tokens=self.tokens)
        reports: list[Any] = []
        try:
            train(
                self.engine,
                feed,
                plan,
                self.adam,
                seed=1,
                start=self.step,
                log_seconds=log_seconds,
                report=report or reports.append,
            )
        finally:
            feed.close()
        self.step += n_steps
        return reports


def check_no_waiting(report: Report, trainer: Trainer, device: torch.device, n_steps: int) -> None:
    """No step waits for the device, and none is compiled anew: over two epochs and more."""
    import torch._dynamo

    trainer.go(3)
    with torch._dynamo.config.patch(error_on_recompile=True):
        if device.type == "cuda":
            steps_without_sync(trainer, n_steps)
        else:
            trainer.go(n_steps)
    report.tell(
        "steps without a wait or a recompile", steps=n_steps, checked_waits=device.type == "cuda"
    )


def steps_without_sync(trainer: Trainer, n_steps: int) -> None:
    """The loop's own steps while every wait for the device is an error; works are ready-made."""
    from cytolake.train.feeding import Feed, plan_of
    from cytolake.train.loop import _learn
    from cytolake.train.tally import Tally

    plan = plan_of(trainer.stream.n_groups, groups_per_step=1, epochs=1, steps=n_steps)
    feed = Feed(
        trainer.stream, trainer.encoding, trainer.objective, plan, pack_tokens=trainer.tokens
    )
    works = [feed.work(step) for step in range(n_steps)]
    feed.close()
    tally = Tally()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step, work in enumerate(works):
            _learn(
                trainer.engine,
                work,
                1e-4,
                n_masked=work.n_masked,
                seed=1,
                step=step,
                tally=tally,
            )
    finally:
        torch.cuda.set_sync_debug_mode("default")
    reading = tally.read()
    if reading.skipped or not math.isfinite(reading.loss):
        raise ValueError(f"steps {reading.skipped} were left out")


def time_ours(report: Report, name: str, trainer: Trainer, n_steps: int) -> float:
    """Real tokens a second, end to end, over three stretches; the median."""
    from cytolake.train.flops import BertShape

    shape = trainer.shape
    cost = BertShape(
        layers=shape.layers,
        width=shape.width,
        feed_forward=shape.feed_forward,
        length=shape.length,
        vocabulary_size=shape.vocabulary_size,
    )
    trainer.go(3)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    rates: list[float] = []
    for _ in range(3):
        began = time.perf_counter()
        (metrics,) = trainer.go(n_steps)
        # The loop's own clock begins when its first pack is asked for.
        rates.append(metrics.tokens_per_s)
        seconds = time.perf_counter() - began
    lengths = np.concatenate(
        [np.minimum(np.diff(trainer.stream.group(0, g)[0].indptr), shape.length) for g in range(6)]
    )
    rate = statistics.median(rates)
    a_token = cost.training_flops(
        n_tokens=1.0, sum_squares=float((lengths**2).sum() / lengths.sum()), n_scored=0.15
    )
    report.tell(
        f"{name}, {trainer.packs} packs of {trainer.tokens}",
        tokens_per_s=rate,
        least=min(rates),
        most=max(rates),
        cells_per_s=rate / float(lengths.mean()),
        mfu=rate * a_token / PEAK_FLOPS,
        data_wait=metrics.data_wait,
        cells_per_step=trainer.stream.group(0, 0)[0].n_cells,
        mean_length=float(lengths.mean()),
        peak_gb=torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0,
        loss=metrics.loss,
        last_stretch_s=seconds,
    )
    return rate


def check_resume(report: Report, make: Callable[[], Trainer]) -> None:
    """Six steps at once, and three, a restart and three more: the same bits, or how far apart."""
    whole = make()
    whole.go(6)
    half_way = make()
    half_way.go(3)
    weights = {k: v.clone() for k, v in half_way.objective.state_dict().items()}
    moments = half_way.engine.moments()
    resumed = make()
    resumed.objective.load_state_dict(weights)
    resumed.engine.restore(moments, 3)
    resumed.step = 3
    resumed.go(3)
    pairs = zip(whole.objective.parameters(), resumed.objective.parameters(), strict=True)
    apart = max(float((one - other).abs().max()) for one, other in pairs)
    report.tell("six steps beside three, a restart and three", most_apart=apart, same=apart == 0)


# ----------------------------------------------------------------------------------- stock


def time_stock(
    report: Report, shape: Shape, device: torch.device, *, half: bool, rows: int, n_steps: int
) -> dict[str, float]:
    """Stock BERT over padded batches of the same kind of cells: random and length-grouped."""
    stream = drawn_cells(shape, 4, max(rows * 8, 64))
    encoding = encoding_of(shape)
    from cytolake.train.encodings.tokens import TokenBatch

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


def profiled(trainer: Trainer, out: Path) -> None:
    """Where a step's time goes, as torch's own profiler tells it."""
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(ProfilerActivity.CUDA)
    with profile(activities=kinds) as seen:
        trainer.go(5)
    by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    (out / "profile.txt").write_text(seen.key_averages().table(sort_by=by, row_limit=40))
