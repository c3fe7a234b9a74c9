"""A run's reports as plots: loss, accuracy and speed over steps. Knows no run folder."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = (
    ("loss", "cross-entropy at chosen genes (nats)"),
    ("accuracy", "share of chosen genes guessed right"),
    ("tokens_per_s", "real tokens a second"),
)


def training_curves(reports: Sequence[Mapping[str, float]]) -> "Figure":
    """Draw what people watched, one panel a quantity.

    Args:
        reports: the run's reports, oldest first; each has `step` and the quantities drawn.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 3.0), layout="constrained")
    steps = [report["step"] for report in reports]
    for number, (name, words) in enumerate(_PANELS, 1):
        axis = figure.add_subplot(1, len(_PANELS), number)
        axis.plot(steps, [report[name] for report in reports], color="#0b6e7f", linewidth=1.6)
        axis.set_title(words, fontsize=9)
        axis.set_xlabel("step", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        if name != "loss":
            axis.set_ylim(bottom=0)
    return figure
