"""Sources made visible, exactly once: one commit to `cells` a source. Knows no counts.

A commit adds a source's rows, with its receipt and its segments in the commit's record. Whether a
source is there is told by the records of the very version that the commit builds on, so that two
handles, a retry or a restart cannot add it twice.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...platform.errors import ConflictError, CorpusError, DamageError
from ...platform.storage import discard, sha256_file
from ..payload.records import SegmentRecord
from ..schema import CELL_COLUMNS
from . import history
from .chain import TableState, load_table
from .history import Account, CommittedSource, SegmentEntry
from .ledger import NewFile, Proposal, commit, commit_and_clear, write_rows
from .links import COLUMNS as LINK_COLUMNS
from .links import Linker, write_links
from .receipts import Receipt
from .rewriting import ROWS_PER_FILE, Rewriter
from .rows import literal, open_engine, select_rows
from .snapshots import SOURCE_COLUMNS, UUID, check_format
from .tombstones import is_withdrawn, read_tombstones


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """The outcome of a change.

    Attributes:
        snapshot: the snapshot that holds it.
        added: whether this call made it; False where it was there already.
        n_withdrawn: cells left out because their use is no longer allowed.
        linked: source that was there -> cells that are the same as some of this one, under another
            list of genes; they are kept, and not primary.
    """

    snapshot: int
    added: bool
    n_withdrawn: int = 0
    linked: Mapping[str, int] = field(default_factory=dict[str, int])


def commit_source(
    folder: Path, receipt: Receipt, segments: Sequence[SegmentRecord], *, replace: bool = False
) -> Commit:
    """Make a source visible, whole, exactly once; by the driver only.

    Args:
        folder: the corpus.
        receipt: the source's account.
        segments: its prepared segments, in the order of its units.
        replace: a source of this name, of another file or read with other settings, goes in the
            same commit.

    Returns:
        The snapshot; `added` is False where the source was there already.

    Raises:
        CorpusError: the account does not balance, or a segment is of another source or corpus.
        ConflictError: another file has this source's name, a block of ids is in use, or a vacuum
            has removed a segment meanwhile.
        DamageError: a segment is not whole.
    """
    check_format(folder)
    writer = _SourceWriter(folder, receipt, segments, replace=replace)
    version = commit_and_clear(folder / "cells", writer.propose, writer.discard)
    project_sources(folder)
    if version is None:
        return Commit(snapshot=writer.there, added=False)
    return Commit(
        snapshot=version, added=True, n_withdrawn=writer.n_withdrawn, linked=writer.linked
    )


def refuse_source(folder: Path, receipt: Receipt, reason: str) -> None:
    """Put on record that a source was refused; nothing of it is in `cells`."""
    snapshot = load_table(folder / "cells").version
    row = {
        "source_id": receipt.source_id,
        "status": "refused",
        "reason": reason,
        "snapshot": snapshot,
        "receipt": receipt.to_json(),
    }
    body = {"snapshot": snapshot, "reason": reason, "receipt": receipt.to_values()}
    _append(folder, "refused", body, [row])


def project_sources(folder: Path) -> None:
    """Bring the table `sources` up to the commits of `cells`; whoever is first does it for all."""
    cells = load_table(folder / "cells")
    came = [record for record in cells.records if record.kind == "ingest"]
    projected = {
        int(version)
        for record in load_table(folder / "sources").records
        if record.kind == "accepted"
        for version in record.body["snapshots"]
    }
    missing = [record for record in came if record.version not in projected]
    if missing:
        rows = [
            {
                "source_id": record.body["receipt"]["source_id"],
                "status": "accepted",
                "snapshot": record.version,
                "committed_at": record.at * 1000,
                "receipt": json.dumps(record.body["receipt"]),
                "segments": json.dumps(record.body["segments"]),
            }
            for record in missing
        ]
        _append(folder, "accepted", {"snapshots": [record.version for record in missing]}, rows)


def find_source(folder: Path, source_id: str) -> CommittedSource | None:
    """The accepted source of a name in the newest snapshot."""
    account: Account = history.account(load_table(folder / "cells").records)
    return account.sources.get(source_id)


def entry_of(segment: SegmentRecord, sources: Sequence[str] = ()) -> SegmentEntry:
    """What a commit says of a segment.

    Args:
        segment: the segment.
        sources: the sources whose cells it holds; the one that its provenance names if not given.
    """
    return SegmentEntry(
        segment_id=segment.segment_id,
        sha256=sha256_file(segment.folder / "segment.json"),
        block=segment.block,
        n_cells=segment.n_cells,
        n_dropped=segment.n_dropped,
        n_genes=segment.n_genes,
        n_nonzero=segment.n_nonzero,
        sources=tuple(sources or (str(segment.provenance["source_id"]),)),
        source_sha256=str(segment.provenance["source_sha256"]),
        first_row=int(segment.provenance["first_row"]),
        n_bytes=segment.bytes_by_part(),
    )


class _SourceWriter:
    """Proposes a source to one version after the other."""

    def __init__(
        self, folder: Path, receipt: Receipt, segments: Sequence[SegmentRecord], *, replace: bool
    ) -> None:
        self.folder, self.receipt, self.segments = folder, receipt, segments
        self.replace = replace
        self.there = -1
        self.n_withdrawn = 0
        _check_account(receipt, segments)
        self._entries = [entry_of(segment) for segment in segments]
        self._files: list[NewFile] = []
        self._written_for: int | None = None  # how many withdrawals the files know of
        self._remover = Rewriter(folder / "cells")
        self._linker = Linker(folder, receipt.source_id, segments)
        self._links: NewFile | None = None
        self._linked_rows = LINK_COLUMNS.empty_table()
        self.linked: Mapping[str, int] = {}
        self._kept: list[NewFile] = []

    def propose(self, state: TableState) -> Proposal | None:
        _check_segments(state, self.receipt, self.segments)
        account = history.account(state.records)
        before = account.sources.get(self.receipt.source_id)
        if before is not None and self._is_there(before.receipt):
            self.there = before.snapshot
            return None
        if before is not None and not self.replace:
            raise ConflictError(
                f"the corpus has a source {self.receipt.source_id!r} already, of another file "
                f"({before.receipt.uri}); give this one another name, or replace it by `cytolake "
                f"ingest --replace {self.receipt.source_id}`"
            )
        _check_blocks(state, self._entries)
        rows = self._rows(state)
        removes: tuple[str, ...] = ()
        adds = list(self._files)
        if before is not None:
            rewritten = self._remover.apply(state, self._cells_of_source(state), state.columns)
            removes, adds = rewritten.removes, [*rewritten.adds, *adds]
        self._kept = adds
        self._link(state, account)
        return Proposal(
            kind="ingest",
            body={
                "receipt": self.receipt.to_values(),
                "segments": [entry.to_json() for entry in self._entries],
                "replaces": before is not None,
                "n_withdrawn": self.n_withdrawn,
                "links": [self._links.name, self._links.n_bytes] if self._links else None,
                "linked": dict(self.linked),
            },
            adds=adds,
            removes=removes,
            columns=list(rows),
            transactions=[
                f"source:{self.receipt.source_id}",
                *(f"unit:{entry.segment_id}" for entry in self._entries),
            ],
        )

    def _link(self, state: TableState, account: Account) -> None:
        """Find the cells that are there already under another list of genes."""
        sources = {name: source.receipt.sha256 for name, source in account.sources.items()}
        try:
            links = self._linker.links(state, account.segments, sources)
        except DamageError:
            newer = load_table(self.folder / "cells")  # a vacuum may have come meanwhile: say so
            _check_segments(newer, self.receipt, self.segments)
            raise
        if self._links is None or not links.rows.equals(self._linked_rows):
            self._discard_links()
            self._links = write_links(self.folder, links) if links.rows.num_rows else None
            self._linked_rows, self.linked = links.rows, links.by_source

    def _discard_links(self) -> None:
        if self._links is not None:
            discard(self.folder / "links" / self._links.name)
            self._links = None

    def discard(self, landed: bool) -> None:
        """Take away the files that no commit names."""
        if not landed:
            self._discard_links()
        kept = {new.name for new in self._kept} if landed else set[str]()
        for new in self._files:
            if new.name not in kept:
                discard(self.folder / "cells" / new.name)
        self._remover.discard(self._kept if landed else ())

    def _is_there(self, before: Receipt) -> bool:
        same = before.sha256 == self.receipt.sha256
        return same and (not self.replace or before.recipe_hash == self.receipt.recipe_hash)

    def _rows(self, state: TableState) -> pa.Schema:
        """Write the source's rows, if they are not, without cells that were withdrawn."""
        withdrawals = history.withdrawals(state.records)
        rows = pa.concat_tables(
            [CELL_COLUMNS.empty_table(), *(segment.cells() for segment in self.segments)],
            promote_options="default",
        )
        if self._written_for != len(withdrawals):
            self.discard(False)
            gone = is_withdrawn(
                rows, read_tombstones(self.folder, withdrawals), state.properties[UUID]
            )
            living = rows.filter(pa.array(~gone))
            self.n_withdrawn = rows.num_rows - living.num_rows
            self._files = [
                write_rows(self.folder / "cells", living.slice(start, ROWS_PER_FILE))
                for start in range(0, living.num_rows, ROWS_PER_FILE)
            ]
            self._written_for = len(withdrawals)
        return rows.schema

    def _cells_of_source(self, state: TableState) -> pa.Table:
        columns = pa.schema([state.columns.field(name) for name in ("cell_id", "source_id")])
        files = {state.folder / name: size for name, size in state.files.items()}
        with open_engine() as connection:
            return connection.sql(
                f"SELECT cell_id FROM ({select_rows(files, columns)}) "
                f"WHERE source_id = {literal(self.receipt.source_id)}"
            ).to_arrow_table()


def _check_account(receipt: Receipt, segments: Sequence[SegmentRecord]) -> None:
    receipt.check()
    kept = sum(segment.n_cells for segment in segments)
    dropped = sum(segment.n_dropped for segment in segments)
    if (kept, dropped) != (receipt.n_kept, receipt.n_dropped):
        raise CorpusError(
            f"source {receipt.source_id}: its segments hold {kept} kept and {dropped} dropped "
            f"cells, its receipt says {receipt.n_kept} and {receipt.n_dropped}"
        )


def _check_segments(state: TableState, receipt: Receipt, segments: Sequence[SegmentRecord]) -> None:
    expected = {
        "source_id": receipt.source_id,
        "source_sha256": receipt.sha256,
        "corpus_uuid": state.properties[UUID],
    }
    gone = history.removing(state.records)
    for segment in segments:
        for name, value in expected.items():
            if segment.provenance[name] != value:
                raise CorpusError(
                    f"segment {segment.segment_id} has {name} {segment.provenance[name]!r}, "
                    f"expected {value!r}"
                )
        if (segment.segment_id, segment.block) in gone:
            raise ConflictError(
                f"segment {segment.segment_id} was removed by a vacuum before its source was "
                "committed: ingest the source again"
            )
        for problem in segment.problems_of_sizes():
            raise DamageError(problem)


def _check_blocks(state: TableState, entries: Sequence[SegmentEntry]) -> None:
    """A block of ids belongs to one segment for ever, in the corpus or ended."""
    owner = {entry.block: name for name, entry in history.every_entry(state.records).items()}
    for entry in entries:
        if owner.setdefault(entry.block, entry.segment_id) != entry.segment_id:
            raise ConflictError(
                f"segment {entry.segment_id}: its block of cell ids is in use; remove its folder "
                "and ingest again, which draws another"
            )


def _append(folder: Path, kind: str, body: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows, schema=SOURCE_COLUMNS)
    new = write_rows(folder / "sources", table)

    def propose(state: TableState) -> Proposal | None:
        if kind == "accepted":
            there = {
                version
                for record in state.records
                if record.kind == kind
                for version in record.body["snapshots"]
            }
            if there & set(body["snapshots"]):
                return None  # another writer projected it meanwhile; the next completes the rest
        return Proposal(kind=kind, body=body, adds=[new])

    if commit(folder / "sources", propose) is None:
        discard(folder / "sources" / new.name)
