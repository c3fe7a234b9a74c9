"""A run's reports as plots: what people watched, over steps. Knows no run folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TRAINING, _HELD_OUT = "#0b6e7f", "#c8553d"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Panel:
    """One quantity, and the held-out one that belongs to it."""

    name: str
    words: str
    held_out: str = ""
    from_zero: bool = True


_PANELS = (
    _Panel(
        name="loss",
        words="cross-entropy at chosen genes (nats)",
        held_out="validation_loss",
        from_zero=False,
    ),
    _Panel(
        name="accuracy",
        words="share of all chosen genes guessed right",
        held_out="validation_accuracy",
    ),
    _Panel(
        name="mask_accuracy",
        words="share of <mask> guessed right",
        held_out="validation_mask_accuracy",
    ),
    _Panel(name="tokens_per_s", words="real tokens a second"),
    _Panel(name="learning_rate", words="learning rate"),
    _Panel(name="gradient_norm", words="gradient norm before clipping"),
)
_COLUMNS = 3


def training_curves(reports: Sequence[Mapping[str, float]]) -> "Figure":
    """Draw what people watched, one panel a quantity; held-out cells where they were asked.

    Args:
        reports: the run's reports, oldest first; each has `step`, and quantities to draw. One that
            no report has gets no panel.
    """
    from matplotlib.figure import Figure

    panels = [panel for panel in _PANELS if any(panel.name in report for report in reports)]
    n_rows = -(-len(panels) // _COLUMNS) or 1
    figure = Figure(figsize=(10.5, 3.0 * n_rows), layout="constrained")
    for number, panel in enumerate(panels, 1):
        axis = figure.add_subplot(n_rows, _COLUMNS, number)
        _draw(axis, panel, reports)
    return figure


def _draw(axis: "Axes", panel: _Panel, reports: Sequence[Mapping[str, float]]) -> None:
    axis.plot(*_points(reports, panel.name), color=_TRAINING, linewidth=1.6, label="training")
    steps, values = _points(reports, panel.held_out)
    if steps:
        axis.plot(steps, values, color=_HELD_OUT, marker="o", markersize=3, label="held out")
        axis.legend(frameon=False, fontsize=8)
    axis.set_title(panel.words, fontsize=9)
    axis.set_xlabel("step", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    if panel.from_zero:
        axis.set_ylim(bottom=0)


def _points(reports: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    told = [(report["step"], report[name]) for report in reports if name in report]
    return [step for step, _ in told], [value for _, value in told]
