"""Steps whose gradient is not finite: nothing changes, they are told, and too many end the run."""

import math
from typing import Any

import pytest
import torch
from cytolake.corpus.medians import MediansSet
from cytolake.corpus.vocabularies import Vocabulary
from cytolake.platform.errors import TrainingError
from cytolake.train.engines import UPDATES
from cytolake.train.loop import LeftOut, LoopEnd

from .loop_runs import asked_after, small_run, spoil


@pytest.mark.parametrize("log_seconds", [0, math.inf])
def test_a_step_whose_loss_is_no_number_changes_nothing_and_is_told(
    vocabulary: Vocabulary, medians: MediansSet, log_seconds: float
):
    run = small_run(vocabulary, medians)
    spoil(run, {4, 7})
    left_out: list[LeftOut] = []
    named: list[int] = []

    def tell(steps: LeftOut) -> None:
        left_out.append(steps)
        for place in steps.packs:
            named.extend(run.feed.cell_ids_of(*place))

    end = run.go(save_every=1, log_seconds=log_seconds, report_left_out=tell, stop_after=2)
    assert end == LoopEnd(step=12, why="finished")
    for step in (4, 7):
        for before, after in zip(run.saved[step], run.saved[step + 1], strict=True):
            assert all(torch.equal(before[name], after[name]) for name in before)
    assert [s for told in left_out for s in told.steps] == [4, 7]
    packs = [place for told in left_out for place in told.packs]
    assert {place[0] for place in packs} == {4, 7}
    n_groups = sum(len(run.plan.groups_of(step)[1]) for step in (4, 7))
    assert sorted(named) == sorted([0, 1, 2, 3] * n_groups)  # the ids of every group's four cells
    assert sum(metrics.skipped for metrics in run.metrics) == 2
    assert math.isfinite(run.metrics[-1].loss)
    assert float(run.saved[12][1][UPDATES]) == 10


@pytest.mark.parametrize("log_seconds", [0, math.inf])
def test_so_many_bad_steps_in_a_row_end_the_run_and_save_nothing_more(
    vocabulary: Vocabulary, medians: MediansSet, log_seconds: float
):
    run = small_run(vocabulary, medians)
    spoil(run, {2, 9, 10, 11})
    with pytest.raises(TrainingError, match=r"not finite in 3 steps in a row, up to 12; .*12/"):
        run.go(save_every=4, log_seconds=log_seconds, stop_after=3)
    assert list(run.saved) == [4, 8]


def test_bad_steps_before_a_stop_are_told_and_too_many_of_them_are_not_saved(
    vocabulary: Vocabulary, medians: MediansSet
):
    told: list[LeftOut] = []
    run = small_run(vocabulary, medians)
    spoil(run, {4, 6})
    options: dict[str, Any] = {
        "log_seconds": math.inf,
        "wants_stop": asked_after(7),
        "report_left_out": told.append,
    }
    assert run.go(stop_after=2, **options) == LoopEnd(step=7, why="stopped")
    assert ([t.steps for t in told], run.metrics[0].skipped) == ([(4, 6)], 2)
    worse = small_run(vocabulary, medians)
    spoil(worse, {5, 6})
    options["wants_stop"] = asked_after(7)
    with pytest.raises(TrainingError, match=r"2 steps in a row, up to 7; .*their cells in here"):
        worse.go(stop_after=2, noted_in="here", **options)
    assert worse.saved == {}


def test_bad_steps_are_counted_in_a_row_over_reports(vocabulary: Vocabulary, medians: MediansSet):
    run = small_run(vocabulary, medians)
    spoil(run, {5, 6, 7})
    told: list[LeftOut] = []
    run.go(report_left_out=told.append, stop_after=4)
    assert [t.in_a_row for t in told] == [1, 2, 3]


def test_a_run_resumed_after_a_bad_step_has_the_same_bits(
    vocabulary: Vocabulary, medians: MediansSet
):
    whole = small_run(vocabulary, medians)
    spoil(whole, {2})
    whole.go(save_every=5, stop_after=9)
    resumed = small_run(vocabulary, medians)
    weights, moments = whole.saved[5]
    resumed.objective.load_state_dict(weights)
    resumed.engine.restore(moments, 5)
    resumed.go(start=5)
    for one, other in zip(whole.saved[12], resumed.saved[12], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
