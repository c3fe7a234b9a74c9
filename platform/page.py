"""One HTML page that stands alone: prose, tables and plots, in sections. Knows no task and no cell.

No script, no font and no picture from elsewhere: plots are inline SVG or PNG, all text is
escaped. Whoever tells the story builds the sections; this file lays them out. A room adds a part
of its own by a class with `to_html`.
"""

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from .page_style import STYLE
from .storage import write_durably

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 200
"""Longer tables are cut, and the page says so: a page is read, a table file is searched."""


class Part(Protocol):
    """What a section holds."""

    def to_html(self) -> str:
        """The part as markup that refers to nothing outside the page; all text is escaped."""
        ...


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

    def to_html(self) -> str:
        """The paragraphs."""
        return _paragraphs(self.text, "" if self.tone == "plain" else self.tone)


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table.

    Attributes:
        rows: the table; numbers are aligned right and rounded for reading.
        caption: what it shows.
        most_rows: rows beyond so many are cut, and the caption says so.
        links: text in the first column -> anchor of the section that it leads to.
    """

    rows: pa.Table
    caption: str = ""
    most_rows: int = MAX_ROWS
    links: Mapping[str, str] = field(default_factory=dict[str, str])

    def to_html(self) -> str:
        """The table with its caption."""
        rows, most = self.rows, self.most_rows
        numeric = [pa.types.is_integer(f.type) or pa.types.is_floating(f.type) for f in rows.schema]
        head = "".join(
            f"<th{_right(is_number)}>{escape(name)}</th>"
            for name, is_number in zip(rows.column_names, numeric, strict=True)
        )
        columns = [rows.column(at).slice(0, most).to_pylist() for at in range(rows.num_columns)]
        body = "".join(
            "<tr>"
            + "".join(
                f"<td{_right(is_number)}>{self._linked(at, readable(value))}</td>"
                for at, (value, is_number) in enumerate(zip(row, numeric, strict=True))
            )
            + "</tr>"
            for row in zip(*columns, strict=True)
        )
        caption = self.caption
        if rows.num_rows > most:
            caption = f"{caption} (the first {most} of {rows.num_rows:,} rows)".strip()
        return captioned(
            f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>",
            caption,
        )

    def _linked(self, column: int, text: str) -> str:
        anchor = self.links.get(text) if column == 0 else None
        return f'<a href="#{escape(anchor)}">{escape(text)}</a>' if anchor else escape(text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A drawn plot.

    Attributes:
        data: the bytes of an SVG or PNG.
        mime: which of them: `image/svg+xml` or `image/png`.
        alt: what it shows, for whoever does not see it.
        caption: what it shows and how to read it.
    """

    data: bytes
    mime: str
    alt: str
    caption: str = ""

    def to_html(self) -> str:
        """The picture inside the page, with its caption."""
        data = base64.b64encode(self.data).decode()
        # An SVG as an image, not as markup: its ids cannot clash with those of other plots.
        return captioned(
            f'<img alt="{escape(self.alt)}" src="data:{self.mime};base64,{data}">', self.caption
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """A matplotlib figure, drawn into the page as it is now.

    Attributes:
        figure: the figure.
        caption: what it shows and how to read it.
        raster: PNG instead of SVG; for many thousands of points, which make a slow SVG.
        alt: what it shows, for whoever does not see it; the caption where left out.
        cropped: to what is drawn; else figures of one size stay of one size.
    """

    figure: "Figure"
    caption: str = ""
    raster: bool = False
    alt: str = ""
    cropped: bool = True

    def drawn(self) -> Picture:
        """The plot drawn now, so that its figure need not be held until the page is written."""
        from matplotlib import rc_context

        target = io.BytesIO()
        kind = "png" if self.raster else "svg"
        with rc_context({"svg.hashsalt": "cytolake"}):
            self.figure.savefig(
                target,
                format=kind,
                dpi=144,
                bbox_inches="tight" if self.cropped else None,
                metadata=_UNDATED[kind],
            )
        return Picture(
            data=target.getvalue(),
            mime="image/png" if self.raster else "image/svg+xml",
            alt=self.alt or self.caption or "plot",
            caption=self.caption,
        )

    def to_html(self) -> str:
        """The plot inside the page, with its caption."""
        return self.drawn().to_html()


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """Parts side by side, where the screen is broad enough.

    Attributes:
        parts: from left to right.
    """

    parts: tuple[Part, ...]

    def to_html(self) -> str:
        """The parts in one row."""
        inner = "".join(f"<div>{part.to_html()}</div>" for part in self.parts)
        return f'<div class="beside">{inner}</div>'


@dataclass(frozen=True, kw_only=True, slots=True)
class Folded:
    """Parts under a line that opens them.

    Attributes:
        title: the line.
        parts: what it opens.
        is_open: whether they are seen at first.
    """

    title: str
    parts: tuple[Part, ...]
    is_open: bool = False

    def to_html(self) -> str:
        """The line and its parts; no script is needed."""
        inner = "".join(part.to_html() for part in self.parts)
        mark = " open" if self.is_open else ""
        return f"<details{mark}><summary>{escape(self.title)}</summary>{inner}</details>"


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A headed part of the page.

    Attributes:
        title: its heading, also in the list of contents.
        parts: what it holds, in order.
        anchor: its name in links, letters, digits and dashes; `part-` and its number where empty.
    """

    title: str
    parts: tuple[Part, ...]
    anchor: str = ""


def write_report(
    path: Path,
    *,
    title: str,
    sections: Sequence[Section],
    lead: str = "",
    footer: str = "",
    broad: bool = False,
) -> Path:
    """Write the page to a file, whole or not at all; see `render_report`."""
    page = render_report(title=title, sections=sections, lead=lead, footer=footer, broad=broad)
    write_durably(path, page.encode())
    return path


def render_report(
    *,
    title: str,
    sections: Sequence[Section],
    lead: str = "",
    footer: str = "",
    broad: bool = False,
) -> str:
    """Lay sections out as one HTML page.

    Args:
        title: the page's title.
        sections: the story, in order.
        lead: what the page is, under the title.
        footer: versions, run ids and the like.
        broad: as broad as a screen and set closely, for looking things up; else a column to read.

    Returns:
        The page; it refers to nothing outside itself.
    """
    anchors = [section.anchor or f"part-{number}" for number, section in enumerate(sections, 1)]
    contents = "".join(
        f'<li><a href="#{escape(anchor)}">{escape(section.title)}</a></li>'
        for anchor, section in zip(anchors, sections, strict=True)
    )
    body = "".join(map(_section, anchors, sections))
    navigation = f'<nav aria-label="Contents"><ol>{contents}</ol></nav>' if contents else ""
    breadth = "broad" if broad else "narrow"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f'<body class="{breadth}"><header>'
        f"<h1>{escape(title)}</h1>{_paragraphs(lead, 'lead')}{navigation}</header>"
        f"<main>{body}</main><footer>{_paragraphs(footer, '')}</footer></body></html>\n"
    )


def captioned(content: str, caption: str) -> str:
    """Markup as a figure with its caption; a part of another room uses it, too."""
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{content}{words}</figure>"


def escape(text: str) -> str:
    """A text as markup that shows it and does nothing else, inside attributes, too."""
    return html.escape(text, quote=True)


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


def _section(anchor: str, section: Section) -> str:
    parts = "".join(part.to_html() for part in section.parts)
    return f'<section id="{escape(anchor)}"><h2>{escape(section.title)}</h2>{parts}</section>\n'


def _paragraphs(text: str, kind: str) -> str:
    mark = f' class="{escape(kind)}"' if kind else ""
    parts = [piece.strip() for piece in text.split("\n\n")]
    return "".join(f"<p{mark}>{escape(piece)}</p>" for piece in parts if piece)


def _right(is_number: bool) -> str:
    return ' class="number"' if is_number else ""


_UNDATED = {"svg": {"Date": None}, "png": {"Software": None}}  # the same page has the same bytes
