"""What exists, since when: the versions of the Delta table `cells`. Knows no counts.

Reading a snapshot writes nothing. Accepted sources are told by the commits to `cells` themselves,
so that they are complete whether or not the table `sources`, their projection, is.
"""

import time
import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...platform.errors import (
    CorpusError,
    DamageError,
    NewerFormatError,
    NotACorpusError,
    OlderFormatError,
)
from ...platform.places import files_in, folders_in, forget_copy, forget_gone, is_mirrored, named
from ..schema import CELL_COLUMNS, FORMAT
from . import history
from .chain import Record, TableState, create_table, fetch_log, load_table, open_table
from .history import CommittedSource, SegmentEntry
from .links import COLUMNS as LINK_COLUMNS
from .links import read_links
from .receipts import Receipt
from .tombstones import refuse_withdrawn

FORMAT_KEY = "cytolake.format"
_SWEEPING_MS = 24 * 3_600_000
"""For so long after its commit a vacuum may be removing files; one that died goes on later."""
UUID = "cytolake.uuid"

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


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One version of `cells`: what exists in it.

    Attributes:
        folder: the corpus.
        uuid: the corpus's own id.
        version: the number of the snapshot.
        columns: the columns of `cells`.
        files: the Parquet files of `cells` in it -> their bytes; each is named by its SHA-256.
        accepted: the sources whose cells it holds, in order of commits.
        segments: segment_id -> its entry, in canonical order.
        records: of every commit that there was when it was opened, newer ones too, oldest first.
    """

    folder: Path
    uuid: str
    version: int
    columns: pa.Schema
    files: Mapping[Path, int]
    accepted: tuple[CommittedSource, ...]
    segments: Mapping[str, SegmentEntry]
    records: tuple[Record, ...]

    @classmethod
    def load(cls, folder: Path, version: int | None = None) -> "Snapshot":
        """Load the newest snapshot, or the one of a number. Writes nothing.

        Raises:
            NotACorpusError: the folder holds no corpus.
            NewerFormatError: a newer cytolake wrote it.
            OlderFormatError: an older one did; it can be lifted.
            CorpusError: there is no such snapshot, or a vacuum ended it.
            WithdrawnError: it holds cells that were withdrawn since.
            DamageError: the log is not what was written.
        """
        check_format(folder)
        state = load_table(folder / "cells", version)
        snapshot = cls.of_state(folder, state)
        forget_ended(folder, state.records)
        if state.version != state.newest:
            snapshot.check_open()
        return snapshot

    @classmethod
    def of_state(cls, folder: Path, state: TableState) -> "Snapshot":
        """The snapshot that a version of the table `cells` makes."""
        account = history.account(state.records[: state.version + 1])
        return cls(
            folder=folder,
            uuid=state.properties[UUID],
            version=state.version,
            columns=state.columns,
            files={state.folder / name: size for name, size in state.files.items()},
            accepted=tuple(sorted(account.sources.values(), key=lambda s: s.snapshot)),
            segments=account.segments,
            records=state.records,
        )

    @property
    def newest(self) -> int:
        """The number of the newest snapshot that there was when this one was opened."""
        return len(self.records) - 1

    @cached_property
    def sources(self) -> tuple[CommittedSource, ...]:
        """Accepted and refused sources up to the snapshot, in order."""
        refused = [s for s in refused_sources(self.folder) if s.snapshot <= self.version]
        both = [*self.accepted, *refused]
        return tuple(sorted(both, key=lambda s: (s.snapshot, s.committed_at)))

    def links(self) -> pa.Table:
        """Cells that a later source brought once more: `cell_id, primary_id`; dead ones, too.

        Raises:
            DamageError: a file of them is missing or damaged.
        """
        files = history.link_files(self.records[: self.version + 1])
        return pa.concat_tables(
            [
                LINK_COLUMNS.empty_table(),
                *(read_links(self.folder, *named) for named in files.items()),
            ]
        )

    def check_open(self) -> None:
        """Refuse a snapshot that must not be read any more.

        Raises:
            CorpusError: a vacuum ended it.
            WithdrawnError: it holds cells that were withdrawn since.
        """
        vacuum = history.ended(self.records).get(self.version)
        if vacuum is not None:
            raise CorpusError(
                f"{self.folder}: snapshot {self.version} was ended by the vacuum that made "
                f"snapshot {vacuum.version}; open the newest ({self.newest}), or a tagged one"
            )
        later = [w for w in history.withdrawals(self.records) if w.snapshot > self.version]
        refuse_withdrawn(self.folder, self.version, self.files, later)

    @contextmanager
    def telling_of_its_end(self) -> Generator[None]:
        """Where reading fails because a vacuum has ended the snapshot meanwhile, say so.

        Raises:
            CorpusError: instead of whatever the body raised.
        """
        try:
            yield
        except Exception as error:
            parts = [self.folder / "segments" / name for name in self.segments]
            if not all(path.exists() for path in (*self.files, *parts)):
                newest = load_table(self.folder / "cells")
                try:
                    replace(self, records=newest.records).check_open()
                except CorpusError as end:
                    raise end from error
            raise

    def log(self) -> list[dict[str, Any]]:
        """One entry a snapshot up to this one, newest first: number, when, who, what it did."""
        ended = history.ended(self.records)
        return [
            {
                "snapshot": record.version,
                "at": record.at,
                "by": record.by,
                "kind": record.kind,
                "ended": record.version in ended,
                **_particulars(record),
            }
            for record in reversed(self.records[: self.version + 1])
        ]


def create_tables(folder: Path) -> None:
    """Make the empty tables; `cells`, which makes a folder a corpus, comes last.

    Raises:
        CorpusError: the folder holds something else, or is a corpus already.
    """
    if folder.is_file():
        raise CorpusError(f"{folder} is a file; a corpus needs a folder of its own")
    found = {path.name for path in (*files_in(folder), *folders_in(folder))}
    if others := found - {"cells", "sources", "segments"}:
        raise CorpusError(
            f"{named(folder)} is not empty (it holds {min(others)}); give a corpus a folder of "
            "its own"
        )
    (folder / "segments").mkdir(parents=True, exist_ok=True)
    fetch_log(folder / "sources")
    if not (folder / "sources" / "_delta_log").is_dir():
        create_table(folder / "sources", SOURCE_COLUMNS, {FORMAT_KEY: str(FORMAT)}, {})
    properties = {FORMAT_KEY: str(FORMAT), UUID: uuid.uuid4().hex}
    create_table(folder / "cells", CELL_COLUMNS, properties, {"format": FORMAT})


def holds_corpus(folder: Path) -> bool:
    """Whether there is a corpus in a folder, or in the bucket that it stands for."""
    fetch_log(folder / "cells")
    return (folder / "cells" / "_delta_log").is_dir()


def check_format(folder: Path) -> None:
    """Refuse a folder that is no corpus, or of another format than this cytolake's.

    Raises:
        NotACorpusError: the folder holds no corpus.
        NewerFormatError: a newer cytolake wrote it.
        OlderFormatError: an older one did.
        DamageError: its log cannot be read.
    """
    if not holds_corpus(folder):
        raise NotACorpusError(
            f"{named(folder)} holds no corpus (no table `cells` in it); check the path, or make "
            "one by `cytolake ingest ... --corpus URI`"
        )
    properties = open_table(folder / "cells").metadata().configuration
    if FORMAT_KEY not in properties or UUID not in properties:
        raise NotACorpusError(f"{folder}/cells is a Delta table, but not of a cytolake corpus")
    try:
        found = int(properties[FORMAT_KEY])
    except ValueError as error:
        raise DamageError(f"{folder} has the format {properties[FORMAT_KEY]!r}") from error
    if found > FORMAT:
        raise NewerFormatError(
            f"{folder} has format {found}, this cytolake reads up to {FORMAT}: upgrade cytolake"
        )
    if found < FORMAT:
        raise OlderFormatError(
            f"{folder} has format {found}, this cytolake reads {FORMAT}: lift it by `cytolake "
            "corpus upgrade`, which keeps every cell and every id"
        )


def forget_ended(folder: Path, records: Sequence[Record]) -> None:
    """Remove what a mirror still has of a corpus, where a vacuum took it out of the bucket."""
    vacuums = [record for record in records if record.kind == "vacuum"]
    if not vacuums or not is_mirrored(folder):
        return
    seen = folder.parent / "vacuum"
    if not seen.is_file() or seen.read_text() != vacuums[-1].digest:
        for name in ("segments", "cells", "withdrawn", "links"):
            forget_gone(folder / name)
        for name, _ in history.removing(records):  # of that name there may be another by now
            forget_copy(folder / "segments" / name)
        if now_ms() - vacuums[-1].at > _SWEEPING_MS:  # until then it may be sweeping still
            seen.write_text(vacuums[-1].digest)


def refused_sources(folder: Path) -> list[CommittedSource]:
    """The sources that were refused, told by the commits to `sources`."""
    fetch_log(folder / "sources")
    if not (folder / "sources" / "_delta_log").is_dir():
        return []
    return [
        CommittedSource(
            snapshot=int(record.body["snapshot"]),
            committed_at=record.at,
            receipt=Receipt.from_values(record.body["receipt"]),
            refused=str(record.body["reason"]),
        )
        for record in load_table(folder / "sources").records
        if record.kind == "refused"
    ]


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _particulars(record: Record) -> dict[str, Any]:
    """What a line of the log says of a commit: `what`, in words, and counters."""
    body = record.body
    if record.kind == "ingest":
        receipt = Receipt.from_values(body["receipt"])
        verb = "replaced" if body.get("replaces") else "added"
        return {
            "what": f"{verb} {receipt.source_id}",
            "source_id": receipt.source_id,
            "n_read": receipt.n_read,
            "n_kept": receipt.n_kept,
            "dropped": dict(receipt.dropped),
            "n_segments": len(body["segments"]),
        }
    words = {
        "created": lambda: "created",
        "columns": lambda: f"columns {', '.join(body['names'])}",
        "annotate": lambda: f"annotated {', '.join(body['columns'])} from {body['origin']}",
        "delete": lambda: f"deleted cells by {body['condition']}",
        "withdraw": lambda: f"withdrew cells: {body['reason']}",
        "compact": lambda: f"{len(body['replaced'])} segments into {len(body['segments'])}",
        "vacuum": lambda: f"vacuum: {len(body['ended'])} snapshots ended",
        "restore": lambda: f"restored snapshot {body['snapshot']}",
    }
    said: dict[str, Any] = {"what": words[record.kind]() if record.kind in words else record.kind}
    return said | {name: body[name] for name in ("n_cells",) if name in body}
