"""From a corpus and a run to a logged answer; seen cells are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytolake.corpus import selecting
from cytolake.corpus.splits import assign
from cytolake.corpus.store import Corpus
from cytolake.evaluate.job import evaluate
from cytolake.evaluate.recipe import EvaluationRecipe
from cytolake.evaluate.results import EvaluationResult
from cytolake.platform.configuration import parse_values
from cytolake.platform.errors import CheckpointError, EvaluationError
from cytolake.platform.session import ray_session
from cytolake.platform.settings import Settings
from cytolake.platform.tracking import MemoryTracker
from cytolake.train.job import pretrain
from cytolake.train.model_names import find_model
from cytolake.train.recipe import PretrainRecipe

from .conftest import PRETRAIN, Trained, a_recipe

FAST = {"epochs": 1, "train_cells": 24, "cells_per_label": 10}


def ask(trained: Trained, recipe: EvaluationRecipe) -> tuple[EvaluationResult, MemoryTracker]:
    tracker = MemoryTracker()
    result = evaluate(str(trained.corpus.folder), recipe, trained.settings, tracker=tracker)
    return result, tracker


@pytest.mark.slow
@pytest.mark.parametrize("task", ["masked", "finetune", "perturb", "contexts"])
def test_an_answer_is_logged_whole(trained: Trained, task: str):
    result, tracker = ask(trained, a_recipe(task, finetune=FAST))
    assert tracker.status == "FINISHED"
    assert tracker.tags == {"task": task}
    assert tracker.parameters["task"] == task
    assert tracker.parameters["checkpoint.run_id"] == trained.run_id
    assert tracker.datasets[0]["context"] == "evaluation"
    assert tracker.datasets[0]["n_rows"] == 250  # all cells but those of d6
    scores = json.loads(tracker.texts["scores.json"])
    assert [score["name"] for score in scores] == [score.name for score in result.scores]
    assert tracker.texts["verdict.txt"].startswith(result.verdict)
    assert {f"plots/{name}.png" for name in result.figures} == set(tracker.figures)
    assert {f"tables/{name}.csv" for name in result.tables} < set(tracker.texts)
    _, metrics = tracker.metrics[0]
    first = result.scores[0]
    assert metrics[f"{first.model}/{first.name}"] == first.value


def test_an_evaluation_is_on_record_in_the_corpus(trained: Trained):
    recipe = a_recipe("masked", finetune=FAST, where="n_counts > 1")
    _, tracker = ask(trained, recipe)
    [use] = [use for use in trained.corpus.uses() if use.where == recipe.where]
    assert (use.kind, use.part, use.uri) == ("evaluate", "evaluation", f"runs:/{tracker.run_id}")


@pytest.mark.slow
def test_masked_and_finetune_are_over_the_donors_of_the_evaluation_part(trained: Trained):
    for task in ("masked", "finetune"):
        result, _ = ask(trained, a_recipe(task, finetune=FAST))
        assert (result.scores[0].unit, result.scores[0].n) == ("donors", 5)


@pytest.mark.slow
def test_folds_on_ray_give_the_same_bits(trained: Trained):
    recipe = a_recipe("finetune", finetune=FAST)
    here, _ = ask(trained, recipe)
    with ray_session(n_cpus=2):
        there, _ = ask(trained, recipe)
    assert here.scores == there.scores


def test_cells_that_were_pretrained_on_are_refused_unless_asked(trained: Trained):
    recipe = a_recipe("perturb", part="pretraining")
    tracker = MemoryTracker()
    with pytest.raises(EvaluationError, match="50 of 50 cells were pretrained on"):
        evaluate(str(trained.corpus.folder), recipe, trained.settings, tracker=tracker)
    assert tracker.status == "FAILED"
    with pytest.raises(EvaluationError, match="50 of 300 cells were pretrained on"):
        ask(trained, a_recipe("perturb", part=None))
    result, _ = ask(trained, a_recipe("perturb", part=None, seen_cells="use"))
    assert "50 of 300 cells were pretrained on: optimistic" in result.notes


def test_a_split_that_is_cut_otherwise_than_in_pretraining_is_refused_unless_asked(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
):
    def cut_otherwise(*given: Any) -> Any:
        parts = assign(*given)
        parts[np.flatnonzero(parts == "pretraining")[0]] = None
        return parts

    monkeypatch.setattr(selecting, "assign", cut_otherwise)
    with pytest.raises(EvaluationError, match="other cells than part 'pretraining'"):
        ask(trained, a_recipe("perturb"))
    result, _ = ask(trained, a_recipe("perturb", seen_cells="use"))
    assert any("cannot be told" in told for told in result.notes)


def test_donors_on_both_sides_of_a_split_are_told(trained: Trained, tmp_path: Path):
    shares = {"pretraining": 0.9, "validation": 0.05, "evaluation": 0.05}  # too few donors
    split = {"kind": "donors", "or_cells": True, "fractions": shares}
    recipe = parse_values({**PRETRAIN, "split": split}, PretrainRecipe, origin="test")
    corpus_uri = str(trained.corpus.folder)
    pretrain(corpus_uri, recipe, Settings(home=tmp_path), tracker=MemoryTracker())
    asked = a_recipe("masked", model=str(tmp_path / "runs" / "small"))
    result = evaluate(corpus_uri, asked, trained.settings, tracker=MemoryTracker())
    told = "5 of 5 values of donor_id were pretrained on, through other cells: optimistic"
    assert told in result.notes
    result, _ = ask(trained, a_recipe("masked"))
    assert not any("through other cells" in note for note in result.notes)


def test_an_unknown_cell_type_is_refused_with_the_nearest_name(trained: Trained):
    with pytest.raises(EvaluationError, match="did you mean 'B cell'"):
        ask(trained, a_recipe("perturb", perturb={"value": "B cells"}))


def test_a_screen_takes_one_type_and_names_symbols(trained: Trained):
    result, _ = ask(trained, a_recipe("perturb", perturb={"value": "B cell", "n_cells": 4}))
    assert any("4 cells of cell_type B cell" in note for note in result.notes)
    assert all(name.startswith("G") for name in result.tables["genes"].column("symbol").to_pylist())


def test_cells_without_a_label_are_left_out_of_contexts_and_counted(trained: Trained):
    recipe = a_recipe("contexts", contexts={"batch": "tissue"}, where="donor_id <> 'd1'")
    with pytest.raises(EvaluationError, match="the cells have 0 value of cell_type"):
        ask(trained, recipe)
    result, _ = ask(trained, a_recipe("contexts", contexts={"cells_per_group": 5}))
    assert "75 cells, 3 values of cell_type, 5 of donor_id" in " ".join(result.notes)


def test_a_model_is_found_by_folder_name_id_or_as_the_newest(trained: Trained):
    run = trained.settings.home / "runs" / "small"
    place = find_model("small", trained.settings)
    assert place.parent == run / "checkpoints"
    for name in (str(run), str(place), trained.run_id, ""):
        assert find_model(name, trained.settings) == place


def test_an_unknown_model_is_refused_with_the_nearest_name(trained: Trained):
    with pytest.raises(CheckpointError, match="did you mean 'small'"):
        find_model("smal", trained.settings)


def test_no_model_at_all_is_refused(trained: Trained):
    nowhere = Settings(home=trained.settings.home / "nowhere")
    with pytest.raises(CheckpointError, match="pretrain one first"):
        find_model("", nowhere)


def test_another_corpus_has_no_pretraining_cells_to_count(trained: Trained, fake_corpus: Corpus):
    with pytest.raises(EvaluationError, match="which are in another corpus"):
        evaluate(
            str(fake_corpus.folder),
            a_recipe("masked", part=None),
            trained.settings,
            tracker=MemoryTracker(),
        )
