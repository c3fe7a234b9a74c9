"""Which snapshots stay, what they hold, and which segments hold something of withdrawn cells.

Knows commits, tags and uses; removes nothing. A snapshot's age counts from the commit that came
after it: until then it was the newest, which any reader may have opened.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..log import history
from ..log.chain import Record, TableState, state_at
from ..log.history import SegmentEntry
from ..log.snapshots import UUID, now_ms
from ..log.tags import tags
from ..log.tombstones import read_tombstones
from ..payload.records import SegmentRecord
from ..query.uses import uses
from ..schema import POSITION_BITS
from .remaking import bears_withdrawn_name, dropped_rows

_ADDING = {"created", "columns"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What some snapshots hold together.

    Attributes:
        files: files of `cells` -> bytes.
        segments: segment_id -> entry.
    """

    files: Mapping[str, int]
    segments: Mapping[str, SegmentEntry]


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """What becomes of the snapshots of a corpus.

    Attributes:
        kept: snapshot -> why it stays; the newest is here only where it must outlive its successor.
        lasting: those of them that a tag or a use names.
        ended: snapshots to be ended; the newest too, once another takes its place.
        tainted: segments that hold something of withdrawn cells; only looked for on demand.
    """

    kept: Mapping[int, tuple[str, ...]]
    lasting: frozenset[int]
    ended: tuple[int, ...]
    tainted: frozenset[str]


def decide(folder: Path, state: TableState, *, older_than_ms: int, for_consent: bool) -> Retention:
    """Decide what becomes of the snapshots, seen from the newest.

    Args:
        folder: the corpus.
        state: the newest version of `cells`.
        older_than_ms: snapshots that were the newest less long ago than this stay.
        for_consent: end every snapshot that can still reach something of withdrawn cells.
    """
    versions = open_versions(state.records)
    tainted = _tainted(folder, state, versions) if for_consent else frozenset[str]()
    reaching = {
        version
        for version in versions
        if tainted and tainted & set(history.account(state.records[: version + 1]).segments)
    }
    named = _named(folder)
    since = _superseded(state.records)
    now = now_ms()
    kept: dict[int, tuple[str, ...]] = {}
    for version in versions:
        reasons = tuple(named.get(version, ()))
        if older_than_ms and now - since.get(version, now) < older_than_ms:
            reasons += ("lately the newest",)
        if reasons and version not in reaching:
            kept[version] = reasons
    return Retention(
        kept=kept,
        lasting=frozenset(named) & kept.keys(),
        ended=tuple(version for version in versions if version not in kept),
        tainted=tainted,
    )


def open_versions(records: Sequence[Record]) -> list[int]:
    """The snapshots that no vacuum has ended, oldest first."""
    ended = history.ended(records)
    return [record.version for record in records if record.version not in ended]


def held_by(state: TableState, versions: Iterable[int]) -> Held:
    """What some versions hold together; as few as possible of them are loaded.

    Args:
        state: the newest version.
        versions: any, itself too.
    """
    files: dict[str, int] = {}
    segments: dict[str, SegmentEntry] = {}
    later: int | None = None  # the one loaded last
    for version in sorted(set(versions), reverse=True):
        between = state.records[version + 1 : (later or version) + 1]
        if later is not None and all(_only_adds(record) for record in between):
            continue  # whatever it holds, the later one holds too
        at = state if version == state.version else state_at(state, version)
        files |= at.files
        segments |= history.account(state.records[: version + 1]).segments
        later = version
    return Held(files=files, segments=segments)


def _only_adds(record: Record) -> bool:
    return record.kind in _ADDING or (record.kind == "ingest" and not record.body.get("replaces"))


def _named(folder: Path) -> dict[int, list[str]]:
    """Snapshot -> the tags and uses that name it."""
    found: dict[int, list[str]] = {}
    for tag in tags(folder).values():
        found.setdefault(tag.snapshot, []).append(f"tag {tag.name}")
    for use in uses(folder):
        found.setdefault(use.snapshot, []).append(f"{use.kind} {use.name}")
    return found


def _superseded(records: Sequence[Record]) -> dict[int, int]:
    """Snapshot -> when the next one came, in milliseconds since 1970; not of the newest.

    A writer's clock that was set back must not make a snapshot older than it is.
    """
    since: dict[int, int] = {}
    latest = 0
    for record in records:
        latest = max(latest, record.at)
        if record.version:
            since[record.version - 1] = latest
    return since


def _tainted(folder: Path, state: TableState, versions: Sequence[int]) -> frozenset[str]:
    """Segments of some versions that hold counts, or the name, of a withdrawn cell."""
    tombstones = read_tombstones(folder, history.withdrawals(state.records))
    if not tombstones.num_rows:
        return frozenset()
    ids = np.unique(tombstones.column("cell_id").to_numpy())
    blocks = set((ids >> POSITION_BITS).tolist())
    found: set[str] = set()
    for name, entry in held_by(state, versions).segments.items():
        record = SegmentRecord.load(folder / "segments" / name, entry.sha256)
        if record.is_mixed:
            held = record.cells().column("cell_id").to_numpy()
            holds = bool(np.isin(ids, held).any())
        else:
            holds = record.block in blocks
        if not holds and record.n_dropped:
            dropped = dropped_rows(record)
            holds = bool(bears_withdrawn_name(dropped, tombstones, state.properties[UUID]).any())
        if holds:
            found.add(name)
    return frozenset(found)
