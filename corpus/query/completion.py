"""What may follow in a line of SQL: views, columns, words of SQL, gene symbols. Knows no terminal.

Columns are told from memory: asking DuckDB would make the view, and the first look at a view over
counts reads whole files.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from .sandbox import VIEWS

_OF_COUNTS = "cell_id segment row feature_id name count".split()

COLUMNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "genes": tuple("gene_id symbol biotype mapping n_segments n_cells total".split()),
        "measured": ("segment", "gene_id"),
        "expression": tuple("cell_id segment row gene_id symbol count".split()),
        "sources": tuple("source_id uri sha256 reader n_read n_kept panel receipt".split()),
        "source_obs": ("cell_id",),
        "dropped": tuple("source_id segment barcode reason n_counts n_genes".split()),
        "segments": tuple("segment source_id n_cells n_genes".split()),
        "features": tuple("modality feature_id name feature_type genome n_segments".split()),
        "protein": tuple(_OF_COUNTS),
        "atac": tuple(_OF_COUNTS),
        "protein_abundance": tuple([*_OF_COUNTS[:-1], "value"]),
    }
)
"""The columns that every corpus has, but for `cells`: these the snapshot tells."""

WORDS = tuple(
    "SELECT DISTINCT FROM WHERE GROUP BY ALL HAVING ORDER ASC DESC NULLS LAST LIMIT OFFSET JOIN "
    "LEFT SEMI ANTI CROSS ON USING AS AND OR NOT IN IS NULL LIKE ILIKE BETWEEN EXISTS CASE WHEN "
    "THEN ELSE END CAST WITH UNION EXCEPT INTERSECT FILTER OVER PARTITION QUALIFY PIVOT UNPIVOT "
    "EXCLUDE VALUES TRUE FALSE DESCRIBE SUMMARIZE".split()
)
FUNCTIONS = tuple(
    "count( sum( avg( min( max( median( quantile_cont( stddev( coalesce( round( log2( log10( ln( "
    "abs( greatest( least( lower( upper( length( starts_with( contains( regexp_matches( "
    "list( string_agg( row_number( rank(".split()
)

DELIMITERS = " \t\n'\"`,;()=<>+*/%|&!"
"""What ends a word. A minus does not: symbols have it (HLA-A)."""

# Texts, names and comments, closed or open at the end; and the semicolon that stands in none.
_PIECE = re.compile(
    r"(?<!\w)[eE]'(?:[^'\\]|\\.|'')*(?P<e>'|\Z)"
    r"|'(?:[^']|'')*(?P<text>'|\Z)"
    r'|"(?:[^"]|"")*(?P<name>"|\Z)'
    r"|--[^\n]*(?P<line>\n|\Z)"
    r"|/\*.*?(?P<block>\*/|\Z)"
    r"|\$(?P<tag>\w*)\$.*?(?P<dollar>\$(?P=tag)\$|\Z)"
    r"|(?P<end>;)",
    re.DOTALL,
)


def split_statements(text: str) -> tuple[list[str], str]:
    """The statements that a `;` ends, without it, and what stands after the last.

    A `;` in a text, a quoted name or a comment ends nothing.
    """
    statements: list[str] = []
    start = 0
    for piece in _PIECE.finditer(text):
        if piece["end"]:
            statements.append(text[start : piece.start()].strip())
            start = piece.end()
    return statements, text[start:]


def without_comments(text: str) -> str:
    """The same statement on one line; texts and names keep their blanks."""
    kept = ""
    start = 0
    for piece in _PIECE.finditer(text):
        kept = _joined(kept, text[start : piece.start()])
        is_comment = piece["line"] is not None or piece["block"] is not None
        kept = _joined(kept, " ") if is_comment else kept + piece[0].replace("\n", " ")
        start = piece.end()
    return _joined(kept, text[start:]).strip()


def _joined(kept: str, code: str) -> str:
    """Code after code, one blank for several."""
    blank = re.sub(r"\s+", " ", code)
    return kept + (blank.lstrip() if kept.endswith(" ") else blank)


def is_in_text(text: str) -> bool:
    """Whether a text in single quotes is open at the end."""
    pieces = list(_PIECE.finditer(text))
    return bool(pieces) and "" in (pieces[-1]["text"], pieces[-1]["e"])


class Completer:
    """Completes the last word of what was typed."""

    def __init__(self, cells: Iterable[str], symbols: Callable[[], Iterable[str]]) -> None:
        """Prepare.

        Args:
            cells: the columns of the view `cells`.
            symbols: tells all gene symbols; asked once, when a text in quotes is first completed.
        """
        self.columns = {**COLUMNS, "cells": tuple(cells)}
        self._symbols = symbols
        self._sorted: list[tuple[str, str]] | None = None
        self._seen: set[str] = set()

    def learn(self, names: Iterable[str]) -> None:
        """Remember the columns of an answer: the user's own, and those of `source_obs`."""
        self._seen.update(name for name in names if name.isidentifier())

    def complete(self, before: str, word: str) -> list[str]:
        """What the word may become, ascending, the word's own case kept where it is free.

        Args:
            before: the statement up to the word.
            word: what was typed of it.
        """
        if is_in_text(before):
            return self._matching_symbols(word)
        table, dot, start = word.rpartition(".")
        if dot:
            known = self.columns.get(table, ()) or self._all_columns()
            return [f"{table}.{name}" for name in _matching(known, start)]
        words = [item.lower() if word.islower() else item for item in _matching(WORDS, word)]
        names = {*VIEWS, *self._all_columns(), *FUNCTIONS}
        return sorted({*_matching(names, word), *words})

    def _all_columns(self) -> set[str]:
        return {name for names in self.columns.values() for name in names} | self._seen

    def _matching_symbols(self, start: str) -> list[str]:
        if self._sorted is None:
            self._sorted = sorted({(name.lower(), name) for name in self._symbols() if name})
        place = bisect_left(self._sorted, (start.lower(), ""))
        found: list[str] = []
        for lowered, name in self._sorted[place:]:
            if not lowered.startswith(start.lower()):
                break
            found.append(name)
        return found


def _matching(names: Iterable[str], start: str) -> list[str]:
    return sorted(name for name in names if name.lower().startswith(start.lower()))
