"""What may change from one launch of a run to the next. Knows recipes; knows no engine.

A run is its cells, their order and its loss. What decides none of them belongs to a launch: how
many workers do the work, how long, and what is kept and told of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..platform.configuration import flat
from .recipe import PretrainRecipe

MAY_CHANGE = frozenset(
    {
        "training.max_hours",
        "training.log_seconds",
        "training.bad_steps",
        "validation.every_steps",
        "checkpoints.every_steps",
        "checkpoints.keep",
        "checkpoints.keep_best",
        "engine.retries",
        # These four change the order of sums, so the last bits: see docs/pretraining.md.
        "engine.kind",
        "engine.zero_stage",
        "engine.workers",
        "engine.threads",
    }
)
"""The settings that one launch may have otherwise than the launch before it."""

Changes = dict[str, tuple[object, object]]
"""Settings that differ, by their dotted names: what they were, and what they are now."""


def changes(begun: PretrainRecipe, given: PretrainRecipe) -> Changes:
    """How a recipe differs from the one before; what `--plan` reckons with is not part of it."""
    # Both are parsed by the code of today: settings that came since then have their defaults.
    before, now = (flat(each.model_dump(mode="json", exclude={"plan"})) for each in (begun, given))
    keys = sorted(before | now)
    return {key: (before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)}


def said(launches: Sequence[Mapping[str, Any]]) -> str:
    """What has changed over some launches, in the words of a tag; empty where nothing has."""
    return "; ".join(
        f"launch {number}: "
        + ", ".join(
            f"{key} {before!r} -> {now!r}" for key, (before, now) in each["changed"].items()
        )
        for number, each in enumerate(launches, 1)
        if each.get("changed")
    )
