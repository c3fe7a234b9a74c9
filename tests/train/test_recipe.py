from pathlib import Path
from typing import Any

import pytest
from cytolake.platform.configuration import parse_values
from cytolake.platform.errors import RecipeError
from cytolake.platform.recipes import shipped
from cytolake.train.recipe import PretrainRecipe, load_recipe


@pytest.mark.parametrize("name", sorted(shipped("pretrain")))
def test_every_shipped_recipe_is_understood(name: str):
    assert load_recipe(name).family == "geneformer"


def test_the_published_recipe_has_the_published_values():
    recipe = load_recipe("geneformer-v1-10m")
    shape = recipe.model
    assert (shape.layers, shape.width, shape.heads, shape.feed_forward) == (6, 256, 4, 512)
    assert (recipe.encoding.length, recipe.training.cells_per_step) == (2048, 144)
    optimizer = recipe.optimizer
    assert (optimizer.peak_lr, optimizer.warmup_steps, optimizer.weight_decay) == (
        1e-3,
        10_000,
        1e-3,
    )


def test_a_setting_can_be_laid_over_the_file():
    assert load_recipe("geneformer-tiny", ["training.steps=7"]).training.steps == 7


def test_a_misspelt_key_is_refused_with_the_nearest_name():
    with pytest.raises(RecipeError, match=r"\[optimizer\].*peak_Ir.*peak_lr"):
        load_recipe("geneformer-tiny", ["optimizer.peak_Ir=1"])


def test_a_misspelt_recipe_is_refused_with_the_nearest_name():
    with pytest.raises(RecipeError, match="did you mean 'geneformer-tiny'"):
        load_recipe("geneformer-tyni")


def test_a_recipe_can_be_a_file_of_ones_own(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\n[model]\nlayers = 3\n')
    assert load_recipe(path).model.layers == 3


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"model": {"attention_dropout": 0.02}}, "packed attention has no dropout"),
        ({"model": {"heads": 3}}, "heads = 3 does not divide"),
        ({"training": {"pack_tokens": 100}}, "a pack holds whole cells"),
        ({"training": {"cells_per_step": 100}}, "whole groups"),
        ({"training": {"cells_per_step": 12}}, "for each of 2 workers"),
        ({"data": {"part": "train"}}, r"\[split\] has the parts"),
        ({"family": "genformer"}, "did you mean 'geneformer'"),
        ({"engine": {"zero_stage": 3}}, "zero_stage"),
    ],
    ids=["dropout", "heads", "pack", "groups", "workers", "part", "family", "zero"],
)
def test_what_cannot_work_is_refused_before_anything_starts(tables: dict[str, Any], message: str):
    with pytest.raises(RecipeError, match=message):
        parse_values({"name": "x", **tables}, PretrainRecipe, origin="x.toml")
