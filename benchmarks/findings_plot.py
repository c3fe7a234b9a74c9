"""Answers of the findings as a plot. Knows no model: it draws what was kept."""

import math
from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

from cytolake.evaluate.contexts import DIFFERENCE
from cytolake.evaluate.figures import ACCENT, INK, SOFT, WARM
from cytolake.evaluate.scores import Score
from cytolake.evaluate.tasks.contexts import CHECKPOINT, UNTRAINED

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def curve_figure(answers: Mapping[str, Any]) -> "Figure":
    """Loss on held-out donors by tokens seen, and the differences of cosines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    per_epoch = answers["cells"]["found"]["learnt tokens"] / 1e6
    sizes = list(answers["plan"]["sizes"])
    for name, color in zip(sizes, (SOFT, WARM, ACCENT), strict=False):
        points = answers[f"curve/{name}"]["found"]
        tokens = [epoch * per_epoch for epoch, _ in points]
        left.plot(tokens, [loss for _, loss in points], "o-", ms=3, color=color, label=name)
    styles = cycle((":", "-.", "--", (0, (6, 1)), "-"))
    for (name, loss), style in zip(
        answers["curve/baselines"]["found"].items(), styles, strict=False
    ):
        left.axhline(loss, color=INK, lw=0.9, ls=style, label=name)
    left.set_xlabel("tokens seen (millions)")
    left.set_ylabel("nats at <mask>, held-out donors")
    right.axvline(0, color=SOFT, lw=0.8)
    for row, name in enumerate(sizes):
        scores = [Score(**value) for value in answers[f"contexts/{name}"]["found"]["scores"]]
        for model, color, shift in ((CHECKPOINT, ACCENT, -0.12), (UNTRAINED, WARM, 0.12)):
            [score] = [s for s in scores if (s.name, s.model) == (DIFFERENCE, model)]
            if math.isfinite(score.low) and math.isfinite(score.high):
                right.plot([score.low, score.high], [row + shift] * 2, color=color, alpha=0.6, lw=2)
            label = model if row == 0 else None
            right.plot([score.value], [row + shift], "o", color=color, label=label)
    right.set_yticks(range(len(sizes)), sizes)
    right.set_ylim(len(sizes) - 0.5, -0.5)
    right.set_xlabel("cosine: type over donor")
    for axis, n_columns in ((left, 3), (right, 1)):
        axis.legend(  # under the axis: no line of the plot is covered
            fontsize=7,
            frameon=False,
            loc="upper left",
            bbox_to_anchor=(-0.02, -0.17),
            borderaxespad=0,
            ncols=n_columns,
        )
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#e6eaef")
        axis.tick_params(labelsize=8)
    return figure
