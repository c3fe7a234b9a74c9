"""Scores: what they refuse and how they read."""

import pytest
from cytolake.evaluate.scores import Score, scores_table
from cytolake.platform.errors import EvaluationError


def a_score(low: float, high: float) -> Score:
    return Score(
        name="macro-F1",
        model="checkpoint",
        value=0.5,
        low=low,
        high=high,
        unit="donors",
        n=5,
        method="by hand",
    )


def test_a_score_reads_with_its_interval_unit_and_number():
    assert a_score(0.25, 0.75).text == "0.500 [0.250, 0.750], 5 donors"


def test_a_score_without_an_interval_says_so():
    assert a_score(float("nan"), float("nan")).text == "0.500 (no interval: 5 donors)"


def test_an_interval_turned_around_is_refused():
    with pytest.raises(EvaluationError, match="turned around"):
        a_score(0.75, 0.25)


def test_a_table_of_scores_has_one_row_a_score():
    table = scores_table([a_score(0.1, 0.9), a_score(0.2, 0.8)])
    assert table.column("low").to_pylist() == [0.1, 0.2]
    assert table.num_rows == 2


def test_a_table_of_no_scores_keeps_its_columns():
    assert scores_table([]).column_names[0] == "name"
