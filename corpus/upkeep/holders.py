"""Who holds withdrawn cells: the runs, screens, exports and tags that a vacuum for consent names.

Knows uses, tags and conditions; removes nothing. What is found stands in the vacuum's record, so
that it is told again when the files that told it are gone.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...platform.errors import CytolakeError
from ..log import history
from ..log.chain import Record, TableState, state_at
from ..log.snapshots import Snapshot
from ..log.tags import tags
from ..log.tombstones import read_tombstones
from ..query.sandbox import check_condition, check_query
from ..query.sql import SqlEngine
from ..query.uses import Use, uses


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """A use or a tag whose snapshot could reach withdrawn cells.

    Attributes:
        kind: pretrain, evaluate, export, embed, or tag.
        name: of the run, the file or the tag.
        snapshot: that it names.
        n_cells: withdrawn cells that it held.
        whole_snapshot: `n_cells` is of the whole snapshot, the most that it can be: what exactly
            was chosen from it can no longer be told, or was not put on record.
        uri: where what was made of the cells lies.
    """

    kind: str
    name: str
    snapshot: int
    n_cells: int
    whole_snapshot: bool
    uri: str = ""


def find_holders(folder: Path, state: TableState, versions: Collection[int]) -> list[Holder]:
    """The uses and tags of some snapshots, and how many withdrawn cells each of them held.

    Args:
        folder: the corpus.
        state: the newest version of `cells`.
        versions: snapshots that are about to be ended and whose files are still there.
    """
    tombstones = read_tombstones(folder, history.withdrawals(state.records))
    ids = np.unique(tombstones.column("cell_id").to_numpy())
    if not ids.size:
        return []
    engines: dict[int, SqlEngine] = {}

    def count(version: int, where: str | None) -> int:
        if version not in engines:
            at = state if version == state.version else state_at(state, version)
            engines[version] = SqlEngine(Snapshot.of_state(folder, at))
        condition, views = "true", {"cells"}
        if where is not None:
            condition = check_condition(where)
            views |= check_query(f"SELECT 1 FROM cells WHERE {condition}")
        query = f"SELECT cell_id FROM cells WHERE {condition}"
        chosen = engines[version].inner(query, views).column("cell_id").to_numpy()
        return int(np.isin(ids, chosen).sum())

    found = [_of_use(use, count) for use in uses(folder) if use.snapshot in versions]
    found += [
        Holder(
            kind="tag",
            name=tag.name,
            snapshot=tag.snapshot,
            n_cells=count(tag.snapshot, None),
            whole_snapshot=True,
        )
        for tag in tags(folder).values()
        if tag.snapshot in versions
    ]
    return found


def holders_on_record(records: Sequence[Record]) -> list[Holder]:
    """What all vacuums for consent have found, oldest first."""
    found: dict[tuple[str, str, int], Holder] = {}
    for record in records:
        if record.kind == "vacuum":
            for values in record.body.get("holders", ()):
                holder = Holder(**values)
                found[holder.kind, holder.name, holder.snapshot] = holder
    return list(found.values())


def to_values(holders: Sequence[Holder]) -> list[dict[str, Any]]:
    """For a record."""
    return [asdict(holder) for holder in holders]


def _of_use(use: Use, count: Any) -> Holder:
    whole = not use.is_exact or use.part is not None
    n_cells = None
    if use.is_exact:
        try:
            n_cells = count(use.snapshot, use.where)
        except CytolakeError:  # a column or a word that there is no more
            whole = True
    return Holder(
        kind=use.kind,
        name=use.name,
        snapshot=use.snapshot,
        n_cells=count(use.snapshot, None) if n_cells is None else n_cells,
        whole_snapshot=whole,
        uri=use.uri,
    )
