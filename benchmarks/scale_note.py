"""The note of `scale_bars`. Knows figures; measures nothing."""

from dataclasses import dataclass
from typing import Any

Answer = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What one size gave."""

    n_cells: int
    building: Answer
    stages: dict[str, Answer]
    stored: Answer


def note(found: list[Figures], grown: list[Answer], said: list[str]) -> str:
    """The note, in Markdown."""
    return ""
