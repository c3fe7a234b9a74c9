"""Sources made visible, exactly once: one commit to `cells` a source. Knows no counts.

A commit adds one Parquet file of rows, with the source's receipt and its segments in the commit's
metadata. delta-rs does not refuse a transaction id that it already holds: so each round loads the
table, looks for the source's and its units' ids, and commits on THAT handle without retries of
delta-rs's own. Whoever loses begins a new round, after a random pause.
"""

import json
import os
import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from ..platform.errors import ConflictError, CorpusError, DamageError
from ..platform.storage import freeze, sha256_file, sync_file, sync_folder
from .receipts import Receipt
from .records import SegmentRecord, write_table
from .schema import CELL_COLUMNS
from .snapshots import (
    FILE,
    RECEIPT,
    SEGMENTS,
    SOURCE_COLUMNS,
    UUID,
    CommittedSource,
    SegmentEntry,
    accepted_sources,
    list_commits,
    open_cells,
    source_rows,
)

_ROUNDS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """The outcome of `commit_source`: the snapshot that holds it, and whether it was added now."""

    snapshot: int
    added: bool


def commit_source(folder: Path, receipt: Receipt, segments: Sequence[SegmentRecord]) -> Commit:
    """Make a source visible, whole, exactly once; by the driver only.

    Args:
        folder: the corpus.
        receipt: the source's account.
        segments: its prepared segments, in the order of its units.

    Returns:
        The snapshot; `added` is False where the source was there already.

    Raises:
        CorpusError: the account does not balance, or a segment is of another source or corpus.
        ConflictError: another file has this source's name, or a block of ids is in use.
        DamageError: a segment is not whole.
    """
    table = open_cells(folder)
    _check_segments(table, receipt, segments)
    rows = pa.concat_tables(
        [CELL_COLUMNS.empty_table(), *(segment.cells() for segment in segments)],
        promote_options="default",
    )
    path = folder / "cells" / f"{uuid.uuid4().hex}.parquet"
    write_table(path, rows)
    sync_file(path)
    sync_folder(path.parent)
    committed = False
    try:
        commit = _commit_rows(folder, path, rows, receipt, segments)
        committed = commit.added
    finally:
        if not committed:
            path.unlink()
    if committed:
        freeze(path)
    _project(folder)
    return commit


def refuse_source(folder: Path, receipt: Receipt, reason: str) -> None:
    """Put on record that a source was refused; nothing of it is in `cells`."""
    entry = CommittedSource(
        snapshot=open_cells(folder).version(),
        committed_at=time.time_ns() // 1_000_000,
        receipt=receipt,
        segments=(),
        refused=reason,
    )
    _append_sources(folder, [entry])


def find_source(folder: Path, source_id: str) -> CommittedSource | None:
    """The accepted source of a name in the newest snapshot."""
    for source in accepted_sources(list_commits(open_cells(folder))):
        if source.receipt.source_id == source_id:
            return source
    return None


def _check_segments(table: DeltaTable, receipt: Receipt, segments: Sequence[SegmentRecord]) -> None:
    receipt.check()
    kept = sum(segment.n_cells for segment in segments)
    dropped = sum(segment.n_dropped for segment in segments)
    if (kept, dropped) != (receipt.n_kept, receipt.n_dropped):
        raise CorpusError(
            f"source {receipt.source_id}: its segments hold {kept} kept and {dropped} dropped "
            f"cells, its receipt says {receipt.n_kept} and {receipt.n_dropped}"
        )
    expected = {
        "source_id": receipt.source_id,
        "source_sha256": receipt.sha256,
        "corpus_uuid": table.metadata().configuration[UUID],
    }
    for segment in segments:
        for name, value in expected.items():
            if segment.provenance[name] != value:
                raise CorpusError(
                    f"segment {segment.segment_id} has {name} {segment.provenance[name]!r}, "
                    f"expected {value!r}"
                )
        for problem in segment.problems_of_sizes():
            raise DamageError(problem)


def _commit_rows(
    folder: Path,
    path: Path,
    rows: pa.Table,
    receipt: Receipt,
    segments: Sequence[SegmentRecord],
) -> Commit:
    entries = [_entry(segment) for segment in segments]
    metadata = {
        RECEIPT: receipt.to_json(),
        SEGMENTS: json.dumps([asdict(entry) for entry in entries]),
        FILE: json.dumps({"path": path.name, "sha256": sha256_file(path)}),
    }
    source = f"source:{receipt.source_id}"
    transactions = [source, *(f"unit:{segment.segment_id}" for segment in segments)]
    pause = random.Random(os.getpid() ^ time.time_ns())  # only spreads writers in time
    for _ in range(_ROUNDS):
        table = open_cells(folder)
        there = [name for name in transactions if table.transaction_version(name) is not None]
        if there:
            return _already_there(table, receipt, there[0])
        _check_blocks(table, entries)
        try:
            if _add_columns(table, rows.schema):
                continue  # the handle is older than the columns: begin again
            table.create_write_transaction(
                [
                    AddAction(
                        path=path.name,
                        size=path.stat().st_size,
                        partition_values={},
                        modification_time=time.time_ns() // 1_000_000,
                        data_change=True,
                        stats=json.dumps({"numRecords": rows.num_rows}),
                    )
                ],
                mode="append",
                schema=table.schema(),
                commit_properties=CommitProperties(
                    custom_metadata=metadata,
                    max_commit_retries=0,
                    app_transactions=[Transaction(name, 1) for name in transactions],
                ),
            )
        except CommitFailedError:
            time.sleep(pause.uniform(0.005, 0.1))
            continue
        return Commit(snapshot=table.version() + 1, added=True)
    raise ConflictError(
        f"source {receipt.source_id}: other writers were first {_ROUNDS} times; run it again"
    )


def _already_there(table: DeltaTable, receipt: Receipt, transaction: str) -> Commit:
    for source in accepted_sources(list_commits(table)):
        units = {f"unit:{segment.segment_id}" for segment in source.segments}
        if transaction not in {f"source:{source.receipt.source_id}", *units}:
            continue
        if source.receipt.sha256 == receipt.sha256:
            return Commit(snapshot=source.snapshot, added=False)
        raise ConflictError(
            f"the corpus has a source {receipt.source_id!r} already, of another file "
            f"({source.receipt.uri}); give this one another name"
        )
    raise DamageError(f"{transaction} is in the table `cells`, but no commit tells of it")


def _check_blocks(table: DeltaTable, entries: Sequence[SegmentEntry]) -> None:
    blocks = [entry.block for entry in entries]
    used = {s.block for source in accepted_sources(list_commits(table)) for s in source.segments}
    for entry in entries:
        if entry.block in used or blocks.count(entry.block) > 1:
            raise ConflictError(
                f"segment {entry.segment_id}: its block of cell ids is in use; remove its folder "
                "and ingest again, which draws another"
            )


def _add_columns(table: DeltaTable, wanted: pa.Schema) -> bool:
    """Add the columns that `cells` lacks; tell whether there were any."""
    held = pa.schema(table.schema().to_arrow())
    new: list[pa.Field] = []
    for field in wanted:
        if field.name not in held.names:
            new.append(field)
        elif held.field(field.name).type != field.type:
            raise CorpusError(
                f"column {field.name!r} is {held.field(field.name).type} in cells, this source "
                f"has {field.type}: lift it under another name"
            )
    if new:
        fields: list[Field] = list(Schema.from_arrow(pa.schema(new)).fields)
        table.alter.add_columns(fields, commit_properties=CommitProperties(max_commit_retries=0))
    return bool(new)


def _project(folder: Path) -> None:
    """Bring `sources` up to the commits of `cells`; whoever is hindered leaves it to the next."""
    projected = {row["snapshot"] for row in source_rows(folder) if row["status"] == "accepted"}
    missing = [
        source
        for source in accepted_sources(list_commits(open_cells(folder)))
        if source.snapshot not in projected
    ]
    if missing:
        try:
            _append_sources(folder, missing)
        except CommitFailedError:
            return


def _append_sources(folder: Path, sources: Sequence[CommittedSource]) -> None:
    rows = [
        {
            "source_id": source.receipt.source_id,
            "status": "accepted" if source.refused is None else "refused",
            "reason": source.refused,
            "snapshot": source.snapshot,
            "committed_at": source.committed_at * 1000,
            "receipt": source.receipt.to_json(),
            "segments": json.dumps([asdict(entry) for entry in source.segments]),
        }
        for source in sources
    ]
    table = pa.Table.from_pylist(rows, schema=SOURCE_COLUMNS)
    write_deltalake(folder / "sources", table, mode="append")


def _entry(segment: SegmentRecord) -> SegmentEntry:
    return SegmentEntry(
        segment_id=segment.segment_id,
        block=segment.block,
        n_cells=segment.n_cells,
        n_dropped=segment.n_dropped,
        n_genes=segment.n_genes,
        n_nonzero=segment.n_nonzero,
        first_row=int(segment.provenance["first_row"]),
        n_bytes=segment.bytes_by_part(),
    )
