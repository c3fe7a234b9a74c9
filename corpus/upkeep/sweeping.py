"""Files that no snapshot needs any more are taken away: the second phase of a vacuum.

Knows which files the open snapshots hold; decides nothing about snapshots. What it removes is told
by the commits alone, so that after a death the same sweep goes on where the last one ended.
"""

import math
import socket
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...platform.errors import CorpusError
from ...platform.mirrors import REMOVED
from ...platform.places import files_in, folders_in, is_there, modified_at, size_of, time_of_files
from ...platform.refusals import storing_in
from ...platform.storage import finish_removals, remove_durably
from ..log import history
from ..log.chain import TableState, load_table
from ..log.leases import live_leases, remove_dead_leases
from ..log.tags import remove_tag, tags
from ..payload.records import SegmentRecord
from ..payload.writing import is_alive
from .retention import Held, held_by, open_versions


@dataclass(frozen=True, kw_only=True, slots=True)
class Swept:
    """What a sweep took away.

    Attributes:
        n_segments: folders of segments.
        n_files: files of `cells`, and orphans of other tables.
        n_staged: folders that ingests had left in `staging`, and unfinished segments.
        n_bytes: of all of them.
        n_young: files that no commit names and that may be about to be committed: spared.
    """

    n_segments: int
    n_files: int
    n_staged: int
    n_bytes: int
    n_young: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What a vacuum that is only planned would leave.

    Attributes:
        held: what the open snapshots would hold.
        removing: segments (id, block) that it would name.
        ended: snapshots that it would end.
    """

    held: Held
    removing: frozenset[tuple[str, int]]
    ended: tuple[int, ...]


def sweep(
    folder: Path,
    *,
    grace_ms: int,
    own_lease: str | None = None,
    outlook: Outlook | None = None,
) -> Swept:
    """Take away what no open snapshot holds.

    Args:
        folder: the corpus.
        grace_ms: files that no commit names stay if they are younger: a writer may be about to
            commit them. Less than an hour is safe only where nobody else writes.
        own_lease: the lease of whoever sweeps.
        outlook: only count what would go after a vacuum that is planned; nothing is touched.

    Raises:
        StorageError: the disk says no.
    """
    # What is on disk is listed first: what is committed after that is known to the state.
    tables = [folder / name for name in ("cells", "sources", "withdrawn", "links")]
    listed = [path for table in tables for path in files_in(table, ".parquet")]
    segments = _whole_names(folder / "segments")
    staging = sorted((folder / "staging").iterdir()) if (folder / "staging").is_dir() else []
    spared = bool(live_leases(folder, besides=own_lease))
    cells = load_table(folder / "cells")
    held = held_by(cells, open_versions(cells.records)) if outlook is None else outlook.held
    gone = history.removing(cells.records) | (outlook.removing if outlook else frozenset())
    ended = {*history.ended(cells.records), *(outlook.ended if outlook else ())}
    now = time_of_files(folder / "segments") if outlook is None else time.time()
    known = {folder / "cells" / name for name in held.files}
    known |= {folder / "sources" / name for name in load_table(folder / "sources").files}
    known |= {folder / "withdrawn" / w.tombstones for w in history.withdrawals(cells.records)}
    known |= {folder / "links" / name for name in history.link_files(cells.records)}
    orphans = [path for path in listed if path not in known]
    young = [path for path in orphans if _age_ms(path, now) < grace_ms]
    if young:  # no writer brings back what an ended snapshot held
        named = {folder / "cells" / name for name in held_by(cells, ended).files}
        young = [path for path in young if path not in named]
    removable = [
        path for path in segments if path.name not in held.segments and _is_named(path, gone)
    ]
    left = [*staging, *_unfinished(folder / "segments", held, now, grace_ms)]
    parts = (removable, [path for path in orphans if path not in young], [] if spared else left)
    n_bytes = sum(size_of(path) for part in parts for path in part)
    if outlook is None:
        for path in parts[0]:
            if _is_named(path, gone):  # still: an ingest may have prepared it anew meanwhile
                remove_durably(path, "segment")
        for path in parts[1]:
            remove_durably(path, path.parent.name)
        for path in parts[2]:
            remove_durably(path, "staging")
        for tag in tags(folder).values():
            if tag.snapshot in ended:  # it names nothing any more
                remove_tag(folder, tag.name)
        _finish(folder, now, grace_ms)
    return Swept(
        n_segments=len(parts[0]),
        n_files=len(parts[1]),
        n_staged=len(parts[2]),
        n_bytes=n_bytes,
        n_young=len(young),
    )


def remove_named(folder: Path) -> None:
    """Take away the segments that a vacuum has named and, interrupted, has left on disk.

    An ingest that found one of them would adopt it, and no commit takes what was named.

    Raises:
        StorageError: the disk says no.
    """
    cells = load_table(folder / "cells")
    gone = history.removing(cells.records)
    if not gone:
        return
    held = held_by(cells, open_versions(cells.records)).segments
    for name in sorted({segment_id for segment_id, _ in gone} - held.keys()):
        path = folder / "segments" / name
        if is_there(path) and _is_named(path, gone):
            remove_durably(path, "segment")


def unneeded_segments(
    folder: Path, state: TableState, needed: set[str], *, spare_staged: bool
) -> list[tuple[str, int]]:
    """Segments on disk that are not needed: their names and blocks.

    Args:
        folder: the corpus.
        state: the newest version of `cells`.
        needed: names of those that are.
        spare_staged: leave out those that no commit has ever named.
    """
    committed = {
        (entry.segment_id, entry.block) for entry in history.every_entry(state.records).values()
    }
    found: list[tuple[str, int]] = []
    for path in _whole_names(folder / "segments"):
        if path.name in needed:
            continue
        try:
            record = SegmentRecord.load(path)
        except CorpusError:  # not whole: nobody can commit it, so nobody need be told
            continue
        if not spare_staged or (record.segment_id, record.block) in committed:
            found.append((record.segment_id, record.block))
    return found


def _whole_names(segments: Path) -> list[Path]:
    """The folders of segments that have a name of their own."""
    return [path for path in folders_in(segments) if not path.name.startswith(".")]


def _age_ms(path: Path, now: float) -> float:
    """How long ago a file was written; one that is gone is as young as can be."""
    try:
        return (now - modified_at(path)) * 1000
    except FileNotFoundError:
        return -math.inf


def _is_named(path: Path, gone: Collection[tuple[str, int]]) -> bool:
    """Whether what lies in a segment's folder is what a vacuum has said that it removes."""
    try:
        record = SegmentRecord.load(path)
    except CorpusError:
        return False
    return (record.segment_id, record.block) in gone


def _is_whole(path: Path) -> bool:
    try:
        SegmentRecord.load(path)
    except CorpusError:
        return False
    return True


def _unfinished(segments: Path, held: Held, now: float, grace_ms: int) -> Iterator[Path]:
    """What writers have left in the folder of segments: hidden, or without a sound account."""
    here = f".{socket.gethostname()}."
    hidden = [path for path in segments.glob(".*") if path.is_dir()]  # on this machine alone
    for path in sorted({*hidden, *folders_in(segments)}):
        if path.name.startswith(REMOVED):
            continue
        if path.name in held.segments:
            continue
        old = _age_ms(path, now) >= grace_ms
        if path.name.startswith("."):
            _, found, pid = path.name.rpartition(here)
            if old or (found and pid.isdigit() and not is_alive(int(pid))):
                yield path
        elif old and not _is_whole(path):
            yield path


def _finish(folder: Path, now: float, grace_ms: int) -> None:
    """Remove what interrupted removals, dead writers and dead holders of leases have left."""
    for name in ("segments", "cells", "sources", "withdrawn", "links", "staging", "tags", "uses"):
        if not (folder / name).is_dir():
            continue
        finish_removals(folder / name, "segment" if name == "segments" else name)
        with storing_in(folder / name):
            for path in sorted((folder / name).glob(".*")):
                leftover = path.name.endswith(".tmp") or path.name.startswith(".turn.")
                if leftover and _age_ms(path, now) >= grace_ms:
                    path.unlink(missing_ok=True)
    remove_dead_leases(folder)
