import math
from typing import Any

import pytest
import torch
from cytolake.corpus.medians import MediansSet
from cytolake.corpus.vocabularies import Vocabulary
from cytolake.platform.errors import NoCellsError
from cytolake.train.encodings.rank_value import RankValueEncoding
from cytolake.train.feeding import Feed, Plan, plan_of
from cytolake.train.loop import (
    LoopEnd,
    dropout_seed,
    learning_rate,
    seed_dropout,
)
from cytolake.train.recipe import OptimizerRecipe

from .conftest import RandomStream
from .loop_runs import OPTIMIZER, Run, asked_after, small_run


def test_every_cell_is_in_one_step_of_an_epoch():
    plan = plan_of(10, groups_per_step=3, epochs=2)
    assert (plan.steps_per_epoch, plan.n_steps) == (4, 8)
    groups = [group for step in range(4) for group in plan.groups_of(step)[1]]
    assert groups == list(range(10))
    assert plan.groups_of(5) == (1, range(3, 6))
    assert plan.groups_of(7) == (1, range(9, 10))


def test_no_cells_are_refused():
    with pytest.raises(NoCellsError, match="no cells"):
        plan_of(0, groups_per_step=1, epochs=1)


def test_the_learning_rate_rises_then_falls_to_zero():
    rates = [learning_rate(step, 13, OPTIMIZER) / OPTIMIZER.peak_lr for step in range(14)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[8] == pytest.approx(0.5)
    assert rates[13] == 0
    cosine = OPTIMIZER.model_copy(update={"schedule": "cosine"})
    assert learning_rate(8, 13, cosine) == pytest.approx(OPTIMIZER.peak_lr / 2)
    constant = OPTIMIZER.model_copy(update={"schedule": "constant"})
    assert learning_rate(12, 13, constant) == OPTIMIZER.peak_lr
    share = OptimizerRecipe(peak_lr=1e-2, warmup_ratio=3 / 13, schedule="linear")
    assert [learning_rate(step, 13, share) / share.peak_lr for step in range(14)] == rates


def test_the_loss_falls(vocabulary: Vocabulary, medians: MediansSet):
    run = small_run(vocabulary, medians, dropout=0, steps=200)
    assert run.go() == LoopEnd(step=200, why="finished")
    first, last = run.metrics[0], run.metrics[-1]
    assert first.loss == pytest.approx(math.log(vocabulary.size), rel=0.05)
    assert sum(m.loss for m in run.metrics[-20:]) / 20 < first.loss - 0.2
    assert last.step == 200
    assert last.cells_per_s > 0
    assert 0 <= last.data_wait <= 1
    assert list(run.saved) == [200]


def test_the_device_is_read_when_a_report_is_due_and_not_before(
    vocabulary: Vocabulary, medians: MediansSet, monkeypatch: pytest.MonkeyPatch
):
    reads: list[str] = []

    def counted(name: str) -> Any:
        plainly = getattr(torch.Tensor, name)

        def read(tensor: torch.Tensor, *rest: Any) -> Any:
            reads.append(name)
            return plainly(tensor, *rest)

        return read

    run, each = small_run(vocabulary, medians), small_run(vocabulary, medians)
    each.go()
    list(run.feed.work(0).packs)  # what the feed's thread does is no step's
    for name in ("__float__", "__int__", "__bool__", "item", "tolist", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, counted(name))
    works = [run.feed.work(step) for step in range(12)]
    monkeypatch.setattr(run.feed, "work", works.__getitem__)
    reads.clear()
    run.go(log_seconds=math.inf)
    # Losses, right guesses and norms, once, at the end; then the checkpoint's number of updates.
    assert reads == ["tolist"] * 3 + ["__float__"]
    assert [metrics.step for metrics in run.metrics] == [12]
    assert run.metrics[0].n_cells == sum(metrics.n_cells for metrics in each.metrics)
    assert run.metrics[0].gradient_norm == each.metrics[-1].gradient_norm


def cut_at_5(vocabulary: Vocabulary, medians: MediansSet) -> tuple[Run, Run]:
    """A whole run, and another that has its weights and moments after step 5."""
    whole, resumed = (small_run(vocabulary, medians) for _ in range(2))
    whole.go(save_every=5)
    weights, moments = whole.saved[5]
    resumed.objective.load_state_dict(weights)
    resumed.engine.restore(moments, 5)
    return whole, resumed


def test_a_resumed_run_has_the_same_bits_with_dropout_on(
    vocabulary: Vocabulary, medians: MediansSet
):
    whole, resumed = cut_at_5(vocabulary, medians)
    resumed.go(start=5)
    for name, value in whole.saved[12][0].items():
        assert torch.equal(resumed.saved[12][0][name], value), name
    for name, value in whole.saved[12][1].items():
        assert torch.equal(resumed.saved[12][1][name], value), name
    losses = [m.loss for m in whole.metrics if m.step > 5]
    assert [m.loss for m in resumed.metrics] == losses


def test_a_stop_leaves_a_checkpoint_of_the_steps_done(vocabulary: Vocabulary, medians: MediansSet):
    run = small_run(vocabulary, medians)
    end = run.go(wants_stop=lambda: len(run.metrics) == 4)
    assert end == LoopEnd(step=4, why="stopped")
    assert list(run.saved) == [4]


def test_a_stop_tells_the_steps_since_the_last_report_before_it_saves_them(
    vocabulary: Vocabulary, medians: MediansSet
):
    each, run = small_run(vocabulary, medians), small_run(vocabulary, medians)
    each.go()
    run.go(log_seconds=math.inf, wants_stop=asked_after(5))
    assert run.events == [("report", 5), ("save", 5)]
    [told], before = run.metrics, each.metrics[:5]
    assert told.n_cells == sum(metrics.n_cells for metrics in before)
    assert min(m.loss for m in before) < told.loss < max(m.loss for m in before)
    assert told.gradient_norm == before[-1].gradient_norm
    assert told.learning_rate == before[-1].learning_rate


def test_a_stop_before_the_first_step_tells_and_saves_nothing(
    vocabulary: Vocabulary, medians: MediansSet
):
    run = small_run(vocabulary, medians)
    assert run.go(deadline=0.0) == LoopEnd(step=0, why="out of time")
    assert run.events == []


def test_every_checkpoint_comes_after_a_report_of_its_steps(
    vocabulary: Vocabulary, medians: MediansSet
):
    run = small_run(vocabulary, medians)
    run.go(log_seconds=math.inf, save_every=5)
    steps = [step for step in (5, 10, 12) for _ in range(2)]
    assert run.events == list(zip(["report", "save"] * 3, steps, strict=True))


def test_guesses_are_told_of_all_chosen_genes_and_of_those_under_the_mask(
    vocabulary: Vocabulary, medians: MediansSet
):
    run, fresh = (small_run(vocabulary, medians, dropout=0, steps=1) for _ in range(2))
    work = fresh.feed.work(0)
    with torch.no_grad():
        guesses = torch.stack([fresh.objective(pack)[1] for pack in work.packs]).sum(dim=0)
    fresh.feed.close()
    run.go()
    right, mask_right, n_mask = guesses.tolist()
    assert 0 < n_mask < work.n_masked
    assert run.metrics[0].accuracy == right / work.n_masked
    assert run.metrics[0].mask_accuracy == mask_right / n_mask


def test_what_is_left_takes_as_long_a_step_as_the_steps_told_last(
    vocabulary: Vocabulary, medians: MediansSet
):
    run = small_run(vocabulary, medians)
    run.go(log_seconds=math.inf, save_every=5)
    for metrics, n_steps in zip(run.metrics, (5, 5, 2), strict=True):
        seconds = metrics.n_cells / metrics.cells_per_s
        assert metrics.eta_s == pytest.approx((12 - metrics.step) * seconds / n_steps)
    assert [metrics.eta_s > 0 for metrics in run.metrics] == [True, True, False]


def test_a_rank_without_groups_gets_a_pack_of_weight_zero(
    vocabulary: Vocabulary, medians: MediansSet
):
    run = small_run(vocabulary, medians)
    encoding = RankValueEncoding(vocabulary, medians, 40)
    plan = Plan(n_groups=10, groups_per_step=3, n_steps=4)
    feed = Feed(
        RandomStream(40, 4), encoding, run.objective, plan, pack_tokens=99, rank=1, n_ranks=2
    )
    work = feed.work(3)
    feed.close()
    run.feed.close()
    assert (work.n_cells, work.n_masked, len(work.packs)) == (0, 0, 1)


def test_ranks_share_a_steps_packs_without_overlap(vocabulary: Vocabulary, medians: MediansSet):
    run = small_run(vocabulary, medians)
    encoding = RankValueEncoding(vocabulary, medians, 40)

    def places(rank: int, n_ranks: int) -> list[tuple[int, int]]:
        feed = Feed(
            RandomStream(40, 4),
            encoding,
            run.objective,
            run.plan,
            pack_tokens=99,
            rank=rank,
            n_ranks=n_ranks,
        )
        found = list(feed.work(1).places)
        feed.close()
        return found

    run.feed.close()
    assert sorted(places(0, 2) + places(1, 2)) == places(0, 1)


def test_dropout_is_drawn_from_the_step_and_the_pack_alone():
    seeds = {
        dropout_seed(s, step, (g, p))
        for s in (0, 1)
        for step in (0, 1)
        for g in (0, 1)
        for p in (0, 1)
    }
    assert len(seeds) == 16
    assert max(seeds) < 2**63


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_dropout_draws_what_it_draws_after_seeding_all_of_torch(device: str):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    ones = torch.ones(500, device=device)
    for seed in (0, 2**63 - 1, dropout_seed(1, 2, (3, 4))):
        torch.manual_seed(seed)
        expected = torch.nn.functional.dropout(ones, 0.3)
        torch.nn.functional.dropout(ones, 0.3)
        seed_dropout(seed)
        assert torch.equal(torch.nn.functional.dropout(ones, 0.3), expected)


def test_steps_that_are_done_again_are_reported_where_they_were_reported_before(
    vocabulary: Vocabulary, medians: MediansSet
):
    whole, resumed = cut_at_5(vocabulary, medians)
    resumed.go(start=5, reported=(7, 9))
    assert [m.step for m in resumed.metrics] == [7, 9, 10, 11, 12]
    cells = {m.step: m.n_cells for m in whole.metrics}
    expected = [sum(cells[s] for s in steps) for steps in ((6, 7), (8, 9), (10,), (11,), (12,))]
    assert [m.n_cells for m in resumed.metrics] == expected
