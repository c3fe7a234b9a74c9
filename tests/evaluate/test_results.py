"""What an answer says of itself, on a terminal, in text and in the report."""

import io
import math

import pyarrow as pa
import pytest
from cytolake.evaluate.results import EvaluationResult, compare, counted, joined
from cytolake.evaluate.scores import Score
from cytolake.platform.page import render_report
from matplotlib.figure import Figure
from rich.console import Console


def difference(value: float, low: float, high: float) -> Score:
    return Score(
        name="macro-F1 gained by the checkpoint",
        model="logistic regression",
        value=value,
        low=low,
        high=high,
        unit="donors",
        n=5,
        method="by hand",
    )


@pytest.fixture
def result() -> EvaluationResult:
    return EvaluationResult(
        task="finetune",
        verdict="It is behind.",
        scores=(difference(-0.1, -0.2, -0.05),),
        tables={"folds": pa.table({"held out": ["d1"], "cells": [12]})},
        figures={"finetune": Figure(figsize=(1, 1))},
        notes=("cells, not donors: optimistic",),
    )


def test_a_difference_whose_interval_holds_0_is_no_difference():
    assert compare(difference(0.1, 0.05, 0.2)) == "ahead of it by 0.100 [0.050, 0.200]"
    assert compare(difference(-0.1, -0.2, -0.05)) == "behind it by 0.100 [0.050, 0.200]"
    assert compare(difference(0.1, -0.1, 0.2)).startswith("not told apart from it")
    assert "without an interval" in compare(difference(0.1, math.nan, math.nan))


def test_a_terminal_a_text_and_a_page_say_the_same(result: EvaluationResult):
    screen = Console(width=120, record=True, file=io.StringIO())
    for part in result.shown():
        screen.print(part)
    page = render_report(title="A page", sections=[result.section()])
    for said in (screen.export_text(), result.to_text(), page):
        assert "It is behind." in said
        assert "-0.100 [-0.200, -0.050], 5 donors" in said
        assert "cells, not donors: optimistic" in said
    assert "d1" in page


def test_a_score_is_found_by_name_and_model(result: EvaluationResult):
    assert result.score("macro-F1 gained by the checkpoint", "logistic regression").n == 5
    with pytest.raises(KeyError):
        result.score("macro-F1", "logistic regression")


def test_words_are_counted_and_joined():
    assert (counted(1, "cell"), counted(1200, "cell")) == ("1 cell", "1,200 cells")
    assert joined(["a", "b", "c"]) == "a, b and c"
    assert (joined(["a"]), joined([])) == ("a", "")
