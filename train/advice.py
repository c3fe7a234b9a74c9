"""What a recipe's author may not have meant: said by `--plan` and at the start, with a way out.

Refuses nothing. Knows recipe and lengths; knows no device.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .filling import ENOUGH, Filling, filling_of, fuller, may_be_static

if TYPE_CHECKING:
    from .recipe import PretrainRecipe


def advice_of(
    recipe: "PretrainRecipe", n_steps: int | None, lengths: Sequence[int] = ()
) -> list[str]:
    """What there is to say of a recipe.

    Args:
        recipe: all that decides the run.
        n_steps: its number of steps; None where it is not known.
        lengths: each of some cells' number of tokens, in an order of the stream; none where they
            are not known, or no GPU is to be had.
    """
    said = [_of_warmup(recipe, n_steps)] if n_steps is not None else []
    if may_be_static(recipe) and any(lengths):
        said.append(_of_packs(recipe, lengths))
    return [remark for remark in said if remark]


def _of_warmup(recipe: "PretrainRecipe", n_steps: int) -> str:
    warmup = recipe.optimizer.warmup(n_steps)
    if warmup < n_steps:
        return ""
    highest = recipe.optimizer.peak_lr * n_steps / (warmup + 1)
    return (
        f"the warm-up has {warmup:,} steps, the run {n_steps:,}: the learning rate ends at "
        f"{highest:.2g} and never comes to optimizer.peak_lr = {recipe.optimizer.peak_lr:g}; "
        "--set optimizer.warmup_ratio=0.1 warms up for a tenth of the run"
    )


def _of_packs(recipe: "PretrainRecipe", lengths: Sequence[int]) -> str:
    now = filling_of(recipe, lengths)
    if now.share >= ENOUGH:
        return ""
    in_group = now.cells_per_group * sum(lengths) / len(lengths)
    better = fuller(recipe, lengths)
    way = f"; {_settings(now, better)}" if better else "; a larger global batch would fill them"
    return (
        f"on a GPU in bf16, packs would be {now.share:.0%} full: {now.cells_per_group} cells are "
        f"packed together and have {in_group:,.0f} tokens on average, a pack has "
        f"{now.pack_tokens:,}{way}"
    )


def _settings(now: Filling, better: Filling) -> str:
    changed = [
        f"--set training.{name}={getattr(better, name)}"
        for name in ("cells_per_group", "pack_tokens")
        if getattr(better, name) != getattr(now, name)
    ]
    return f"{' '.join(changed)} fills {better.share:.0%}"
