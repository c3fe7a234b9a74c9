"""Metrics against slow obvious versions, scikit-learn and scipy."""

import math
from typing import Any

import numpy as np
import pytest
from cytolake.evaluate.metrics import (
    bootstrap,
    cross_entropies,
    macro_f1,
    one_vs_rest_auc,
    ranks_of_truth,
    ratio_score,
    spearman,
    sums_by_unit,
)
from cytolake.platform.errors import EvaluationError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score


def slow_rank(row: NDArray[Any], truth: int) -> int:
    order = sorted(range(len(row)), key=lambda k: (-row[k], k))
    return order.index(truth)


@given(
    hnp.arrays(np.float32, (4, 6), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])),
    hnp.arrays(np.int64, 4, elements=st.integers(0, 5)),
)
def test_the_rank_of_the_truth_is_its_place_in_a_stable_sort(
    scores: NDArray[Any], truth: NDArray[Any]
):
    expected = [slow_rank(row, label) for row, label in zip(scores, truth, strict=True)]
    assert ranks_of_truth(scores, truth).tolist() == expected


def test_cross_entropy_by_hand():
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    found = cross_entropies(logits, np.array([0, 1]))
    assert found == pytest.approx([math.log(2), math.log(10)], abs=1e-12)


@given(
    hnp.arrays(np.float32, (3, 5), elements=st.floats(-50, 50, width=32)),
    st.floats(-100, 100, width=32),
)
def test_cross_entropy_does_not_change_when_a_constant_is_added(
    logits: NDArray[Any], constant: float
):
    truth = np.array([0, 2, 4])
    moved = logits.astype(np.float64) + constant
    assert cross_entropies(moved, truth) == pytest.approx(cross_entropies(logits, truth), abs=1e-6)


def test_large_float32_logits_do_not_overflow():
    found = cross_entropies(np.array([[3e4, -3e4]], dtype=np.float32), np.array([1]))
    assert found == pytest.approx([6e4])


@given(
    hnp.arrays(np.int64, 30, elements=st.integers(0, 4)),
    hnp.arrays(np.int64, 30, elements=st.integers(0, 4)),
)
def test_macro_f1_is_that_of_scikit_learn(truth: NDArray[Any], predicted: NDArray[Any]):
    expected = f1_score(truth, predicted, average="macro")
    assert macro_f1(truth, predicted) == pytest.approx(expected, abs=1e-12)


def test_one_vs_rest_auc_is_that_of_scikit_learn():
    generator = np.random.default_rng(3)
    truth = generator.integers(0, 4, 200)
    scores = generator.dirichlet(np.ones(4), 200).round(1)  # rounded: with ties
    expected = np.mean([roc_auc_score(truth == k, scores[:, k]) for k in range(4)])
    assert one_vs_rest_auc(truth, scores) == pytest.approx(expected, abs=1e-12)


def test_a_class_without_a_cell_has_no_area_and_is_left_out():
    truth = np.array([0, 0, 1, 1])
    scores = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.3, 0.7, 0.0], [0.2, 0.8, 0.0]])
    assert one_vs_rest_auc(truth, scores) == 1.0
    assert math.isnan(one_vs_rest_auc(np.zeros(4, dtype=int), scores))


@given(
    hnp.arrays(np.float64, 12, elements=st.integers(-5, 5).map(float)),
    hnp.arrays(np.float64, 12, elements=st.integers(-5, 5).map(float)),
)
def test_spearman_is_that_of_scipy_and_nan_where_a_side_is_constant(
    first: NDArray[Any], second: NDArray[Any]
):
    found = spearman(first, second)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert math.isnan(found)
    else:
        expected: Any = stats.spearmanr(first, second)
        assert found == pytest.approx(expected.statistic, abs=1e-12)


def test_five_donors_get_the_classical_t_interval_of_a_mean():
    values = np.array([0.7, 0.8, 0.75, 0.9, 0.6])
    score = bootstrap(
        lambda units: float(values[units].mean()), 5, name="f", model="m", unit="donors", seed=0
    )
    reach = stats.t.ppf(0.975, 4) * values.std(ddof=1) / math.sqrt(5)
    assert (score.low, score.high) == pytest.approx((0.75 - reach, 0.75 + reach))
    assert "jackknife over donors" in score.method


def test_many_units_are_bootstrapped_and_the_same_seed_gives_the_same_bits():
    values = np.random.default_rng(0).normal(size=200)

    def interval(seed: int) -> tuple[float, float]:
        mean = bootstrap(
            lambda units: float(values[units].mean()),
            200,
            name="mean",
            model="m",
            unit="cells",
            seed=seed,
        )
        return mean.low, mean.high

    assert interval(1) == interval(1) != interval(2)
    expected = values.mean() + np.array([-1.96, 1.96]) * values.std() / math.sqrt(200)
    assert interval(1) == pytest.approx(expected, abs=0.02)


def test_one_unit_gives_a_value_and_no_interval():
    score = bootstrap(lambda _: 0.4, 1, name="f", model="m", unit="donors", seed=0)
    assert score.value == 0.4
    assert math.isnan(score.low)
    assert score.method == "no interval: one unit"


def test_no_unit_is_refused():
    with pytest.raises(EvaluationError, match="no donors to score"):
        bootstrap(lambda _: 0.0, 0, name="f", model="m", unit="donors", seed=0)


def test_a_ratio_weighs_each_unit_by_its_positions():
    sums, counts = sums_by_unit(np.array([1.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1]), 2)
    assert (sums.tolist(), counts.tolist()) == ([1.0, 2.0], [2, 2])
    score = ratio_score(sums, counts, name="top-1", model="m", unit="donors", seed=0)
    assert score.value == 0.75


@pytest.mark.parametrize("truth", [np.array([3]), np.array([-1])], ids=["too large", "negative"])
def test_a_label_outside_the_classes_is_refused(truth: NDArray[Any]):
    with pytest.raises(EvaluationError, match="labels run from"):
        ranks_of_truth(np.zeros((1, 3)), truth)


def test_scores_and_labels_of_other_lengths_are_refused():
    with pytest.raises(EvaluationError, match="one row a label"):
        cross_entropies(np.zeros((2, 3)), np.array([0]))
    with pytest.raises(EvaluationError, match="at least one"):
        macro_f1(np.array([], dtype=int), np.array([], dtype=int))
    with pytest.raises(EvaluationError, match="not paired"):
        spearman(np.zeros(3), np.zeros(4))
