"""Score: a number with an interval, the unit that was resampled and how many of them there were.

Knows no model, no cell and no task: it is what every task answers with.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from ..platform.errors import EvaluationError


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One answer.

    Attributes:
        name: what was measured, for example `macro-F1`.
        model: who answered: the checkpoint, the untrained model, or a baseline's name.
        value: the estimate.
        low: lower end of the 95 % interval; NaN where no interval can be given.
        high: upper end of the 95 % interval; NaN where no interval can be given.
        unit: what was resampled, the independent unit: `donors`, `cells`, `genes`.
        n: how many units.
        method: how the interval was made, in words.
    """

    name: str
    model: str
    value: float
    low: float
    high: float
    unit: str
    n: int
    method: str

    def __post_init__(self) -> None:
        """Refuse an interval that is turned around: a sign of mixed-up arguments."""
        if self.low > self.high:
            raise EvaluationError(
                f"score {self.name!r}: interval {self.low} to {self.high} is turned around"
            )

    @property
    def text(self) -> str:
        """For a person: `0.812 [0.774, 0.850], 5 donors`."""
        if math.isnan(self.low) or math.isnan(self.high):
            return f"{self.value:.3f} (no interval: {self.n} {self.unit})"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}], {self.n} {self.unit}"


def scores_table(scores: Sequence[Score]) -> pa.Table:
    """Scores as a table, one row a score, columns named as the fields of `Score`."""
    columns = {
        "name": pa.string(),
        "model": pa.string(),
        "value": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "unit": pa.string(),
        "n": pa.int64(),
        "method": pa.string(),
    }
    return pa.table(
        {
            name: pa.array([getattr(score, name) for score in scores], type=kind)
            for name, kind in columns.items()
        }
    )
