"""ScoreList: scores as a part of an HTML page, each with its interval. Knows no task.

The page itself, and its parts of prose, tables and plots, are `platform/page.py`.
"""

import math
from dataclasses import dataclass

from ..platform.page import captioned, escape
from .scores import Score


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreList:
    """Scores, each with its interval drawn on one axis a name.

    Attributes:
        scores: the scores; those with one name share a panel.
        caption: what they are.
    """

    scores: tuple[Score, ...]
    caption: str = ""

    def to_html(self) -> str:
        """The panels, a table each."""
        panels: list[str] = []
        for name in dict.fromkeys(score.name for score in self.scores):
            members = [score for score in self.scores if score.name == name]
            ends = [
                end
                for score in members
                for end in (score.value, score.low, score.high)
                if math.isfinite(end)
            ]
            low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
            reach = (high - low) or 1.0
            rows = "".join(_score_row(score, low - 0.05 * reach, 1.1 * reach) for score in members)
            head = f"<caption>{escape(name)}</caption>"
            panels.append(f'<table class="panel">{head}<tbody>{rows}</tbody></table>')
        return captioned(f'<div class="wide">{"".join(panels)}</div>', self.caption)


def _score_row(score: Score, origin: float, reach: float) -> str:
    def place(value: float) -> float:
        return round(2 + 216 * (value - origin) / reach, 2)

    marks = ""
    if math.isfinite(score.low) and math.isfinite(score.high):
        begin, end = place(score.low), place(score.high)
        marks += f'<line x1="{begin}" x2="{end}" y1="9" y2="9" class="interval"/>'
    if math.isfinite(score.value):
        marks += f'<circle cx="{place(score.value)}" cy="9" r="4"/>'
    drawing = f'<svg viewBox="0 0 220 18" width="220" height="18" role="img">{marks}</svg>'
    return (
        f'<tr title="{escape(score.method)}"><th scope="row">{escape(score.model)}</th>'
        f"<td>{drawing}</td><td>{escape(score.text)}</td></tr>"
    )
