"""Commits to a table of ours: on the very version they were proposed for, or not at all.

Knows Delta; knows no cell. Files are named by their bytes' SHA-256. Whoever loses against another
writer loads the new version and proposes anew. A writer that has lost a few times takes the turn,
which others wait for; so a busy ingest starves no one.
"""

import json
import os
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import Field, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from ...platform.errors import (
    ConflictError,
    CorpusError,
    CytolakeError,
    StorageError,
    UnknownOutcomeError,
)
from ...platform.faults import durable
from ...platform.places import named
from ...platform.refusals import plain, storing_in
from ...platform.storage import freeze, publish, sha256_file, sync_file
from ..payload.records import write_table
from .chain import (
    Record,
    TableState,
    digest_of_state,
    fetch_log,
    load_table,
    new_record,
    properties_of,
    writable,
)
from .turns import Turn
from .witness import hash_of_commit, leave_witness

_ROUNDS = 500
_PATIENCE = 3
"""Lost rounds after which a writer takes the turn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewFile:
    """A file that a commit may add: whole, durable, named by its bytes' SHA-256."""

    name: str
    n_bytes: int
    n_rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """What a writer wants done to a version.

    Attributes:
        kind: see `Record`.
        body: the particulars.
        adds: files written by `write_rows`, or files of an earlier version.
        removes: names of files of this version.
        columns: columns that the table must have; those it lacks are added.
        transactions: application ids of Delta, for whoever reads the table by other means.
    """

    kind: str
    body: Mapping[str, Any]
    adds: Sequence[NewFile] = ()
    removes: Sequence[str] = ()
    columns: Sequence[pa.Field] = ()
    transactions: Sequence[str] = ()


def write_rows(folder: Path, rows: pa.Table) -> NewFile:
    """Write rows to a file that a commit may then add; until then no reader sees it."""
    with storing_in(folder):
        folder.mkdir(exist_ok=True)
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    # Equal rows written twice are two files: one may be on its way out while the other comes.
    nonce = {**(rows.schema.metadata or {}), b"cytolake.nonce": uuid.uuid4().bytes}
    try:
        with storing_in(folder), durable(f"{folder.name}/write"):
            write_table(temporary, rows.replace_schema_metadata(nonce))
            sync_file(temporary)
        freeze(temporary)
        path = folder / f"{sha256_file(temporary)}.parquet"
        publish(temporary, path, folder.name)
    except BaseException:
        with suppress(OSError):  # a read-only disk refuses that, too: the first error tells more
            temporary.unlink(missing_ok=True)
        raise
    return NewFile(name=path.name, n_bytes=path.stat().st_size, n_rows=rows.num_rows)


def commit_and_clear(
    folder: Path,
    propose: Callable[[TableState], Proposal | None],
    discard: Callable[[bool], None],
) -> int | None:
    """Commit, then take away what was written and no commit names.

    After an error of ours nothing was committed, so all of it goes; after any other, or where the
    log cannot be read, who knows: it stays, and a vacuum finds it.

    Args:
        folder: of the table.
        propose: see `commit`.
        discard: takes away the files that did not land; told whether the proposal did.
    """
    try:
        version = commit(folder, propose)
    except UnknownOutcomeError:
        raise
    except CytolakeError:
        discard(False)
        raise
    discard(version is not None)
    return version


def commit(folder: Path, propose: Callable[[TableState], Proposal | None]) -> int | None:
    """Commit what is proposed for the newest version.

    Args:
        folder: of the table.
        propose: gives what to do to a version, or None where nothing is left to do. It is asked
            again, with the new version, whenever another writer was first; what it wrote for an
            earlier version may be used again.

    Returns:
        The number of the version that the commit made; None where there was nothing to do.

    Raises:
        ConflictError: other writers were first all the time.
        UnknownOutcomeError: the log cannot be read after a commit that failed, or seemed to.
    """
    pause = random.Random(os.getpid() ^ time.time_ns())  # only spreads writers in time
    turn = Turn(folder)
    try:
        for lost in range(_ROUNDS):
            if lost >= _PATIENCE:
                turn.take()
            turn.wait_for_others()
            state = load_table(folder)
            proposal = propose(state)
            if proposal is None:
                return None
            if _add_columns(state, proposal):
                continue
            if _try(state, proposal):
                return state.version + 1
            time.sleep(pause.uniform(0.002, 0.05))
    finally:
        turn.give_back()
    raise ConflictError(f"{folder}: other writers were first {_ROUNDS} times; run it again")


def _try(state: TableState, proposal: Proposal) -> bool:
    """Commit on this very version; False where another writer was first."""
    files = {name: size for name, size in state.files.items() if name not in set(proposal.removes)}
    files |= {new.name: new.n_bytes for new in proposal.adds}
    record = new_record(
        state.version + 1,
        proposal.kind,
        proposal.body,
        digest_of_state(state.properties, state.columns, files),
        parent=state.records[state.version].digest,
        log=hash_of_commit(state.folder, state.version),
    )
    now = time.time_ns() // 1_000_000
    actions: list[AddAction | RemoveAction] = [
        RemoveAction(
            path=name,
            data_change=True,
            deletion_timestamp=now,
            partition_values={},
            size=state.files[name],
        )
        for name in proposal.removes
    ]
    actions += [
        AddAction(
            path=new.name,
            size=new.n_bytes,
            partition_values={},
            modification_time=now,
            data_change=True,
            stats=json.dumps({"numRecords": new.n_rows}),
        )
        for new in proposal.adds
    ]
    try:
        with storing_in(state.folder), durable(f"{state.folder.name}/commit"):
            writable(state).create_write_transaction(
                actions,
                mode="append",
                schema=state.table.schema(),
                commit_properties=properties_of(record, proposal.transactions),
            )
    except (DeltaError, OSError, StorageError) as error:
        # Whether it took place is told by the log alone: a checkpoint after it may have failed.
        try:
            records = load_table(state.folder).records
        except CytolakeError as unknown:
            raise UnknownOutcomeError(
                f"{named(state.folder)}: whether the commit took place cannot be told now "
                f"({unknown}); nothing of it is taken away: run the same command again, which "
                "goes on or finds it done"
            ) from error
        if len(records) > record.version and records[record.version].digest == record.digest:
            _landed(state, record)
            return True
        if isinstance(error, CommitFailedError):
            return False
        if isinstance(error, StorageError):
            raise
        raise CorpusError(
            f"{state.folder}: nothing is changed, for the commit failed: {plain(error)}"
        ) from error
    _landed(state, record)
    return True


def _landed(state: TableState, record: Record) -> None:
    """Say that a commit is in the log; the commit stands whether or not that can be said."""
    with suppress(StorageError):
        fetch_log(state.folder)
    leave_witness(state.folder, record.version, record.digest)


def _add_columns(state: TableState, proposal: Proposal) -> bool:
    """Add the columns that the table lacks, by a commit of its own; False where it lacks none."""
    new: list[pa.Field] = []
    for wanted in proposal.columns:
        if wanted.name not in state.columns.names:
            new.append(wanted)
        elif state.columns.field(wanted.name).type != wanted.type:
            raise CorpusError(
                f"column {wanted.name!r} is {state.columns.field(wanted.name).type} in "
                f"{state.folder.name}, here it is {wanted.type}: give it another name"
            )
    if not new:
        return False
    columns = pa.schema([*state.columns, *new])
    record = new_record(
        state.version + 1,
        "columns",
        {"names": [column.name for column in new], "for": proposal.kind},
        digest_of_state(state.properties, columns, state.files),
        parent=state.records[state.version].digest,
        log=hash_of_commit(state.folder, state.version),
    )
    fields: list[Field] = list(Schema.from_arrow(pa.schema(new)).fields)
    try:
        with storing_in(state.folder), durable(f"{state.folder.name}/columns"):
            writable(state).alter.add_columns(fields, commit_properties=properties_of(record))
        _landed(state, record)
    except CommitFailedError:
        pass  # another writer was first: begin again in either case
    except (DeltaError, OSError) as error:
        raise CorpusError(f"{state.folder}: columns cannot be added: {plain(error)}") from error
    return True
