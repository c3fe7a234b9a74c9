import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from cytolake.corpus.medians import MediansSet
from cytolake.corpus.vocabularies import Vocabulary
from cytolake.platform.errors import NoCellsError, TrainingError
from cytolake.train.encodings.rank_value import RankValueEncoding
from cytolake.train.engines import TorchEngine
from cytolake.train.feeding import Feed, Plan, plan_of
from cytolake.train.loop import (
    LoopEnd,
    Metrics,
    dropout_seed,
    learning_rate,
    seed_dropout,
    train,
)
from cytolake.train.models.bert import bert_config, fresh_bert
from cytolake.train.objectives.masked_genes import MaskedGenes
from cytolake.train.recipe import OptimizerRecipe

from .conftest import RandomStream

OPTIMIZER = OptimizerRecipe(peak_lr=1e-2, warmup_steps=3, schedule="linear")


@dataclass
class Run:
    """One small training with everything that it said."""

    objective: MaskedGenes
    engine: TorchEngine
    feed: Feed
    plan: Plan
    metrics: list[Metrics] = field(default_factory=list)
    saved: dict[int, Any] = field(default_factory=dict)

    def go(self, *, start: int = 0, **options: Any) -> LoopEnd:
        def save(step: int) -> None:
            weights = {k: v.clone() for k, v in self.objective.state_dict().items()}
            self.saved[step] = (weights, self.engine.moments())

        try:
            return train(
                self.engine,
                self.feed,
                self.plan,
                OPTIMIZER,
                seed=1,
                start=start,
                report=self.metrics.append,
                save=save,
                **({"log_seconds": 0} | options),
            )
        finally:
            self.feed.close()


def small_run(
    vocabulary: Vocabulary, medians: MediansSet, *, dropout: float = 0.1, steps: int = 12
) -> Run:
    config = bert_config(
        vocabulary_size=vocabulary.size,
        length=40,
        layers=2,
        width=16,
        heads=2,
        feed_forward=32,
        hidden_dropout=dropout,
    )
    objective = MaskedGenes(fresh_bert(config, 3), n_special=2, seed=1)
    stream = RandomStream(40, 4)
    plan = plan_of(stream.n_groups, groups_per_step=3, epochs=1, steps=steps)
    encoding = RankValueEncoding(vocabulary, medians, 40)
    feed = Feed(stream, encoding, objective, plan, pack_tokens=100)
    return Run(objective, TorchEngine(objective, OPTIMIZER), feed, plan)


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


def test_what_packs_lost_is_read_when_a_report_is_due_and_not_before(
    vocabulary: Vocabulary, medians: MediansSet, monkeypatch: pytest.MonkeyPatch
):
    reads: list[float] = []
    plainly = torch.Tensor.__float__

    def told(tensor: torch.Tensor) -> float:
        reads.append(plainly(tensor))
        return reads[-1]

    run, each = small_run(vocabulary, medians), small_run(vocabulary, medians)
    each.go()
    monkeypatch.setattr(torch.Tensor, "__float__", told)
    run.go(log_seconds=math.inf)
    assert len(reads) == 12 + 2  # a norm each step; loss and right guesses once
    assert [metrics.step for metrics in run.metrics] == [12]
    assert run.metrics[0].n_cells == sum(metrics.n_cells for metrics in each.metrics)
    assert run.metrics[0].gradient_norm == each.metrics[-1].gradient_norm


def test_a_resumed_run_has_the_same_bits_with_dropout_on(
    vocabulary: Vocabulary, medians: MediansSet
):
    whole = small_run(vocabulary, medians)
    whole.go(save_every=5)
    resumed = small_run(vocabulary, medians)
    weights, moments = whole.saved[5]
    resumed.objective.load_state_dict(weights)
    resumed.engine.restore(moments, 5)
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


def test_a_loss_that_is_no_number_ends_the_run(vocabulary: Vocabulary, medians: MediansSet):
    run = small_run(vocabulary, medians)
    with torch.no_grad():
        run.objective.model.cls.predictions.bias.fill_(math.nan)
    with pytest.raises(TrainingError, match="loss is nan at step 1"):
        run.go()


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
