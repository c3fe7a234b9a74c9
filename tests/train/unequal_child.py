"""One rank of two steps over very unequal cells; says the gradients' norms and the new weights.

    python -m tests.train.unequal_child ENGINE OUT [--clip CLIP]

With RANK and WORLD_SIZE set it is one of several. Rank 0 has nearly all cells; in the second step
the last rank has none at all. ENGINE is `torch`, `deepspeed-0` or `deepspeed-1`.
"""

import os
import sys
from pathlib import Path

import torch
from cytolake.corpus.medians import MediansSet
from cytolake.corpus.vocabularies import Vocabulary
from cytolake.train.encodings.rank_value import RankValueEncoding
from cytolake.train.engines import Engine, TorchEngine, n_ranks, this_rank
from cytolake.train.feeding import Feed, plan_of
from cytolake.train.loop import Metrics, train
from cytolake.train.models.bert import bert_config, fresh_bert
from cytolake.train.objectives.masked_genes import MaskedGenes
from cytolake.train.recipe import OptimizerRecipe
from safetensors.torch import save_file
from torch import distributed

from .conftest import gene_names, random_cells

SIZES = ((14, 1), (9,))
"""Cells of each group of each step: what rank 0 has, then rank 1."""


class UnequalStream:
    """Two groups for the first step, one for the second."""

    n_groups = 3

    def group(self, epoch: int, index: int) -> list[object]:
        del epoch
        sizes = [size for step in SIZES for size in step]
        return [random_cells(sizes[index], seed=index)]


def main(engine_name: str, out: Path, clip: float) -> None:
    torch.set_num_threads(1)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        distributed.init_process_group("gloo")
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
    recipe = OptimizerRecipe(peak_lr=1e-3, warmup_steps=0, schedule="constant", clip=clip)
    if engine_name == "torch":
        engine: Engine = TorchEngine(objective, recipe)
    else:
        from cytolake.train.deepspeed_engine import DeepSpeedStepper

        engine = DeepSpeedStepper(objective, recipe, int(engine_name[-1]))
    plan = plan_of(3, groups_per_step=2, epochs=1)
    stream = UnequalStream()
    feed = Feed(
        stream,  # type: ignore[arg-type]
        RankValueEncoding(vocabulary, medians, 40),
        objective,
        plan,
        pack_tokens=80,
        rank=this_rank(),
        n_ranks=n_ranks(),
    )
    told: list[Metrics] = []
    try:
        train(engine, feed, plan, recipe, seed=1, log_seconds=0, report=told.append)
    finally:
        feed.close()
    if this_rank() == 0:
        found = {name: value.clone() for name, value in objective.state_dict().items()}
        found["norms"] = torch.tensor([metrics.gradient_norm for metrics in told]).double()
        found["losses"] = torch.tensor([metrics.loss for metrics in told]).double()
        save_file(found, out)
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
