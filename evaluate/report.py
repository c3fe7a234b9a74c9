"""One HTML page that stands alone: prose, tables and plots, in sections. Knows no task.

No script, no font and no picture from elsewhere: plots are inline SVG or PNG, all text is
escaped. Whoever tells the story builds the sections; this file lays them out.
"""

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from ..platform.storage import write_durably
from .scores import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 200
"""Longer tables are cut, and the page says so: a page is read, a table file is searched."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prose:
    """A paragraph.

    Attributes:
        text: plain words; blank lines part paragraphs.
        tone: `plain`; `finding` is set off as the answer, `caution` as what limits it, `code`
            keeps its lines.
    """

    text: str
    tone: str = "plain"


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table.

    Attributes:
        rows: the table; numbers are aligned right and rounded for reading.
        caption: what it shows.
    """

    rows: pa.Table
    caption: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """A matplotlib figure, drawn into the page as it is now.

    Attributes:
        figure: the figure.
        caption: what it shows and how to read it.
        raster: PNG instead of SVG; for many thousands of points, which make a slow SVG.
    """

    figure: "Figure"
    caption: str = ""
    raster: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreList:
    """Scores, each with its interval drawn on one axis a name.

    Attributes:
        scores: the scores; those with one name share a panel.
        caption: what they are.
    """

    scores: tuple[Score, ...]
    caption: str = ""


Part = Prose | Table | Plot | ScoreList


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A headed part of the page.

    Attributes:
        title: its heading, also in the list of contents.
        parts: what it holds, in order.
    """

    title: str
    parts: tuple[Part, ...]


def write_report(
    path: Path, *, title: str, sections: Sequence[Section], lead: str = "", footer: str = ""
) -> Path:
    """Write the page to a file, whole or not at all; see `render_report`."""
    page = render_report(title=title, sections=sections, lead=lead, footer=footer)
    write_durably(path, page.encode())
    return path


def render_report(
    *, title: str, sections: Sequence[Section], lead: str = "", footer: str = ""
) -> str:
    """Lay sections out as one HTML page.

    Args:
        title: the page's title.
        sections: the story, in order.
        lead: what the page is, under the title.
        footer: versions, run ids and the like.

    Returns:
        The page; it refers to nothing outside itself.
    """
    contents = "".join(
        f'<li><a href="#part-{number}">{_escape(section.title)}</a></li>'
        for number, section in enumerate(sections, 1)
    )
    body = "".join(_section(number, section) for number, section in enumerate(sections, 1))
    navigation = f'<nav aria-label="Contents"><ol>{contents}</ol></nav>' if contents else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_escape(title)}</title><style>{_STYLE}</style></head><body><header>"
        f"<h1>{_escape(title)}</h1>{_paragraphs(lead, 'lead')}{navigation}</header>"
        f"<main>{body}</main><footer>{_paragraphs(footer, '')}</footer></body></html>\n"
    )


def _section(number: int, section: Section) -> str:
    parts = "".join(_part(part) for part in section.parts)
    return f'<section id="part-{number}"><h2>{_escape(section.title)}</h2>{parts}</section>\n'


def _part(part: Part) -> str:
    if isinstance(part, Prose):
        return _paragraphs(part.text, "" if part.tone == "plain" else part.tone)
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Plot):
        return _figure(_drawn(part), part.caption)
    return _scores(part)


def _paragraphs(text: str, kind: str) -> str:
    mark = f' class="{_escape(kind)}"' if kind else ""
    parts = [piece.strip() for piece in text.split("\n\n")]
    return "".join(f"<p{mark}>{_escape(piece)}</p>" for piece in parts if piece)


def _figure(content: str, caption: str) -> str:
    words = f"<figcaption>{_escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{content}{words}</figure>"


def _drawn(plot: Plot) -> str:
    from matplotlib import rc_context

    target = io.BytesIO()
    kind = "png" if plot.raster else "svg"
    with rc_context({"svg.hashsalt": "cytolake"}):
        plot.figure.savefig(
            target, format=kind, dpi=144, bbox_inches="tight", metadata=_UNDATED[kind]
        )
    data = base64.b64encode(target.getvalue()).decode()
    mime = "image/png" if plot.raster else "image/svg+xml"
    # An SVG as an image, not as markup: its ids cannot clash with those of other plots.
    return f'<img alt="{_escape(plot.caption or "plot")}" src="data:{mime};base64,{data}">'


def _table(table: Table) -> str:
    rows = table.rows
    numeric = [pa.types.is_integer(f.type) or pa.types.is_floating(f.type) for f in rows.schema]
    head = "".join(
        f"<th{_right(is_number)}>{_escape(name)}</th>"
        for name, is_number in zip(rows.column_names, numeric, strict=True)
    )
    columns = [rows.column(at).slice(0, MAX_ROWS).to_pylist() for at in range(rows.num_columns)]
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{_right(is_number)}>{_escape(readable(value))}</td>"
            for value, is_number in zip(row, numeric, strict=True)
        )
        + "</tr>"
        for row in zip(*columns, strict=True)
    )
    caption = table.caption
    if rows.num_rows > MAX_ROWS:
        caption = f"{caption} (the first {MAX_ROWS} of {rows.num_rows:,} rows)".strip()
    return _figure(
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>",
        caption,
    )


def _scores(part: ScoreList) -> str:
    panels: list[str] = []
    for name in dict.fromkeys(score.name for score in part.scores):
        members = [score for score in part.scores if score.name == name]
        ends = [
            end
            for score in members
            for end in (score.value, score.low, score.high)
            if math.isfinite(end)
        ]
        low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
        reach = (high - low) or 1.0
        rows = "".join(_score_row(score, low - 0.05 * reach, 1.1 * reach) for score in members)
        panels.append(
            f'<table class="scores"><caption>{_escape(name)}</caption><tbody>{rows}</tbody></table>'
        )
    return _figure(f'<div class="wide">{"".join(panels)}</div>', part.caption)


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
        f'<tr title="{_escape(score.method)}"><th scope="row">{_escape(score.model)}</th>'
        f"<td>{drawing}</td><td>{_escape(score.text)}</td></tr>"
    )


def readable(value: object) -> str:
    """A table's value for a person: rounded, a dash for what is missing."""
    if value is None:
        return "–"  # noqa: RUF001 - an en dash is what a reader expects in an empty cell
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if math.isnan(value):
            return "–"  # noqa: RUF001 - as above
        if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
            return f"{value:.2e}"
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def _right(is_number: bool) -> str:
    return ' class="number"' if is_number else ""


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


_UNDATED = {"svg": {"Date": None}, "png": {"Software": None}}  # the same page has the same bytes

_STYLE = """
:root{color-scheme:light;--ink:#1c2430;--soft:#5b6675;--line:#dde2e9;--tint:#f5f7fa;
--accent:#0b6e7f;--warm:#a8500f}
*{box-sizing:border-box}
body{margin:0;color:var(--ink);background:#fff;
font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header,main,footer{max-width:60rem;margin:0 auto;padding:0 1.5rem}
header{padding-top:3rem;padding-bottom:1rem;border-bottom:3px solid var(--accent)}
h1{font-size:2.1rem;line-height:1.2;margin:0 0 .5rem;letter-spacing:-.01em}
h2{font-size:1.35rem;margin:2.8rem 0 .6rem;padding-bottom:.25rem;
border-bottom:1px solid var(--line)}
p{margin:.7rem 0;max-width:46rem}
.lead{font-size:1.1rem;color:var(--soft)}
.finding,.caution{padding:.7rem 1rem;border-left:4px solid var(--accent);background:#eef6f8;
border-radius:0 6px 6px 0}
.code{white-space:pre-wrap;font:14px/1.5 ui-monospace,Menlo,Consolas,monospace;
background:var(--tint);padding:.7rem 1rem;border-radius:6px}
.caution{border-color:var(--warm);background:#fdf4ec}
nav ol{display:flex;flex-wrap:wrap;gap:.3rem 1.4rem;list-style-position:inside;padding:0;
margin:1rem 0 0;font-size:.92rem}
a{color:var(--accent)}
figure{margin:1.2rem 0}
figcaption{color:var(--soft);font-size:.9rem;margin-top:.4rem;max-width:46rem}
img{max-width:100%;height:auto;display:block}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .8rem;text-align:left;vertical-align:middle;
border-bottom:1px solid var(--line)}
thead th{background:var(--tint);color:var(--soft);font-weight:600;white-space:nowrap;
border-bottom:2px solid var(--line)}
tbody tr:hover{background:var(--tint)}
.number{text-align:right}
td:first-child{min-width:11rem}
.scores{margin:0 0 1.1rem;min-width:36rem}
.scores caption{text-align:left;font-weight:600;padding:.2rem .8rem}
.scores th{font-weight:400;width:19rem}
svg circle{fill:var(--accent)}
svg .interval{stroke:var(--accent);stroke-width:2.5;stroke-opacity:.45;stroke-linecap:round}
footer{color:var(--soft);font-size:.85rem;padding-top:1.5rem;padding-bottom:3rem}
footer p{overflow-wrap:anywhere}
@media print{nav{display:none}section{break-inside:avoid-page}}
"""
