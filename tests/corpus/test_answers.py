"""Answers: the same rows come back from every form."""

import io
import json

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from cytolake.corpus.query.answers import serialise
from cytolake.platform.errors import QueryError

ANSWER = pa.table({"cell_type": ["T cell", None], "n": [3, 4], "mean": [0.5, 1.25]})


def test_csv_and_parquet_and_json_hold_the_rows() -> None:
    assert pq.read_table(io.BytesIO(serialise(ANSWER, "parquet"))) == ANSWER
    assert json.loads(serialise(ANSWER, "json")) == ANSWER.to_pylist()
    read = pacsv.read_csv(
        io.BytesIO(serialise(ANSWER, "csv")),
        convert_options=pacsv.ConvertOptions(strings_can_be_null=True),
    )
    assert read == ANSWER


def test_bytes_become_hexadecimal_in_json_and_csv() -> None:
    answer = pa.table({"content_hash": pa.array([b"\x01\xff"], pa.binary(2))})
    assert json.loads(serialise(answer, "json")) == [{"content_hash": "01ff"}]
    assert serialise(answer, "csv") == b'"content_hash"\n"01ff"\n'


def test_an_unknown_form_and_a_type_that_csv_cannot_hold_are_refused() -> None:
    with pytest.raises(QueryError, match="expected csv, json or parquet"):
        serialise(ANSWER, "xml")
    with pytest.raises(QueryError, match="cast the column"):
        serialise(pa.table({"genes": [["a", "b"]]}), "csv")
