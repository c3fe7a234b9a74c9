"""The sources' own columns side by side: which tables may share one file, and how they are joined.

Knows tables; knows no segment. Names that differ by case alone are one column, as in SQL. Values
stay what they are: only a type that holds all of the other's values exactly may replace it.
"""

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from ...platform.errors import CorpusError

Columns = Mapping[str, pa.DataType]
"""Lower-case name -> type, of all tables that are joined."""

TAKEN = {"_file", "file_row_number"}
"""Names that SQL needs for itself when it reads the tables of many segments at once."""


def storable(table: pa.Table) -> pa.Table:
    """A source's own columns as they are stored: a `TAKEN` name gets a `_` at its end.

    One such column in one source would else stop every query of the view `source_obs`.
    """
    names: list[str] = list(table.column_names)
    for place, name in enumerate(names):
        if name.lower() in TAKEN:
            renamed = f"{name}_"
            while renamed in names:
                renamed += "_"
            names[place] = renamed
    return table if names == table.column_names else table.rename_columns(names)


def columns_of(schema: pa.Schema) -> dict[str, pa.DataType] | None:
    """The columns of one table; None where it has two whose names differ by case alone."""
    found = {field.name.lower(): _plain(field.type) for field in schema}
    return found if len(found) == len(schema) else None


def joined(one: Columns, other: Columns) -> dict[str, pa.DataType] | None:
    """The columns of both; None where a column's types do not fit each other."""
    both = dict(one)
    for name, kind in other.items():
        common = _common(both.get(name, kind), kind)
        if common is None:
            return None
        both[name] = common
    return both


def plain(table: pa.Table) -> pa.Table:
    """The same values without dictionaries: what a category is coded as differs by table."""
    schema = pa.schema([pa.field(field.name, _plain(field.type)) for field in table.schema])
    return table.cast(schema) if len(schema) else table


def same(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables hold the same, bit by bit: NaN is equal to itself here."""
    return one.schema.equals(other.schema) and all(
        _bits(a).equals(_bits(b)) for a, b in zip(one.columns, other.columns, strict=True)
    )


def join(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables one under the other; a column that a table lacks is NULL there.

    Raises:
        CorpusError: they do not fit each other.
    """
    if all(table.schema.equals(tables[0].schema) for table in tables):
        return pa.concat_tables(tables)
    columns: dict[str, pa.DataType] = {}
    for table in tables:
        own = columns_of(table.schema)
        both = None if own is None else joined(columns, own)
        if both is None:
            raise CorpusError(
                f"the sources' own columns {table.schema.names} do not fit those of the others: "
                "their segments cannot be mixed"
            )
        columns = both
    names: dict[str, str] = {}
    for table in tables:
        for name in table.column_names:
            names.setdefault(name.lower(), name)
    schema = pa.schema([pa.field(names[name], kind) for name, kind in columns.items()])
    return pa.concat_tables([in_columns(table, schema) for table in tables])


def in_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table's values under the names and types of a joined one; what it lacks is NULL."""
    if table.schema.equals(schema):
        return table
    place = {name.lower(): i for i, name in enumerate(table.column_names)}
    arrays = [
        table.column(place[field.name.lower()]).cast(field.type)
        if field.name.lower() in place
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    # A table without columns has rows all the same, which only its first column would tell.
    return pa.table(arrays, schema=schema) if len(schema) else table


def fit_together(schemas: Iterable[pa.Schema]) -> bool:
    """Whether `join` takes tables of these schemas."""
    given = list(schemas)
    if all(schema.equals(given[0]) for schema in given):
        return True
    columns: dict[str, pa.DataType] | None = {}
    for schema in given:
        own = columns_of(schema)
        columns = None if own is None or columns is None else joined(columns, own)
    return columns is not None


def _bits(column: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    if not pa.types.is_floating(column.type):
        return column
    whole = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[column.type.bit_width]
    return column.combine_chunks().view(whole)


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.string() if pa.types.is_large_string(kind) else kind


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """A type that holds every value of both exactly; None where there is none."""
    if one.equals(other) or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if all(pa.types.is_integer(kind) and not pa.types.is_uint64(kind) for kind in (one, other)):
        return pa.int64()
    if all(pa.types.is_floating(kind) for kind in (one, other)):
        return pa.float64()
    return None
