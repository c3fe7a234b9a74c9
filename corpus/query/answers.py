"""A query's answer for a person, a pipe or a file. Knows no corpus and no query."""

import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ...platform.errors import QueryError
from ...platform.screen import remarks, results, table
from ...platform.storage import write_durably

FORMS = ("table", "csv", "json", "parquet")


def hand_over(answer: pa.Table, form: str, output: Path | None) -> None:
    """Print an answer, or write it to a file.

    Args:
        answer: the rows.
        form: `table` for a person (a file gets CSV), or a form of `serialise`.
        output: the file; standard output where None.

    Raises:
        QueryError: as in `serialise`.
    """
    if form not in FORMS:
        raise QueryError(f"format {form!r}: expected {', '.join(FORMS)}")
    if form == "table" and output is None:
        results().print(table(answer.to_pylist(), answer.column_names))
        return
    data = serialise(answer, "csv" if form == "table" else form)
    if output is None:
        sys.stdout.buffer.write(data)
    else:
        write_durably(output, data)
        remarks().print(f"{output}: {answer.num_rows:,} rows", soft_wrap=True)


def serialise(answer: pa.Table, form: str) -> bytes:
    """Write an answer in a form that other programs read.

    Args:
        answer: the rows.
        form: `csv` (a header, NULL as nothing), `json` (an array of objects) or `parquet`;
            bytes become hexadecimal digits in the first two.

    Raises:
        QueryError: no such form, or one that cannot hold the answer's types.
    """
    target = io.BytesIO()
    try:
        if form == "csv":
            pacsv.write_csv(_with_hexadecimals(answer), target)
        elif form == "parquet":
            pq.write_table(answer, target, write_page_checksum=True)
        elif form == "json":
            rows = json.dumps(answer.to_pylist(), default=_as_json, indent=1)
            target.write(rows.encode() + b"\n")
        else:
            raise QueryError(f"format {form!r}: expected csv, json or parquet")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise QueryError(
            f"the answer cannot be written as {form}: {error}; cast the column in the query, or "
            "use parquet"
        ) from error
    return target.getvalue()


def _with_hexadecimals(answer: pa.Table) -> pa.Table:
    for at, field in enumerate(answer.schema):
        if pa.types.is_binary(field.type) or pa.types.is_fixed_size_binary(field.type):
            values = answer.column(at).to_pylist()
            digits = pa.array([None if v is None else v.hex() for v in values], pa.string())
            answer = answer.set_column(at, field.name, digits)
    return answer


def _as_json(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)
