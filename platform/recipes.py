"""Recipes as files: shipped ones by name, a user's own by path. Knows no recipe's settings.

The first sentence of a recipe's first comment says what it is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

from .configuration import Configuration, parse_toml
from .errors import RecipeError, did_you_mean

ROOT = Path(__file__).resolve().parents[1]
SHELVES = {"pretrain": ROOT / "train" / "recipes", "evaluate": ROOT / "evaluate" / "recipes"}

ARecipe = TypeVar("ARecipe", bound=Configuration)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShippedRecipe:
    """A recipe that comes with cytolake: its name, the verb that runs it, what it is, its file."""

    name: str
    verb: str
    about: str
    path: Path


def shipped(verb: str | None = None) -> dict[str, ShippedRecipe]:
    """The shipped recipes by name, those of one verb or of all."""
    found: dict[str, ShippedRecipe] = {}
    for of_verb, shelf in SHELVES.items():
        if verb in (None, of_verb):
            for path in sorted(shelf.glob("*.toml")):
                found[path.stem] = ShippedRecipe(
                    name=path.stem, verb=of_verb, about=_about(path.read_text()), path=path
                )
    return found


def _about(text: str) -> str:
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    words = " ".join(line.removeprefix("#").strip() for line in lines)
    return re.split(r"(?<=[.?!])\s", words, maxsplit=1)[0]


def find_recipe(name: str, verb: str | None = None) -> Path:
    """The file of a recipe: a path where there is such a file, else a shipped recipe's name.

    Raises:
        RecipeError: neither a file nor a shipped recipe.
    """
    if Path(name).is_file():
        return Path(name)
    known = shipped(verb)
    if name not in known:
        raise RecipeError(
            f"{name}: no such file, and no shipped recipe is called so{did_you_mean(name, known)} "
            "(`cytolake recipes list` shows them)"
        )
    return known[name].path


def read_recipe(
    name: str, kind: type[ARecipe], *, verb: str, overrides: Sequence[str] = ()
) -> ARecipe:
    """Read a recipe by path or shipped name, with `a.b=value` settings laid over it.

    Raises:
        RecipeError: no such recipe, or one that is not understood.
    """
    path = find_recipe(name, verb)
    return parse_toml(path.read_text(), kind, origin=path.name, overrides=overrides)
