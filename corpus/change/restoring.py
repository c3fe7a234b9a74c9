"""An earlier snapshot's cells made the newest again: by a commit of their own, nothing is undone.

Knows versions and files; touches no array. The files of the earlier snapshot come back under the
names they have, those that came since go out. Cells that were withdrawn since stay out; columns
that came since stay, empty for the cells that came before them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...platform.errors import CorpusError, DamageError, WithdrawnError
from ...platform.places import is_there
from ..log import history
from ..log.chain import TableState, load_table
from ..log.history import Account
from ..log.ledger import NewFile, Proposal, commit_and_clear
from ..log.rewriting import Rewriter
from ..log.snapshots import check_format
from ..log.tombstones import read_tombstones


@dataclass(frozen=True, kw_only=True, slots=True)
class Restored:
    """The outcome of a restoration.

    Attributes:
        snapshot: the snapshot that it made; None where the newest holds these cells already.
        n_cells: cells in it.
        n_withdrawn: cells of the earlier snapshot that were withdrawn since and left out.
    """

    snapshot: int | None
    n_cells: int
    n_withdrawn: int


def restore(folder: Path, snapshot: int) -> Restored:
    """Make a new snapshot that holds what an earlier one held.

    Args:
        folder: the corpus.
        snapshot: the number of the earlier one.

    Raises:
        CorpusError: there is no such snapshot, or a vacuum has ended it.
        WithdrawnError: every cell of it was withdrawn since.
        DamageError: a segment that it needs is not there.
        ConflictError: other writers were first all the time.
        StorageError: the disk says no; nothing is changed.
    """
    check_format(folder)
    writer = _Restoration(folder, snapshot)
    version = commit_and_clear(folder / "cells", writer.propose, writer.discard)
    return Restored(snapshot=version, n_cells=writer.n_cells, n_withdrawn=writer.n_withdrawn)


class _Restoration:
    """Proposes a restoration to one version after the other."""

    def __init__(self, folder: Path, snapshot: int) -> None:
        self.folder, self.snapshot = folder, snapshot
        self.remover = Rewriter(folder / "cells")
        self.kept: tuple[NewFile, ...] = ()
        self.n_cells = self.n_withdrawn = 0

    def discard(self, landed: bool) -> None:
        """Take away the files that no commit names."""
        self.remover.discard(self.kept if landed else ())

    def propose(self, state: TableState) -> Proposal | None:
        vacuum = history.ended(state.records).get(self.snapshot)
        if vacuum is not None:
            raise CorpusError(
                f"{self.folder}: snapshot {self.snapshot} was ended by the vacuum that made "
                f"snapshot {vacuum.version}: its cells are no longer there to restore"
            )
        last = state.records[-1]
        if last.kind == "restore" and last.body["snapshot"] == self.snapshot:  # told once more
            self.n_cells, self.n_withdrawn = last.body["n_cells"], last.body["n_withdrawn"]
            return None
        then = load_table(state.folder, self.snapshot)
        before = history.account(state.records[: self.snapshot + 1])
        _check_segments(self.folder, before)
        wanted = self._files(state, then)
        removes = sorted(set(state.files) - set(wanted))
        adds = [new for name, new in sorted(wanted.items()) if name not in state.files]
        if not removes and not adds and _same(before, history.account(state.records)):
            return None
        return Proposal(
            kind="restore",
            body={
                "snapshot": self.snapshot,
                "n_cells": self.n_cells,
                "n_withdrawn": self.n_withdrawn,
            },
            adds=adds,
            removes=removes,
        )

    def _files(self, state: TableState, then: TableState) -> Mapping[str, NewFile]:
        """The files that hold the earlier cells, less those withdrawn since."""
        later = [w for w in history.withdrawals(state.records) if w.snapshot > self.snapshot]
        files = {
            name: NewFile(name=name, n_bytes=size, n_rows=then.rows[name])
            for name, size in then.files.items()
        }
        n_cells_then = sum(then.rows.values())
        if later:
            gone = read_tombstones(self.folder, later).select(["cell_id"])
            rewritten = self.remover.apply(then, gone, state.columns)
            self.kept = rewritten.adds
            for name in rewritten.removes:
                del files[name]
            files |= {new.name: new for new in rewritten.adds}
        self.n_cells = sum(new.n_rows for new in files.values())
        self.n_withdrawn = n_cells_then - self.n_cells
        if self.n_withdrawn and not self.n_cells:
            raise WithdrawnError(
                f"{self.folder}: every one of the {self.n_withdrawn} cells of snapshot "
                f"{self.snapshot} was withdrawn since: there is nothing to restore"
            )
        return files


def _check_segments(folder: Path, account: Account) -> None:
    for segment_id in account.segments:
        path = folder / "segments" / segment_id / "segment.json"
        if not is_there(path):
            raise DamageError(
                f"{path} is missing, and the snapshot needs it: restore it from a copy"
            )


def _same(one: Account, other: Account) -> bool:
    """Whether two snapshots say the same of sources and segments."""
    hashes = [
        {name: source.receipt.sha256 for name, source in account.sources.items()}
        for account in (one, other)
    ]
    return hashes[0] == hashes[1] and set(one.segments) == set(other.segments)
