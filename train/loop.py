"""The training loop: packs in, steps out, the same on one rank or many. Knows no Ray, no corpus.

The loss of a step is the sum over ALL masked tokens of all ranks divided by their number, so it
does not depend on how cells are dealt. Dropout is drawn anew for every pack from (seed, step,
group, pack), so that a resumed run, or one on another number of ranks, draws the same bits.
"""

import hashlib
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import distributed

from ..platform.errors import TrainingError
from ..platform.memory import peak_resident
from .engines import Engine, n_ranks, sum_over_ranks, this_rank
from .feeding import Feed, Plan, StepWork
from .peak import Roof
from .tally import Place, Reading, Tally
from .validation import Validated

if TYPE_CHECKING:
    from .recipe import OptimizerRecipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """What people watch, summed over ranks since the last report.

    Attributes:
        step: steps done.
        epoch: passes over the cells so far, with decimals.
        loss: mean cross-entropy at chosen tokens, in nats.
        accuracy: the share of all chosen tokens guessed right, also of those that the model sees.
        cells_per_s: cells learnt from a second.
        tokens_per_s: real tokens a second; none that fills or pads.
        filled: the share of the packs' room that real tokens take; the rest fills or pads.
        data_wait: the share of the time that the slowest rank waited for packs.
        learning_rate: of the last step.
        gradient_norm: of the last step, before clipping.
        n_cells: cells since the last report.
        eta_s: seconds that the steps to come take at the rate since the last report.
        mask_accuracy: the share guessed right of chosen tokens that show `<mask>`; None where none
            does.
        skipped: steps since the last report that updated nothing: a gradient was not finite.
        mfu: the share of the devices' peak that was used, by `Roof.utilisation`; None where no
            peak was given. Time in validation is left out here and in the rates above.
        memory_gb: peak memory of the rank that has most, in 10^9 bytes: what torch reserved on a
            GPU, else the process's resident memory.
        validation_loss: mean cross-entropy at chosen tokens of held-out cells; None where this
            step was not validated.
        validation_accuracy: their share that was guessed right.
        validation_mask_accuracy: the same of those that show `<mask>`.
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
    eta_s: float
    mask_accuracy: float | None = None
    skipped: int = 0
    filled: float = 1.0
    mfu: float | None = None
    memory_gb: float = 0.0
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    validation_mask_accuracy: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopEnd:
    """How a loop ended: after which step, and why."""

    step: int
    why: Literal["finished", "stopped", "out of time"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """Steps that updated nothing, since their gradient was not finite.

    Attributes:
        steps: their numbers, from 0.
        packs: the packs, of all ranks, whose loss was not finite, the newest few of each rank;
            none where only a gradient was too large.
        in_a_row: how many steps in a row were left out, up to the newest step.
    """

    steps: tuple[int, ...]
    packs: tuple[Place, ...]
    in_a_row: int


def train(
    engine: Engine,
    feed: Feed,
    plan: Plan,
    optimizer: "OptimizerRecipe",
    *,
    seed: int,
    start: int = 0,
    log_seconds: float = 5.0,
    reported: Collection[int] = (),
    report: Callable[[Metrics], None] = lambda metrics: None,
    report_left_out: Callable[[LeftOut], None] = lambda left_out: None,
    stop_after: int = 1,
    save: Callable[[int], None] = lambda step: None,
    save_every: int = 0,
    validate: Callable[[], Validated] | None = None,
    validate_every: int = 0,
    wants_stop: Callable[[], bool] = lambda: False,
    deadline: float = math.inf,
    roof: Roof | None = None,
    noted_in: str = "",
) -> LoopEnd:
    """Train from step `start` to the plan's end.

    What was done is reported before each checkpoint and at each end, so that no step of a
    checkpoint goes untold.

    Args:
        engine: turns losses into steps.
        feed: this rank's packs.
        plan: which groups make which step.
        optimizer: the course of the learning rate.
        seed: of dropout.
        start: steps already done.
        log_seconds: how often `report` is called; rank 0's clock decides. It is called before
            every save, too, so that no report has steps on both sides of a checkpoint.
        reported: later steps that were reported before, on rank 0: they are done again, and
            reported at these very steps and no others, so that no cell is told of twice.
        report: told the metrics, on every rank alike.
        report_left_out: told, on every rank alike and before `report`, of steps that updated
            nothing.
        stop_after: so many of them in a row end the run.
        save: makes a checkpoint after that many steps; called on every rank.
        save_every: steps between checkpoints; 0 for only the last.
        validate: asks held-out cells, on every rank alike, with nothing drawn; done before every
            checkpoint that is due by its step.
        validate_every: steps between validations besides; 0 for none.
        wants_stop: asked on every rank before each step; one yes stops all, with a checkpoint.
        deadline: on rank 0's monotonic clock: the first step after it is not begun on any rank.
        roof: what MFU is counted against.
        noted_in: where `report_left_out` notes the cells, for the error's words.

    Raises:
        TrainingError: the gradient was not finite for `stop_after` steps in a row.
    """
    tally, began, waited, in_a_row = Tally(), time.perf_counter(), feed.waited_s, 0
    saved = told = start
    replayed = max(reported, default=0)

    def tell(done: int, validate: Callable[[], Validated] | None) -> None:
        """Read what came since the last report, and report it; on every rank alike."""
        nonlocal began, waited, in_a_row, told
        reading = tally.read()
        elapsed = time.perf_counter() - began
        wait, memory = _largest([(feed.waited_s - waited) / elapsed, peak_memory()])
        in_a_row = _in_a_row(in_a_row, reading, done - 1)
        if reading.skipped:
            packs = _of_all_ranks(reading.bad_packs)
            left_out = LeftOut(steps=reading.skipped, packs=packs, in_a_row=in_a_row)
            report_left_out(left_out)
            _refuse_many(left_out, stop_after, noted_in)
        rate = learning_rate(done - 1, plan.n_steps, optimizer)
        metrics = _metrics(reading, done, plan, elapsed, wait, rate, roof)
        validated = validate() if validate is not None else None
        report(
            replace(
                metrics,
                memory_gb=memory / 1e9,
                validation_loss=validated.loss if validated else None,
                validation_accuracy=validated.accuracy if validated else None,
                validation_mask_accuracy=validated.mask_accuracy if validated else None,
            )
        )
        began, waited, told = time.perf_counter(), feed.waited_s, done

    for step in range(start, plan.n_steps):
        work = feed.work(step)
        is_due = time.perf_counter() - began >= log_seconds
        if step + 1 <= replayed:
            is_due = step + 1 in reported
        says_due = float(is_due and this_rank() == 0)
        says_late = float(this_rank() == 0 and time.monotonic() >= deadline)
        n_masked, stop, due, late = sum_over_ranks(
            [float(work.n_masked), float(wants_stop()), says_due, says_late]
        )
        if stop or late:
            if told < step:
                tell(step, None)
            if saved < step:
                save(step)
            return LoopEnd(step=step, why="stopped" if stop else "out of time")
        saves = step + 1 == plan.n_steps or _is_every(save_every, step + 1)
        validates = saves or _is_every(validate_every, step + 1)
        rate = learning_rate(step, plan.n_steps, optimizer)
        learn(engine, work, rate, n_masked=n_masked, seed=seed, step=step, tally=tally)
        if due or saves or (validate is not None and validates):
            tell(step + 1, validate if validates else None)
        if saves:
            save(step + 1)
            saved = step + 1
    return LoopEnd(step=plan.n_steps, why="finished")


def learning_rate(step: int, n_steps: int, recipe: "OptimizerRecipe") -> float:
    """The learning rate of a step, counted from 0. Pure.

    Linear warm-up to the peak, then the recipe's decay to 0 just after the last step.
    """
    warmup = recipe.warmup(n_steps)
    if step < warmup:
        return recipe.peak_lr * (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1, n_steps - warmup)
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


def learn(
    engine: Engine,
    work: StepWork,
    rate: float,
    *,
    n_masked: float,
    seed: int,
    step: int,
    tally: Tally,
) -> None:
    """One step of this rank. On a GPU nothing here waits for the device, with the torch engine.

    Args:
        engine: turns losses into steps.
        work: this rank's packs.
        rate: the learning rate.
        n_masked: chosen tokens of the step, of all ranks.
        seed: of dropout.
        step: which step this is, counted from 0.
        tally: told of each pack and of the step.
    """
    for pack, place in zip(work.packs, work.places, strict=True):
        seed_dropout(dropout_seed(seed, step, place))
        loss, guesses = engine.forward(pack)
        engine.backward(loss / max(n_masked, 1.0))
        tally.add_pack((step, *place), loss, guesses, pack.n_masked)
    tally.add_step(
        step,
        engine.step(rate),
        n_cells=work.n_cells,
        n_tokens=work.n_tokens,
        n_laid=work.n_laid,
        sum_squares=work.sum_squares,
    )


def peak_memory() -> float:
    """The most memory this process has held, in bytes: see `Metrics.memory_gb`."""
    if torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_reserved())
    return float(peak_resident())


def _is_every(interval: int, step: int) -> bool:
    return interval > 0 and step % interval == 0


def _metrics(
    reading: Reading,
    step: int,
    plan: Plan,
    elapsed: float,
    wait: float,
    rate: float,
    roof: Roof | None,
) -> Metrics:
    guesses = [reading.right, reading.masked, reading.mask_right, reading.mask_asked]
    sizes = [reading.cells, reading.tokens, reading.laid, reading.sum_squares]
    loss, right, masked, mask_right, mask_asked, cells, tokens, laid, squares = sum_over_ranks(
        [reading.loss, *guesses, *sizes]
    )
    mfu = None
    if roof is not None:
        mfu = roof.utilisation(
            n_tokens=tokens, sum_squares=squares, n_scored=masked, seconds=elapsed
        )
    return Metrics(
        step=step,
        epoch=step / plan.steps_per_epoch,
        loss=loss / masked if masked else math.nan,
        accuracy=right / masked if masked else math.nan,
        cells_per_s=cells / elapsed,
        tokens_per_s=tokens / elapsed,
        data_wait=min(1.0, wait),
        learning_rate=rate,
        gradient_norm=reading.norm,
        n_cells=int(cells),
        eta_s=(plan.n_steps - step) * elapsed / len(reading.steps),
        mask_accuracy=mask_right / mask_asked if mask_asked else None,
        skipped=len(reading.skipped),
        filled=tokens / laid if laid else 1.0,
        mfu=mfu,
    )


def _in_a_row(before: int, reading: Reading, step: int) -> int:
    """How many steps in a row were left out, up to `step`; `before` up to the last reading."""
    newest = step
    while newest in reading.skipped:
        newest -= 1
    read = len(reading.steps)
    return before + read if step - newest == read else step - newest


def _refuse_many(left_out: LeftOut, stop_after: int, noted_in: str) -> None:
    if left_out.in_a_row >= stop_after:
        last = left_out.steps[-1] + 1
        packs = ", ".join(f"{step + 1}/{group}/{n}" for step, group, n in left_out.packs[-5:])
        raise TrainingError(
            f"the gradient was not finite in {left_out.in_a_row} steps in a row, up to {last}; "
            f"packs (step/group/number) whose loss was not: {packs or 'none'}"
            f"{f', their cells in {noted_in}' if noted_in else ''}. None of these "
            "steps changed the model, and the checkpoints before them are kept. Lower "
            "optimizer.peak_lr, or lengthen the warm-up, and start under another name"
        )


_MOST_PACKS = 8
"""Packs that each rank names of those whose loss was not finite: its newest."""


def _of_all_ranks(packs: tuple[Place, ...]) -> tuple[Place, ...]:
    named = packs[-_MOST_PACKS:]
    if n_ranks() == 1:
        return named
    mine = torch.full((_MOST_PACKS, 3), -1, dtype=torch.int64)
    mine[: len(named)] = torch.tensor(named, dtype=torch.int64).reshape(-1, 3)
    all_of_them = [torch.empty_like(mine) for _ in range(n_ranks())]
    distributed.all_gather(all_of_them, mine)
    rows: list[list[int]] = torch.cat(all_of_them).tolist()
    return tuple(sorted((step, group, number) for step, group, number in rows if step >= 0))


def _largest(values: list[float]) -> list[float]:
    """Each value's largest over ranks."""
    if n_ranks() == 1:
        return values
    largest = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
    return largest.tolist()
