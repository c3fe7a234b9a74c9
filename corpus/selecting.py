"""From a condition and a part of a split to a selection of cells. Knows SQL; reads no counts."""

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
    table = engine.inner(
        "WITH chosen AS (SELECT cell_id, segment, row, content_hash, n_counts, is_primary "
        f"FROM cells WHERE {condition}) SELECT chosen.*, coalesce(d.primary_id, "
        "chosen.cell_id) AS primary_id FROM chosen LEFT JOIN lake.duplicates d "
        f"ON d.cell_id = chosen.cell_id WHERE is_primary OR {not primary_only}",
        _views_of(where),
    )
    n_chosen = table.num_rows
    if primary_only:
        table = table.filter(pa.array(~not_apart(state, table.column("segment"))))
    n_bulk = n_chosen - table.num_rows
    if split is not None and part is not None:
        table = table.filter(pa.array(_is_in(engine, split, part, table)))
    if not table.num_rows:
        total = engine.inner("SELECT count(*) AS n FROM cells", {"cells"}).column("n")[0].as_py()
        query = f"WHERE {where}" if where else "at all"
        in_part = f" in part {part!r}" if part else ""
        raise NoCellsError(
            f"{uri}, snapshot {state.version}: no cell {query}{in_part}; "
            f"the snapshot has {total} cells"
        )
    # The canonical order: segments by source sha256, then first row of the unit; then rows.
    segment_ids = tuple(state.segments)
    number_of = {name: number for number, name in enumerate(segment_ids)}
    held = table.column("segment").combine_chunks().dictionary_encode()
    numbers = np.array([number_of[name] for name in held.dictionary.to_pylist()])
    segment, row = numbers[held.indices.to_numpy()], table.column("row").to_numpy()
    order = np.lexsort((row, segment))
    hashes = from_binary(table.column("content_hash"))[order]
    return Selection(
        segment_ids=segment_ids,
        segment=segment[order].astype(np.int32),
        row=row[order].astype(np.int32),
        cell_id=table.column("cell_id").to_numpy()[order],
        content_key=content_keys(hashes),
        n_counts=table.column("n_counts").to_numpy()[order],
        digest=selection_digest(hashes),
        snapshot=state.version,
        where=where,
        part=part,
        primary_only=primary_only,
        n_bulk_left_out=n_bulk,
    )


def _is_in(engine: SqlEngine, split: Split, part: str, table: pa.Table) -> NDArray[np.bool_]:
    """Which of the cells lie in a part: through their primary cells."""
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
    ids = everything.column("cell_id").to_numpy()[parts == part]
    return np.isin(table.column("primary_id").to_numpy(), ids)


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
