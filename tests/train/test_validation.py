"""Validation: held-out cells are asked, nothing is learnt from them and nothing is drawn."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CheckpointError, NoCellsError, RecipeError
from cytolake.platform.settings import Settings
from cytolake.train import validation
from cytolake.train.checkpoints import load_checkpoint
from cytolake.train.encodings.tokens import TokenBatch
from cytolake.train.families import FAMILIES
from cytolake.train.packing import pack_of
from cytolake.train.recipe import PretrainRecipe
from cytolake.train.retention import best_checkpoint, checkpoints_in
from cytolake.train.validation import EPOCH, Validation, validation_selection
from cytolake.train.vocabularies import vocabulary_and_medians

from .corpora import small_corpus
from .tiny_runs import Go, kept, recipe, runner

SPLIT = {"kind": "donors", "fractions": {"learn": 0.5, "look": 0.5}}
LEARN = {"split": SPLIT, "data": {"part": "learn"}}
LOOK = LEARN | {"validation": {"part": "look", "every_steps": 4, "cells": 30}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("validation") / "corpus")


@pytest.fixture
def run(corpus: Corpus, tmp_path: Path) -> Go:
    return runner(corpus, tmp_path)


def test_validation_changes_no_bit_and_is_told_at_its_steps(run: Go):
    blind, _ = run(recipe(**LEARN), "blind")
    seeing, tracker = run(recipe(**LOOK), "seeing")
    expected = kept(blind)
    for name, value in kept(seeing).items():
        assert torch.equal(value, expected[name]), name
    assert [m["loss"] for m in seeing.metrics] == [m["loss"] for m in blind.metrics]
    looked = [int(m["step"]) for m in seeing.metrics if "validation_loss" in m]
    assert looked == [4, 6, 8, 12, 16, 18, 20]  # every four, and at each checkpoint
    names = ("validation_accuracy", "validation_mask_accuracy")
    told = [step for step, values in tracker.metrics if all(name in values for name in names)]
    assert told == looked
    assert all(m["mfu"] > 0 and m["memory_gb"] > 0 for m in seeing.metrics)


def test_the_best_checkpoint_stays_beside_the_newest_and_has_a_name(run: Go, corpus: Corpus):
    # A rate this high spoils the model, so that the best is not among the newest.
    given = recipe(**LOOK, optimizer={"peak_lr": 3.0, "warmup_steps": 12})
    result, _ = run(given)
    losses = {
        int(m["step"]): m["validation_loss"]
        for m in result.metrics
        if "validation_loss" in m and (m["step"] % 6 == 0 or m["step"] == 20)
    }
    best = min(losses, key=lambda step: losses[step])
    folder = result.run_folder / "checkpoints"
    named = json.loads((folder / "best.json").read_text())
    assert (named["step"], named["validation_loss"]) == (best, losses[best])
    steps = {int(path.name[-8:]) for path in checkpoints_in(folder)}
    assert best not in (18, 20) and steps == {best, 18, 20}
    from cytolake.train.model_names import find_model

    home = Settings(home=result.run_folder.parents[1])
    assert find_model("run@best", home) == best_checkpoint(result.run_folder)
    assert find_model("run", home).name == "step-00000020"
    assert load_checkpoint(f"{result.run_folder}@best").info.step == best
    run(recipe(**LEARN), "blind")
    with pytest.raises(CheckpointError, match="no checkpoint there was held against held-out"):
        find_model("blind@best", home)


def test_a_run_that_goes_on_says_the_same_of_the_same_cells(run: Go):
    whole, _ = run(recipe(**LOOK), "whole")
    result, _ = run(recipe(**LOOK, training={"max_hours": 1e-9}), "cut")
    assert (result.status, result.step) == ("stopped", 0)
    assert "training.max_hours = 1e-09 hours are over" in result.message
    again, _ = run(recipe(**LOOK), "cut")
    assert again.status == "finished"
    ours, theirs = (
        [(m["step"], m["validation_loss"]) for m in found.metrics if "validation_loss" in m]
        for found in (again, whole)
    )
    assert ours == theirs


def objective_and_encoding(corpus: Corpus, given: PretrainRecipe) -> tuple[Any, Any]:
    family = FAMILIES[given.family]
    learn = corpus.select(None, split=given.split, part="learn")
    genes, medians = vocabulary_and_medians(given, corpus, learn, Settings(home=corpus.folder))
    objective = family.objective(family.model(given, genes, 3), given, genes)
    return objective, family.encoding(genes, medians, 40)


def asked(corpus: Corpus, given: PretrainRecipe, n_ranks: int) -> list[validation.Validated]:
    objective, encoding = objective_and_encoding(corpus, given)
    selection = validation_selection(given, corpus)
    assert selection is not None and selection.n_cells == 30
    found: list[validation.Validated] = []
    for rank in range(n_ranks):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(validation, "this_rank", lambda rank=rank: rank)
            patch.setattr(validation, "n_ranks", lambda: n_ranks)
            ask = Validation(
                corpus,
                selection,
                encoding,
                objective,
                cells_per_group=4,
                pack_tokens=90,
            )
        found.append(ask())
        assert ask() == found[-1]
        assert objective.training
    return found


def test_ranks_share_the_cells_and_what_is_hidden_in_them(corpus: Corpus):
    given = recipe(**LOOK)
    [alone] = asked(corpus, given, 1)
    for n_ranks in (2, 9):  # eight groups: the ninth rank has none
        parts = asked(corpus, given, n_ranks)
        n_masked = sum(part.n_masked for part in parts)
        assert n_masked == alone.n_masked > 0
        loss = sum(part.loss * part.n_masked for part in parts) / n_masked
        assert loss == pytest.approx(alone.loss, rel=1e-12)


def test_the_answers_are_those_of_each_cell_alone(corpus: Corpus):
    """What is counted under the mask and over all, held against one cell a pack."""
    given = recipe(**LOOK)
    objective, encoding = objective_and_encoding(corpus, given)
    selection = validation_selection(given, corpus)
    assert selection is not None
    order = np.argsort(selection.segment, kind="stable")
    tokens = TokenBatch.concatenate([encoding.encode(b) for b in corpus.read(selection, order)])
    sums = torch.zeros(3, dtype=torch.int64)
    loss, n_masked = 0.0, 0
    objective.eval()
    for cell in range(tokens.n_cells):
        pack = objective.prepare(pack_of(tokens, [cell]), EPOCH)
        with torch.no_grad():
            one, guesses = objective(pack)
        loss, sums, n_masked = loss + float(one), sums + guesses, n_masked + pack.n_masked
    [found] = asked(corpus, given, 1)
    assert found.n_masked == n_masked
    assert found.loss == pytest.approx(loss / n_masked, rel=1e-5)
    assert found.accuracy == int(sums[0]) / n_masked
    assert found.mask_accuracy == int(sums[1]) / int(sums[2])


def test_held_out_cells_are_laid_as_those_that_are_learnt_from(corpus: Corpus):
    """One cell a row in the padded layout, and no more places than a pack has, padding included."""
    padded = recipe(**LOOK, training={"layout": "padded"})
    objective, encoding = objective_and_encoding(corpus, padded)
    selection = validation_selection(padded, corpus)
    assert selection is not None
    places: list[int] = []

    def note(module: object, args: object, given: dict[str, torch.Tensor]) -> None:
        assert given["input_ids"].shape[0] > 0 and len(given["input_ids"].shape) == 2
        places.append(given["input_ids"].numel())

    objective.model.bert.embeddings.register_forward_pre_hook(note, with_kwargs=True)
    ask = Validation(corpus, selection, encoding, objective, cells_per_group=15, pack_tokens=90)
    found = ask()
    assert 40 < max(places) <= 90  # several cells, and never more than a pack
    [packed] = asked(corpus, recipe(**LOOK), 1)
    assert found.loss == pytest.approx(packed.loss, rel=1e-5)
    assert (found.accuracy, found.mask_accuracy) == (packed.accuracy, packed.mask_accuracy)


def test_a_part_without_cells_is_refused_before_anything_is_trained(run: Go, tmp_path: Path):
    split = {"kind": "query", "parts": {"learn": "n_genes > 0", "look": "n_genes < 0"}}
    with pytest.raises(NoCellsError, match="no cell at all in part 'look'"):
        run(recipe(split=split, data={"part": "learn"}, validation={"part": "look"}))
    assert not (tmp_path / "runs" / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"validation": {"part": "look"}}, r"\[split\] has the parts \[\]"),
        ({"split": SPLIT, "validation": {"part": "look"}}, "expected another part"),
        (
            {"split": SPLIT, "data": {"part": "look"}, "validation": {"part": "look"}},
            "expected another part",
        ),
    ],
    ids=["no split", "all cells are learnt from", "the same part"],
)
def test_cells_that_would_be_learnt_from_are_refused(tables: dict[str, dict[str, Any]], said: str):
    with pytest.raises(RecipeError, match=said):
        recipe(**tables)
