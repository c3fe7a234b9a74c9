"""Fine-tuning: folds hold donors out, nothing leaks, labels too rare are counted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from cytolake.evaluate.cells import AskedCells, encode_cells, units_of
from cytolake.evaluate.classifier import CellClassifier, ModelArrays
from cytolake.evaluate.results import EvaluationResult
from cytolake.evaluate.tasks.finetune import (
    AUC,
    CHECKPOINT,
    LOGISTIC,
    MACRO_F1,
    UNTRAINED,
    Fold,
    FoldData,
    finetune,
    run_here,
)
from cytolake.platform.errors import EvaluationError
from cytolake.train.checkpoints import Checkpoint

from .conftest import DONORS, a_recipe, typed_cells


def cells_of(checkpoint: Checkpoint, n_cells: int = 150) -> AskedCells:
    return encode_cells([typed_cells(n_cells)], checkpoint.encoding, ("cell_type", "donor_id"))


def ask(
    checkpoint: Checkpoint, cells: AskedCells, donors: bool = True, **settings: Any
) -> tuple[EvaluationResult, list[Fold]]:
    seen: list[Fold] = []

    def spy(data: FoldData, work: Sequence[Fold]) -> Any:
        seen.extend(work)
        return run_here(data, work)

    names = cells.columns["donor_id"] if donors else np.full(cells.n_cells, None, dtype=object)
    recipe = a_recipe(
        "finetune", finetune={"epochs": 4, "peak_lr": 1e-2, "cells_per_step": 8, **settings}
    )
    units = units_of(names, "donor_id")
    return finetune(checkpoint, cells, units, recipe, run_folds=spy), seen


@pytest.mark.slow
def test_each_donor_is_held_out_once_and_every_model_has_the_same_folds(checkpoint: Checkpoint):
    cells = cells_of(checkpoint)
    result, work = ask(checkpoint, cells, train_cells=60)
    donors = cells.columns["donor_id"]
    for model in (CHECKPOINT, UNTRAINED):
        folds = [fold for fold in work if fold.model == model]
        assert [set(donors[fold.test]) for fold in folds] == [{name} for name in DONORS]
        assert all(not set(donors[fold.train]) & set(donors[fold.test]) for fold in folds)
        assert all(len(fold.train) == 60 for fold in folds)
        assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(150))
    ours, theirs = work[: len(DONORS)], work[len(DONORS) :]
    for one, other in zip(ours, theirs, strict=True):
        assert one.train.tolist() == other.train.tolist()
        assert one.seed == other.seed
    for model in (CHECKPOINT, UNTRAINED, LOGISTIC):
        for name in (MACRO_F1, AUC):
            score = result.score(name, model)
            assert (score.unit, score.n) == ("donors", 6)
            assert 0 <= score.value <= 1
    # Each type has genes of its own: what can be learnt is learnt.
    assert result.score(MACRO_F1, LOGISTIC).value > 0.9
    assert result.score(MACRO_F1, CHECKPOINT).value > 0.8
    held_out = result.tables["folds"].column("held out").to_pylist()
    assert held_out == [name for name in DONORS for _ in range(3)]


@pytest.mark.slow
def test_without_donors_folds_are_of_cells_and_it_is_said(checkpoint: Checkpoint):
    result, work = ask(checkpoint, cells_of(checkpoint, 90), donors=False, epochs=1)
    assert len(work) == 6
    assert any("cells, not donors: optimistic" in note for note in result.notes)
    assert (result.scores[0].unit, result.scores[0].n) == ("cells", 90)


@pytest.mark.slow
def test_rare_labels_and_unlabelled_cells_are_left_out_and_counted(checkpoint: Checkpoint):
    cells = cells_of(checkpoint, 60)
    cells.columns["cell_type"][:2] = "mast cell"
    cells.columns["cell_type"][2] = None
    result, work = ask(checkpoint, cells, donors=False, epochs=1)
    assert any("left out: 1 label (mast cell; 2 cells)" in note for note in result.notes)
    assert any("left out: 1 cell without cell_type" in note for note in result.notes)
    assert sum(len(fold.test) for fold in work if fold.model == CHECKPOINT) == 57


def test_one_label_is_refused(checkpoint: Checkpoint):
    cells = cells_of(checkpoint, 30)
    cells.columns["cell_type"][:] = "T cell"
    with pytest.raises(EvaluationError, match="1 value of cell_type with at least 3 cells"):
        ask(checkpoint, cells, donors=False)


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_bits(checkpoint: Checkpoint):
    cells = cells_of(checkpoint, 40)
    first, again = (ask(checkpoint, cells, donors=False, epochs=1)[0] for _ in range(2))
    assert first.scores == again.scores
    assert first.verdict == again.verdict


@pytest.mark.parametrize(
    ("frozen", "learning"),
    [(0, "embeddings layer.0 layer.1"), (1, "layer.1"), (-1, "layer.1"), (2, "")],
    ids=["all learn", "first frozen", "all but the last frozen", "only the head learns"],
)
def test_frozen_layers_do_not_learn(checkpoint: Checkpoint, frozen: int, learning: str):
    classifier = CellClassifier(checkpoint.model, n_classes=3, n_special=2, frozen_layers=frozen)
    names = [name for name, weight in classifier.named_parameters() if weight.requires_grad]
    groups = {
        part for part in ("embeddings", "layer.0", "layer.1") if any(part in n for n in names)
    }
    assert " ".join(sorted(groups)) == learning
    assert "head.weight" in names


def test_more_frozen_layers_than_there_are_are_refused(checkpoint: Checkpoint):
    with pytest.raises(EvaluationError, match="the model has 2 layers"):
        CellClassifier(checkpoint.model, n_classes=3, n_special=2, frozen_layers=3)


def test_a_model_comes_back_from_arrays_with_the_same_weights(checkpoint: Checkpoint):
    again = ModelArrays.of(checkpoint.model, 2).model()
    for name, value in checkpoint.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_the_model_that_is_asked_is_left_as_it_was(checkpoint: Checkpoint):
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    ask(checkpoint, cells_of(checkpoint, 30), donors=False, epochs=1)
    for name, value in checkpoint.model.state_dict().items():
        assert torch.equal(before[name], value)
