"""Many small segments into few large ones, mixed across sources: planned, prepared, committed.

Knows segments and their genes; knows no Ray (`corpus.job` hands the groups out). Only segments of
the same genes and of the same standing (panels, bulk) are mixed: "not measured" never turns into 0.
Memory: a group holds at most `cells_per_segment` cells and 2,800 stored counts for each of them,
or is one segment; 16,384 cells of 2,800 counts took a worker 2.3 GB, and 25 s.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ...platform.errors import ConflictError, CorpusError, DamageError
from ...platform.places import bring
from ..features import MODALITIES
from ..log.chain import TableState
from ..log.history import SegmentEntry
from ..log.leases import lease
from ..log.ledger import Proposal, commit_and_clear
from ..log.rows import open_engine, select_rows
from ..log.snapshots import Snapshot
from ..payload.own_columns import fit_together
from .remaking import Prepared, prepare
from .replacement import Fitting, Replacement

CELLS_PER_SEGMENT = 16_384
COUNTS_PER_CELL = 2_800
"""What a cell may bring on average before a group is full of counts, not of cells."""

_ROUNDS = 8
_CELLS_PER_COMMIT = 1 << 20

Group = tuple[str, ...]
"""Names of segments that become one."""

PrepareAll = Callable[[Sequence[Group]], Iterable[Prepared | None]]
"""Prepares each group's segment, in any order; None where a segment is no longer there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compacted:
    """The outcome of a compaction.

    Attributes:
        snapshot: the newest snapshot that it made; None where there was nothing to do.
        n_before: segments that were replaced.
        n_after: segments that replace them.
        n_cells: cells that moved.
        n_adopted: segments that were prepared already, by a run that was ended.
        n_redone: groups that were planned anew because another writer was first.
    """

    snapshot: int | None
    n_before: int
    n_after: int
    n_cells: int
    n_adopted: int
    n_redone: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Candidate:
    entry: SegmentEntry
    living: int
    fill: float


def compact(
    folder: Path,
    *,
    cells_per_segment: int = CELLS_PER_SEGMENT,
    small: int | None = None,
    prepare_all: PrepareAll | None = None,
) -> Compacted:
    """Compact a corpus until nothing is left to compact; run again after a death, it goes on.

    Args:
        folder: the corpus.
        cells_per_segment: the most cells that segments are brought together to.
        small: segments with fewer living cells are candidates; at most half of the above, and that
            if not given.
        prepare_all: how groups are prepared; one after the other in this process if not given.

    Raises:
        DamageError: a segment is damaged; nothing of its group is changed.
        ConflictError: other writers were first all the time.
    """
    versions: list[int] = []
    landed: list[Prepared] = []
    n_cells = n_redone = 0
    with lease(folder):
        for _ in range(_ROUNDS):
            snapshot = Snapshot.load(folder)
            plan = plan_compaction(snapshot, cells_per_segment=cells_per_segment, small=small)
            if not plan:
                break
            for some in _batches((prepare_all or _one_by_one(folder))(plan)):
                version, fitting = commit_prepared(folder, [one for one in some if one is not None])
                n_redone += len(fitting.redo) + some.count(None)
                if version is not None:
                    versions.append(version)
                    landed += fitting.landing
                    n_cells += fitting.n_cells
        else:
            raise ConflictError(
                f"{folder}: other writers changed the segments {_ROUNDS} times while they were "
                "compacted; what was compacted stays: run it again when the corpus is quieter"
            )
    return Compacted(
        snapshot=versions[-1] if versions else None,
        n_before=sum(len(one.inputs) for one in landed),
        n_after=sum(one.segment is not None for one in landed),
        n_cells=n_cells,
        n_adopted=sum(one.adopted for one in landed),
        n_redone=n_redone,
    )


def plan_compaction(
    snapshot: Snapshot, *, cells_per_segment: int = CELLS_PER_SEGMENT, small: int | None = None
) -> list[Group]:
    """The segments to be brought together; the same for the same snapshot.

    A segment that is large enough and holds no dead rows is let be, and so is one that finds no
    other to join. A second plan after the first was carried out is empty.

    Raises:
        CorpusError: a number is not positive, or `small` is more than can be brought together.
        DamageError: a segment's file is missing.
    """
    half = (cells_per_segment + 1) // 2
    limit = half if small is None else small
    if not 0 < cells_per_segment or not 0 <= limit <= half:
        raise CorpusError(
            f"cells_per_segment is {cells_per_segment} and small {limit}: expected 1 or more, and "
            "small at most half of it"
        )
    living = living_cells(snapshot)
    kinds: dict[tuple[object, ...], list[_Candidate]] = {}
    for name, entry in snapshot.segments.items():
        n_cells = living.get(name, 0)
        share = n_cells / max(entry.n_cells, 1)
        counts = entry.n_nonzero * share / (cells_per_segment * COUNTS_PER_CELL)
        fill = max(n_cells / cells_per_segment, counts)
        if n_cells < entry.n_cells or (n_cells < limit and fill <= 0.5):
            one = _Candidate(entry=entry, living=n_cells, fill=fill)
            kinds.setdefault(_kind(snapshot, entry), []).append(one)
    groups = [
        group
        for candidates in kinds.values()
        for alike in _alike(snapshot, candidates)
        for group in _fill_groups(alike)
    ]
    return sorted(
        tuple(one.entry.segment_id for one in group)
        for group in groups
        if len(group) > 1 or (group[0].living < group[0].entry.n_cells)
    )


def living_cells(snapshot: Snapshot) -> dict[str, int]:
    """Segment -> its cells that are in the snapshot; segments without any are left out."""
    columns = pa.schema([snapshot.columns.field("segment")])
    with open_engine() as connection:
        found = connection.execute(
            f"SELECT segment, count(*) FROM ({select_rows(snapshot.files, columns)}) GROUP BY 1"
        ).fetchall()
    return {str(name): int(n_cells) for name, n_cells in found}


def commit_prepared(folder: Path, prepared: Sequence[Prepared]) -> tuple[int | None, Fitting]:
    """Let prepared segments take the place of others: all that still fit, in one commit.

    Args:
        folder: the corpus.
        prepared: segments whose inputs do not overlap.

    Returns:
        The snapshot, None where nothing fits or another writer has brought it already; and what
        became of each.

    Raises:
        ConflictError: other writers were first all the time.
    """
    replacement = Replacement(folder, prepared)
    fitting: list[Fitting] = []

    def propose(state: TableState) -> Proposal | None:
        fits = replacement.onto(state)
        fitting[:] = [fits]
        if not fits.landing:
            return None
        return Proposal(
            kind="compact",
            body={
                "segments": [entry.to_json() for entry in fits.entries],
                "replaced": list(fits.replaced),
                "n_cells": fits.n_cells,
            },
            adds=fits.adds,
            removes=fits.removes,
        )

    def discard(landed: bool) -> None:
        replacement.discard(fitting[0].adds if landed else ())

    return commit_and_clear(folder / "cells", propose, discard), fitting[0]


def _one_by_one(folder: Path) -> PrepareAll:
    def prepare_all(groups: Sequence[Group]) -> Iterator[Prepared | None]:
        for group in groups:
            yield prepare(folder, group)

    return prepare_all


def _batches(prepared: Iterable[Prepared | None]) -> Iterator[list[Prepared | None]]:
    """As many at a time as one commit moves: each rewrites the files of `cells` that it touches."""
    some: list[Prepared | None] = []
    for one in prepared:
        some.append(one)
        if sum(p.n_cells for p in some if p is not None) >= _CELLS_PER_COMMIT:
            yield some
            some = []
    if some:
        yield some


def _kind(snapshot: Snapshot, entry: SegmentEntry) -> tuple[object, ...]:
    """What must be equal for segments to be mixed: genes, features, what medians make of them."""
    folder = snapshot.folder / "segments" / entry.segment_id
    lists = [("statistics", "gene_id")]
    lists += [(name, "feature_id") for name in MODALITIES if f"{name}.parquet" in entry.n_bytes]
    digest = hashlib.sha256()
    for name, column in lists:
        path = folder / f"{name}.parquet"
        try:
            bring([path])
            ids = pq.read_table(path, columns=[column]).column(column).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise DamageError(f"{path} cannot be read: {error}") from error
        digest.update("\n".join([name, *map(str, ids)]).encode())
    receipts = {source.receipt.source_id: source.receipt for source in snapshot.accepted}
    standings = {
        (receipts[name].panel, receipts[name].panel_use, receipts[name].kind)
        for name in entry.sources
        if name in receipts  # of a source that is gone it holds no living cell
    }
    return (digest.hexdigest(), tuple(sorted(standings)))


def _alike(snapshot: Snapshot, candidates: Sequence[_Candidate]) -> list[list[_Candidate]]:
    """Candidates whose sources' own columns can stand in one table; the first that fits."""
    found: list[tuple[list[pa.Schema], list[_Candidate]]] = []
    for one in candidates:
        path = snapshot.folder / "segments" / one.entry.segment_id / "obs.parquet"
        try:
            bring([path])
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError) as error:
            raise DamageError(f"{path} cannot be read: {error}") from error
        for schemas, alike in found:
            if any(schema.equals(known) for known in schemas):
                alike.append(one)
                break
            if fit_together([*schemas, schema]):
                schemas.append(schema)
                alike.append(one)
                break
        else:
            found.append(([schema], [one]))
    return [alike for _, alike in found]


def _fill_groups(candidates: Sequence[_Candidate]) -> list[list[_Candidate]]:
    """Deal each source's segments over the groups, so that a group has cells of many sources."""
    large = [[one] for one in candidates if one.fill > 0.5]  # they hold dead rows
    by_source: dict[tuple[str, ...], list[_Candidate]] = {}
    for one in candidates:
        if one.fill <= 0.5:
            by_source.setdefault(one.entry.sources, []).append(one)
    total = sum(one.fill for alike in by_source.values() for one in alike)
    groups: list[list[_Candidate]] = [[] for _ in range(max(1, math.ceil(total - 1e-9)))]
    fills = [0.0] * len(groups)
    for sources in sorted(by_source):
        for one in sorted(by_source[sources], key=lambda c: (-c.fill, c.entry.order)):
            emptiest = min(range(len(groups)), key=fills.__getitem__)
            if groups[emptiest] and fills[emptiest] + one.fill > 1 + 1e-9:
                emptiest = len(groups)
                groups.append([])
                fills.append(0.0)
            groups[emptiest].append(one)
            fills[emptiest] += one.fill
    return [*large, *(group for group in groups if group)]
