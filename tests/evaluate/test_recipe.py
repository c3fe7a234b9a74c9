"""Recipes: what is shipped parses, and what is misspelt is refused with the nearest name."""

import pytest
from cytolake.evaluate.recipe import load_recipe
from cytolake.platform.errors import RecipeError
from cytolake.platform.recipes import shipped


@pytest.mark.parametrize("name", ["finetune", "masked", "perturb"])
def test_a_shipped_recipe_is_found_by_name_and_asks_the_evaluation_part(name: str):
    recipe = load_recipe(name)
    assert (recipe.task, recipe.part, recipe.seen_cells) == (name, "evaluation", "refuse")
    assert name in shipped("evaluate")


def test_a_setting_is_laid_over_a_recipe():
    assert load_recipe("perturb", ["perturb.n_cells=5"]).perturb.n_cells == 5


def test_a_misspelt_setting_is_refused_with_the_nearest_name():
    with pytest.raises(RecipeError, match="did you mean 'n_cells'"):
        load_recipe("perturb", ["perturb.n_cell=5"])


def test_an_unknown_recipe_is_refused_with_the_nearest_name():
    with pytest.raises(RecipeError, match="did you mean 'finetune'"):
        load_recipe("finetun")
