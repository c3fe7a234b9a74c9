"""Answers of the findings as a page. Knows no model: it reads what was kept.

Words follow the intervals: ahead, behind, or not told apart.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any

from cytolake.evaluate.contexts import DIFFERENCE, GAIN, SAME_BATCH, SAME_LABEL
from cytolake.evaluate.guessers import BASELINES, IN_ORDER, NEIGHBOURS
from cytolake.evaluate.results import compare
from cytolake.evaluate.scores import Score
from cytolake.evaluate.tasks.contexts import CHECKPOINT, UNTRAINED
from cytolake.evaluate.tasks.masked import CROSS_ENTROPY, TOP_1, TOP_10

from benchmarks.findings_plot import curve_figure

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
    return "\n\n".join([*parts, _limits(answers)]) + "\n"


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
    told = fill(
        f"Pretrained on {cells['learnt cells']:,} control PBMC of three donors of Kang 2018 (1015, "
        f"1256, 1488) and on nothing else; {plan['epochs']:g} epochs of {cells['learnt tokens']:,} "
        f"tokens, {cells['vocabulary']:,} tokens in the vocabulary. {_cut(answers)} The file has "
        "1,287 expressed genes of one pooled run of eight lupus patients. Asked: "
        f"{cells['held-out cells']:,} cells of the five other donors. Another study: pbmc3k, one "
        "healthy donor, read through the same vocabulary and medians; no model and no baseline has "
        "seen it.",
        100,
    )
    whole = all(_found(answers, f"training/{name}")["whole"] for name in _sizes(answers))
    stopped = "" if whole else "; more, for a training was stopped and gone on with"
    return f"""# Findings: what small models learn

Three sizes of one model at equal tokens, on real cells of donors that no model has seen, beside
baselines without a model. Nothing here was chosen on the held-out donors.

Command: `CYTOLAKE_RESOURCES=... {command}` ({machine["date"]}).
Machine: {machine["machine"]}, no GPU, other work beside it. Versions: {versions}.
Budget: {cpu / 3600:.2f} CPU hours in all, ingest not counted{stopped}.

{told}"""


def _cut(answers: Answers) -> str:
    length, cells = answers["plan"]["length"], _found(answers, "cells")
    n_cells, n_cut = cells["learnt cells"], cells["learnt cells cut"]
    if n_cut == n_cells:
        return (
            f"Every one of these cells is cut at its {length} most telling genes "
            f"({cells['learnt tokens']:,} = {n_cells:,} x {length})."
        )
    return f"A cell is cut at its {length} most telling genes: {n_cut:,} of these were."


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
            gains = {name: _gain(answers, f"{key}/{name}") for name in _sizes(answers)}
            told = "; ".join(f"{name} {_of_gain(gain)}" for name, gain in gains.items())
            lines.append(
                f"- What training did to a gene's state, cell type over {other} (difference of "
                f"cosines): {told}. {_trend([gain.value for gain in gains.values()])}"
            )
    told = "\n".join(fill(line, 100, subsequent_indent="  ") for line in lines)
    return f"## In short\n\n{told}"


def _gain(answers: Answers, key: str) -> Score:
    [gain] = [s for s in _scores(_found(answers, key)["scores"]) if s.name == GAIN]
    return gain


def _trend(values: Sequence[float]) -> str:
    """What the values do from the smallest model to the largest; nothing of a single one."""
    steps = [after - before for before, after in pairwise(values)]
    if not steps:
        return ""
    if all(step < 0 for step in steps):
        return "The larger the model, the less."
    return "The larger the model, the more." if min(steps) > 0 else "In no order of size."


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
{found["n_cut"]:,} of these cells are cut at {answers["plan"]["length"]} genes.
95 % intervals over {unit.n} {unit.unit}{beside}; {unit.method}.

| who | cross-entropy, nats | top 1 | top 10 |
|---|---|---|---|
{table}

Nats a position that each model (column) saves against each other guesser, paired by position; below
0 it is behind, and where the interval holds 0 they are not told apart:

{told}

{_of_order(Score(**found["order"]))}

Cell kNN took k = {chosen["k"]} and {chosen["kNN strength"]:g} genes' worth of smoothing, chosen on
pretraining cells, each told of cells of the other pretraining donors only; the rank-unigram took
{chosen["rank strength"]:g}, chosen by leaving out one gene at a time."""


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
        again = {(s.name, s.model): s for s in _scores(found["bootstrap"])}
        if again and _is_bounded(again[GAIN, CHECKPOINT]):
            verdicts[-1] += f" (bootstrap: {_bracketed(again[GAIN, CHECKPOINT])})"
    notes = fill(" ".join(f"{note}." for note in found["notes"] if "seen cells" not in note), 100)
    table, told = "\n".join(rows), "\n".join(verdicts)
    method = _method(_gain(answers, f"{key}/{sizes[0]}"))
    return f"""## {title}

States of one gene at one rank, centred per gene: cosines across batches inside a cell type, across
cell types inside a batch, and the difference. Above 0: more of the type than of the batch.
{method}

| who | across batches, one type | across types, one batch | difference |
|---|---|---|---|
{table}

What training did to the difference:

{told}

{notes}"""


def _method(score: Score) -> str:
    if not _is_bounded(score):
        return (
            f"No intervals: one side has one of the {score.n} {score.unit} only, and leaving that "
            "one\nout leaves nothing to compare."
        )
    beside = ""
    if score.method.startswith("jackknife"):
        beside = (
            f" {score.n}\nare too few to resample ([decision 14](decisions.md)); the percentile "
            "bootstrap over the same\nunits is given beside the last list, and is known to be too "
            "narrow for so few."
        )
    return (
        f"95 % intervals over {score.n} {score.unit}; {score.method}.{beside} A gene's centre is "
        "that of\nall cells in every draw (decision 90), so all intervals are a little narrow."
    )


def _is_bounded(score: Score) -> bool:
    return math.isfinite(score.low) and math.isfinite(score.high)


def _bracketed(score: Score) -> str:
    return f"[{score.low:+.3f}, {score.high:+.3f}]"


def _of_gain(score: Score) -> str:
    if not _is_bounded(score):
        return f"{score.value:+.3f}; no interval, for one side has one donor only"
    side = "more of the type" if score.value > 0 else "more of the batch"
    words = "not told apart from nothing" if score.low <= 0 <= score.high else side
    return f"{score.value:+.3f} {_bracketed(score)}, {words}"


def _n_intervals(answers: Answers, key: str) -> int:
    """How many intervals the tables of some answers have."""
    return sum(
        _is_bounded(score)
        for name in answers
        if name == key or name.startswith(f"{key}/")
        for listed in _listed(_found(answers, name))
        for score in _scores(listed)
    )


def _listed(found: Mapping[str, Any]) -> list[Sequence[Mapping[str, Any]]]:
    return [found["scores"], *found.get("saved", {}).values()]


def _limits(answers: Answers) -> str:
    return f"""## What this does not say

- One study of one tissue, a panel of expressed genes of which a cell shows
  {answers["plan"]["length"]} at most, small models, short training: the numbers are of these cells
  and these budgets, and no law of scale can be read from three sizes.
- One seed of training a size, and one untrained model beside it: intervals are over donors or
  cells, and how far another seed would lie off is in none of them.
- No interval is corrected for their number: {_n_intervals(answers, "masked")} of guesses,
  {_n_intervals(answers, "contexts")} of states. At 95 % one in twenty is expected to miss.
- Equal tokens are not equal cost: the largest model took the most time, and a smaller one would see
  more tokens in it.
- `{IN_ORDER}` is one reading of that order, not the best one; what a
  model has over it need not be biology.
- The donors of Kang 2018 were pooled in one run, so that they differ as people and not as batches;
  the two studies differ in everything, and one of them has one donor."""
