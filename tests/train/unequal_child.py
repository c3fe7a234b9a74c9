"""One rank of a few steps over very unequal cells; says norms, losses, weights and moments.

    python -m tests.train.unequal_child FOLDER ENGINE...

With RANK and WORLD_SIZE set it is one of several. Rank 0 has nearly all cells; in every second
step the last rank has none at all. An ENGINE is `torch`, `deepspeed-0` or `deepspeed-1`. With each
of them each of the `TRIALS` begins anew; FOLDER/ENGINE-RANK.safetensors holds what this rank saw.
"""

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cytolake.corpus.medians import MediansSet
from cytolake.corpus.vocabularies import Vocabulary
from cytolake.train.encodings.rank_value import RankValueEncoding
from cytolake.train.engines import Engine, TorchEngine, n_ranks, this_rank
from cytolake.train.feeding import Feed, plan_of
from cytolake.train.loop import LeftOut, Metrics, train
from cytolake.train.models.bert import bert_config, fresh_bert
from cytolake.train.objectives.masked_genes import MaskedGenes
from cytolake.train.recipe import OptimizerRecipe
from safetensors.torch import save_file
from torch import distributed

from .conftest import gene_names, random_cells

SIZES = ((14, 1), (9,))
"""Cells of each group of each step: what rank 0 has, then rank 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A short training: its clipping, its passes over the cells, and what spoils it.

    Attributes:
        clip: largest norm of a gradient; 0 for any.
        epochs: passes of two steps each.
        spoiled: the step, from 0, in which rank 0's loss is infinite; none where below 0.
    """

    clip: float
    epochs: int = 1
    spoiled: int = -1


TRIALS = {
    "plain": Trial(clip=0.0),
    "clipped": Trial(clip=0.05),
    "spoiled": Trial(clip=0.05, epochs=2, spoiled=1),
}


class UnequalStream:
    """Two groups for the first step, one for the second."""

    n_groups = 3

    def group(self, epoch: int, index: int) -> list[object]:
        del epoch
        sizes = [size for step in SIZES for size in step]
        return [random_cells(sizes[index], seed=index)]


class Spoiling:
    """An engine whose loss on rank 0 is infinite in one step."""

    def __init__(self, engine: Engine, step: int) -> None:
        self._engine, self._spoiled, self._done = engine, step, 0

    def forward(self, prepared: object) -> tuple[torch.Tensor, torch.Tensor]:
        loss, guesses = self._engine.forward(prepared)
        spoils = self._done == self._spoiled and this_rank() == 0
        return (loss * math.inf if spoils else loss), guesses

    def step(self, learning_rate: float) -> torch.Tensor:
        self._done += 1
        return self._engine.step(learning_rate)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def tried(engine_name: str, trial: Trial) -> dict[str, torch.Tensor]:
    """What this rank sees of a trial."""
    genes = tuple(gene_names())
    vocabulary = Vocabulary(gene_ids=genes)
    medians = MediansSet(gene_ids=genes, medians=torch.linspace(1, 2, len(genes)).numpy())
    config = bert_config(
        vocabulary_size=vocabulary.size,
        length=40,
        layers=1,
        width=16,
        heads=2,
        feed_forward=16,
        hidden_dropout=0.1,
    )
    objective = MaskedGenes(fresh_bert(config, 3).train(), n_special=2, seed=1)
    recipe = OptimizerRecipe(peak_lr=1e-3, warmup_steps=0, schedule="constant", clip=trial.clip)
    if engine_name == "torch":
        engine: Engine = TorchEngine(objective, recipe)
    else:
        from cytolake.train.deepspeed_engine import DeepSpeedStepper

        engine = DeepSpeedStepper(objective, recipe, int(engine_name[-1]))
    plan = plan_of(3, groups_per_step=2, epochs=trial.epochs)
    feed = Feed(
        UnequalStream(),  # type: ignore[arg-type]
        RankValueEncoding(vocabulary, medians, 40),
        objective,
        plan,
        pack_tokens=80,
        rank=this_rank(),
        n_ranks=n_ranks(),
    )
    told: list[Metrics] = []
    left_out: list[LeftOut] = []
    found: dict[str, torch.Tensor] = {}

    def keep(step: int) -> None:
        held = {f"weights/{name}": value for name, value in objective.state_dict().items()}
        held |= {f"moments/{name}": value for name, value in engine.moments().items()}
        found.update({f"{step}/{name}": value.clone() for name, value in held.items()})

    try:
        train(
            Spoiling(engine, trial.spoiled),
            feed,
            plan,
            recipe,
            seed=1,
            log_seconds=0,
            report=told.append,
            report_left_out=left_out.append,
            stop_after=2,
            save=keep,
            save_every=1,
        )
    finally:
        feed.close()
    steps = [step for each in left_out for step in each.steps]
    packs = [list(place) for each in left_out for place in each.packs]
    return found | {
        "norms": torch.tensor([metrics.gradient_norm for metrics in told]).double(),
        "losses": torch.tensor([metrics.loss for metrics in told]).double(),
        "left_out": torch.tensor(steps, dtype=torch.int64),
        "bad_packs": torch.tensor(packs, dtype=torch.int64).reshape(-1, 3),
    }


def main(folder: Path, *engine_names: str) -> None:
    torch.set_num_threads(1)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        distributed.init_process_group("gloo")
    for engine_name in engine_names:
        found = {
            f"{name}/{key}": value
            for name, trial in TRIALS.items()
            for key, value in tried(engine_name, trial).items()
        }
        save_file(found, folder / f"{engine_name}-{this_rank()}.safetensors")
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
