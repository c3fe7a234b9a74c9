"""Vacuum: ends snapshots, rewrites segments that hold dead cells, then removes what none needs.

Knows what `retention` decides; knows no condition and no counts. Two phases: one commit says what
ends and which segments go; only then do files go (`sweeping`). Whoever dies between them leaves a
whole corpus, and the same command goes on.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ...platform.errors import ConflictError, CorpusError
from ..log import history
from ..log.chain import TableState, load_table
from ..log.leases import lease, live_leases
from ..log.ledger import Proposal, commit_and_clear
from ..log.rows import list_of, open_engine, select_rows
from ..log.snapshots import Snapshot, check_format
from .compaction import living_cells
from .holders import Holder, find_holders, holders_on_record, to_values
from .remaking import Prepared, prepare
from .replacement import Fitting, Replacement
from .retention import Held, Retention, decide, held_by
from .sweeping import Outlook, Swept, sweep, unneeded_segments

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_ROUNDS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewrite:
    """A segment to be written anew without its dead cells.

    Attributes:
        segment_id: its name.
        n_cells: cells that it holds.
        n_dead: those of them that are not living.
        n_bytes: on disk now.
    """

    segment_id: str
    n_cells: int
    n_dead: int
    n_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class VacuumPlan:
    """What a vacuum would do.

    Attributes:
        snapshot: the newest, which the plan is for.
        kept: older snapshots that stay (the newest too where it must outlive its successor), and
            why: the names of tags and uses, or that they were lately the newest.
        ended: snapshots that end.
        rewrites: segments that are written anew; their old ones go when the last snapshot ends
            that needs them.
        would_remove: files that go at once: of ended snapshots, orphans, leftovers.
        holders: with `for_consent`, who held the withdrawn cells.
        n_leases: ingests and compactions at work: what is staged is spared.
    """

    snapshot: int
    kept: Mapping[int, tuple[str, ...]]
    ended: tuple[int, ...]
    rewrites: tuple[Rewrite, ...]
    would_remove: Swept
    holders: tuple[Holder, ...]
    n_leases: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Vacuumed:
    """What a vacuum did, or in a dry run would do.

    Attributes:
        snapshot: the newest snapshot that it made; None where there was nothing to end or rewrite.
        ended: snapshots that it ended.
        n_rewritten: segments written anew, or left out where nothing of them was left.
        n_dead: dead cells that were in them.
        removed: files that it took away.
        holders: with `for_consent`, everyone on record who held withdrawn cells.
        kept: as in the plan.
        dry_run: nothing was done.
    """

    snapshot: int | None
    ended: tuple[int, ...]
    n_rewritten: int
    n_dead: int
    removed: Swept
    holders: tuple[Holder, ...]
    kept: Mapping[int, tuple[str, ...]]
    dry_run: bool


def plan_vacuum(
    folder: Path,
    *,
    older_than_ms: int = DAY_MS,
    for_consent: bool = False,
    grace_ms: int = HOUR_MS,
) -> VacuumPlan:
    """What `vacuum` would do now; writes nothing.

    Args:
        folder: the corpus.
        older_than_ms: a snapshot that was the newest less long ago than this stays: who reads it
            is not disturbed. 0 ends all that no tag and no use names.
        for_consent: end besides every snapshot that can still reach something of withdrawn cells,
            whatever names it, and say who held these cells; a tag of such a snapshot goes.
        grace_ms: files that no commit names stay if they are younger.

    Raises:
        DamageError: the corpus is damaged where it is looked at.
    """
    vacuum_ = _Vacuum(folder, older_than_ms, for_consent)
    state = load_table(folder / "cells")
    retention, rewrites = vacuum_.look(state)
    doomed = {rewrite.segment_id for rewrite in rewrites}
    held = held_by(state, [state.version, *retention.kept])
    if state.version not in retention.kept:  # its segments that are written anew end with it
        before = held_by(state, retention.kept)
        emptied = doomed - before.segments.keys()
        touched = _files_with(folder, state, doomed) - before.files.keys()
        held = Held(
            files={name: size for name, size in held.files.items() if name not in touched},
            segments={name: e for name, e in held.segments.items() if name not in emptied},
        )
    leases = live_leases(folder)
    removing = unneeded_segments(folder, state, set(held.segments), spare_staged=bool(leases))
    outlook = Outlook(held=held, removing=frozenset(removing), ended=retention.ended)
    would_remove = sweep(folder, grace_ms=grace_ms, outlook=outlook)
    frees = bool(rewrites or removing or _files_only_of(state, retention, held))
    return VacuumPlan(
        snapshot=state.version,
        kept=retention.kept,
        ended=retention.ended if frees else (),
        rewrites=rewrites,
        would_remove=would_remove,
        holders=vacuum_.holders(state, retention),
        n_leases=len(leases),
    )


def vacuum(
    folder: Path,
    *,
    older_than_ms: int = DAY_MS,
    for_consent: bool = False,
    dry_run: bool = False,
    grace_ms: int = HOUR_MS,
) -> Vacuumed:
    """End snapshots, rewrite segments that hold dead cells, remove what no snapshot needs.

    Snapshots end only where that frees something. Tagged ones stay, those named by a use, and those
    that were the newest less than `older_than_ms` ago; their readers are not disturbed. Run once
    more it does nothing; after a death it goes on.

    Args:
        folder: the corpus.
        older_than_ms: see `plan_vacuum`.
        for_consent: see `plan_vacuum`.
        dry_run: only say what would be done.
        grace_ms: see `plan_vacuum`; less than an hour only where nobody else writes.

    Raises:
        CorpusError: a time is negative.
        ConflictError: other writers were first all the time.
        DamageError: a segment that is to be written anew is damaged; nothing of it is changed.
        StorageError: the disk says no.
    """
    check_format(folder)
    if older_than_ms < 0 or grace_ms < 0:
        raise CorpusError(
            f"older_than_ms is {older_than_ms} and grace_ms {grace_ms}: expected 0 or more"
        )
    if dry_run:
        plan = plan_vacuum(
            folder, older_than_ms=older_than_ms, for_consent=for_consent, grace_ms=grace_ms
        )
        return Vacuumed(
            snapshot=None,
            ended=plan.ended,
            n_rewritten=len(plan.rewrites),
            n_dead=sum(rewrite.n_dead for rewrite in plan.rewrites),
            removed=plan.would_remove,
            holders=plan.holders,
            kept=plan.kept,
            dry_run=True,
        )
    work = _Vacuum(folder, older_than_ms, for_consent)
    versions: list[int] = []
    ended: list[int] = []
    n_rewritten = n_dead = 0
    with lease(folder) as own:
        work.own_lease = own
        for _ in range(_ROUNDS):
            _, rewrites = work.look(load_table(folder / "cells"))
            ready = [prepare(folder, (rewrite.segment_id,)) for rewrite in rewrites]
            version = work.commit([one for one in ready if one is not None])
            if version is None:
                if None not in ready and not work.redo:
                    break
                continue
            versions.append(version)
            ended += work.ended
            n_rewritten += len(work.landed)
            names = {name for one in work.landed for name in one.inputs}
            n_dead += sum(rewrite.n_dead for rewrite in rewrites if rewrite.segment_id in names)
        else:
            raise ConflictError(
                f"{folder}: other writers changed the segments {_ROUNDS} times while they were "
                "written anew; what was done stays: run it again when the corpus is quieter"
            )
        removed = sweep(folder, grace_ms=grace_ms, own_lease=own)
    state = load_table(folder / "cells")
    return Vacuumed(
        snapshot=versions[-1] if versions else None,
        ended=tuple(sorted(ended)),
        n_rewritten=n_rewritten,
        n_dead=n_dead,
        removed=removed,
        holders=tuple(holders_on_record(state.records)) if for_consent else (),
        kept=decide(folder, state, older_than_ms=older_than_ms, for_consent=for_consent).kept,
        dry_run=False,
    )


class _Vacuum:
    """One vacuum, over as many commits as it takes."""

    def __init__(self, folder: Path, older_than_ms: int, for_consent: bool) -> None:
        self.folder, self.older_than_ms, self.for_consent = folder, older_than_ms, for_consent
        self.own_lease: str | None = None
        self.ended: tuple[int, ...] = ()
        self.landed: tuple[Prepared, ...] = ()
        self.redo: tuple[Prepared, ...] = ()

    def look(self, state: TableState) -> tuple[Retention, tuple[Rewrite, ...]]:
        """What becomes of the snapshots, and which segments of the newest are written anew."""
        retention = self._decide(state)
        snapshot = Snapshot.of_state(self.folder, state)
        pinned = held_by(state, retention.lasting).segments
        living = living_cells(snapshot)
        rewrites: list[Rewrite] = []
        for name, entry in snapshot.segments.items():
            n_dead = entry.n_cells - living.get(name, 0)
            if name in retention.tainted or (n_dead and name not in pinned):
                rewrites.append(
                    Rewrite(
                        segment_id=name,
                        n_cells=entry.n_cells,
                        n_dead=n_dead,
                        n_bytes=sum(entry.n_bytes.values()),
                    )
                )
        return retention, tuple(rewrites)

    def holders(self, state: TableState, retention: Retention) -> tuple[Holder, ...]:
        """Who held withdrawn cells: those of snapshots that end now, and those on record."""
        if not self.for_consent:
            return ()
        found = {(h.kind, h.name, h.snapshot): h for h in holders_on_record(state.records)}
        for holder in find_holders(self.folder, state, retention.ended):
            found[holder.kind, holder.name, holder.snapshot] = holder
        return tuple(found.values())

    def commit(self, prepared: list[Prepared]) -> int | None:
        """Say what ends, what takes whose place and what goes; None where nothing is to be said."""
        replacement = Replacement(self.folder, prepared)
        fitting: list[Fitting] = []

        def propose(state: TableState) -> Proposal | None:
            fits = replacement.onto(state)
            fitting[:] = [fits]
            self.redo = fits.redo
            return self._proposal(state, fits, prepared)

        def discard(landed: bool) -> None:
            replacement.discard(fitting[0].adds if landed else ())

        version = commit_and_clear(self.folder / "cells", propose, discard)
        self.landed = fitting[0].landing if version is not None else ()
        return version

    def _proposal(
        self, state: TableState, fits: Fitting, prepared: list[Prepared]
    ) -> Proposal | None:
        retention = self._decide(state)
        account = history.account(state.records)
        stays = held_by(state, retention.kept)
        needed = {*stays.segments, *(one.segment for one in prepared if one.segment)}
        needed |= set(account.segments) - set(fits.replaced)
        staged = live_leases(self.folder, besides=self.own_lease)
        known = history.removing(state.records)
        removing = [
            named
            for named in unneeded_segments(self.folder, state, needed, spare_staged=bool(staged))
            if named not in known
        ]
        newest = {name: size for name, size in state.files.items() if name not in fits.removes}
        held = Held(files={**newest, **stays.files}, segments={})
        if not (fits.landing or removing or _files_only_of(state, retention, held)):
            return None
        self.ended = retention.ended
        found = find_holders(self.folder, state, self.ended) if self.for_consent else []
        return Proposal(
            kind="vacuum",
            body={
                "segments": [entry.to_json() for entry in fits.entries],
                "replaced": list(fits.replaced),
                "n_cells": fits.n_cells,
                "ended": list(self.ended),
                "removing": [list(named) for named in removing],
                "holders": to_values(found),
            },
            adds=fits.adds,
            removes=fits.removes,
        )

    def _decide(self, state: TableState) -> Retention:
        return decide(
            self.folder, state, older_than_ms=self.older_than_ms, for_consent=self.for_consent
        )


def _files_with(folder: Path, state: TableState, segments: Collection[str]) -> set[str]:
    """The files of the newest version that hold rows of some segments."""
    snapshot = Snapshot.of_state(folder, state)
    columns = pa.schema([snapshot.columns.field("segment")])
    with open_engine() as connection:
        found = connection.execute(
            f"SELECT DISTINCT parse_filename(filename) FROM ({select_rows(snapshot.files, columns)}"
            f") WHERE segment IN (SELECT unnest({list_of(segments)}::VARCHAR[]))"
        ).fetchall()
    return {str(name) for (name,) in found}


def _files_only_of(state: TableState, retention: Retention, held: Held) -> bool:
    """Whether snapshots that end hold files of `cells` that no other snapshot does."""
    ending = held_by(state, retention.ended).files
    return bool(set(ending) - set(held.files))
