"""What a corpus of format 1 says, said again in this format, in new tables. Changes no old one.

Knows both layouts; knows no counts. Format 1 is one Parquet file a source in `cells`, named at
random, with receipt and segments as texts in the commit's metadata, and no chain of records. Its
commits are made again in order, under their numbers and times. The rows' files are the same bytes
under another name, that of their hash; segments stay where and what they are.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Field, Schema
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction

from ...platform.errors import DamageError
from ...platform.faults import durable
from ...platform.refusals import storing_in
from ...platform.storage import freeze, sha256_file, sync_file
from ..log.chain import (
    Record,
    create_table,
    digest_of_state,
    load_table,
    new_record,
    open_table,
    properties_of,
)
from ..log.commits import entry_of
from ..log.history import SegmentEntry
from ..log.ledger import NewFile, write_rows
from ..log.receipts import Receipt
from ..log.snapshots import FORMAT_KEY, SOURCE_COLUMNS, UUID, now_ms
from ..log.witness import hash_of_commit, leave_witness
from ..payload.records import SegmentRecord
from ..schema import FORMAT

_History = Sequence[Mapping[str, Any]]
_RECEIPT, _SEGMENTS, _FILE = "cytolake.receipt", "cytolake.segments", "cytolake.file"

# Format 1 told the first repeated barcode in a warning; a record of ours names no cell.
_NAMED = re.compile(r" \(the first is .*?\)(?=:)", re.DOTALL)


def make_again(folder: Path, to: Path, advance: Callable[[float], None]) -> int:
    """Make the tables `cells` and `sources` of a corpus again, in another folder.

    Args:
        folder: the corpus, of format 1.
        to: the folder, empty, on the same disk.
        advance: told of each commit that was made again.

    Returns:
        The number of the newest commit.

    Raises:
        DamageError: something of the old corpus is not what was committed.
        StorageError: the disk says no.
    """
    old = open_table(folder / "cells")
    history = old.history()[::-1][: old.version() + 1]
    if len(history) != old.version() + 1:
        raise DamageError(
            f"{folder}/cells: the log tells of {len(history)} commits, expected "
            f"{old.version() + 1}: restore _delta_log from a copy"
        )
    replay = _Replay(folder, to / "cells", old, history)
    for version in range(1, len(history)):
        replay.commit(version)
        advance(1)
    replay.check()
    _refused(folder, to / "sources")
    return old.version()


class _Table:
    """A new table that commits are made to under times of long ago; nobody else writes to it."""

    def __init__(
        self, folder: Path, columns: pa.Schema, properties: Mapping[str, str], at: int
    ) -> None:
        """Make it, empty."""
        self.folder = folder
        body = {"format": FORMAT, "lifted_from": 1, "lifted_at": now_ms()}
        self._last = create_table(folder, columns, properties, body, at=at)
        self._columns, self._properties = columns, dict(properties)
        self._files: dict[str, int] = {}

    def add_columns(self, columns: pa.Schema, at: int) -> None:
        """Add the columns that it lacks."""
        new = [column for column in columns if column.name not in self._columns.names]
        self._columns = pa.schema([*self._columns, *new])
        body = {"names": [column.name for column in new], "for": "ingest"}
        properties = properties_of(self._record("columns", body, at))
        fields: list[Field] = list(Schema.from_arrow(pa.schema(new)).fields)
        with durable("upgrade/columns"):
            open_table(self.folder).alter.add_columns(fields, commit_properties=properties)

    def commit(
        self,
        kind: str,
        body: Mapping[str, Any],
        adds: Sequence[NewFile],
        at: int,
        transactions: Sequence[str] = (),
    ) -> None:
        """Add files."""
        self._files |= {new.name: new.n_bytes for new in adds}
        properties = properties_of(self._record(kind, body, at), transactions)
        table = open_table(self.folder)
        actions: list[AddAction | RemoveAction] = [
            AddAction(
                path=new.name,
                size=new.n_bytes,
                partition_values={},
                modification_time=at,
                data_change=True,
                stats=json.dumps({"numRecords": new.n_rows}),
            )
            for new in adds
        ]
        with durable("upgrade/commit"):
            table.create_write_transaction(
                actions, mode="append", schema=table.schema(), commit_properties=properties
            )

    def _record(self, kind: str, body: Mapping[str, Any], at: int) -> Record:
        state = digest_of_state(self._properties, self._columns, self._files)
        version, parent = self._last.version + 1, self._last.digest
        log = hash_of_commit(self.folder, version - 1)
        self._last = new_record(version, kind, body, state, parent=parent, log=log, at=at)
        return self._last


class _Replay:
    """Makes the commits of an old table `cells` again in a new one."""

    def __init__(self, folder: Path, cells: Path, old: DeltaTable, history: _History) -> None:
        self._folder, self._old, self._history = folder, old, history
        properties = {FORMAT_KEY: str(FORMAT), UUID: str(old.metadata().configuration[UUID])}
        columns = self._version(0).schema().to_arrow()
        self._cells = _Table(cells, pa.schema(columns), properties, int(history[0]["timestamp"]))
        self._names: dict[str, str] = {}  # the old name of a file -> the new one

    def commit(self, version: int) -> None:
        """Make a commit again, under the same number."""
        told = self._history[version]
        old, at = self._version(version), int(told["timestamp"])
        if _RECEIPT in told:
            self._ingest(told, pa.table(old.get_add_actions()), at)
        else:
            self._cells.add_columns(pa.schema(old.schema().to_arrow()), at)

    def check(self) -> None:
        """Hold the new table against the old one: its columns, its files and their rows.

        Each file's hash was taken of the bytes that the new table names, which proves every row.

        Raises:
            DamageError: they differ.
        """
        new = load_table(self._cells.folder)
        leave_witness(self._cells.folder, new.version, new.records[-1].digest)
        actions = pa.table(self._old.get_add_actions())
        names = [self._names.get(name, "") for name in actions.column("path").to_pylist()]
        rows = dict(zip(names, actions.column("num_records").to_pylist(), strict=True))
        columns = pa.schema(self._old.schema().to_arrow())
        if new.rows != rows or new.columns != columns or new.version != self._old.version():
            raise DamageError(
                f"{self._folder}/cells: the new table is not the old one ({len(new.rows)} files "
                f"of {sum(new.rows.values())} rows, expected {len(rows)} of {sum(rows.values())})"
            )

    def _version(self, version: int) -> DeltaTable:
        try:
            return DeltaTable(self._folder / "cells", version=version)
        except DeltaError as error:
            raise DamageError(
                f"{self._folder}/cells: version {version} cannot be read: restore _delta_log from "
                f"a copy ({error})"
            ) from error

    def _ingest(self, told: Mapping[str, Any], actions: pa.Table, at: int) -> None:
        try:
            receipt = Receipt.from_json(told[_RECEIPT]).to_values()
            entries = [self._entry(values) for values in json.loads(told[_SEGMENTS])]
            hashes = json.loads(told.get(_FILE, "null")) or {}
        except (ValueError, KeyError, TypeError) as error:
            raise DamageError(
                f"{self._folder}/cells: a commit of it is damaged: {error}"
            ) from error
        receipt["warnings"] = [_NAMED.sub("", str(line)) for line in receipt["warnings"]]
        adds: list[NewFile] = []
        for old, n_rows in zip(
            actions.column("path").to_pylist(),
            actions.column("num_records").to_pylist(),
            strict=True,
        ):
            if old not in self._names:
                sha256 = hashes.get("sha256") if hashes.get("path") == old else None
                adds.append(self._take_file(old, sha256, n_rows))
        body = {
            "receipt": receipt,
            "segments": [entry.to_json() for entry in entries],
            "replaces": False,
            "n_withdrawn": 0,
        }
        transactions = [f"source:{receipt['source_id']}"]
        transactions += [f"unit:{entry.segment_id}" for entry in entries]
        self._cells.commit("ingest", body, adds, at, transactions)

    def _entry(self, values: Mapping[str, Any]) -> SegmentEntry:
        """What the commit said of a segment, and the hash of its own record, taken now."""
        folder = self._folder / "segments" / str(values["segment_id"])
        segment = SegmentRecord.load(folder)
        for problem in segment.problems_of_sizes():
            raise DamageError(problem)
        entry = entry_of(segment)
        found = entry.to_json()
        for name, value in values.items():
            if found[name] != value:
                raise DamageError(
                    f"{folder / 'segment.json'} says {name} is {found[name]!r}, the commit says "
                    f"{value!r}: restore it from a copy"
                )
        return entry

    def _take_file(self, old: str, sha256: str | None, n_rows: int) -> NewFile:
        """Give a file of rows a second name, that of its hash."""
        source = self._folder / "cells" / old
        try:
            found = sha256_file(source)
            held = pq.read_metadata(source).num_rows
        except (OSError, pa.ArrowException) as error:
            raise DamageError(f"{source} cannot be read: {error}") from error
        if sha256 not in (None, found) or held != n_rows:
            raise DamageError(
                f"{source} has other bytes than were committed (sha256 {found:.12}, {held} rows): "
                "restore it from a copy"
            )
        target = self._cells.folder / f"{found}.parquet"
        with storing_in(target.parent), durable("upgrade/link"):
            try:
                os.link(source, target)
            except OSError:  # a disk without links
                shutil.copyfile(source, target)
                sync_file(target)
            freeze(target)
        if sha256_file(target) != found:
            raise DamageError(f"{target} is not what {source} is: run it again")
        self._names[old] = target.name
        return NewFile(name=target.name, n_bytes=target.stat().st_size, n_rows=n_rows)


def _refused(folder: Path, sources: Path) -> None:
    """Make the new table `sources`: refused ones as they stood; accepted ones are projected."""
    table = _Table(sources, SOURCE_COLUMNS, {FORMAT_KEY: str(FORMAT)}, now_ms())
    if not (folder / "sources" / "_delta_log").is_dir():
        return
    rows = open_table(folder / "sources").to_pyarrow_table()
    for row in rows.sort_by([("snapshot", "ascending"), ("committed_at", "ascending")]).to_pylist():
        if row["status"] == "refused":
            receipt = Receipt.from_json(row["receipt"]).to_values()
            body = {"snapshot": row["snapshot"], "reason": row["reason"], "receipt": receipt}
            new = write_rows(sources, pa.Table.from_pylist([row], schema=SOURCE_COLUMNS))
            table.commit("refused", body, [new], int(row["committed_at"].timestamp() * 1000))
