"""What differs between two snapshots: cells, their values, sources, segments. Changes nothing.

Knows versions and files; reads no counts. A file that both snapshots name holds the same rows in
both; only the others are read, and joined by `cell_id` in an engine whose memory is bounded: what
does not fit goes to a temporary folder.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..log.rows import literal, open_engine, quote, select_rows
from ..log.snapshots import Snapshot

_MEMORY = "512MB"
_PLACE = ("segment", "row")


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """What one snapshot holds beside or instead of another.

    Attributes:
        before: the number of the one snapshot.
        after: the number of the other.
        by_source: one entry a source whose cells differ: `source_id`, `n_added`, `n_removed`,
            `n_changed` (another value in a column), `n_moved` (other segment or row, no more).
        by_column: column -> cells that have another value in it.
        columns: those that only `after` has.
        sources: source_id -> added | removed | replaced.
        segments_added: segments that only `after` has.
        segments_removed: segments that only `before` has.
    """

    before: int
    after: int
    by_source: Sequence[Mapping[str, Any]]
    by_column: Mapping[str, int]
    columns: tuple[str, ...]
    sources: Mapping[str, str]
    segments_added: tuple[str, ...]
    segments_removed: tuple[str, ...]

    def total(self, name: str) -> int:
        """A figure of `by_source` over all sources."""
        return sum(int(entry[name]) for entry in self.by_source)


def compare(folder: Path, before: int, after: int) -> Difference:
    """Say what differs between two snapshots.

    Args:
        folder: the corpus.
        before: the number of the one.
        after: the number of the other; it need not be the newer one.

    Raises:
        CorpusError: there is no such snapshot, or a vacuum has ended it.
        WithdrawnError: a snapshot holds cells that were withdrawn since.
        DamageError: a file is not what was committed.
    """
    old, new = Snapshot.load(folder, before), Snapshot.load(folder, after)
    columns = _union(old.columns, new.columns)
    by_source, by_column = _rows_that_differ(old, new, columns)
    return Difference(
        before=before,
        after=after,
        by_source=by_source,
        by_column=by_column,
        columns=tuple(name for name in new.columns.names if name not in old.columns.names),
        sources=_sources_that_differ(old, new),
        segments_added=tuple(name for name in new.segments if name not in old.segments),
        segments_removed=tuple(name for name in old.segments if name not in new.segments),
    )


def _union(one: pa.Schema, other: pa.Schema) -> pa.Schema:
    return pa.schema([*one, *(column for column in other if column.name not in one.names)])


def _rows_that_differ(
    old: Snapshot, new: Snapshot, columns: pa.Schema
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    sides = [
        select_rows({path: size for path, size in a.files.items() if path not in b.files}, columns)
        for a, b in ((old, new), (new, old))
    ]
    values = [name for name in columns.names if name not in ("cell_id", *_PLACE)]
    differs = {name: f"a.{quote(name)} IS DISTINCT FROM b.{quote(name)}" for name in columns.names}
    both = "a.cell_id IS NOT NULL AND b.cell_id IS NOT NULL"
    changed = " OR ".join(differs[name] for name in values)
    moved = " OR ".join(differs[name] for name in _PLACE)
    figures = {
        "n_added": "a.cell_id IS NULL",
        "n_removed": "b.cell_id IS NULL",
        "n_changed": f"{both} AND ({changed})",
        "n_moved": f"{both} AND ({moved}) AND NOT ({changed})",
    }
    figures |= {f"={name}": f"{both} AND {differs[name]}" for name in values}
    counted = ", ".join(
        f"count(*) FILTER (WHERE {condition}) AS {quote(name)}"
        for name, condition in figures.items()
    )
    with tempfile.TemporaryDirectory() as spilled, open_engine() as engine:
        engine.execute(f"SET memory_limit = '{_MEMORY}'")
        engine.execute(f"SET temp_directory = {literal(spilled)}")
        rows = engine.sql(
            f"SELECT coalesce(b.source_id, a.source_id) AS source_id, {counted} "
            f"FROM ({sides[0]}) a FULL JOIN ({sides[1]}) b ON a.cell_id = b.cell_id "
            "GROUP BY 1 ORDER BY 1"
        ).to_arrow_table()
    by_source = rows.select(["source_id", *list(figures)[:4]]).to_pylist()
    by_column = {name: sum(rows.column(f"={name}").to_pylist()) for name in values}
    return (
        [entry for entry in by_source if any(entry[name] for name in list(figures)[:4])],
        {name: n_cells for name, n_cells in by_column.items() if n_cells},
    )


def _sources_that_differ(old: Snapshot, new: Snapshot) -> dict[str, str]:
    before, after = (
        {source.receipt.source_id: source.receipt.sha256 for source in snapshot.accepted}
        for snapshot in (old, new)
    )
    said = {name: "added" for name in after if name not in before}
    said |= {name: "removed" for name in before if name not in after}
    said |= {name: "replaced" for name in before if name in after and before[name] != after[name]}
    return dict(sorted(said.items()))
