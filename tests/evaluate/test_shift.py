"""Shift against loops in plain Python, and what a distance must be."""

import math
from typing import Any

import numpy as np
import pytest
from cytolake.evaluate.perturbation.shift import pools_without_each, shift
from cytolake.platform.errors import EvaluationError
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

states = hnp.arrays(np.float64, (3, 4), elements=st.floats(-1e3, 1e3))


def slow_shift(before: NDArray[Any], after: NDArray[Any]) -> float:
    length = [math.sqrt(sum(x * x for x in state)) for state in (before, after)]
    return 0.5 * sum(
        (x / length[0] - y / length[1]) ** 2 for x, y in zip(before, after, strict=True)
    )


def usable(state: NDArray[Any]) -> bool:
    return bool((np.abs(state).max(axis=1) > 1e-3).all())


@given(states, states)
def test_shift_is_half_the_squared_distance_of_unit_vectors(
    before: NDArray[Any], after: NDArray[Any]
):
    assume(usable(before) and usable(after))
    expected = [slow_shift(*pair) for pair in zip(before, after, strict=True)]
    assert shift(before, after) == pytest.approx(expected, abs=1e-12)


@given(states, states)
def test_shift_is_symmetric_and_between_0_and_2(before: NDArray[Any], after: NDArray[Any]):
    assume(usable(before) and usable(after))
    found = shift(before, after)
    assert (found >= 0).all()
    assert (found <= 2 + 1e-12).all()
    assert np.array_equal(found, shift(after, before))


@given(states, states, st.floats(1e-6, 1e6))
def test_shift_does_not_see_the_length_of_a_state(
    before: NDArray[Any], after: NDArray[Any], scale: float
):
    assume(usable(before) and usable(after))
    assert shift(before * scale, after) == pytest.approx(shift(before, after), abs=1e-12)


def test_a_small_move_keeps_its_digits():
    before = np.array([[1.0, 0.0]])
    after = np.array([[1.0, 1e-7]])
    # 1 - cos of this angle is 5e-15; written as 1 - cosine float64 keeps one digit of it.
    assert shift(before, after) == pytest.approx([5e-15], rel=1e-6)


def test_float32_states_are_compared_in_float64():
    before = np.array([[1.0, 1.0, 1.0]], dtype=np.float32)
    after = before + np.array([[0.0, 0.0, 1e-5]], dtype=np.float32)
    expected = shift(before.astype(np.float64), after.astype(np.float64))
    assert np.array_equal(shift(before, after), expected)


@given(hnp.arrays(np.float32, (6, 3), elements=st.floats(-10, 10, width=32)))
def test_the_pool_without_a_gene_is_the_mean_of_the_other_genes(hidden: NDArray[Any]):
    genes = np.array([1, 2, 3, 4])  # positions 0 and 5 hold special tokens
    found = pools_without_each(hidden, genes, genes)
    for row, gene in enumerate(genes):
        others = [hidden[other].astype(float) for other in genes if other != gene]
        assert found[row] == pytest.approx(sum(others) / 3, abs=1e-9)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_state_without_a_direction_is_refused(bad: float):
    with pytest.raises(EvaluationError, match="cell state 1 is zero or not finite"):
        shift(np.array([[1.0], [bad]]), np.ones((2, 1)))


def test_states_of_other_shapes_are_refused():
    with pytest.raises(EvaluationError, match="two equal"):
        shift(np.ones((2, 3)), np.ones((3, 3)))
