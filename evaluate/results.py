"""EvaluationResult: what a task answers: scores, tables, figures and a verdict in plain words.

Knows no model and no corpus.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from ..platform.page import Plot, Prose, Section, Table, readable
from .report import ScoreList
from .scores import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType

N_SHOWN = 10
"""Rows of a table that a terminal shows; the tracker has them all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationResult:
    """A task's answer.

    Attributes:
        task: the question: `masked`, `finetune`, `perturb` or `contexts`.
        verdict: what came out, in one plain sentence or two; it claims nothing that the
            intervals do not carry.
        scores: the numbers, each with its interval.
        tables: the details, by name.
        figures: plots, by name.
        notes: what limits the answer, in words: units, cells left out, labels left out.
        run_id: the run that it was logged to; empty where it was not.
    """

    task: str
    verdict: str
    scores: tuple[Score, ...]
    tables: Mapping[str, pa.Table] = field(default_factory=dict[str, pa.Table])
    figures: Mapping[str, "Figure"] = field(default_factory=dict[str, "Figure"])
    notes: tuple[str, ...] = ()
    run_id: str = ""

    def score(self, name: str, model: str) -> Score:
        """The score of a name and model.

        Raises:
            KeyError: there is none.
        """
        for score in self.scores:
            if (score.name, score.model) == (name, model):
                return score
        raise KeyError((name, model))

    def shown(self) -> "list[RenderableType]":
        """What a terminal shows: verdict, scores, the first rows of the tables, notes."""
        from rich.table import Table as Grid
        from rich.text import Text

        grid = Grid("score", "of", "value [95 % interval], unit", box=None, pad_edge=False)
        for score in self.scores:
            grid.add_row(score.name, score.model, score.text)
        parts: list[RenderableType] = [Text(self.verdict, style="bold"), grid]
        for name, table in self.tables.items():
            rows = Grid(*table.column_names, title=name, title_justify="left", box=None)
            for row in table.slice(0, N_SHOWN).to_pylist():
                rows.add_row(*(readable(value) for value in row.values()))
            parts.append(rows)
        return [*parts, *(Text(f"- {note}", style="dim") for note in self.notes)]

    def to_text(self) -> str:
        """The same in plain text, without the tables."""
        width = max((len(score.name) for score in self.scores), default=0)
        models = max((len(score.model) for score in self.scores), default=0)
        lines = [f"{s.name:<{width}}  {s.model:<{models}}  {s.text}" for s in self.scores]
        return "\n".join([self.verdict, "", *lines, "", *(f"- {note}" for note in self.notes)])

    def section(self) -> Section:
        """The answer as a section of the HTML report."""
        title, caption = _TITLES.get(self.task, (self.task, ""))
        return Section(
            title=title,
            parts=(
                Prose(text=self.verdict, tone="finding"),
                ScoreList(scores=self.scores, caption=caption),
                *(
                    Plot(figure=figure, caption=_CAPTIONS.get(name, name), raster=name in _DENSE)
                    for name, figure in self.figures.items()
                    if name != self.task  # the scores, which the list above draws already
                ),
                *(
                    Table(rows=table.slice(0, 25), caption=_CAPTIONS.get(name, name))
                    for name, table in self.tables.items()
                ),
                Prose(text="\n\n".join(self.notes), tone="caution"),
            ),
        )


_TITLES = {
    "masked": (
        "Guessing hidden genes",
        "Only at positions whose input is <mask>; of cross-entropy less is better. "
        "Dots are values, bars 95 % intervals.",
    ),
    "finetune": (
        "Naming cells",
        "Means over folds; the same folds and training cells for all. Dots are values, bars 95 % "
        "intervals.",
    ),
    "perturb": (
        "Deleting genes",
        "A raw shift follows the rank of the deleted gene in a trained and an untrained model.",
    ),
    "contexts": (
        "What a gene's state tells",
        "Cosines of one gene's states at one rank, centred per gene. Above 0 in the difference: "
        "more of the cell type than of the batch. Dots are values, bars 95 % intervals.",
    ),
}
_CAPTIONS = {
    "positions": "Over all <mask> positions, not by unit",
    "confusion": "Held-out cells of all folds; shades are shares of the true label",
    "folds": "By fold",
    "labels": "By label, held-out cells of all folds together",
    "genes": "Genes by z against other genes of the same rank (the first 25; all are in MLflow)",
    "shifts_by_rank": "Each dot is one deletion: why a raw shift must not be read as importance",
    "by_rank": "Mean cosines by rank bin; each gene in a bin counts once",
    "z": "Each dot is a gene; those near the diagonal stand out without any training",
}
_DENSE = ("shifts_by_rank",)


def compare(difference: Score) -> str:
    """Put a difference into words: ahead, behind, or not told apart (the interval holds 0)."""
    value, low, high = difference.value, difference.low, difference.high
    side = "ahead of it" if value > 0 else "behind it"
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{side} by {abs(value):.3f}, without an interval"
    if low <= 0 <= high:
        return f"not told apart from it (difference {value:+.3f} [{low:+.3f}, {high:+.3f}])"
    near, far = sorted((abs(low), abs(high)))
    return f"{side} by {abs(value):.3f} [{near:.3f}, {far:.3f}]"


def counted(n: int, singular: str, plural: str | None = None) -> str:
    """`1 cell`, `2 cells`."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def joined(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
