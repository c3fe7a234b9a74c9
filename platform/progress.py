"""Bars, rates and ETA for people who watch. Knows no cell: the unit is a word.

On a terminal a live bar, shown only once the work has lasted a moment; elsewhere one line every
30 seconds, so that a job's log stays readable.
"""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

LINE_INTERVAL_S = 30.0


class Bar:
    """Work being done: how much of it, how fast, until when."""

    def __init__(self, title: str, total: float | None, unit: str, live: Progress | None) -> None:
        """Start at zero; `live` is the terminal's display, None where there is no terminal."""
        self._title, self._total, self._unit, self._live = title, total, unit, live
        self._done, self._before, self._note = 0.0, 0.0, ""
        self._began = self._spoke = time.monotonic()
        self._task: TaskID | None = None
        if live is not None:
            self._task = live.add_task(title, total=total, rate="", note="")

    def start_from(self, amount: float) -> None:
        """Say that `amount` was done before: rate and ETA count from here and now."""
        self._done = self._before = amount
        self._began = time.monotonic()
        if self._live is not None and self._task is not None:
            self._live.reset(self._task, completed=int(amount), rate="", note=self._note)

    def say(self, text: str) -> None:
        """Say a line at once that stays: above the bar, or among the lines."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stderr.write(f"{self._title}: {text}\n")
            sys.stderr.flush()

    def advance(self, amount: float = 1) -> None:
        """Say that `amount` more of the unit is done."""
        self._done += amount
        self._show()

    def note(self, text: str) -> None:
        """Put a few words beside the bar, such as the latest loss."""
        self._note = text
        self._show()

    @property
    def rate(self) -> float:
        """Units a second since the start."""
        return (self._done - self._before) / max(time.monotonic() - self._began, 1e-9)

    def _show(self) -> None:
        decimals = 0 if self.rate >= 10 else 2
        words = f"{self.rate:,.{decimals}f} {self._unit}/s"
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=self._done, rate=words, note=self._note)
        elif self._done and time.monotonic() - self._spoke >= LINE_INTERVAL_S:
            self._spoke = time.monotonic()
            sys.stderr.write(self._line(words) + "\n")
            sys.stderr.flush()

    def _line(self, words: str) -> str:
        line = f"{self._title}: {self._done:,.0f}"
        if self._total:
            left = max(self._total - self._done, 0) / max(self.rate, 1e-9)
            line += f" of {self._total:,.0f} {self._unit}, {words}, {duration(left)} left"
        else:
            line += f" {self._unit}, {words}"
        return f"{line}  {self._note}".rstrip()


def duration(seconds: float) -> str:
    """Seconds as a person says them: `45 s`, `12 min`, `11 h 20 min`."""
    if seconds < 120:
        return f"{seconds:,.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60:,} h {minutes % 60} min"


@contextmanager
def progress(
    title: str, total: float | None, unit: str, *, console: Console | None = None
) -> Generator[Bar]:
    """Show work while it is done.

    Args:
        title: what is being done, in two or three words.
        total: how much there is to do, in `unit`; None where that is unknown.
        unit: what is counted, for example "cells".
        console: where to show it; standard error where None.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield Bar(title, total, unit, None)
        return
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}", style="green"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn(
            "{task.fields[note]}",
            style="dim",
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        ),
    )
    with Progress(*columns, console=console, transient=False) as live:
        yield Bar(title, total, unit, live)
