"""The tasks' plots, made without a global figure. Knows scores and arrays; knows no model."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .scores import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, SOFT, ACCENT, WARM = "#1c2430", "#9aa5b1", "#0b6e7f", "#c2703d"


def score_bars(scores: Sequence[Score], names: Sequence[str]) -> "Figure":
    """One panel a name, one dot with its interval a model."""
    from matplotlib.figure import Figure

    shown = [[score for score in scores if score.name == name] for name in names]
    models = list(dict.fromkeys(score.model for panel in shown for score in panel))
    height = 0.9 + 0.42 * len(models)
    figure = Figure(figsize=(3.6 * len(names) + 1.6, height), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for axis, name, panel in zip(axes, names, shown, strict=True):
        for score in panel:
            row = models.index(score.model)
            color = ACCENT if row == 0 else SOFT
            if math.isfinite(score.low) and math.isfinite(score.high):
                axis.plot([score.low, score.high], [row, row], color=color, lw=2.5, alpha=0.6)
            axis.plot([score.value], [row], "o", color=color, ms=7)
        axis.set_title(name, fontsize=10, loc="left", color=INK)
        axis.set_ylim(len(models) - 0.5, -0.5)
        axis.set_yticks(range(len(models)), models if axis is axes[0] else [])
        axis.grid(axis="x", color="#e6eaef")
        _bare(axis)
    return figure


def confusion(counts_kk: NDArray[np.integer], labels: Sequence[str], title: str) -> "Figure":
    """A confusion matrix, each row in shares of the true label's cells."""
    from matplotlib.figure import Figure

    size = 1.8 + 0.45 * len(labels)
    figure = Figure(figsize=(size + 1.2, size), layout="constrained")
    axis = figure.subplots()
    totals = np.maximum(counts_kk.sum(axis=1, keepdims=True), 1)
    axis.imshow(counts_kk / totals, vmin=0, vmax=1, cmap="GnBu")
    for row, column in np.ndindex(*counts_kk.shape):
        if counts_kk[row, column]:
            dark = counts_kk[row, column] / totals[row, 0] > 0.6
            axis.text(
                column,
                row,
                str(counts_kk[row, column]),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else INK,
            )
    axis.set_xticks(range(len(labels)), labels, rotation=45, ha="right", fontsize=8)
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    axis.set_title(title, fontsize=10, loc="left", color=INK)
    return figure


def shifts_by_rank(
    ranks: NDArray[np.integer], shifts: Mapping[str, NDArray[np.floating]]
) -> "Figure":
    """Raw shifts against the rank of the deleted gene, a panel a model: how rank rules them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(shifts), 3.4), layout="constrained")
    axes = figure.subplots(1, len(shifts), squeeze=False)[0]
    for axis, (model, values), color in zip(axes, shifts.items(), (ACCENT, WARM), strict=False):
        visible = values > 0
        axis.scatter(ranks[visible], values[visible], s=4, alpha=0.25, lw=0, color=color)
        axis.set_yscale("log")
        axis.set_title(model, fontsize=10, loc="left", color=INK)
        axis.set_xlabel("rank of the deleted gene")
        axis.grid(color="#e6eaef")
        _bare(axis)
    axes[0].set_ylabel("shift of the cell state")
    return figure


def z_against_z(
    ours: NDArray[np.floating],
    theirs: NDArray[np.floating],
    names: Sequence[str],
    *,
    n_named: int = 10,
) -> "Figure":
    """Genes' z by two models; the first genes of the list are named."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axis = figure.subplots()
    axis.axhline(0, color=SOFT, lw=0.8)
    axis.axvline(0, color=SOFT, lw=0.8)
    axis.scatter(theirs, ours, s=9, alpha=0.5, lw=0, color=ACCENT)
    for place in range(min(n_named, len(names))):
        axis.annotate(
            names[place],
            (float(theirs[place]), float(ours[place])),
            xytext=(4, 2),
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )
    axis.set_xlabel("z by the untrained model")
    axis.set_ylabel("z by the checkpoint")
    axis.grid(color="#e6eaef")
    _bare(axis)
    return figure


def _bare(axis: object) -> None:
    spines = getattr(axis, "spines", {})
    for side in ("top", "right"):
        spines[side].set_visible(False)
