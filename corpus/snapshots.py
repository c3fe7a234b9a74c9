"""What exists, since when: the versions of the Delta table `cells`. Knows no counts.

Reading a snapshot writes nothing. Accepted sources are told by the commits to `cells` themselves,
so that they are complete whether or not the table `sources`, their projection, is.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from ..platform.errors import (
    CorpusError,
    DamageError,
    NewerFormatError,
    NotACorpusError,
)
from .receipts import Receipt
from .schema import CELL_COLUMNS, FORMAT

_FORMAT = "cytolake.format"
UUID = "cytolake.uuid"
RECEIPT = "cytolake.receipt"
SEGMENTS = "cytolake.segments"
FILE = "cytolake.file"
# Only `corpus vacuum` may end a snapshot; and files stay readable by every Delta reader.
_PROPERTIES = {
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
    "delta.enableDeletionVectors": "false",
    "delta.columnMapping.mode": "none",
}

SOURCE_COLUMNS = pa.schema(
    [
        pa.field("source_id", pa.string()),
        pa.field("status", pa.string()),  # accepted | refused
        pa.field("reason", pa.string()),  # why it was refused
        pa.field("snapshot", pa.int64()),  # the commit that brought it, or that stood then
        pa.field("committed_at", pa.timestamp("us", tz="UTC")),
        pa.field("receipt", pa.string()),
        pa.field("segments", pa.string()),
    ]
)
"""The columns of the Delta table `sources`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentEntry:
    """What a commit says of a segment, so that no reader opens one to know it."""

    segment_id: str
    block: int
    n_cells: int
    n_dropped: int
    n_genes: int
    n_nonzero: int
    first_row: int
    n_bytes: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class CommittedSource:
    """A source that is in the corpus, or was refused."""

    snapshot: int
    committed_at: int
    receipt: Receipt
    segments: tuple[SegmentEntry, ...]
    refused: str | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One version of `cells`: what exists in it.

    Attributes:
        folder: the corpus.
        uuid: the corpus's own id.
        version: the number of the snapshot.
        columns: the columns of `cells`.
        files: the Parquet files of `cells` in it -> (bytes, sha256 or None where unknown).
        sources: accepted and refused sources up to it, in order of commits.
    """

    folder: Path
    uuid: str
    version: int
    columns: pa.Schema
    files: dict[Path, tuple[int, str | None]]
    sources: tuple[CommittedSource, ...]

    @property
    def accepted(self) -> tuple[CommittedSource, ...]:
        """The sources whose cells are in the snapshot."""
        return tuple(source for source in self.sources if source.refused is None)

    @classmethod
    def load(cls, folder: Path, version: int | None = None) -> "Snapshot":
        """Load the newest snapshot, or the one of a number. Writes nothing.

        Raises:
            NotACorpusError: the folder holds no corpus.
            NewerFormatError: a newer cytolake wrote it.
            CorpusError: there is no such snapshot.
        """
        newest = open_cells(folder)
        if version is not None and not 0 <= version <= newest.version():
            raise CorpusError(
                f"{folder} has no snapshot {version}, expected 0 to {newest.version()}"
            )
        history = list_commits(newest)
        wanted = newest.version() if version is None else version
        table = newest if version is None else DeltaTable(folder / "cells", version=version)
        sha256_of = {
            str(values["path"]): str(values["sha256"])
            for _, commit in history
            if (values := json.loads(commit.get(FILE, "null")))
        }
        actions = pa.table(table.get_add_actions())
        files = {
            folder / "cells" / path: (size, sha256_of.get(path))
            for path, size in zip(
                actions.column("path").to_pylist(),
                actions.column("size_bytes").to_pylist(),
                strict=True,
            )
        }
        accepted = [source for source in accepted_sources(history) if source.snapshot <= wanted]
        refused = [source for source in _refused(folder) if source.snapshot <= wanted]
        order = sorted([*accepted, *refused], key=lambda s: (s.snapshot, s.committed_at))
        return cls(
            folder=folder,
            uuid=table.metadata().configuration[UUID],
            version=wanted,
            columns=pa.schema(table.schema().to_arrow()),
            files=dict(sorted(files.items())),
            sources=tuple(order),
        )

    def log(self) -> list[dict[str, Any]]:
        """One entry a snapshot up to this one, newest first: number, time, what it added."""
        accepted = {source.snapshot: source for source in self.accepted}
        entries: list[dict[str, Any]] = []
        for version, commit in list_commits(open_cells(self.folder)):
            if version > self.version:
                continue
            entry: dict[str, Any] = {"snapshot": version, "at": commit["timestamp"]}
            source = accepted.get(version)
            if source is None:
                entry["what"] = "created" if version == 0 else commit.get("operation", "")
            else:
                receipt = source.receipt
                entry |= {
                    "what": f"added {receipt.source_id}",
                    "source_id": receipt.source_id,
                    "n_read": receipt.n_read,
                    "n_kept": receipt.n_kept,
                    "dropped": dict(receipt.dropped),
                    "n_segments": len(source.segments),
                }
            entries.append(entry)
        return entries


def create_tables(folder: Path) -> None:
    """Make the empty tables; `cells`, which makes a folder a corpus, comes last.

    Raises:
        CorpusError: the folder holds something else, or is a corpus already.
    """
    if folder.exists():
        if not folder.is_dir():
            raise CorpusError(f"{folder} is a file; a corpus needs a folder of its own")
        others = {path.name for path in folder.iterdir()} - {"cells", "sources", "segments"}
        if others:
            raise CorpusError(
                f"{folder} is not empty (it holds {min(others)}); give a corpus a folder of its own"
            )
    (folder / "segments").mkdir(parents=True, exist_ok=True)
    DeltaTable.create(folder / "sources", SOURCE_COLUMNS, mode="ignore", configuration=_PROPERTIES)
    properties = {**_PROPERTIES, _FORMAT: str(FORMAT), UUID: uuid.uuid4().hex}
    try:
        DeltaTable.create(
            folder / "cells",
            CELL_COLUMNS,
            mode="error",
            configuration=properties,
            raise_if_key_not_exists=False,
        )
    except DeltaError as error:
        raise CorpusError(f"{folder} is a corpus already: open it") from error


def open_cells(folder: Path) -> DeltaTable:
    """The newest version of `cells`, after checking that it is ours and not newer than us.

    Raises:
        NotACorpusError: the folder holds no corpus.
        NewerFormatError: a newer cytolake wrote it.
        DamageError: its log cannot be read.
    """
    if not (folder / "cells" / "_delta_log").is_dir():
        raise NotACorpusError(
            f"{folder} holds no corpus (no table `cells` in it); check the path, or make one by "
            "`cytolake ingest ... --corpus URI`"
        )
    try:
        table = DeltaTable(folder / "cells")
        properties = table.metadata().configuration
    except TableNotFoundError as error:
        raise NotACorpusError(f"{folder}/cells holds no table") from error
    except DeltaError as error:
        raise DamageError(f"{folder}/cells: the table's log cannot be read: {error}") from error
    if _FORMAT not in properties or UUID not in properties:
        raise NotACorpusError(f"{folder}/cells is a Delta table, but not of a cytolake corpus")
    if int(properties[_FORMAT]) > FORMAT:
        raise NewerFormatError(
            f"{folder} has format {properties[_FORMAT]}, this cytolake reads up to {FORMAT}: "
            "upgrade cytolake"
        )
    return table


def list_commits(table: DeltaTable) -> list[tuple[int, dict[str, Any]]]:
    """Version and metadata of each commit up to the table's version, newest first.

    `history` tells of commits newer than its handle too, and its own version numbers are then
    wrong: so they are counted from the first commit, which is never removed.
    """
    history = table.history()
    numbered = [(len(history) - 1 - place, commit) for place, commit in enumerate(history)]
    return [(version, commit) for version, commit in numbered if version <= table.version()]


def accepted_sources(history: Sequence[tuple[int, dict[str, Any]]]) -> list[CommittedSource]:
    """The sources that commits added, oldest first; `history` is of `list_commits`."""
    return [
        CommittedSource(
            snapshot=version,
            committed_at=int(commit["timestamp"]),
            receipt=Receipt.from_json(commit[RECEIPT]),
            segments=tuple(SegmentEntry(**values) for values in json.loads(commit[SEGMENTS])),
        )
        for version, commit in reversed(history)
        if RECEIPT in commit
    ]


def _refused(folder: Path) -> list[CommittedSource]:
    return [
        CommittedSource(
            snapshot=row["snapshot"],
            committed_at=int(row["committed_at"].timestamp() * 1000),
            receipt=Receipt.from_json(row["receipt"]),
            segments=(),
            refused=row["reason"],
        )
        for row in source_rows(folder)
        if row["status"] == "refused"
    ]


def source_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of the table `sources` as it stands."""
    if not (folder / "sources" / "_delta_log").is_dir():
        return []
    return DeltaTable(folder / "sources").to_pyarrow_table().to_pylist()
