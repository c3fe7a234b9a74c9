"""The training loop: packs in, steps out, the same on one rank or many. Knows no Ray, no corpus.

The loss of a step is the sum over ALL masked tokens of all ranks divided by their number, so it
does not depend on how cells are dealt. Dropout is drawn anew for every pack from (seed, step,
group, pack), so that a resumed run, or one on another number of ranks, draws the same bits.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import distributed

from ..platform.errors import TrainingError
from .engines import Engine, n_ranks, this_rank
from .feeding import Feed, Plan, StepWork
from .recipe import OptimizerRecipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """What people watch, summed over ranks since the last report.

    Attributes:
        step: steps done.
        epoch: passes over the cells so far, with decimals.
        loss: mean cross-entropy at chosen tokens, in nats.
        accuracy: the share of chosen tokens guessed right.
        cells_per_s: cells learnt from a second.
        tokens_per_s: real tokens a second: there is no padding.
        data_wait: the share of the time that the slowest rank waited for packs.
        learning_rate: of the last step.
        gradient_norm: of the last step, before clipping.
        n_cells: cells since the last report.
    """

    step: int
    epoch: float
    loss: float
    accuracy: float
    cells_per_s: float
    tokens_per_s: float
    data_wait: float
    learning_rate: float
    gradient_norm: float
    n_cells: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopEnd:
    """How a loop ended: after which step, and why."""

    step: int
    why: Literal["finished", "stopped"]


@dataclass(slots=True)
class _Sums:
    """Sums since the last report; the first two stay on the device, where no step waits for them.

    They are float64 there too: the same bits as sums of Python's numbers.
    """

    loss: torch.Tensor | float = 0.0
    right: torch.Tensor | float = 0.0
    masked: float = 0.0
    cells: float = 0.0
    tokens: float = 0.0

    def take(self) -> list[float]:
        values = [float(self.loss), float(self.right), self.masked, self.cells, self.tokens]
        self.loss = self.right = self.masked = self.cells = self.tokens = 0.0
        return values


def train(
    engine: Engine,
    feed: Feed,
    plan: Plan,
    optimizer: OptimizerRecipe,
    *,
    seed: int,
    start: int = 0,
    log_seconds: float = 5.0,
    report: Callable[[Metrics], None] = lambda metrics: None,
    save: Callable[[int], None] = lambda step: None,
    save_every: int = 0,
    wants_stop: Callable[[], bool] = lambda: False,
) -> LoopEnd:
    """Train from step `start` to the plan's end.

    Args:
        engine: turns losses into steps.
        feed: this rank's packs.
        plan: which groups make which step.
        optimizer: the course of the learning rate.
        seed: of dropout.
        start: steps already done.
        log_seconds: how often `report` is called; rank 0's clock decides.
        report: told the metrics, on every rank alike.
        save: makes a checkpoint after that many steps; called on every rank.
        save_every: steps between checkpoints; 0 for only the last.
        wants_stop: asked on every rank before each step; one yes stops all, with a checkpoint.

    Raises:
        TrainingError: the loss is no finite number any more.
    """
    sums, began, waited = _Sums(), time.perf_counter(), feed.waited_s
    saved = start
    for step in range(start, plan.n_steps):
        work = feed.work(step)
        is_due = time.perf_counter() - began >= log_seconds or step + 1 == plan.n_steps
        says_due = float(is_due and this_rank() == 0)
        n_masked, stop, due = _add([float(work.n_masked), float(wants_stop()), says_due])
        if stop:
            if saved < step:
                save(step)
            return LoopEnd(step=step, why="stopped")
        rate = learning_rate(step, plan.n_steps, optimizer)
        _learn(engine, work, n_masked=n_masked, seed=seed, step=step, sums=sums)
        norm = engine.step(rate)
        if due:
            elapsed = time.perf_counter() - began
            wait = _largest((feed.waited_s - waited) / elapsed)
            metrics = _metrics(
                sums, step + 1, (step + 1) / plan.steps_per_epoch, elapsed, wait, rate, norm
            )
            _refuse_nonsense(metrics)
            report(metrics)
            began, waited = time.perf_counter(), feed.waited_s
        if step + 1 == plan.n_steps or (save_every and (step + 1) % save_every == 0):
            save(step + 1)
            saved = step + 1
    return LoopEnd(step=plan.n_steps, why="finished")


def learning_rate(step: int, n_steps: int, recipe: OptimizerRecipe) -> float:
    """The learning rate of a step, counted from 0. Pure.

    Linear warm-up to the peak, then the recipe's decay to 0 just after the last step.
    """
    if step < recipe.warmup_steps:
        return recipe.peak_lr * (step + 1) / (recipe.warmup_steps + 1)
    share = (step - recipe.warmup_steps) / max(1, n_steps - recipe.warmup_steps)
    if recipe.schedule == "linear":
        return recipe.peak_lr * max(0.0, 1 - share)
    if recipe.schedule == "cosine":
        return recipe.peak_lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    return recipe.peak_lr


def dropout_seed(seed: int, step: int, place: tuple[int, int]) -> int:
    """What torch is seeded with before a pack: 63 bits of (seed, step, group, pack)."""
    words = f"{seed}/{step}/{place[0]}/{place[1]}".encode()
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little") >> 1


def seed_dropout(seed: int) -> None:
    """Seed what dropout draws from, on the host and on CUDA devices in use.

    The same bits as `torch.manual_seed`, which also notes the whole call stack for each kind of
    device that is not there: more than a tenth of a millisecond a pack.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def _learn(
    engine: Engine, work: StepWork, *, n_masked: float, seed: int, step: int, sums: _Sums
) -> None:
    for pack, place in zip(work.packs, work.places, strict=True):
        seed_dropout(dropout_seed(seed, step, place))
        loss, right = engine.forward(pack)
        engine.backward(loss / max(n_masked, 1.0))
        sums.loss += loss.detach().double()
        sums.right += right.double()
    sums.masked += work.n_masked
    sums.cells += work.n_cells
    sums.tokens += work.n_tokens


def _metrics(
    sums: _Sums, step: int, epoch: float, elapsed: float, wait: float, rate: float, norm: float
) -> Metrics:
    loss, right, masked, cells, tokens = _add(sums.take())
    return Metrics(
        step=step,
        epoch=epoch,
        loss=loss / max(masked, 1.0),
        accuracy=right / max(masked, 1.0),
        cells_per_s=cells / elapsed,
        tokens_per_s=tokens / elapsed,
        data_wait=min(1.0, wait),
        learning_rate=rate,
        gradient_norm=norm,
        n_cells=int(cells),
    )


def _refuse_nonsense(metrics: Metrics) -> None:
    if not math.isfinite(metrics.loss):
        raise TrainingError(
            f"the loss is {metrics.loss} at step {metrics.step}; the checkpoints before it are "
            "kept. Lower optimizer.peak_lr, or lengthen optimizer.warmup_steps, and resume under "
            "another name"
        )


def _add(values: list[float]) -> list[float]:
    """Add values over ranks; they travel as float64, so counts stay exact."""
    if n_ranks() == 1:
        return values
    summed = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(summed)
    return summed.tolist()


def _largest(value: float) -> float:
    if n_ranks() == 1:
        return value
    largest = torch.tensor([value], dtype=torch.float64)
    distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
    return float(largest)
