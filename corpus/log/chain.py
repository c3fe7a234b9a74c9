"""The chain of records that the commits to a table of ours form: written, read, checked.

Knows Delta; knows no cell. Each commit carries one record: what was done, by whom, the digest of
the record before it, and a digest of the table's columns and files after it. So a flipped bit in a
log, a lost commit or a changed list of files is told when the table is loaded, never read over.
"""

import getpass
import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError

from ...platform.errors import CorpusError, DamageError
from ...platform.faults import durable
from ...platform.places import check_creates_once, delta_place, follow, refresh_file
from ...platform.refusals import storing_in
from .witness import Witness, leave_witness, read_witness, witness_file

_RECORD = "cytolake.record"

# Only `corpus vacuum` may end a snapshot; and files stay readable by every Delta reader.
_PROPERTIES = {
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
    "delta.enableDeletionVectors": "false",
    "delta.columnMapping.mode": "none",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What one commit says.

    Attributes:
        version: the number of the snapshot that it made.
        kind: what was done.
        by: who did it: user@host.
        at: when, in milliseconds since 1970; by the writer's clock, which may go wrong: order is
            told by `version` alone.
        body: the particulars of the kind.
        state: digest of the table's columns and files after the commit.
        digest: of all of these and of the record before.
        log: SHA-256 of the file, in the log, of the commit before; empty in the first.
    """

    version: int
    kind: str
    by: str
    at: int
    body: Mapping[str, Any]
    state: str
    digest: str
    log: str = ""


@dataclass(frozen=True, kw_only=True)
class TableState:
    """One version of a table.

    Attributes:
        folder: of the table.
        version: its number.
        properties: of the table, ours among them.
        columns: in order.
        files: name -> bytes.
        rows: name -> rows.
        table: the handle of this very version.
        records: of every commit up to the NEWEST version when it was loaded, oldest first.
    """

    folder: Path
    version: int
    properties: Mapping[str, str]
    columns: pa.Schema
    files: Mapping[str, int]
    rows: Mapping[str, int]
    records: tuple[Record, ...]
    table: DeltaTable

    @property
    def newest(self) -> int:
        """The number of the newest version when this one was loaded."""
        return len(self.records) - 1

    def digest(self) -> str:
        """What `Record.state` must be."""
        return digest_of_state(self.properties, self.columns, self.files)


def create_table(
    folder: Path,
    columns: pa.Schema,
    properties: Mapping[str, str],
    body: Mapping[str, Any],
    *,
    at: int | None = None,
) -> Record:
    """Make an empty table; gives its first record.

    Args:
        folder: of the table.
        columns: in order.
        properties: of ours.
        body: of the first record.
        at: as in `new_record`.

    Raises:
        CorpusError: there is a table already.
    """
    state = digest_of_state(properties, columns, {})
    record = new_record(0, "created", body, state, parent="", at=at)
    place, options = delta_place(folder)
    try:
        check_creates_once(folder)
        with storing_in(folder), durable(f"{folder.name}/create"):
            DeltaTable.create(
                place,
                columns,
                storage_options=options,
                mode="error",
                configuration={**_PROPERTIES, **properties},
                commit_properties=CommitProperties(custom_metadata={_RECORD: _to_json(record)}),
                raise_if_key_not_exists=False,
            )
    except DeltaError as error:
        raise CorpusError(f"{folder} holds a table already: open it") from error
    fetch_log(folder)
    leave_witness(folder, 0, record.digest)
    return record


def fetch_log(folder: Path) -> None:
    """Bring the copy of a log up to the one in its bucket, if it is in one; first the witness.

    Raises:
        StorageError: the bucket cannot be reached, or holds another log than it did.
    """
    refresh_file(witness_file(folder))
    follow(folder / "_delta_log", ".json")


def load_table(folder: Path, version: int | None = None) -> TableState:
    """Load the newest version or another, and hold it against the chain of records.

    Raises:
        DamageError: the log cannot be read, or is not what was written.
        CorpusError: there is no such version.
    """
    fetch_log(folder)
    witness = read_witness(folder)  # before the log: it is never ahead of it
    table = open_table(folder)
    records = _records(folder, table)
    if witness is not None and witness.version >= len(records):
        fetch_log(folder)  # of a mirror's processes one may have fetched the witness alone
        table = open_table(folder)
        records = _records(folder, table)
    _check_end(folder, records, witness)
    if version is not None and version != table.version():
        if not 0 <= version <= table.version():
            raise CorpusError(
                f"{folder.parent} has no snapshot {version}, expected 0 to {table.version()}"
            )
        table = _table_at(folder, version)
    return _checked(_state(folder, table, records))


def state_at(newest: TableState, version: int) -> TableState:
    """An earlier version of a table that is loaded; its records are not read again.

    Raises:
        DamageError: the log of that version is not what was written.
    """
    table = _table_at(newest.folder, version)
    return _checked(_state(newest.folder, table, newest.records))


def _check_end(folder: Path, records: Sequence[Record], witness: Witness | None) -> None:
    """Refuse a log that has lost its end, or has another."""
    if witness is None:
        return
    if witness.version >= len(records):
        raise DamageError(
            f"{folder}: the log ends at commit {len(records) - 1}, but commit {witness.version} "
            "was made: restore _delta_log from a copy"
        )
    if records[witness.version].digest != witness.digest:
        raise DamageError(
            f"{folder}: commit {witness.version} of the log is not the one that was made: restore "
            "_delta_log from a copy"
        )


def _table_at(folder: Path, version: int) -> DeltaTable:
    try:
        return DeltaTable(folder, version=version)
    except DeltaError as error:
        raise DamageError(f"{folder}: version {version} cannot be read: {error}") from error


def _checked(state: TableState) -> TableState:
    if state.digest() != state.records[state.version].state:
        raise DamageError(
            f"{state.folder}: the files and columns of version {state.version} are not those that "
            "were committed: its log is damaged; restore _delta_log from a copy"
        )
    return state


def open_table(folder: Path) -> DeltaTable:
    """The table as Delta reads it, unchecked.

    Raises:
        DamageError: there is none, or its log cannot be read.
    """
    try:
        return DeltaTable(folder)
    except TableNotFoundError as error:
        raise DamageError(f"{folder} holds no table") from error
    except (DeltaError, OSError, ValueError) as error:
        raise DamageError(f"{folder}: the table's log cannot be read: {error}") from error


def writable(state: TableState) -> DeltaTable:
    """The handle to commit on: of this version, where the log itself lies.

    Raises:
        StorageError: it lies in a bucket that would let two writers make the same commit.
    """
    place, options = delta_place(state.folder)
    if options is None:
        return state.table
    check_creates_once(state.folder)
    return DeltaTable(place, version=state.version, storage_options=options)


def properties_of(record: Record, transactions: Sequence[str] = ()) -> CommitProperties:
    """What a commit of a record is given: the record, and no retry by Delta itself."""
    return CommitProperties(
        custom_metadata={_RECORD: _to_json(record)},
        max_commit_retries=0,
        app_transactions=[Transaction(name, record.version) for name in transactions],
    )


def _records(folder: Path, table: DeltaTable) -> tuple[Record, ...]:
    """The chain of records up to the table's version, each held against the one before."""
    try:
        # `history` may tell of newer commits than its handle; they stand first.
        history = table.history()[::-1][: table.version() + 1]
    except (DeltaError, OSError, ValueError) as error:
        raise DamageError(f"{folder}: the table's log cannot be read: {error}") from error
    if len(history) != table.version() + 1:
        raise DamageError(
            f"{folder}: the log tells of {len(history)} commits, expected {table.version() + 1}: "
            "restore _delta_log from a copy"
        )
    records: list[Record] = []
    for version, entry in enumerate(history):
        try:
            values = json.loads(entry[_RECORD])
            digest = values.pop("digest")
            record = Record(**values, digest=digest)
        except (KeyError, TypeError, ValueError) as error:
            raise DamageError(
                f"{folder}: commit {version} is none of cytolake's, or damaged: restore "
                "_delta_log from a copy"
            ) from error
        parent = records[-1].digest if records else ""
        if record.version != version or digest != _digest(values, parent):
            raise DamageError(
                f"{folder}: the record of commit {version} is not what was written: restore "
                "_delta_log from a copy"
            )
        records.append(record)
    return tuple(records)


def _state(folder: Path, table: DeltaTable, records: tuple[Record, ...]) -> TableState:
    try:
        actions = pa.table(table.get_add_actions())
        columns = pa.schema(table.schema().to_arrow())
        configuration = table.metadata().configuration
    except (DeltaError, OSError, ValueError) as error:
        raise DamageError(f"{folder}: the table's log cannot be read: {error}") from error
    names = actions.column("path").to_pylist()
    files = zip(names, actions.column("size_bytes").to_pylist(), strict=True)
    rows = zip(names, actions.column("num_records").to_pylist(), strict=True)
    ours = {name: value for name, value in configuration.items() if name.startswith("cytolake.")}
    return TableState(
        folder=folder,
        version=table.version(),
        properties=ours,
        columns=columns,
        files=dict(sorted(files)),
        rows=dict(rows),
        records=records,
        table=table,
    )


def new_record(
    version: int,
    kind: str,
    body: Mapping[str, Any],
    state: str,
    *,
    parent: str,
    log: str = "",
    at: int | None = None,
) -> Record:
    """A record of what is about to be committed, by whoever runs this process, now.

    Args:
        version: that the commit will make.
        kind: what is done.
        body: the particulars.
        state: `digest_of_state` after the commit.
        parent: digest of the record before.
        log: SHA-256 of the file of the commit before.
        at: when it was done, where that was not now, in milliseconds since 1970.
    """
    values: dict[str, Any] = {
        "version": version,
        "kind": kind,
        "by": who(),
        "at": time.time_ns() // 1_000_000 if at is None else at,
        "body": body,
        "state": state,
        "log": log,
    }
    return Record(**values, digest=_digest(values, parent))


def _digest(values: Mapping[str, Any], parent: str) -> str:
    text = json.dumps({**values, "parent": parent}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_state(
    properties: Mapping[str, str], columns: pa.Schema, files: Mapping[str, int]
) -> str:
    """What a record says of the table after its commit."""
    values = {
        "properties": dict(properties),
        "columns": [(column.name, str(column.type)) for column in columns],
        "files": sorted(files.items()),
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _to_json(record: Record) -> str:
    return json.dumps({name: getattr(record, name) for name in Record.__slots__}, sort_keys=True)


def who() -> str:
    """Whoever runs this process: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
