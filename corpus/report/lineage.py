"""Where something of the corpus comes from, what was done to it, and who has read it.

Knows records, rows and uses; reads no counts. A cell is followed through every file that still
holds a row of it, so that a deleted one is told of too, as long as an older snapshot has it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from ...platform.errors import CorpusError, NoCellsError
from ..log import history
from ..log.chain import Record, TableState, load_table
from ..log.history import SegmentEntry
from ..log.receipts import Receipt
from ..log.rows import open_engine
from ..log.snapshots import check_format
from ..log.tags import tags
from ..log.tombstones import read_tombstones
from ..query.sandbox import check_condition
from ..query.uses import Use, uses
from ..schema import POSITION_BITS
from .file_spans import NEVER, HeldCell, rows_where, spans

_KINDS = ("cell", "barcode", "source", "snapshot", "tag")


def lineage(folder: Path, what: int | str) -> list[dict[str, Any]]:
    """Follow a cell, a source or a snapshot.

    Args:
        folder: the corpus.
        what: a snapshot's number or tag, a `cell_id`, a source's name or a barcode, looked for in
            this order; `cell:`, `barcode:`, `source:`, `snapshot:` or `tag:` before it says which.

    Returns:
        One entry a cell, source or snapshot found, of JSON values: `kind`, then
        cell: `cell_id, source_id, status` (living | deleted | withdrawn), `unit` (segment, first
        row in the source, position among the kept cells), `segments` (each with `since` and
        `until`), `source` (uri, sha256, reader, layer, recipe hash, versions), `commits` that
        touched it, `uses` that read it (`certain`: True, or None where nobody can know);
        source: `source`, `segments`, `commits`, `uses`;
        snapshot: `commit`, `tags`, `ended`, `sources`, `n_segments`, `uses`.

    Raises:
        NoCellsError: nothing of that name is or was in the corpus.
        CorpusError: the word before the colon does not fit what follows.
        DamageError: a file is not what was committed.
    """
    check_format(folder)
    state = load_table(folder / "cells")
    known = _Known(folder, state)
    kind, colon, name = str(what).partition(":")
    if not colon or kind not in _KINDS:
        kind, name = "", str(what)
    is_number = name.isascii() and name.isdigit()
    if kind in ("cell", "snapshot") and not is_number:
        raise CorpusError(f"{what}: a {kind} is given by its number")
    if kind in ("", "snapshot", "tag"):
        number = int(name) if is_number and kind != "tag" else None
        if number is None and name in known.tags:
            number = known.tags[name]
        if number is not None and number <= state.version:
            return [known.snapshot(number)]
    if kind in ("", "cell") and is_number:
        found = known.cells("cell_id", int(name))
        if found:
            return found
    if kind in ("", "source") and name in known.ingests:
        return [known.source(name)]
    if kind in ("", "barcode"):
        found = known.cells("barcode", name)
        if found:
            return found
    raise NoCellsError(
        f"{folder} knows no {kind or 'cell, source, snapshot or tag'} {name!r}; a cell is named "
        "by its cell_id or barcode, and one that a vacuum has removed is known no more"
    )


class _Known:
    """What the newest version knows, asked piece by piece."""

    def __init__(self, folder: Path, state: TableState) -> None:
        self._folder, self._state = folder, state
        self._uses = uses(folder)
        self._entries = history.every_entry(state.records)
        self._ended = history.ended(state.records)
        self.tags = {name: tag.snapshot for name, tag in tags(folder).items()}
        self.ingests: dict[str, list[Record]] = {}
        for record in state.records:
            if record.kind == "ingest":
                name = str(record.body["receipt"]["source_id"])
                self.ingests.setdefault(name, []).append(record)

    def snapshot(self, number: int) -> dict[str, Any]:
        """What is known of a snapshot."""
        held = history.account(self._state.records[: number + 1])
        return {
            "kind": "snapshot",
            "snapshot": number,
            "commit": _commit(self._state.records[number]),
            "tags": [name for name, snapshot in self.tags.items() if snapshot == number],
            "ended": number in self._ended,
            "sources": [_source(source.receipt) for source in held.sources.values()],
            "n_segments": len(held.segments),
            "uses": [_use(use, True) for use in self._uses if use.snapshot == number],
        }

    def source(self, name: str) -> dict[str, Any]:
        """What is known of a source: its newest file's account first."""
        records = self.ingests[name]
        held = history.account(self._state.records)
        holding = [
            number
            for number in range(self._state.version + 1)
            if number >= records[0].version
            and name in history.account(self._state.records[: number + 1]).sources
        ]
        return {
            "kind": "source",
            "source_id": name,
            "status": "accepted" if name in held.sources else "gone",
            "source": _source(Receipt.from_values(records[-1].body["receipt"])),
            "segments": [_segment(e) for e in held.segments.values() if name in e.sources],
            "commits": [_commit(record) for record in records],
            "uses": [_use(use, None) for use in self._uses if use.snapshot in holding],
        }

    def cells(self, column: str, value: int | str) -> list[dict[str, Any]]:
        """What is known of the cells with a value."""
        found = rows_where(
            self._state.folder,
            spans(self._state.folder, self._state.version),
            self._state.columns,
            column,
            value,
        )
        rows: dict[int, list[HeldCell]] = {}
        for row in found:
            rows.setdefault(int(row.values["cell_id"]), []).append(row)
        return [self._cell(cell_id, held) for cell_id, held in rows.items()]

    def _cell(self, cell_id: int, rows: Sequence[HeldCell]) -> dict[str, Any]:
        newest = max(rows, key=lambda row: row.span.until)
        source_id = str(newest.values["source_id"])
        came = [r for r in self.ingests.get(source_id, []) if r.version <= rows[0].span.since]
        block, position = cell_id >> POSITION_BITS, cell_id & ((1 << POSITION_BITS) - 1)
        unit = next((e for e in self._entries.values() if e.block == block), None)
        return {
            "kind": "cell",
            "cell_id": cell_id,
            "barcode": newest.values["barcode"],
            "source_id": source_id,
            "status": self._status(cell_id, newest),
            "unit": {
                "segment": unit.segment_id if unit else None,
                "first_row": unit.first_row if unit else None,
                "position": position,
            },
            "segments": _places(rows, self._entries),
            "source": _source(Receipt.from_values(came[-1].body["receipt"])) if came else None,
            "commits": [_commit(record) for record in self._touching(rows)],
            "uses": list(self._readers(rows)),
        }

    def _status(self, cell_id: int, newest: HeldCell) -> str:
        if newest.span.until == NEVER:
            return "living"
        gone = read_tombstones(self._folder, history.withdrawals(self._state.records))
        return "withdrawn" if cell_id in gone.column("cell_id").to_pylist() else "deleted"

    def _touching(self, rows: Sequence[HeldCell]) -> list[Record]:
        """The commits that brought, changed or took the cell; not those that moved its row."""
        touching: set[int] = set()
        before: HeldCell | None = None
        for row in sorted(rows, key=lambda row: row.span.since):
            if before is None or before.values != row.values or before.span.until != row.span.since:
                touching.add(row.span.since)
                if before is not None:
                    touching.add(before.span.until)
            before = row
        if before is not None:
            touching.add(before.span.until)
        return [record for record in self._state.records if record.version in touching]

    def _readers(self, rows: Sequence[HeldCell]) -> Sequence[dict[str, Any]]:
        """The uses of snapshots that held the cell, less those whose condition left it out."""
        found: list[dict[str, Any]] = []
        for use in self._uses:
            held = [row for row in rows if row.span.since <= use.snapshot < row.span.until]
            if held:
                chosen = _chooses(use, held[0].values, self._state.columns)
                if chosen is not False:
                    found.append(_use(use, chosen if use.part is None else None))
        return found


def _chooses(use: Use, values: Mapping[str, Any], columns: pa.Schema) -> bool | None:
    """Whether a use's condition chooses a row; None where it cannot be told."""
    if use.where is None:
        return True
    if not use.is_exact or "is_primary" in use.where.lower():
        return None
    clause = check_condition(use.where)
    with open_engine() as engine:
        engine.register("cells", pa.Table.from_pylist([dict(values)], schema=columns))
        try:
            row = engine.execute(f"SELECT count(*) FROM cells WHERE {clause}").fetchone()
        except duckdb.Error:
            return None
    return bool(row and row[0])


def _places(rows: Sequence[HeldCell], entries: Mapping[str, SegmentEntry]) -> list[dict[str, Any]]:
    """The segments that held the cell, in order; `until` None where one still does."""
    places: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: row.span.since):
        segment, number = row.values["segment"], row.values["row"]
        until = None if row.span.until == NEVER else row.span.until
        if places and (places[-1]["segment"], places[-1]["row"]) == (segment, number):
            places[-1]["until"] = until
            continue
        entry = entries.get(segment)
        places.append(
            {
                "segment": segment,
                "row": number,
                "since": row.span.since,
                "until": until,
                "sha256": entry.sha256 if entry else None,
            }
        )
    return places


def _segment(entry: SegmentEntry) -> dict[str, Any]:
    names = ("segment_id", "sha256", "n_cells", "n_dropped", "first_row")
    return {name: getattr(entry, name) for name in names}


def _source(receipt: Receipt) -> dict[str, Any]:
    names = ("source_id", "uri", "sha256", "n_bytes", "reader", "layer", "recover", "recipe_hash")
    return {name: getattr(receipt, name) for name in names} | {"versions": dict(receipt.versions)}


def _commit(record: Record) -> dict[str, Any]:
    return {
        "snapshot": record.version,
        "kind": record.kind,
        "by": record.by,
        "at": _moment(record.at),
    }


def _use(use: Use, certain: bool | None) -> dict[str, Any]:
    return asdict(use) | {"at": _moment(use.at), "certain": certain}


def _moment(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
    return moment.isoformat(sep=" ", timespec="seconds")
