"""A list of scores is a part of the page: each with its interval, or said to have none."""

import pytest
from cytolake.evaluate.report import ScoreList
from cytolake.evaluate.scores import Score
from cytolake.platform.page import Section, render_report

HOSTILE = "<script>alert('x')</script> & \"y\""


def a_score(model: str, value: float, low: float, high: float) -> Score:
    return Score(
        name=HOSTILE,
        model=model,
        value=value,
        low=low,
        high=high,
        unit="donors",
        n=5,
        method=HOSTILE,
    )


@pytest.fixture
def page() -> str:
    scores = (a_score("ours", 0.5, 0.4, 0.6), a_score(HOSTILE, 0.7, float("nan"), float("nan")))
    part = ScoreList(scores=scores, caption=HOSTILE)
    return render_report(title="t", sections=[Section(title="s", parts=(part,))])


def test_scores_read_with_interval_and_without(page: str):
    assert "0.500 [0.400, 0.600], 5 donors" in page
    assert "0.700 (no interval: 5 donors)" in page
    assert page.count('class="interval"') == 1


def test_names_models_and_methods_are_escaped(page: str):
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 5  # name, model, two methods, caption


def test_scores_of_one_name_share_a_panel(page: str):
    assert page.count('<table class="panel">') == 1
    assert page.count("<circle") == 2
