"""Tables of annotations out of files: csv, tsv, parquet. Knows columns; knows no corpus.

A text file says no types: what names a cell and what a corpus holds as text stays text, whatever it
looks like; another column is read as whole numbers, decimals or true/false only where every value
is written as one, and an id such as `007` is not.
"""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ...platform.errors import CorpusError
from ...platform.storage import sha256_file
from ..schema import CELL_COLUMNS

_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_WHOLE = r"-?(0|[1-9][0-9]{0,17})"
_DECIMAL = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?"
_TRUTH = r"([Tt]rue|TRUE|[Ff]alse|FALSE)"
_PATTERNS = ((_WHOLE, pa.int64()), (_DECIMAL, pa.float64()), (_TRUTH, pa.bool_()))


def origin_of(path: Path) -> str:
    """What the log says of a file of annotations: its name and its bytes' SHA-256."""
    return f"{path.name} sha256 {sha256_file(path)}"


def read_annotations(path: Path, known: pa.Schema = CELL_COLUMNS) -> pa.Table:
    """Read a table with a row per cell.

    Args:
        path: `.csv`, `.tsv` (either may end in `.gz`) or `.parquet`.
        known: the corpus's columns: a text file's columns of these names get these types.

    Raises:
        CorpusError: there is no such file, it is no such table, or a value does not fit.
    """
    endings = [ending.lower() for ending in path.suffixes if ending.lower() != ".gz"]
    ending = endings[-1] if endings else ""
    try:
        if ending in (".parquet", ".pq"):
            return pq.read_table(path, memory_map=False)
        if ending in _DELIMITERS:
            return _typed(path, _read_text(path, _DELIMITERS[ending]), known)
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{path} cannot be read as a table of cells: {error}") from error
    raise CorpusError(f"{path}: a table of cells ends in .csv, .tsv (also .gz) or .parquet")


def _read_text(path: Path, delimiter: str) -> pa.Table:
    """Every column as text; only what is empty is NULL: "NA" may be a name."""
    parse = pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    with pacsv.open_csv(path, parse_options=parse) as reader:
        names = reader.schema.names
    convert = pacsv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )
    return pacsv.read_csv(path, parse_options=parse, convert_options=convert)


def _typed(path: Path, table: pa.Table, known: pa.Schema) -> pa.Table:
    columns: list[pa.ChunkedArray | pa.Array] = []
    for name in table.column_names:
        column = table.column(name)
        kind = known.field(name).type if name in known.names else _kind_of(column)
        try:
            nothing = pa.types.is_null(kind)
            columns.append(pa.nulls(len(column)) if nothing else column.cast(kind))
        except pa.ArrowInvalid as error:
            raise CorpusError(
                f"{path}: column {name!r} is {kind} in the corpus, and a value is not: {error}"
            ) from error
    return pa.table(columns, names=table.column_names)


def _kind_of(column: pa.ChunkedArray) -> pa.DataType:
    if column.null_count == len(column):
        return pa.null()
    values = [value for value in column.unique().to_pylist() if value is not None]
    for pattern, kind in _PATTERNS:
        if all(re.fullmatch(pattern, value) for value in values):
            return kind
    return pa.string()
