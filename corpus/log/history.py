"""What the commits of `cells` say, added up: sources, segments, withdrawals, ended snapshots.

Knows records; knows no table and no file. The kinds of records and their bodies:

| kind | body |
|---|---|
| created | `format` |
| columns | `names`, `for`: columns that a change of this kind needed |
| ingest | `receipt`, `segments`, `replaces` (what had that name), `n_withdrawn`, \
`links` (name, bytes), `linked` (source: cells) |
| annotate | `columns`, `origin`, `n_cells` |
| delete | `condition` (without its values, which may name a person), `n_cells` |
| withdraw | `reason`, `condition`, `n_cells`, `tombstones` (name, bytes) |
| compact | `segments`, `replaced` (ids), `n_cells` |
| vacuum | `segments`, `replaced`, `n_cells`, `ended` (snapshots), `removing` ([id, block]), \
`holders` (of withdrawn cells, with `--for-consent`) |
| restore | `snapshot`, `n_cells`, `n_withdrawn` |
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...platform.errors import DamageError
from .chain import Record
from .receipts import Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentEntry:
    """What a commit says of a segment, so that no reader opens one to know it.

    Attributes:
        segment_id: its name.
        sha256: of its `segment.json`, which in turn holds every file's.
        block: the random number that its cells' ids began with.
        n_cells: cells that were written; fewer may be living.
        n_dropped: rows of its `dropped.parquet`.
        n_genes: genes measured.
        n_nonzero: stored counts.
        sources: the sources whose cells it holds.
        source_sha256: of the source's file; of a compacted segment, of the segments it was made of.
        first_row: of the unit in its source.
        n_bytes: by part.
    """

    segment_id: str
    sha256: str
    block: int
    n_cells: int
    n_dropped: int
    n_genes: int
    n_nonzero: int
    sources: tuple[str, ...]
    source_sha256: str
    first_row: int
    n_bytes: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """For a record."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "SegmentEntry":
        """Read what `to_json` wrote."""
        given: dict[str, Any] = {**values, "sources": tuple(values["sources"])}
        return cls(**given)

    @property
    def order(self) -> tuple[str, tuple[str, ...], int, str]:
        """Segments sort by it: the same in a corpus built anew from the same files."""
        return (self.source_sha256, self.sources, self.first_row, self.segment_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class CommittedSource:
    """A source that is in the corpus, or was refused.

    Attributes:
        snapshot: the commit that brought it, or that stood when it was refused.
        committed_at: milliseconds since 1970.
        receipt: its account.
        segments: as they were when it came; a compaction may have replaced them.
        refused: why it was refused.
    """

    snapshot: int
    committed_at: int
    receipt: Receipt
    segments: tuple[SegmentEntry, ...] = ()
    refused: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """What a snapshot holds.

    Attributes:
        sources: source_id -> the accepted source.
        segments: segment_id -> its entry, in canonical order.
    """

    sources: Mapping[str, CommittedSource]
    segments: Mapping[str, SegmentEntry]


@dataclass(frozen=True, kw_only=True, slots=True)
class Withdrawal:
    """Cells whose use is no longer allowed, whatever the snapshot.

    Attributes:
        snapshot: the commit that withdrew them.
        at: when, in milliseconds since 1970.
        reason: as it was given.
        tombstones: name of the file that lists them.
        n_bytes: size of that file.
    """

    snapshot: int
    at: int
    reason: str
    tombstones: str
    n_bytes: int


def account(records: Sequence[Record]) -> Account:
    """Add up the records of a snapshot: all up to its own, oldest first.

    Raises:
        DamageError: a record of ours does not say what its kind must say.
    """
    sources: dict[str, CommittedSource] = {}
    segments: dict[str, SegmentEntry] = {}
    for record in records:
        try:
            body = record.body
            new = _entries(record)
            if record.kind == "ingest":
                source = CommittedSource(
                    snapshot=record.version,
                    committed_at=record.at,
                    receipt=Receipt.from_values(body["receipt"]),
                    segments=tuple(new),
                )
                source_id = source.receipt.source_id
                if sources.pop(source_id, None) is not None:  # what it shares, it leaves behind
                    segments = {k: v for k, v in segments.items() if v.sources != (source_id,)}
                sources[source_id] = source
            elif record.kind == "restore":
                before = account(records[: int(body["snapshot"]) + 1])
                sources, segments = dict(before.sources), dict(before.segments)
            for segment_id in body.get("replaced", ()):
                segments.pop(segment_id, None)
            segments |= {entry.segment_id: entry for entry in new}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamageError(f"commit {record.version} ({record.kind}): {error!r}") from error
    ordered = sorted(segments.values(), key=lambda entry: entry.order)
    return Account(sources=sources, segments={entry.segment_id: entry for entry in ordered})


def every_entry(records: Iterable[Record]) -> dict[str, SegmentEntry]:
    """Every segment that any commit named; the newest entry of a name."""
    return {entry.segment_id: entry for record in records for entry in _entries(record)}


def withdrawals(records: Iterable[Record]) -> list[Withdrawal]:
    """What was withdrawn, oldest first."""
    return [
        Withdrawal(
            snapshot=record.version,
            at=record.at,
            reason=str(record.body["reason"]),
            tombstones=str(record.body["tombstones"][0]),
            n_bytes=int(record.body["tombstones"][1]),
        )
        for record in records
        if record.kind == "withdraw"
    ]


def link_files(records: Iterable[Record]) -> dict[str, int]:
    """The files that link cells of two sources, and their sizes, oldest first."""
    return {
        str(record.body["links"][0]): int(record.body["links"][1])
        for record in records
        if record.body.get("links")
    }


def ended(records: Iterable[Record]) -> dict[int, Record]:
    """Snapshots that a vacuum ended, and the record of that vacuum."""
    return {
        int(version): record
        for record in records
        if record.kind == "vacuum"
        for version in record.body["ended"]
    }


def removing(records: Iterable[Record]) -> set[tuple[str, int]]:
    """Segments (id, block) that a vacuum has removed, or is about to."""
    return {
        (str(segment_id), int(block))
        for record in records
        if record.kind == "vacuum"
        for segment_id, block in record.body["removing"]
    }


def _entries(record: Record) -> list[SegmentEntry]:
    return [SegmentEntry.from_json(values) for values in record.body.get("segments", ())]
