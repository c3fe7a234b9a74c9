"""Recipes: shipped ones by name, a user's own by path."""

from pathlib import Path

import pytest
from cytolake.platform.configuration import Configuration
from cytolake.platform.errors import RecipeError
from cytolake.platform.recipes import find_recipe, read_recipe, shipped


class Anything(Configuration):
    name: str
    seed: int = 0


def test_every_shipped_recipe_says_in_a_sentence_what_it_is() -> None:
    assert {"geneformer-v1-10m", "finetune", "perturb"} <= shipped().keys()
    for recipe in shipped().values():
        assert recipe.about[-1] in ".?" and len(recipe.about) > 20, recipe


def test_a_path_is_stronger_than_a_name_and_settings_are_laid_over(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('name = "mine"\n')
    recipe = read_recipe(str(mine), Anything, verb="pretrain", overrides=["seed=3"])
    assert (recipe.name, recipe.seed) == ("mine", 3)


def test_an_unknown_recipe_is_answered_with_the_nearest_of_its_verb() -> None:
    with pytest.raises(RecipeError, match="did you mean 'finetune'"):
        find_recipe("finetun", "evaluate")
