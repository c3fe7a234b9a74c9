from pathlib import Path
from typing import Any

import pytest
from cytolake.platform.configuration import parse_values
from cytolake.platform.errors import RecipeError
from cytolake.platform.recipes import shipped
from cytolake.train.recipe import PretrainRecipe, StartRecipe, load_recipe


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
        ({"training": {"cells_per_step": 24, "tokens_per_step": 9}}, "has both cells_per_step and"),
        ({"optimizer": {"warmup_steps": 0, "warmup_ratio": 0.1}}, "has both warmup_steps and"),
        ({"vocabulary": {"set": "checkpoint"}}, r"start\.checkpoint names none"),
        ({"start": {"moments": True}}, "no `checkpoint` is named"),
        ({"family": "genformer"}, "did you mean 'geneformer'"),
        ({"engine": {"zero_stage": 2}}, "a step aborts .*zero_stage=1; where memory"),
        ({"engine": {"zero_stage": 3}}, "zero_stage = 3: ZeRO 2 and 3 are not offered"),
        ({"engine": {"zero_stage": 4}}, "zero_stage = 4"),
        ({"training": {"precision": "fp16"}}, "precision = 'fp16'"),
        (
            {"objective": {"masked": 0.8, "random": 0.3}},
            r"masked = 0\.8 and random = 0\.3 are more",
        ),
    ],
    ids=[
        *("dropout", "heads", "pack", "groups", "workers", "part"),
        *("two batches", "two warm-ups", "no start", "no moments", "family"),
        *("zero 2", "zero 3", "zero 4", "precision", "shares"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(tables: dict[str, Any], message: str):
    with pytest.raises(RecipeError, match=message):
        parse_values({"name": "x", **tables}, PretrainRecipe, origin="x.toml")


def test_a_global_batch_that_does_not_go_round_is_refused_with_one_that_does():
    with pytest.raises(RecipeError, match=r"makes 1 groups of 12 .* 2 workers: 24, or a larger"):
        parse_values({"name": "x", "training": {"cells_per_step": 12}}, PretrainRecipe, origin="x")
    more = ["engine.workers=8"]
    with pytest.raises(RecipeError, match=r"8 workers: .*; or training\.cells_per_group = 18$"):
        load_recipe("geneformer-v2-104m", more)
    assert load_recipe("geneformer-v2-104m", [*more, "training.cells_per_group=18"])


def test_what_is_laid_over_takes_the_place_of_what_it_excludes():
    given = ["optimizer.warmup_ratio=0.1", "training.tokens_per_step=100000"]
    recipe = load_recipe("geneformer-v1-10m", given)
    assert (recipe.optimizer.warmup_steps, recipe.optimizer.warmup_ratio) == (None, 0.1)
    assert (recipe.training.cells_per_step, recipe.training.tokens_per_step) == (None, 100_000)
    back = load_recipe("geneformer-v2-104m", ["optimizer.warmup_steps=5"])
    assert (back.optimizer.warmup_steps, back.optimizer.warmup_ratio) == (5, None)
    with pytest.raises(RecipeError, match="has both"):
        load_recipe("geneformer-tiny", ["optimizer={warmup_steps = 1, warmup_ratio = 0.1}"])


def test_a_recipe_that_is_silent_has_144_cells_a_step_and_10000_steps_of_warm_up():
    recipe = PretrainRecipe(name="silent")
    assert (recipe.training.cells_per_step, recipe.training.groups_per_step) == (144, 12)
    assert recipe.optimizer.warmup(1_000_000) == 10_000


def test_a_warm_up_may_be_a_share_of_the_steps_rounded_up():
    recipe = parse_values(
        {"name": "x", "optimizer": {"warmup_ratio": 0.007}}, PretrainRecipe, origin="x"
    )
    assert recipe.optimizer.warmup_steps is None
    assert [recipe.optimizer.warmup(n) for n in (0, 1, 1000, 1001)] == [0, 1, 7, 8]


def test_a_batch_in_tokens_leaves_the_groups_to_the_cells():
    recipe = parse_values(
        {"name": "x", "training": {"tokens_per_step": 5000}}, PretrainRecipe, origin="x"
    )
    assert (recipe.training.cells_per_step, recipe.training.groups_per_step) == (None, None)


def test_a_run_that_starts_from_a_checkpoint_has_its_vocabulary_unless_it_says_another():
    start = {"name": "x", "start": {"checkpoint": "other"}}
    assert parse_values(start, PretrainRecipe, origin="x").vocabulary.set == "checkpoint"
    other = {**start, "vocabulary": {"set": "geneformer-v2"}}
    assert parse_values(other, PretrainRecipe, origin="x").vocabulary.set == "geneformer-v2"
    again = PretrainRecipe(name="x", start=StartRecipe(checkpoint="other"))
    assert again == parse_values(start, PretrainRecipe, origin="x")


@pytest.mark.parametrize(("masked", "random"), [(0.9, 0.1), (0.7, 0.3), (1.0, 0.0), (0.55, 0.45)])
def test_shares_of_what_is_hidden_may_be_the_whole(masked: float, random: float):
    given = {"name": "x", "objective": {"masked": masked, "random": random}}
    assert parse_values(given, PretrainRecipe, origin="x").objective.random == random
