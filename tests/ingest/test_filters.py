import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cytolake.ingest.filters import filter_reasons, has_value, unseen_values
from cytolake.ingest.rules import CellFilters
from cytolake.platform.errors import SourceError
from hypothesis import given, settings
from hypothesis import strategies as st


def column(values: Any, kind: Any = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


def says(filters: Any, table: Any) -> list[str]:
    parsed = CellFilters.model_validate(filters)
    return filter_reasons(parsed, pa.table(table), len(next(iter(table.values())))).tolist()


@pytest.mark.parametrize(
    ("values", "kind", "wanted", "found"),
    [
        (["a", "b", None], pa.string(), ["a"], [True, False, False]),
        (["a", "b", None], pa.dictionary(pa.int32(), pa.string()), ["b"], [False, True, False]),
        ([True, False, None], pa.bool_(), ["True"], [True, False, False]),
        (["TRUE", "False", "no"], pa.string(), ["true"], [True, False, False]),
        (["A", "a", ""], pa.string(), ["a"], [False, True, False]),
        ([1, 2, None], pa.int64(), ["1.0"], [True, False, False]),
        ([1.0, 2.5, math.nan], pa.float64(), ["1", "2.5", "nan"], [True, True, False]),
        ([1.0, 2.5], pa.float64(), ["one"], [False, False]),
        ([], pa.string(), ["a"], []),
    ],
    ids=["text", "category", "truth", "truth as text", "case", "integer", "float", "word", "none"],
)
def test_values_are_met_as_a_person_reads_them(values: Any, kind: Any, wanted: Any, found: Any):
    assert has_value(column(values, kind), wanted).tolist() == found


def test_the_answer_for_a_cell_does_not_depend_on_the_cells_beside_it():
    values = [1e6, 0.5, 3.0, None, 1e15]
    wanted = ["1000000", "1e15"]
    whole = has_value(column(values, pa.float64()), wanted).tolist()
    alone = [has_value(column([value], pa.float64()), wanted).tolist()[0] for value in values]
    assert whole == alone == [True, False, False, False, True]


def test_a_cell_bears_the_first_column_that_keeps_it_out():
    table = {
        "qc": ["yes", "no", "yes", None, "yes", "yes"],
        "call": ["one", "two", "two", "one", None, "one"],
        "mito": [0.01, 0.02, 0.03, 0.04, 0.05, None],
    }
    filters = {"keep": {"qc": "yes"}, "drop": {"call": ["two"]}, "max": {"mito": 0.04}}
    out = ["", "filter:qc", "filter:call", "filter:qc", "filter:mito", "filter:mito"]
    assert says(filters, table) == out


@given(
    cells=st.lists(
        st.tuples(st.sampled_from(["x", "y", None]), st.none() | st.integers(-3, 3)),
        min_size=1, max_size=30,
    ),
    keep=st.none() | st.sampled_from([["x"], ["x", "y"], ["z"]]),
    low=st.none() | st.integers(-2, 0),
    high=st.none() | st.integers(0, 2),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_filters_agree_with_a_loop(cells: Any, keep: Any, low: Any, high: Any):
    filters: dict[str, Any] = {}
    filters |= {} if keep is None else {"keep": {"word": keep}}
    filters |= {} if low is None else {"min": {"number": low}}
    filters |= {} if high is None else {"max": {"number": high}}
    expected = []
    for word, number in cells:
        if keep is not None and word not in keep:
            expected.append("filter:word")
        elif low is not None and (number is None or number < low):
            expected.append("filter:number")
        elif high is not None and (number is None or number > high):
            expected.append("filter:number")
        else:
            expected.append("")
    words, numbers = zip(*cells, strict=True)
    table = {"word": pa.array(words, pa.string()), "number": pa.array(numbers, pa.int64())}
    assert says(filters, table) == expected


def test_a_column_of_words_is_held_against_no_number():
    with pytest.raises(SourceError, match="'qc' holds string, expected numbers"):
        says({"min": {"qc": 1}}, {"qc": ["yes"]})
    assert says({"min": {"n": 2}}, {"n": ["1", "2"]}) == ["filter:n", ""]


def test_values_that_no_cell_has_are_counted_and_not_told():
    filters = CellFilters.model_validate({"keep": {"donor": ["Jane", "Jo"]}, "drop": {"qc": "x"}})
    pieces = [pa.table({"donor": ["Jane"], "qc": ["x"]}), pa.table({"donor": ["Al"], "qc": ["y"]})]
    (line,) = unseen_values(filters, pieces)
    assert line == "filters.keep.donor: 1 of 2 values stand in no cell"
    assert np.all(filter_reasons(filters, pieces[1], 1) == "filter:donor")
