"""How full packs of one shape get, reckoned from cells' lengths. Knows no cell and no device.

A group of cells fills packs of its own, and its last one stays as it is: few cells in a group, or
packs that are large beside a group, are mostly filled up. Packs that are as long as their cells,
on a CPU or in fp32, are always full.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .packing import pack_rows
from .static_packs import static_shape

if TYPE_CHECKING:
    from .recipe import PretrainRecipe

ENOUGH = 0.9
"""Packs that are filled less than this are spoken of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Filling:
    """How full packs get with some settings.

    Attributes:
        cells_per_group: cells that are packed together.
        pack_tokens: tokens of a pack.
        share: the share of them that is real tokens.
    """

    cells_per_group: int
    pack_tokens: int
    share: float


def may_be_static(recipe: "PretrainRecipe") -> bool:
    """Whether a GPU would give all packs of a recipe one shape; a CPU never does."""
    training = recipe.training
    return training.layout == "packed" and training.precision != "fp32"


def filling_of(recipe: "PretrainRecipe", lengths: Sequence[int]) -> Filling:
    """How full a recipe's packs get.

    Args:
        recipe: the settings.
        lengths: each of some cells' number of tokens, in an order of the stream.
    """
    training = recipe.training
    return _filling(recipe, lengths, training.cells_per_group, training.pack_tokens)


def fuller(recipe: "PretrainRecipe", lengths: Sequence[int]) -> Filling | None:
    """Settings that fill packs enough, the nearest ones; else the best; None where none is better.

    Larger groups are tried first, then packs of half the tokens. A step keeps its cells, and each
    worker a group in it.
    """
    now = filling_of(recipe, lengths)
    best = now
    for pack_tokens in _packs(recipe):
        for cells_per_group in _groups(recipe, float(np.mean(lengths))):
            found = _filling(recipe, lengths, cells_per_group, pack_tokens)
            if found.share >= ENOUGH:
                return found
            best = max(best, found, key=lambda filling: filling.share)
    return best if best.share > now.share else None


def _filling(
    recipe: "PretrainRecipe", lengths: Sequence[int], cells_per_group: int, pack_tokens: int
) -> Filling:
    shape = static_shape(
        pack_tokens=pack_tokens, length=recipe.encoding.length, share=recipe.objective.share
    )
    n_whole = max(1, len(lengths) // cells_per_group)  # a last group that is not whole tells little
    n_tokens, n_packs = 0, 0
    for number in range(n_whole):
        group = lengths[number * cells_per_group : (number + 1) * cells_per_group]
        places = (np.ones(len(group), dtype=np.int64), shape.n_real_cells)
        n_tokens += sum(group)
        n_packs += len(pack_rows(group, pack_tokens, also=[places]))
    share = n_tokens / (n_packs * pack_tokens) if n_packs else 0.0
    return Filling(cells_per_group=cells_per_group, pack_tokens=pack_tokens, share=share)


def _packs(recipe: "PretrainRecipe") -> Iterator[int]:
    """The recipe's tokens of a pack, then half of them, and so on."""
    pack_tokens = recipe.training.pack_tokens
    while pack_tokens >= recipe.encoding.length:
        yield pack_tokens
        pack_tokens //= 2


def _groups(recipe: "PretrainRecipe", mean: float) -> Iterator[int]:
    """Cells of a group, from the recipe's on, of which a step has one for each worker."""
    training, workers = recipe.training, recipe.engine.workers
    first, in_cells = training.cells_per_group, training.cells_per_step
    if in_cells is not None:
        yield from (n for n in range(first, in_cells // workers + 1) if in_cells % n == 0)
        return
    cells_per_group = first
    while cells_per_group * mean * workers <= (training.tokens_per_step or 0):
        yield cells_per_group
        cells_per_group *= 2
