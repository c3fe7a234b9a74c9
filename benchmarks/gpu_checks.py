"""The checks of `gpu.py`: each holds what a device gives against a stated bound, or raises.

Knows our trainer and its stock peer; times nothing. Where a bound is not "the same", it says what
it allows for.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_parts import CheckFailedError, Report, Trainer, objective_of
from benchmarks.pretraining_peers import (
    Padded,
    Shape,
    drawn_cells,
    encoding_of,
    padded,
    stock_model,
)

FULL = 1e-4
"""Two ways of the same fp32 arithmetic: mean loss in nats; the gradient, relative to its norm."""
HALF_LOSS, HALF_GRADIENT = 2e-3, 0.1
"""bf16 beside fp32, relative. A bf16 number has 8 bits: 0.4 % each, which every layer adds to: a
gradient of 6 layers was 2.8 % off on a CPU, one of 12 layers 4.5 %."""
HALF_BESIDE_STOCK = 1.5
"""How much further off our bf16 gradient may be than that of stock BERT in bf16."""
MOVED = 0.05
"""Two runs of six bf16 steps whose sums are added in another order: how far apart they may end,
relative to how far they went. AdamW makes a step of any gradient, so noise is not small for all."""


# ------------------------------------------------------------------------------- masks


def check_masks(report: Report, device: torch.device) -> None:
    """The same bits on the host and on the device, in shapes as they come and in static ones."""
    from cytolake.train.objectives.hashed_masks import (
        NOTHING,
        hide_by_kernel,
        hide_by_torch,
        hide_within,
        rule_of,
    )

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
    there = [x.to(device) for x in (tokens, positions, keys)]
    as_it_comes = hide_by_torch(*there, rule)
    n_chosen, capacity = len(here[1]), len(here[1]) + 500
    begin = torch.tensor(rule.begin, device=device)
    hidden, rows, labels = hide_within(*there, begin, rule, capacity)
    static = (hidden, rows[:n_chosen], labels[:n_chosen])
    same = [
        torch.equal(one, other.cpu())
        for found in (as_it_comes, static)
        for one, other in zip(here, found, strict=True)
    ]
    none_besides = bool((labels[n_chosen:] == NOTHING).all())
    report.tell("masks on host and device", same=all(same) and none_besides, chosen=n_chosen)
    if not all(same) or not none_besides:
        raise CheckFailedError("the device hides other tokens than the host")


# ---------------------------------------------------------------------------- equality


def check_equal_to_stock(report: Report, shape: Shape, device: torch.device) -> None:
    """Packed fp32 = stock padded fp32; static packs, fp32 and bf16, = packed fp32."""
    still = replace(shape, hidden_dropout=0.0)
    tokens = encoding_of(shape).encode(drawn_cells(shape, 1, 8).group(0, 0)[0])
    budget = 4 * shape.length
    plain = objective_of(still, device)
    loss, n_chosen = _summed(plain, tokens, budget)
    gradients = _gradients(plain.model, 1 / n_chosen)
    stock = stock_model(still, device)
    batch = padded(tokens, np.arange(8), objective_of(still, torch.device("cpu")), 0).to(device)
    theirs, by_stock = _of_stock(stock, batch, half=False)
    in_half = _apart(by_stock, _of_stock(stock, batch, half=True)[1])
    failed: list[CheckFailedError] = []
    n_theirs = int((batch.labels != -100).sum())
    _hold(
        failed,
        report,
        "packed fp32 beside stock fp32",
        loss_apart=(abs(loss / n_chosen - theirs), FULL),
        gradient_apart=(_apart(gradients, by_stock), FULL),
        chosen_apart=(abs(n_chosen - n_theirs), 0),
    )
    report.tell("stock bf16 beside stock fp32", gradient_apart=in_half)
    for half in (False, True):
        static = objective_of(still, device, tokens=budget, half=half)
        other, as_many = _summed(static, tokens, budget)
        _hold(
            failed,
            report,
            f"static packs {'bf16' if half else 'fp32'} beside packed fp32",
            loss_apart=(abs(other - loss) / loss, HALF_LOSS if half else FULL),
            gradient_apart=(
                _apart(gradients, _gradients(static.model, 1 / n_chosen)),
                min(HALF_GRADIENT, HALF_BESIDE_STOCK * in_half) if half else FULL,
            ),
            chosen_apart=(abs(as_many - n_chosen), 0),
        )
    if failed:
        raise CheckFailedError("; ".join(str(error) for error in failed))


def _hold(
    failed: list[CheckFailedError], report: Report, name: str, **found: tuple[float, float]
) -> None:
    """`Report.hold`, whose failure waits until the other comparisons are told too."""
    try:
        report.hold(name, **found)
    except CheckFailedError as error:
        failed.append(error)


def _summed(objective: Any, tokens: Any, budget: int) -> tuple[float, int]:
    """Summed loss and number of chosen tokens; gradients are left in the model."""
    objective.model.zero_grad()
    loss, n_chosen = 0.0, 0
    for pack in objective.packs(tokens, budget, 0, None):
        one, _ = objective(pack)
        one.backward()
        loss, n_chosen = loss + float(one.detach()), n_chosen + pack.n_masked
    return loss, n_chosen


def _of_stock(stock: Any, batch: Padded, *, half: bool) -> tuple[float, dict[str, torch.Tensor]]:
    """Mean loss and gradients of the stock model."""
    stock.zero_grad()
    with torch.autocast(batch.inputs.device.type, dtype=torch.bfloat16, enabled=half):
        loss = stock(
            input_ids=batch.inputs, attention_mask=batch.attention, labels=batch.labels
        ).loss
    loss.backward()
    return float(loss.detach()), _gradients(stock)


def _gradients(model: torch.nn.Module, scale: float = 1.0) -> dict[str, torch.Tensor]:
    return {name: scale * p.grad for name, p in model.named_parameters() if p.grad is not None}


def _apart(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> float:
    """How far one set of tensors is from another, relative to the norm of the first."""
    if expected.keys() != found.keys():
        raise CheckFailedError(f"other tensors: {sorted(expected.keys() ^ found.keys())}")
    apart = sum(float((value - found[name]).norm()) ** 2 for name, value in expected.items())
    whole = sum(float(value.norm()) ** 2 for value in expected.values())
    return math.sqrt(apart / whole)


# -------------------------------------------------------------------------- no waiting


def check_no_waiting(report: Report, trainer: Trainer, n_steps: int) -> None:
    """No step waits for the device, and none is compiled anew: over two epochs and more."""
    import torch._dynamo

    on_gpu = trainer.device.type == "cuda"
    trainer.go(3)
    with torch._dynamo.config.patch(error_on_recompile=True):
        skipped, loss = _steps_without_sync(trainer, n_steps, watched=on_gpu)
    report.tell("steps without a wait or a recompile", steps=n_steps, checked_waits=on_gpu)
    if skipped or not math.isfinite(loss):
        raise CheckFailedError(f"steps {skipped} were left out, loss {loss}")


def _steps_without_sync(
    trainer: Trainer, n_steps: int, *, watched: bool
) -> tuple[tuple[int, ...], float]:
    """The loop's own steps while every wait for the device is an error; works are ready-made.

    Returns:
        The steps that were left out, and the summed loss.
    """
    from cytolake.train.loop import learn
    from cytolake.train.tally import Tally

    feed, _ = trainer.feed(n_steps)
    try:
        works = [feed.work(step) for step in range(n_steps)]
    finally:
        feed.close()
    tally = Tally()
    if watched:
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
    try:
        for step, work in enumerate(works):
            learn(
                trainer.engine, work, 1e-4, n_masked=work.n_masked, seed=1, step=step, tally=tally
            )
    finally:
        if watched:
            torch.cuda.set_sync_debug_mode("default")
    reading = tally.read()
    return reading.skipped, reading.loss


# ------------------------------------------------------------------------------ resume


def check_resume(report: Report, make: Callable[[], Trainer], *, exact: bool) -> None:
    """Six steps at once, and three, a restart and three more: the same bits, or how far apart.

    On a GPU the sums of some backward passes (embeddings, attention) are added in the order in
    which they are ready: there the bound is `MOVED`, as torch comes and with its deterministic
    algorithms, which only warn where there is none. What torch does if it may refuse is told and
    held to nothing: `warn_only` leaves attention as it is.

    Args:
        report: where it is told.
        make: a trainer of fresh weights.
        exact: the bits must be the same: on a CPU.
    """
    failed: list[CheckFailedError] = []
    for name, mode in (("as torch comes", ""), ("deterministic, warn only", "warn")):
        with _determinism(mode) as warned:
            moved, bits = _resumed(make)
        name = f"three steps, a restart and three beside six, {name}"
        report.tell(f"{name}: what warned", said=sorted(warned))
        report.tell(f"{name}: bits", same=bits)
        _hold(failed, report, name, weights_apart_of_way=(moved, 0.0 if exact else MOVED))
    if failed:
        raise CheckFailedError("; ".join(str(error) for error in failed))
    name = "three steps, a restart and three beside six, deterministic, strict"
    try:
        with _determinism("strict"):
            moved, bits = _resumed(make)
        report.tell(name, weights_apart_of_way=moved, same=bits)
    except RuntimeError as error:  # an operation that has no deterministic algorithm
        report.tell(name, refused=str(error)[:500])


def _resumed(make: Callable[[], Trainer]) -> tuple[float, bool]:
    """How far the ends of both runs are apart, relative to the way; whether the bits are one."""
    whole = make()
    begun = whole.weights()
    whole.go(6)
    half_way = make()
    half_way.go(3)
    resumed = make()
    resumed.objective.load_state_dict(half_way.weights())
    resumed.engine.restore(half_way.engine.moments(), 3)
    resumed.step = 3
    resumed.go(3)
    ends, others = whole.weights(), resumed.weights()
    way = {name: (value - begun[name]).float() for name, value in ends.items()}
    other_way = {name: (value - begun[name]).float() for name, value in others.items()}
    return _apart(way, other_way), all(torch.equal(ends[name], others[name]) for name in ends)


@contextmanager
def _determinism(mode: str) -> Iterator[set[str]]:
    """Torch's deterministic algorithms: not at all, `warn` or `strict`; what warned."""
    warned: set[str] = set()
    torch.compiler.reset()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.use_deterministic_algorithms(mode != "", warn_only=mode == "warn")
        try:
            yield warned
        finally:
            torch.use_deterministic_algorithms(False)
            said = (str(each.message).split(". ")[0] for each in caught)
            warned.update(words[:200] for words in said if "determinis" in words)
