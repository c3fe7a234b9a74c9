"""Small trainings of random cells through the loop, for its tests: no corpus, no folder."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from cytolake.corpus.medians import MediansSet
from cytolake.corpus.vocabularies import Vocabulary
from cytolake.train.encodings.rank_value import RankValueEncoding
from cytolake.train.engines import TorchEngine
from cytolake.train.feeding import Feed, Plan, plan_of
from cytolake.train.loop import LoopEnd, Metrics, train
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
    events: list[tuple[str, int]] = field(default_factory=list)

    def go(self, *, start: int = 0, **options: Any) -> LoopEnd:
        def save(step: int) -> None:
            weights = {k: v.clone() for k, v in self.objective.state_dict().items()}
            self.saved[step] = (weights, self.engine.moments())
            self.events.append(("save", step))

        def report(metrics: Metrics) -> None:
            self.metrics.append(metrics)
            self.events.append(("report", metrics.step))

        try:
            return train(
                self.engine,
                self.feed,
                self.plan,
                OPTIMIZER,
                seed=1,
                start=start,
                report=report,
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


def asked_after(n_steps: int) -> Any:
    """What asks for a stop once so many steps are done."""
    asked = iter(range(99))
    return lambda: next(asked) >= n_steps


class Spoiled:
    """An engine whose loss is no number in some steps."""

    def __init__(self, engine: TorchEngine, steps: set[int], packs_a_step: list[int]) -> None:
        self._engine, self._steps, self._seen = engine, steps, 0
        self._borders = [sum(packs_a_step[: n + 1]) for n in range(len(packs_a_step))]

    def forward(self, prepared: object) -> tuple[torch.Tensor, torch.Tensor]:
        loss, guesses = self._engine.forward(prepared)
        step = next(n for n, border in enumerate(self._borders) if self._seen < border)
        self._seen += 1
        return (loss * math.nan if step in self._steps else loss), guesses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def spoil(run: Run, steps: set[int]) -> None:
    works = [run.feed.work(step) for step in range(run.plan.n_steps)]
    run.engine = Spoiled(run.engine, steps, [len(w.packs) for w in works])  # type: ignore[assignment]
