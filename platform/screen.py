"""What a person sees: one console for results, one for the rest, tables one can paste.

Knows no result: rows and columns come from the rooms.
"""

from collections.abc import Mapping, Sequence

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

PAGE_WIDTH = 160
"""Columns where there is no terminal to ask: a log's or a file's tables are not folded."""


def results() -> Console:
    """The console for what was asked for: standard output."""
    return _wide_enough(Console(highlight=False))


def remarks() -> Console:
    """The console for everything else: standard error."""
    return _wide_enough(Console(stderr=True, highlight=False))


def _wide_enough(console: Console) -> Console:
    if not console.is_terminal:
        console.width = PAGE_WIDTH
    return console


def table(
    rows: Sequence[Mapping[str, object]],
    columns: Sequence[str] | None = None,
    *,
    title: str | None = None,
) -> Table:
    """Rows as a table whose text is Markdown, so that it can be pasted anywhere.

    Args:
        rows: one mapping a row.
        columns: which keys, in which order; those of the first row where None.
        title: a line above.
    """
    columns = list(rows[0]) if columns is None and rows else list(columns or [])
    drawn = Table(title=title, title_justify="left", title_style="bold", box=MARKDOWN)
    for column in columns:
        numeric = all(isinstance(row.get(column), int | float | None) for row in rows)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(row.get(column)) for column in columns))
    return drawn


def _cell(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(inner)}" for key, inner in value.items())
    return str(value).replace("[", "\\[")
