"""Answers of the findings as a page and a plot. Knows no model: it reads what was kept.

Words follow the intervals: ahead, behind, or not told apart.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from cytolake.evaluate.contexts import DIFFERENCE, GAIN, SAME_BATCH, SAME_LABEL
from cytolake.evaluate.figures import ACCENT, INK, SOFT, WARM
from cytolake.evaluate.guessers import BASELINES, IN_ORDER, NEIGHBOURS
from cytolake.evaluate.results import compare
from cytolake.evaluate.scores import Score
from cytolake.evaluate.tasks.contexts import CHECKPOINT, UNTRAINED
from cytolake.evaluate.tasks.masked import CROSS_ENTROPY, TOP_1, TOP_10

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Answers = Mapping[str, Any]


def write_note(answers: Answers, docs: Path, *, command: str) -> None:
    """Write findings.md and findings.png."""
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "findings.md").write_text(note(answers, command=command), encoding="utf-8")
    curve_figure(answers).savefig(docs / "findings.png", dpi=110)


def note(answers: Answers, *, command: str) -> str:
    """The page."""
    parts = [
        _head(answers, command),
        _in_short(answers),
        _trained(answers),
        _guessed(answers, "masked", "On held-out donors of the same study"),
    ]
    if "masked/other" in answers:
        parts.append(_guessed(answers, "masked/other", "On another study"))
    parts.append(_contexts(answers, "contexts", "Cell type or donor?"))
    if f"contexts/studies/{_sizes(answers)[0]}" in answers:
        parts.append(_contexts(answers, "contexts/studies", "Cell type or study?"))
    return "\n\n".join([*parts, _limits()]) + "\n"


def _found(answers: Answers, name: str) -> Any:
    return answers[name]["found"]


def _sizes(answers: Answers) -> list[str]:
    return list(answers["plan"]["sizes"])


def _scores(values: Sequence[Mapping[str, Any]]) -> list[Score]:
    return [Score(**value) for value in values]


def _head(answers: Answers, command: str) -> str:
    machine, plan, cells = _found(answers, "machine"), answers["plan"], _found(answers, "cells")
    versions = ", ".join(f"{name} {value}" for name, value in machine["versions"].items())
    cpu = sum(value["cpu_s"] for name, value in answers.items() if name != "plan")
    whole = all(_found(answers, f"training/{name}")["whole"] for name in _sizes(answers))
    stopped = "" if whole else "; more, for a training was stopped and gone on with"
    return f"""# Findings: what small models learn

Three sizes of one model at equal tokens, on real cells of donors that no model has seen, beside
baselines without a model. Nothing here was chosen on the held-out donors.

Command: `CYTOLAKE_RESOURCES=... {command}` ({machine["date"]}).
Machine: {machine["machine"]}, no GPU, other work beside it. Versions: {versions}.
Budget: {cpu / 3600:.2f} CPU hours in all, ingest not counted{stopped}.

Pretrained on {cells["learnt cells"]:,} control PBMC of three donors of Kang 2018 (1015, 1256, 1488)
and on nothing else; {cells["learnt tokens"]:,} tokens an epoch, {plan["epochs"]:g} epochs, at most
{plan["length"]} genes a cell, {cells["vocabulary"]:,} tokens in the vocabulary. The file has 1,287
expressed genes of one pooled run of eight lupus patients. Asked: {cells["held-out cells"]:,} cells
of the five other donors. Another study: pbmc3k, one healthy donor, read through the same vocabulary
and medians; no model and no baseline has seen it."""


def _in_short(answers: Answers) -> str:
    largest, found = _sizes(answers)[-1], _found(answers, "masked")
    saved = {score.model: compare(score) for score in _scores(found["saved"][largest])}
    right = {s.model: s for s in _scores(found["scores"]) if s.name == TOP_1}
    points = _found(answers, f"curve/{largest}")
    half = points[len(points) // 2]
    lines = [
        f"- Against {name}, the largest model ({largest}) is {saved[name]}; it guesses "
        f"{right[largest].value:.1%} right, {name} {right[name].value:.1%}."
        for name in (NEIGHBOURS, IN_ORDER)
    ]
    lines.append(
        f"- From {half[0]:.2f} to {points[-1][0]:.2f} epochs its loss on held-out donors went from "
        f"{half[1]:.3f} to {points[-1][1]:.3f} nats."
    )
    for key, other in (("contexts", "donor"), ("contexts/studies", "study")):
        if f"{key}/{largest}" in answers:
            scores = _scores(_found(answers, f"{key}/{largest}")["scores"])
            [gain] = [score for score in scores if score.name == GAIN]
            lines.append(
                f"- What training did to a gene's state, cell type over {other} (difference of "
                f"cosines): {_of_gain(gain)}."
            )
    told = "\n".join(fill(line, 100, subsequent_indent="  ") for line in lines)
    return f"## In short\n\n{told}"


def _trained(answers: Answers) -> str:
    rows = []
    recipe = _found(answers, f"training/{_sizes(answers)[0]}")["recipe"]
    for name in _sizes(answers):
        run = _found(answers, f"training/{name}")
        parameters = _found(answers, "cells")["parameters"][name]
        rows.append(
            f"| {name} | {parameters:,} | {run['steps']:,} | {run['cells']:,} | "
            f"{run['tokens'] / 1e6:.2f} M | {run['train_s']:,.0f} s | "
            f"{answers[f'training/{name}']['cpu_s']:,.0f} s{'' if run['whole'] else ' and more'} | "
            f"{run['loss']:.3f} |"
        )
    optimizer, training = recipe["optimizer"], recipe["training"]
    table = "\n".join(rows)
    return f"""## What was trained

| layers x width | parameters | steps | cells | tokens | by the clock | CPU | last training loss |
|---|---|---|---|---|---|---|---|
{table}

Equal for all: the same packs in the same order, {training["cells_per_step"]} cells a step, AdamW
with peak {optimizer["peak_lr"]:g} ({optimizer["schedule"]} schedule, {optimizer["warmup_steps"]}
steps of warm-up), seed {training["seed"]}, plain torch, one process, threads:
{recipe["engine"]["threads"]}. No setting was tuned by size. The training loss counts all chosen
tokens; the scores below `<mask>` only. The clock is that of a machine with much other
work; sizes may be trained side by side (`--only`), which changes no bit of them.

![Loss on held-out donors by tokens seen, and what the states tell](findings.png)"""


def _guessed(answers: Answers, key: str, title: str) -> str:
    found = _found(answers, key)
    scores = {(s.name, s.model): s for s in _scores(found["scores"])}
    sizes, chosen = _sizes(answers), _found(answers, "baselines")
    rows = []
    for model in (*BASELINES, *sizes):
        cells = [scores[name, model].text for name in (CROSS_ENTROPY, TOP_1, TOP_10)]
        shown = f"model {model}" if model in sizes else model
        rows.append(f"| {shown} | {' | '.join(_short(cell) for cell in cells)} |")
    unit = scores[CROSS_ENTROPY, sizes[0]]
    beside = "" if unit.unit == "donors" else " (cells, not donors: optimistic)"
    table, told = "\n".join(rows), _saved_table(found["saved"], sizes)
    return f"""## {title}

{found["n_positions"]:,} `<mask>` positions of {found["n_cells"]:,} cells, the same for every row.
95 % intervals over {unit.n} {unit.unit}{beside}; {unit.method}.

| who | cross-entropy, nats | top 1 | top 10 |
|---|---|---|---|
{table}

Nats a position that each model (column) saves against each other guesser, paired by position; below
0 it is behind, and where the interval holds 0 they are not told apart:

{told}

{_of_order(Score(**found["order"]))}

Cell kNN took k = {chosen["k"]} and {chosen["kNN strength"]:g} genes' worth of smoothing, the
rank-unigram {chosen["rank strength"]:g}; all chosen on the pretraining donors."""


def _of_order(score: Score) -> str:
    return f"""Genes of a cell stand by count over median. Where many counts are 1, that is the
order of the medians, so the genes beside a mask narrow its answer down without any biology.
`{IN_ORDER}` measures what that tells: held against the plain cell kNN it is
{compare(score)}."""


def _saved_table(saved: Mapping[str, Sequence[Mapping[str, Any]]], sizes: Sequence[str]) -> str:
    shown = {
        (score.model, size): f"{score.value:+.3f} [{score.low:+.3f}, {score.high:+.3f}]"
        for size in sizes
        for score in _scores(saved[size])
    }
    rows = [
        f"| {other} | {' | '.join(shown.get((other, size), '') for size in sizes)} |"
        for other in dict.fromkeys(other for other, _ in shown)
    ]
    head = f"| against | {' | '.join(sizes)} |\n|{'---|' * (len(sizes) + 1)}"
    return "\n".join([head, *rows])


def _short(text: str) -> str:
    return text.split("], ")[0] + "]" if "], " in text else text


def _contexts(answers: Answers, key: str, title: str) -> str:
    sizes = _sizes(answers)
    rows, verdicts = [], []
    for name in sizes:
        found = _found(answers, f"{key}/{name}")
        scores = {(s.name, s.model): s for s in _scores(found["scores"])}
        for model in (CHECKPOINT, UNTRAINED):
            values = [_short(scores[n, model].text) for n in (SAME_LABEL, SAME_BATCH, DIFFERENCE)]
            shown = name if model == CHECKPOINT else f"{name}, untrained"
            rows.append(f"| {shown} | {' | '.join(values)} |")
        verdicts.append(f"- {name}: {_of_gain(scores[GAIN, CHECKPOINT])}")
    notes = fill(" ".join(f"{note}." for note in found["notes"] if "seen cells" not in note), 100)
    table, told = "\n".join(rows), "\n".join(verdicts)
    return f"""## {title}

States of one gene at one rank, centred per gene: cosines across batches inside a cell type, across
cell types inside a batch, and the difference. Above 0: more of the type than of the batch.

| who | across batches, one type | across types, one batch | difference |
|---|---|---|---|
{table}

What training did to the difference:

{told}

{notes}"""


def _of_gain(score: Score) -> str:
    if not (math.isfinite(score.low) and math.isfinite(score.high)):
        return f"{score.value:+.3f}; no interval, for one side has one donor only"
    side = "more of the type" if score.value > 0 else "more of the batch"
    words = "not told apart from nothing" if score.low <= 0 <= score.high else side
    return f"{score.value:+.3f} [{score.low:+.3f}, {score.high:+.3f}], {words}"


def _limits() -> str:
    return f"""## What this does not say

- One study of one tissue, a panel of expressed genes, minutes of training: the numbers are of these
  cells and these budgets, and no law of scale can be read from three sizes.
- Equal tokens are not equal cost: the largest model took the most time, and a smaller one would see
  more tokens in it.
- `{IN_ORDER}` is one reading of that order, not the best one; what a
  model has over it need not be biology.
- The donors of Kang 2018 were pooled in one run, so that they differ as people and not as batches;
  the two studies differ in everything, and one of them has one donor."""


def curve_figure(answers: Answers) -> "Figure":
    """Loss on held-out donors by tokens seen, and the differences of cosines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    per_epoch = _found(answers, "cells")["learnt tokens"] / 1e6
    sizes = _sizes(answers)
    for name, color in zip(sizes, (SOFT, WARM, ACCENT), strict=False):
        points = _found(answers, f"curve/{name}")
        tokens = [epoch * per_epoch for epoch, _ in points]
        left.plot(tokens, [loss for _, loss in points], "o-", ms=3, color=color, label=name)
    styles = cycle((":", "-.", "--", (0, (6, 1)), "-"))
    for (name, loss), style in zip(
        _found(answers, "curve/baselines").items(), styles, strict=False
    ):
        left.axhline(loss, color=INK, lw=0.9, ls=style, label=name)
    left.set_xlabel("tokens seen (millions)")
    left.set_ylabel("nats at <mask>, held-out donors")
    left.legend(fontsize=7, facecolor="white", framealpha=1, edgecolor="none")
    right.axvline(0, color=SOFT, lw=0.8)
    for row, name in enumerate(sizes):
        scores = _scores(_found(answers, f"contexts/{name}")["scores"])
        for model, color, shift in ((CHECKPOINT, ACCENT, -0.12), (UNTRAINED, WARM, 0.12)):
            [score] = [s for s in scores if (s.name, s.model) == (DIFFERENCE, model)]
            if math.isfinite(score.low) and math.isfinite(score.high):
                right.plot([score.low, score.high], [row + shift] * 2, color=color, alpha=0.6, lw=2)
            label = model if row == 0 else None
            right.plot([score.value], [row + shift], "o", color=color, label=label)
    right.set_yticks(range(len(sizes)), sizes)
    right.set_ylim(len(sizes) - 0.5, -0.5)
    right.set_xlabel("cosine: type over donor")
    right.legend(fontsize=7, frameon=False)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#e6eaef")
        axis.tick_params(labelsize=8)
    return figure
