"""Commands of the pages that ask a model: the recipe that made it holds out what they ask about."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from cytolake.evaluate.recipe import load_recipe as load_question
from cytolake.platform.configuration import parse_values
from cytolake.train.filling import may_be_static
from cytolake.train.recipe import PretrainRecipe, load_recipe

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/first-hour.md", "docs/pretraining.md")


def commands_of(page: str, verb: str) -> list[str]:
    """The page's commands of a verb: on a line of their own, or in a sentence."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(
        rf"^\s*(cytolake {verb} [^#\n]+)|`(cytolake {verb} [^`]+)`", text, flags=re.M
    )
    return [" ".join((alone or inside).split()) for alone, inside in found]


QUESTIONS = [(page, line) for page in PAGES for line in commands_of(page, "evaluate")]


@pytest.mark.parametrize(("page", "line"), QUESTIONS)
def test_a_question_is_about_a_part_that_the_model_was_not_trained_on(page: str, line: str):
    words = shlex.split(line)
    settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    question = load_question(words[2], settings)
    trained = load_recipe(question.model.removesuffix("@best"))
    assert trained.split is not None and question.part in trained.split.names
    assert question.part not in (trained.data.part, trained.validation.part)
    assert trained.data.part is not None


TRAININGS = [
    (page, line)
    for page in PAGES
    for line in commands_of(page, "pretrain")
    if not line.split()[2].endswith(".toml")
]


@pytest.mark.parametrize(("page", "line"), TRAININGS)
def test_a_training_is_of_a_recipe_that_takes_its_settings(page: str, line: str):
    words = shlex.split(line)
    settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    assert load_recipe(words[2], settings).name == words[2]


def test_the_fast_path_on_a_gpu_is_one_plain_process_whose_packs_have_one_shape():
    [line] = [line for _, line in TRAININGS if "engine.kind=torch" in line]
    settings = [word for word in line.split() if "=" in word]
    given = load_recipe("geneformer-v1-10m", settings)
    assert (given.engine.kind, given.engine.workers) == ("torch", 1)
    assert may_be_static(given)
    assert given.training.cells_per_group == given.training.cells_per_step


def test_the_pages_ask_a_model_in_all_three_places():
    assert {page for page, _ in QUESTIONS} == set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_a_checkpoint_called_best_is_of_a_recipe_that_validates(page: str):
    text = (ROOT / page).read_text(encoding="utf-8")
    for name in set(re.findall(r"([\w-]+)@best\b", text)) - {"run_folder"}:
        assert load_recipe(name).validation.part is not None


def test_the_block_of_held_out_cells_is_what_the_shipped_recipes_have():
    text = (ROOT / "docs" / "pretraining.md").read_text(encoding="utf-8")
    section = text[text.index("### Held-out cells") :]
    block = "\n".join(re.findall(r"^    (.*)$", section[: section.index("Parts are made")], re.M))
    shown = parse_values({"name": "shown", **tomllib.loads(block)}, PretrainRecipe, origin="page")
    shipped = load_recipe("geneformer-v1-10m")
    assert shown.split is not None and shipped.split is not None
    assert shown.split.fractions == shipped.split.fractions
    assert (shown.split.kind, shown.split.or_cells) == (shipped.split.kind, shipped.split.or_cells)
    assert (shown.data.part, shown.validation.part) == (shipped.data.part, shipped.validation.part)
