"""Columns of cells filled in from a table: by `cell_id`, or by source and barcode.

Knows the columns of `cells` and tables; touches no array. A cell keeps what it has where the table
says nothing of it: NULL, an empty text and NaN are no values. Only what really changes is written,
so the same annotation a second time finds nothing to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ...platform.errors import CorpusError, NoCellsError
from ..log.chain import TableState, load_table
from ..log.ledger import NewFile, Proposal, commit_and_clear
from ..log.rewriting import Rewriter
from ..log.rows import open_engine, quote, select_rows
from ..log.snapshots import check_format
from ..schema import ANNOTATIONS, CELL_COLUMNS, lifted_columns

_BY_ID, _BY_BARCODE = ("cell_id",), ("source_id", "barcode")
_KEYS = pa.schema([CELL_COLUMNS.field(name) for name in (*_BY_ID, *_BY_BARCODE)])
_COMPUTED = ("is_primary", "filename", "source_sha256")
"""Names that mean something else in the views, or while rows are read."""
_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotated:
    """The outcome of an annotation.

    Attributes:
        snapshot: the snapshot that it made; None where nothing was left to do, or in a dry run.
        n_cells: living cells that the table names.
        n_changed: cells of which a value changed, or would.
        n_unknown: rows of the table that name no living cell.
        columns: that the table may fill.
    """

    snapshot: int | None
    n_cells: int
    n_changed: int
    n_unknown: int
    columns: tuple[str, ...]


def annotate(folder: Path, table: pa.Table, *, origin: str, dry_run: bool = False) -> Annotated:
    """Fill columns of the cells that a table names.

    A column of `schema.ANNOTATIONS` or a lifted one is filled; a name that `cells` does not have is
    a new column. What a cell is and what was measured of it cannot be changed.

    Args:
        folder: the corpus.
        table: a row per cell, named by `cell_id`, or else by `source_id` and `barcode`; its other
            columns are the values. The answer of a query is such a table.
        origin: where the values come from, for the log: a file's name and hash
            (`annotation_files.origin_of`), or "sql".
        dry_run: only count.

    Raises:
        CorpusError: the table has no key or names a cell twice, a column cannot be filled or is
            of another type, or barcodes stand for several cells.
        NoCellsError: no row names a living cell.
        ConflictError: other writers were first all the time.
        DamageError: a file that it needs is damaged.
        StorageError: the disk says no; nothing is changed.
    """
    check_format(folder)
    writer = _Annotator(folder, table, origin)
    version = None
    if dry_run:
        writer.look(load_table(folder / "cells"))
    else:
        version = commit_and_clear(folder / "cells", writer.propose, writer.discard)
    return Annotated(
        snapshot=version,
        n_cells=writer.n_cells,
        n_changed=writer.n_changed,
        n_unknown=table.num_rows - writer.n_cells,
        columns=tuple(writer.columns.names),
    )


class _Annotator:
    """Proposes an annotation to one version after the other."""

    def __init__(self, folder: Path, table: pa.Table, origin: str) -> None:
        self.origin = origin
        self.n_cells = self.n_changed = 0
        self._keys = _key_of(table)
        keys = _keys_only(table, self._keys)
        values = _values(table.drop_columns(list(self._keys)))
        self.columns: pa.Schema = values.schema
        for name in self._keys:
            values = values.append_column(keys.schema.field(name), keys.column(name))
        self._given = _without_blanks(values)
        new_values = {
            name: f"coalesce(x.{quote(name)}, c.{quote(name)})" for name in self.columns.names
        }
        self._rewriter = Rewriter(folder / "cells", new_values)
        self._kept: Sequence[NewFile] = ()

    def look(self, state: TableState) -> pa.Table:
        """Choose and count: `cell_id` and the new values of the cells that change.

        Raises:
            CorpusError: a type differs from the table's, or barcodes stand for several cells.
            NoCellsError: no row names a living cell.
        """
        given = self._typed(state.columns)
        wanted = [*_KEYS, *(self._columns_of(state).field(name) for name in self.columns.names)]
        files = {state.folder / name: size for name, size in state.files.items()}
        rows = select_rows(files, pa.schema(wanted))
        using = ", ".join(map(quote, self._keys))
        changes = " OR ".join(
            f"(g.{name} IS NOT NULL AND g.{name} IS DISTINCT FROM c.{name})"
            for name in map(quote, self.columns.names)
        )
        values = ", ".join(f"g.{name}" for name in map(quote, self.columns.names))
        with open_engine() as connection:
            connection.register("g", given)
            [counted] = connection.execute(
                "SELECT count(*), count(*) FILTER (n > 1), coalesce(sum(n) FILTER (n > 1), 0) FROM "
                f"(SELECT count(*) AS n FROM ({rows}) c JOIN g USING ({using}) GROUP BY {using})"
            ).fetchall()
            self.n_cells, n_ambiguous, n_meant = map(int, counted)
            if n_ambiguous:
                raise CorpusError(
                    f"{n_ambiguous} rows of the table stand for {n_meant} cells, for their source "
                    "keeps cells of one barcode apart: name the cells by cell_id"
                )
            if not self.n_cells:
                raise NoCellsError(self._none_found(state))
            changed = connection.sql(
                f"SELECT c.cell_id, {values} FROM ({rows}) c JOIN g USING ({using}) WHERE {changes}"
            ).to_arrow_table()
        self.n_changed = changed.num_rows
        return changed

    def propose(self, state: TableState) -> Proposal | None:
        changed = self.look(state)
        if not self.n_changed:
            return None
        columns = self._columns_of(state)
        rewritten = self._rewriter.apply(state, changed, columns)
        self._kept = rewritten.adds
        return Proposal(
            kind="annotate",
            body={
                "columns": self.columns.names,
                "origin": self.origin,
                "n_cells": self.n_changed,
            },
            adds=rewritten.adds,
            removes=rewritten.removes,
            columns=[columns.field(name) for name in self.columns.names],
        )

    def discard(self, landed: bool) -> None:
        """Take away the files that no commit names."""
        self._rewriter.discard(self._kept if landed else ())

    def _columns_of(self, state: TableState) -> pa.Schema:
        """The table's columns, and the new ones."""
        new = [field for field in self.columns if field.name not in state.columns.names]
        return pa.schema([*state.columns, *new])

    def _typed(self, columns: pa.Schema) -> pa.Table:
        """The given rows, if their types are the table's.

        Raises:
            CorpusError: a type is another one.
        """
        for field in self.columns:
            if field.name in columns.names and columns.field(field.name).type != field.type:
                raise CorpusError(
                    f"column {field.name!r} is {field.type} here and "
                    f"{columns.field(field.name).type} in the corpus: convert it, or give it "
                    "another name"
                )
        return self._given

    def _none_found(self, state: TableState) -> str:
        given = self._given.select(list(self._keys)).slice(0, _EXAMPLES).to_pylist()
        examples = "; ".join(", ".join(str(value) for value in row.values()) for row in given)
        n_living = sum(state.rows.values())
        return (
            f"none of the {self._given.num_rows} rows names a cell of the corpus by "
            f"{' and '.join(self._keys)} (the first: {examples}); the corpus has {n_living} cells: "
            f"`SELECT {', '.join(self._keys)} FROM cells LIMIT {_EXAMPLES}` shows how it names them"
        )


def _key_of(table: pa.Table) -> tuple[str, ...]:
    names = set(table.column_names)
    if len(names) < table.num_columns:
        twice = next(name for name in table.column_names if table.column_names.count(name) > 1)
        raise CorpusError(f"the table has two columns {twice!r}: leave one out")
    for keys in (_BY_ID, _BY_BARCODE):
        if names.issuperset(keys):
            return keys
    raise CorpusError(
        f"the table has no cell_id, nor source_id and barcode, that would name its cells; it has "
        f"{', '.join(table.column_names) or 'no column'}"
    )


def _keys_only(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """The key columns, typed, complete and each key once.

    Raises:
        CorpusError: they are not.
    """
    columns: list[pa.ChunkedArray] = []
    for name in names:
        column, kind = table.column(name), _KEYS.field(name).type
        if not _may_be(column.type, kind):
            raise CorpusError(
                f"the key {name!r} is {column.type}, expected {kind}: read it as it is written"
            )
        columns.append(column.cast(kind))
        if n_missing := columns[-1].null_count:
            raise CorpusError(
                f"{n_missing} rows have no {name}: give each row its cell, or drop it"
            )
    keys = pa.table(columns, names=list(names))
    counted = keys.group_by(list(names)).aggregate([([], "count_all")])
    twice = counted.filter(pa.array(counted.column("count_all").to_numpy() > 1))
    if twice.num_rows:
        rows = twice.slice(0, _EXAMPLES).select(list(names)).to_pylist()
        examples = "; ".join(", ".join(str(value) for value in row.values()) for row in rows)
        raise CorpusError(
            f"{twice.num_rows} cells stand in several rows of the table ({examples}): which is "
            "right? Give each cell one row"
        )
    return keys


def _may_be(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_integer(wanted):
        return pa.types.is_integer(found)
    return pa.types.is_string(found) or pa.types.is_large_string(found)


def _values(table: pa.Table) -> pa.Table:
    """The columns to fill, in the types they are stored in.

    Raises:
        CorpusError: a column cannot be filled, or there is none.
    """
    closed = {*CELL_COLUMNS.names, *_COMPUTED} - set(ANNOTATIONS.names)
    for name in table.column_names:
        if name.lower() in closed:
            raise CorpusError(
                f"the column {name!r} says what a cell is or what was measured of it, and cannot "
                "be filled: leave it out"
            )
        taken = [known for known in CELL_COLUMNS.names if known.lower() == name.lower()]
        if taken and taken[0] != name:
            raise CorpusError(f"the column {name!r} is called {taken[0]!r} in a corpus: rename it")
    stated = [
        table.schema.field(name)
        for name in table.column_names
        if not pa.types.is_null(table.schema.field(name).type)
    ]
    if not stated:
        raise CorpusError(
            "the table has no column to fill in beside those that name the cells"
            + (f": {', '.join(table.column_names)} hold nothing" if table.num_columns else "")
        )
    table = table.select([field.name for field in stated])
    lifted = lifted_columns(table)
    fields: list[pa.Field] = []
    columns: list[pa.ChunkedArray] = []
    for field in stated:
        name = field.name
        wanted = ANNOTATIONS.field(name) if name in ANNOTATIONS.names else lifted.field(name)
        if name in ANNOTATIONS.names and not _may_be(field.type, wanted.type):
            raise CorpusError(
                f"column {name!r} is {field.type} here and {wanted.type} in the corpus: convert it"
            )
        try:
            column = table.column(name).cast(wanted.type)
        except pa.ArrowInvalid as error:
            raise CorpusError(f"column {name!r} does not fit {wanted.type}: {error}") from error
        fields.append(wanted)
        columns.append(column)
    return pa.table(columns, schema=pa.schema(fields))


def _without_blanks(table: pa.Table) -> pa.Table:
    """NULL for what says nothing: an empty text, NaN."""
    chosen: list[str] = []
    for field in table.schema:
        name = quote(field.name)
        if pa.types.is_string(field.type):
            chosen.append(f"CASE WHEN trim({name}) <> '' THEN {name} END AS {name}")
        elif pa.types.is_floating(field.type):
            chosen.append(f"CASE WHEN NOT isnan({name}) THEN {name} END AS {name}")
        else:
            chosen.append(name)
    with open_engine() as connection:
        connection.register("given", table)
        rows = connection.sql(f"SELECT {', '.join(chosen)} FROM given").to_arrow_table()
    return rows.cast(table.schema)
