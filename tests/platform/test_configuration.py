"""TOML at the door: unknown keys refused by the nearest name, nothing repaired."""

import pytest
from cytolake.platform.configuration import Configuration, parse_toml
from cytolake.platform.errors import RecipeError


class Optimizer(Configuration):
    peak_lr: float
    warmup_steps: int = 0


class Source(Configuration):
    name: str
    constants: dict[str, str] | None = None


class Recipe(Configuration):
    optimizer: Optimizer
    source: tuple[Source, ...] = ()
    seed: int = 0


GOOD = "[optimizer]\npeak_lr = 1e-3\n"


def test_a_recipe_becomes_a_frozen_model() -> None:
    recipe = parse_toml(GOOD, Recipe, origin="r.toml")
    assert recipe.optimizer.peak_lr == 1e-3
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_a_misspelt_key_is_refused_with_the_nearest_name() -> None:
    text = "[optimizer]\npeak_lr = 1e-3\npeak_Ir = 1e-3\n"
    with pytest.raises(RecipeError) as caught:
        parse_toml(text, Recipe, origin="r.toml")
    expected = "r.toml: [optimizer] has no setting 'peak_Ir'; did you mean 'peak_lr'?"
    assert str(caught.value) == expected


def test_a_misspelt_key_in_an_array_of_tables_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match=r"no setting 'constnts'; did you mean 'constants'"):
        parse_toml(GOOD + '[[source]]\nname="a"\nconstnts={}\n', Recipe, origin="r.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("[optimizer]\n", "needs the setting 'peak_lr'", id="a missing key"),
        pytest.param("[optimizer\n", "not valid TOML", id="no TOML"),
        pytest.param("[optimizer]\npeak_lr='high'", "peak_lr = 'high'", id="a wrong type"),
    ],
)
def test_a_bad_recipe_says_what_and_where(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=r"^r\.toml: ") as caught:
        parse_toml(text, Recipe, origin="r.toml")
    assert words in str(caught.value)


def test_overrides_are_laid_over_the_text() -> None:
    overrides = ["optimizer.warmup_steps=5", "seed = 7"]
    recipe = parse_toml(GOOD, Recipe, origin="r.toml", overrides=overrides)
    assert (recipe.optimizer.warmup_steps, recipe.seed) == (5, 7)


@pytest.mark.parametrize("override", ["seed", "=3", "seed.deeper=3"])
def test_an_override_that_is_no_setting_is_refused(override: str) -> None:
    with pytest.raises(RecipeError):
        parse_toml(GOOD + "", Recipe, origin="r.toml", overrides=["seed=1", override])
