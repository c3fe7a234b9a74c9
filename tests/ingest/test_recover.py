from typing import Any

import numpy as np
import pytest
from cytolake.ingest.recover import recover_counts
from cytolake.platform.errors import NotRawCountsError
from hypothesis import given
from hypothesis import strategies as st


@given(
    counts=st.lists(st.integers(0, 5000), min_size=1, max_size=30),
    rest=st.integers(0, 20_000),
)
def test_counts_come_back_exactly_from_log_values(counts: Any, rest: int):
    total = sum(counts) + rest
    if total == 0:
        return
    values = np.log1p(np.array(counts) / total * 1e4)
    back = recover_counts(values.astype(np.float64), np.full(len(counts), total))
    assert back.tolist() == counts


@given(counts=st.lists(st.integers(0, 60), min_size=1, max_size=30))
def test_values_rounded_to_three_decimals_still_give_the_counts(counts: Any):
    total = max(sum(counts), 1)
    values = np.round(np.log1p(np.array(counts) / total * 1e4), 3)
    # a rounding by 0.0005 moves a count by 0.05 % of itself, and by 0.0005 * total / 1e4
    assert recover_counts(values, np.full(len(counts), total)).tolist() == counts


def test_values_of_another_scale_are_refused_with_the_value():
    with pytest.raises(NotRawCountsError, match=r"value 1\.5 .* n_counts 1000.*0\.2 of an integer"):
        recover_counts(np.array([1.5]), np.array([1000.0]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -3.0, 800.0], ids=str)
def test_what_is_no_log_count_is_refused(value: Any):
    with pytest.raises(NotRawCountsError):
        recover_counts(np.array([value]), np.array([20_000.0]))


def test_a_missing_total_is_refused():
    with pytest.raises(NotRawCountsError):
        recover_counts(np.array([1.0]), np.array([np.nan]))
