"""Cells taken out of the corpus, by a condition: deleted, or withdrawn for ever.

Knows rows, conditions and tombstones; touches no array. A deleted cell is in no newer snapshot, and
its counts stay on disk, for the older ones, until a vacuum. A withdrawn cell is besides refused in
every older snapshot, and a source that is ingested again comes without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...platform.errors import CorpusError
from ...platform.storage import discard
from ..log import history
from ..log.chain import TableState, load_table
from ..log.ledger import NewFile, Proposal, commit_and_clear
from ..log.rewriting import Rewriter
from ..log.snapshots import UUID, check_format
from ..log.tombstones import read_tombstones, tombstones_of, write_tombstones
from ..query.conditions import choose_gone, choose_living, n_equal_elsewhere, shape_of
from ..query.sandbox import check_condition


@dataclass(frozen=True, kw_only=True, slots=True)
class Deleted:
    """The outcome of a deletion.

    Attributes:
        snapshot: the snapshot that it made; None where nothing was left to do, or in a dry run.
        n_cells: living cells that it took out, or would.
        n_tombstones: cells that it withdrew, or would: living ones and ones deleted earlier.
        n_equal_elsewhere: living cells of equal counts that the condition did not choose; they
            stay, and their owner may want to know.
    """

    snapshot: int | None
    n_cells: int
    n_tombstones: int
    n_equal_elsewhere: int


def delete(folder: Path, where: str, *, dry_run: bool = False) -> Deleted:
    """Take the cells that a condition chooses out of the newest snapshot; older ones keep them.

    Args:
        folder: the corpus.
        where: a bare condition over the view `cells`; it may ask the other views. It is answered
            on the very version that the commit builds on.
        dry_run: only count.

    Raises:
        QueryError: the condition is refused or does not run.
        ConflictError: other writers were first all the time.
        DamageError: a file that it needs is damaged.
        StorageError: the disk says no; nothing is changed.
    """
    check_format(folder)
    check_condition(where)
    return _take_out(_Deletion(folder, where), dry_run=dry_run)


def withdraw(folder: Path, where: str, reason: str, *, dry_run: bool = False) -> Deleted:
    """Take cells out for ever: a consent ended.

    The condition is asked of all cells that are still on disk. A living cell is chosen by what it
    says now; a cell that was deleted earlier by what it said in any snapshot.

    Args:
        folder: the corpus.
        where: as in `delete`.
        reason: stands in the log, and in the error of whoever opens a snapshot that holds the
            cells: it should name no person.
        dry_run: only count.

    Raises:
        CorpusError: the reason is blank.
        QueryError: the condition is refused or does not run.
        ConflictError: other writers were first all the time.
        DamageError: a file that it needs is damaged.
        StorageError: the disk says no; nothing is changed.
    """
    check_format(folder)
    check_condition(where)
    if not reason.strip():
        raise CorpusError(
            "a withdrawal needs a reason, which the log keeps: for example 'consent ended'"
        )
    return _take_out(_Withdrawal(folder, where, reason.strip()), dry_run=dry_run)


class _Deletion:
    """Proposes a deletion to one version after the other."""

    kind = "delete"

    def __init__(self, folder: Path, where: str) -> None:
        self.folder, self.where = folder, where
        self.n_cells = self.n_tombstones = self.n_equal_elsewhere = 0
        self._remover = Rewriter(folder / "cells")
        self._kept: Sequence[NewFile] = ()

    def look(self, state: TableState) -> pa.Table:
        """Choose and count; the living cells that are to go."""
        chosen = choose_living(self.folder, state, self.where)
        self.n_cells = chosen.num_rows
        self.n_equal_elsewhere = n_equal_elsewhere(state, chosen) if chosen.num_rows else 0
        return chosen

    def propose(self, state: TableState) -> Proposal | None:
        chosen = self.look(state)
        if not self.n_cells and not self.n_tombstones:
            return None
        rewritten = self._remover.apply(state, chosen.select(["cell_id"]), state.columns)
        self._kept = rewritten.adds
        return Proposal(
            kind=self.kind,
            body=self.body(state),
            adds=rewritten.adds,
            removes=rewritten.removes,
        )

    def body(self, state: TableState) -> dict[str, Any]:
        """What the record says."""
        return {"condition": shape_of(self.where, state.columns), "n_cells": self.n_cells}

    def discard(self, landed: bool) -> None:
        """Take away the files that no commit names."""
        self._remover.discard(self._kept if landed else ())


class _Withdrawal(_Deletion):
    """A deletion that leaves tombstones."""

    kind = "withdraw"

    def __init__(self, folder: Path, where: str, reason: str) -> None:
        super().__init__(folder, where)
        self.reason = reason
        self._ending = pa.table({})
        self._written: tuple[pa.Table, NewFile] | None = None

    def look(self, state: TableState) -> pa.Table:
        living = choose_living(self.folder, state, self.where)
        gone = choose_gone(self.folder, state, self.where)
        known = read_tombstones(self.folder, history.withdrawals(state.records))
        both = pa.concat_tables([living, gone])
        ids, known_ids = (t.column("cell_id").to_numpy() for t in (both, known))
        self._ending = both.filter(pa.array(~np.isin(ids, known_ids))).sort_by("cell_id")
        self.n_cells, self.n_tombstones = living.num_rows, self._ending.num_rows
        self.n_equal_elsewhere = n_equal_elsewhere(state, both) if both.num_rows else 0
        return living

    def body(self, state: TableState) -> dict[str, Any]:
        tombstones = self._tombstones(state)
        said = {"reason": self.reason, "tombstones": [tombstones.name, tombstones.n_bytes]}
        return super().body(state) | said

    def discard(self, landed: bool) -> None:
        super().discard(landed)
        if self._written is not None and not landed:
            discard(self.folder / "withdrawn" / self._written[1].name)

    def _tombstones(self, state: TableState) -> NewFile:
        """The file that lists them; what an earlier round wrote is used again if it is the same."""
        if self._written is not None:
            ending, file = self._written
            if ending.column("cell_id").equals(self._ending.column("cell_id")):
                return file
            discard(self.folder / "withdrawn" / file.name)
        tombstones = tombstones_of(self._ending, state.properties[UUID])
        self._written = (self._ending, write_tombstones(self.folder, tombstones))
        return self._written[1]


def _take_out(writer: _Deletion, *, dry_run: bool) -> Deleted:
    version = None
    if dry_run:
        writer.look(load_table(writer.folder / "cells"))
    else:
        version = commit_and_clear(writer.folder / "cells", writer.propose, writer.discard)
    return Deleted(
        snapshot=version,
        n_cells=writer.n_cells,
        n_tombstones=writer.n_tombstones,
        n_equal_elsewhere=writer.n_equal_elsewhere,
    )
