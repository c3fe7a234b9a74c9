"""Short runs of a tiny model on a small corpus, as tests and proofs make them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from cytolake.corpus.medians import MediansSet
from cytolake.corpus.store import Corpus
from cytolake.corpus.vocabularies import Vocabulary
from cytolake.platform.configuration import parse_values
from cytolake.platform.settings import Settings
from cytolake.platform.tracking import MemoryTracker
from cytolake.train.checkpoints import CheckpointInfo, load_checkpoint, load_moments
from cytolake.train.job import PretrainResult, pretrain
from cytolake.train.recipe import PretrainRecipe

Go = Callable[..., tuple[PretrainResult, MemoryTracker]]

DEEPSPEED = {"kind": "deepspeed", "zero_stage": 1, "workers": 2}

TABLES: dict[str, dict[str, Any]] = {
    "encoding": {"length": 40},
    "model": {"layers": 2, "width": 16, "heads": 2, "feed_forward": 32, "hidden_dropout": 0.1},
    "training": {
        "steps": 20,
        "cells_per_step": 20,
        "cells_per_group": 4,
        "pack_tokens": 90,
        "log_seconds": 0,
    },
    "optimizer": {"peak_lr": 1e-2, "warmup_steps": 3},
    "engine": {"kind": "torch", "workers": 1},
    "checkpoints": {"every_steps": 6},
}


def recipe(**changes: dict[str, Any]) -> PretrainRecipe:
    names = {*TABLES, *changes}
    values = {name: {**TABLES.get(name, {}), **changes.get(name, {})} for name in names}
    return parse_values({"name": "small", **values}, PretrainRecipe, origin="test")


def runner(corpus: Corpus, home: Path) -> Go:
    """What trains a recipe under a name; its record is in memory."""

    def go(
        given: PretrainRecipe, name: str = "run", snapshot: int | str | None = None
    ) -> tuple[PretrainResult, MemoryTracker]:
        tracker = MemoryTracker()
        result = pretrain(
            str(corpus.folder),
            given,
            Settings(home=home),
            tracker=tracker,
            run_folder=home / "runs" / name,
            snapshot=snapshot,
        )
        return result, tracker

    return go


def an_info(
    vocabulary: Vocabulary, medians: MediansSet, *, given: PretrainRecipe, **changes: Any
) -> CheckpointInfo:
    """Where a made-up model of some genes and a recipe comes from."""
    info = CheckpointInfo(
        family="geneformer",
        recipe=given.model_dump(mode="json"),
        length=40,
        snapshot=3,
        corpus_uuid="elsewhere",
        where=None,
        part=None,
        selection_digest="d",
        n_cells=9,
        vocabulary_digest=vocabulary.digest,
        medians_digest=medians.digest,
        step=7,
        epoch=0.5,
    )
    return replace(info, **changes)


def kept(result: PretrainResult) -> dict[str, torch.Tensor]:
    """Weights and moments of a run's last checkpoint."""
    checkpoint = load_checkpoint(result.run_folder)
    assert result.checkpoint is not None
    return {**checkpoint.model.state_dict(), **load_moments(result.checkpoint)}
