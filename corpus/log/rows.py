"""The rows of `cells` as DuckDB reads them: one SELECT over some of the table's files.

Knows file names and columns; knows no commit. A file is held against its name, its bytes' SHA-256,
before it is read: DuckDB does not verify Parquet's checksums.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ..payload.integrity import check_file
from ..schema import CELL_COLUMNS


def select_rows(files: Mapping[Path, int], columns: pa.Schema) -> str:
    """A SELECT of all columns and `filename`; a column that an older file lacks is NULL.

    Args:
        files: the table's files -> their bytes.
        columns: the table's columns.

    Raises:
        DamageError: a file is missing or its bytes are others.
    """
    for path, n_bytes in files.items():
        check_file(path, n_bytes, path.stem)
    if not files:
        nulls = (f"NULL::{_duckdb_type(column.type)} AS {quote(column.name)}" for column in columns)
        return f"SELECT {', '.join(nulls)}, ''::VARCHAR AS filename WHERE false"
    held = set(columns.names)
    if lifted := held - _always_there(columns):
        held -= lifted - {name for path in files for name in pq.read_schema(path).names}
    chosen = ", ".join(
        quote(column.name)
        if column.name in held
        else f"NULL::{_duckdb_type(column.type)} AS {quote(column.name)}"
        for column in columns
    )
    names = list_of(str(path) for path in files)
    return (
        f"SELECT {chosen}, filename FROM read_parquet({names}, union_by_name = true, "
        "filename = true)"
    )


def open_engine() -> duckdb.DuckDBPyConnection:
    """A DuckDB of our own, for files of ours: it installs nothing and replaces nothing."""
    connection = duckdb.connect(":memory:")
    connection.execute("SET autoinstall_known_extensions = false")
    connection.execute("SET autoload_known_extensions = false")
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute("SET enable_progress_bar = false")  # it would go to standard output
    return connection


def quote(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def list_of(values: Iterable[str]) -> str:
    """Texts as an SQL list."""
    return "[" + ", ".join(map(literal, values)) + "]"


def _always_there(columns: pa.Schema) -> set[str]:
    return set(CELL_COLUMNS.names) & set(columns.names)


def _duckdb_type(kind: pa.DataType) -> str:
    if pa.types.is_binary(kind):
        return "BLOB"
    if pa.types.is_int64(kind):
        return "BIGINT"
    if pa.types.is_int32(kind):
        return "INTEGER"
    if pa.types.is_floating(kind):
        return "DOUBLE"
    return "BOOLEAN" if pa.types.is_boolean(kind) else "VARCHAR"
