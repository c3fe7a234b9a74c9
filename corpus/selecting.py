"""From a condition and a part of a split to a selection of cells. Knows SQL; reads no counts.

Rows come from SQL in pieces: a million cells in one table took 0.3 GB, of which 32 MB were kept.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..platform.errors import NoCellsError, RecipeError, did_you_mean
from .bulk import not_apart
from .content import content_keys, from_binary
from .log.snapshots import Snapshot
from .query.sandbox import check_condition, check_query
from .query.sql import SqlEngine
from .splits import DONOR, PART, Split, assign
from .stream import Selection, selection_digest

_ROWS_AT_ONCE = 1 << 14


def select(
    uri: str,
    state: Snapshot,
    engine: SqlEngine,
    *,
    where: str | None,
    split: Split | None,
    part: str | None,
    primary_only: bool,
) -> Selection:
    """Choose cells of a snapshot; see `Corpus.select`.

    Args:
        uri: the corpus, for errors.
        state: the snapshot.
        engine: over the snapshot.
        where: a bare condition; None for all cells.
        split: how the snapshot is cut into parts.
        part: the part wanted.
        primary_only: each content once, and no bulk sample among cells.

    Raises:
        QueryError: the condition is refused or does not run.
        RecipeError: the split has no such part, or its parts overlap.
        NoCellsError: nothing is chosen.
    """
    if (split is None) != (part is None):
        raise RecipeError("a split needs the name of a part, and a part a split")
    condition = "true" if where is None else check_condition(where)
    in_part = _in_part(engine, split, part) if split is not None and part is not None else None
    engine.inner("SELECT 1 AS ready", _views_of(where))  # a Ctrl-C ends the search for duplicates
    found = engine.stream(
        "WITH chosen AS (SELECT cell_id, segment, row, content_hash, n_counts, is_primary "
        f"FROM cells WHERE {condition}) SELECT chosen.*, coalesce(d.primary_id, "
        "chosen.cell_id) AS primary_id FROM chosen LEFT JOIN lake.duplicates d "
        f"ON d.cell_id = chosen.cell_id WHERE is_primary OR {not primary_only}",
        _views_of(where),
        _ROWS_AT_ONCE,
    )
    segment_ids = tuple(state.segments)
    number_of = {name: number for number, name in enumerate(segment_ids)}
    pieces: tuple[list[NDArray[Any]], ...] = ([], [], [], [], [])
    n_of_segment = np.zeros(len(segment_ids), dtype=np.int64)
    for batch in found:
        table = pa.table([*batch.columns], schema=batch.schema)
        piece = _piece(table, number_of)
        n_of_segment += np.bincount(piece[0], minlength=len(segment_ids))
        if in_part is not None:
            here = in_part(table.column("primary_id").to_numpy())
            piece = tuple(column[here] for column in piece)
        for some, column in zip(pieces, piece, strict=True):
            some.append(column)
    columns: list[NDArray[Any]] = []
    for some in pieces:  # one column after the other: the pieces of each go at once
        columns.append(np.concatenate(some or [np.zeros(0, dtype=np.int32)]))
        some.clear()
    n_bulk = 0
    if primary_only and len(columns[0]):
        there = np.flatnonzero(n_of_segment)
        apart = np.zeros(len(segment_ids), dtype=np.bool_)
        apart[there] = not_apart(state, pa.chunked_array([[segment_ids[n] for n in there]]))
        n_bulk = int(n_of_segment[apart].sum())
        if n_bulk:
            here = ~apart[columns[0]]
            columns = [column[here] for column in columns]
    if not len(columns[0]):
        total = engine.inner("SELECT count(*) AS n FROM cells", {"cells"}).column("n")[0].as_py()
        query = f"WHERE {where}" if where else "at all"
        in_part_ = f" in part {part!r}" if part else ""
        raise NoCellsError(
            f"{uri}, snapshot {state.version}: no cell {query}{in_part_}; "
            f"the snapshot has {total} cells"
        )
    # The canonical order: segments by source sha256, then first row of the unit; then rows.
    order = np.lexsort((columns[1], columns[0]))
    for place, column in enumerate(columns):
        columns[place] = column[order]
    segment, row, cell_id, n_counts, hashes = columns
    return Selection(
        segment_ids=segment_ids,
        segment=segment,
        row=row,
        cell_id=cell_id,
        content_key=content_keys(hashes),
        n_counts=n_counts,
        digest=selection_digest(hashes),
        snapshot=state.version,
        where=where,
        part=part,
        primary_only=primary_only,
        n_bulk_left_out=n_bulk,
    )


_Piece = tuple[
    NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]
]
"""Of some cells: number of the segment, row, cell_id, n_counts, hashes of shape (n_cells, 2)."""


def _piece(table: pa.Table, number_of: Mapping[str, int]) -> _Piece:
    held = table.column("segment").combine_chunks().dictionary_encode()
    numbers = np.array([number_of[name] for name in held.dictionary.to_pylist()], dtype=np.int32)
    return (
        numbers[held.indices.to_numpy()],
        # Copies: a view of one column would keep a batch's others alive.
        table.column("row").to_numpy().astype(np.int32),
        table.column("cell_id").to_numpy().copy(),
        table.column("n_counts").to_numpy().copy(),
        from_binary(table.column("content_hash")),
    )


def _in_part(
    engine: SqlEngine, split: Split, part: str
) -> Callable[[NDArray[np.int64]], NDArray[np.bool_]]:
    """Tells of cells, by the ids of their primary cells, which lie in a part."""
    if part not in split.names:
        raise RecipeError(
            f"the split has no part {part!r}{did_you_mean(part, split.names)} "
            f"(parts are {', '.join(split.names)})"
        )
    known = engine.columns("cells")
    for name in split.columns:
        if name not in known:
            raise RecipeError(f"split: cells has no column {name!r}{did_you_mean(name, known)}")
    chosen = ["cell_id", "content_hash", *(f'"{name}"' for name in split.columns)]
    for name, condition in split.parts.items():
        chosen.append(f'{check_condition(condition)} AS "{PART}{name}"')
    views = {view for condition in split.parts.values() for view in _views_of(condition)}
    everything = engine.inner(
        f"SELECT {', '.join(chosen)} FROM cells WHERE is_primary", views | {"cells"}
    )
    shared = None if split.kept_whole is None else _shared(engine, split.kept_whole)
    parts = assign(split, everything, shared)
    ids = np.sort(everything.column("cell_id").to_numpy()[parts == part])

    def is_in(primary_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        places = np.minimum(np.searchsorted(ids, primary_ids), max(len(ids) - 1, 0))
        return ids[places] == primary_ids if len(ids) else np.zeros(len(primary_ids), dtype=bool)

    return is_in


def _shared(engine: SqlEngine, column: str) -> pa.Table:
    """What values of a column have in common: a cell under two of them, and a donor.

    A source that has a cell of another, or a donor, lies on its side.
    """
    selects = [
        "SELECT DISTINCT 'cell ' || coalesce(d.primary_id, c.cell_id) AS what, "
        f'c."{column}" AS value FROM cells c LEFT JOIN lake.duplicates d USING (cell_id) '
        "WHERE coalesce(d.primary_id, c.cell_id) IN (SELECT primary_id FROM lake.duplicates)"
    ]
    if column != DONOR:
        selects.append(
            f"SELECT DISTINCT 'donor ' || {DONOR}, \"{column}\" FROM cells "
            f"WHERE {DONOR} IS NOT NULL"
        )
    union = " UNION ALL ".join(selects)
    return engine.inner(f"SELECT * FROM ({union}) WHERE value IS NOT NULL", {"cells"})


def _views_of(where: str | None) -> set[str]:
    """The views that a condition needs."""
    return {"cells"} if where is None else check_query(f"SELECT 1 FROM cells WHERE (\n{where}\n)")
