"""What may change from one launch of a run to the next, and what is refused."""

from pathlib import Path

import pytest
from cytolake.corpus.store import Corpus
from cytolake.platform.configuration import flat
from cytolake.platform.errors import TrainingError
from cytolake.train.launches import MAY_CHANGE, said
from cytolake.train.runs import RunFolder

from .corpora import small_corpus
from .tiny_runs import Go, recipe, runner

CUT = {"training": {"max_hours": 1e-9}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("launches") / "corpus")


@pytest.fixture
def run(corpus: Corpus, tmp_path: Path) -> Go:
    return runner(corpus, tmp_path)


def test_what_may_change_is_named_as_the_recipe_names_it():
    assert flat(recipe().model_dump(mode="json")).keys() >= MAY_CHANGE


def test_a_change_between_launches_is_on_record_and_in_the_checkpoint(run: Go):
    run(recipe(**CUT))
    result, tracker = run(recipe(checkpoints={"every_steps": 5, "keep": 3}))
    assert result.status == "finished"
    names = [place.name[-2:] for place in sorted((result.run_folder / "checkpoints").glob("s*"))]
    assert names == ["10", "15", "20"]
    first, second = RunFolder(result.run_folder).launches()
    assert first["changed"] == {} and first["id"] != second["id"]
    assert second["changed"] == {
        "checkpoints.every_steps": [6, 5],
        "checkpoints.keep": [2, 3],
        "training.max_hours": [1e-9, None],
    }
    assert tracker.tags["changed"] == said([first, second])
    assert "launch 2: checkpoints.every_steps 6 -> 5" in tracker.tags["changed"]
    kept = RunFolder(result.run_folder).read()
    assert kept is not None and kept.pretrain_recipe.checkpoints.keep == 3


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("training", {"pack_tokens": 100}),
        ("training", {"precision": "bf16"}),
        ("optimizer", {"clip": 0.5}),
        ("data", {"where": "n_genes > 1"}),
        ("validation", {"cells": 7}),
    ],
    ids=["packs", "precision", "clip", "cells", "held-out cells"],
)
def test_what_decides_cells_order_or_loss_is_refused(
    run: Go, table: str, change: dict[str, object]
):
    begun, _ = run(recipe(**CUT))
    key = f"{table}.{next(iter(change))}"
    with pytest.raises(TrainingError, match=rf"begun with {key} = .*give it another name"):
        run(recipe(**{table: change}))
    assert len(RunFolder(begun.run_folder).launches()) == 1


def test_more_workers_than_a_step_has_groups_are_refused(run: Go):
    tokens = {"cells_per_step": None, "tokens_per_step": 200}
    begun, _ = run(recipe(training={**tokens, "max_hours": 1e-9}))
    kept = RunFolder(begun.run_folder).read()
    assert kept is not None
    n_groups = kept.step_groups
    too_many = {"workers": n_groups + 1}
    with pytest.raises(TrainingError, match=f"expected engine.workers = {n_groups} or fewer"):
        run(recipe(training=tokens, engine=too_many))
