"""The shipped recipes of published models hold what was published."""

import pytest
from cytolake.platform.configuration import parse_values
from cytolake.platform.recipes import shipped
from cytolake.train.flops import shape_of
from cytolake.train.recipe import PretrainRecipe, load_recipe

from .official import official_config

PUBLISHED = {
    "geneformer-v1-10m": ("Geneformer-V1-10M", 10_288_722),
    "geneformer-v1-40m": ("gf-12L-30M-i2048", 39_591_250),
    "geneformer-v2-104m": ("Geneformer-V2-104M", 104_386_867),
    "geneformer-v2-316m": ("Geneformer-V2-316M", 316_354_867),
}
VOCABULARY_SIZES = {"geneformer-v1": 25_426, "geneformer-v2": 20_275}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_models_recipe_has_the_shape_of_its_configuration(name: str):
    recipe, config = load_recipe(name), official_config(PUBLISHED[name][0])
    ours = {
        "num_hidden_layers": recipe.model.layers,
        "hidden_size": recipe.model.width,
        "num_attention_heads": recipe.model.heads,
        "intermediate_size": recipe.model.feed_forward,
        "hidden_act": recipe.model.activation,
        "hidden_dropout_prob": recipe.model.hidden_dropout,
        "initializer_range": recipe.model.initializer_range,
        "layer_norm_eps": recipe.model.layer_norm_eps,
        "max_position_embeddings": recipe.encoding.length,
        "vocab_size": VOCABULARY_SIZES[recipe.vocabulary.set],
    }
    assert ours == {key: config[key] for key in ours}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_models_recipe_has_its_number_of_parameters(name: str):
    recipe = load_recipe(name)
    shape = shape_of(recipe, VOCABULARY_SIZES[recipe.vocabulary.set])
    assert shape.n_parameters == PUBLISHED[name][1]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_value_of_a_published_models_recipe_says_where_it_comes_from(name: str):
    lines = shipped("pretrain")[name].path.read_text().splitlines()
    settings = [line for line in lines if " = " in line and not line.startswith("#")]
    own = ("name =", "family =")
    sourced = [line for line in settings if not line.startswith(own)]
    assert len(sourced) >= 25
    for line in sourced:
        remark = line.partition("#")[2]
        assert "[C]" in remark or "[R]" in remark or "ours" in remark, line


def test_the_arguments_that_were_published_are_those_of_the_recipes():
    found = {
        name: (
            recipe.optimizer.peak_lr,
            recipe.optimizer.schedule,
            recipe.optimizer.warmup_ratio or recipe.optimizer.warmup_steps,
            recipe.training.epochs,
        )
        for name in PUBLISHED
        for recipe in [load_recipe(name)]
    }
    assert found["geneformer-v1-10m"] == (1e-3, "linear", 10_000, 3)
    assert found["geneformer-v1-40m"] == (5e-4, "linear", 10_000, 3)
    assert found["geneformer-v2-104m"] == (2e-4, "cosine", 0.007, 3)
    assert load_recipe("geneformer-v1-40m").training.cells_per_step == 4 * 12


@pytest.mark.parametrize("name", sorted(shipped("pretrain")))
def test_a_shipped_recipe_comes_back_from_what_a_run_keeps_of_it(name: str):
    recipe = load_recipe(name)
    kept = recipe.model_dump(mode="json")
    assert parse_values(kept, PretrainRecipe, origin="kept") == recipe
