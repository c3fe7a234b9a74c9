"""Which checkpoints there are, which one is the best, and which may go. Knows no model.

    step-00000012/           complete once it holds checkpoint.json, which is written last
    step-.../validation.json what held-out cells said of it, where they were asked
    best.json                names the best by validation loss, for whoever looks
    damaged-step-.../        was not sound when a run went on from the one before it

A kill leaves nothing half removed: a folder that goes is renamed first. What is best is read from
the checkpoints themselves, so that a kill between a checkpoint and best.json loses nothing.
"""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path

from ..platform.errors import CheckpointError
from ..platform.faults import durable
from ..platform.storage import (
    discard,
    finish_removals,
    publish,
    remove_durably,
    sync_folder,
    write_durably,
)

PREFIX, DAMAGED = "step-", "damaged-"
SCORES = "validation.json"
BEST = "@best"
"""What a name ends in that means a run's best checkpoint and not its newest."""


def folder_name(step: int) -> str:
    """What a checkpoint of a step is called."""
    return f"{PREFIX}{step:08d}"


def making_name(step: int, maker: str = "") -> str:
    """What a checkpoint's folder is called until it is whole; no two makers have the same."""
    return f".{folder_name(step)}.{maker}.making" if maker else f".{folder_name(step)}.making"


def checkpoints_in(folder: Path) -> list[Path]:
    """The complete checkpoints of a folder, oldest first; those half-made are not seen."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if (path / "checkpoint.json").exists())


def checkpoint_at(path: Path) -> Path:
    """The checkpoint that a path names: itself, a run's newest, or with `@best` a run's best.

    Raises:
        CheckpointError: there is none.
    """
    if path.name.endswith(BEST) and not path.exists():
        return best_checkpoint(path.with_name(path.name.removesuffix(BEST)))
    return newest_checkpoint(path)


def newest_checkpoint(path: Path) -> Path:
    """The checkpoint that a path names: itself, or the newest of a run's folder.

    Raises:
        CheckpointError: there is none.
    """
    if (path / "checkpoint.json").exists():
        return path
    for folder in (path, path / "checkpoints"):
        if found := checkpoints_in(folder):
            return found[-1]
    begin = ""
    if (path / "config.json").exists():
        begin = ". A folder of Hugging Face can be begun with ([start] of a recipe), not asked"
    raise CheckpointError(
        f"{path}: holds no complete checkpoint; expected a folder with checkpoint.json, or a run's "
        f"folder with checkpoints/step-*{begin}"
    )


def best_checkpoint(path: Path) -> Path:
    """The checkpoint of a run's folder with the least validation loss.

    Raises:
        CheckpointError: none of them was validated.
    """
    for folder in (path, path / "checkpoints"):
        if (found := best_in(folder)) is not None:
            return found
    raise CheckpointError(
        f"{path}{BEST}: no checkpoint there was held against held-out cells; give [validation] a "
        f"part in the recipe, or leave {BEST} out for the newest"
    )


def best_in(folder: Path) -> Path | None:
    """The complete checkpoint with the least validation loss, the earliest of equals."""
    scored = [(loss_of(path), path) for path in checkpoints_in(folder)]
    known = [(loss, path) for loss, path in scored if math.isfinite(loss)]
    return min(known)[1] if known else None


def loss_of(place: Path) -> float:
    """A checkpoint's validation loss; infinite where it was not validated, or cannot be read."""
    try:
        return float(json.loads((place / SCORES).read_text(encoding="utf-8"))["validation_loss"])
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf


def scores_text(scores: Mapping[str, float]) -> str:
    """What `validation.json` holds: `validation_loss` and whatever else was measured."""
    return json.dumps(dict(scores), indent=2)


def publish_checkpoint(making: Path, place: Path) -> None:
    """Give a whole checkpoint its name, over one of the same step.

    Raises:
        StorageError: the disk says no.
    """
    remove_durably(place, "checkpoint")  # the same step again, after one was passed over
    publish(making, place, "checkpoint", last="checkpoint.json")


def retain(folder: Path, keep: int, *, keep_best: bool) -> None:
    """Let all but the newest `keep` go, and name the best, which stays besides.

    Raises:
        StorageError: the disk says no.
    """
    found = checkpoints_in(folder)
    best = best_in(folder) if keep_best else None
    name_best(folder, best)
    for old in found[:-keep]:
        if old != best:
            remove_durably(old, "checkpoint")


def name_best(folder: Path, best: Path | None) -> None:
    """Write which checkpoint is the best; nothing is named where none was validated."""
    note = folder / "best.json"
    if best is None:
        discard(note)
        return
    scores = json.loads((best / SCORES).read_text(encoding="utf-8"))
    step = int(best.name.removeprefix(PREFIX))
    text = json.dumps({"checkpoint": best.name, "step": step, **scores}, indent=2)
    if not note.exists() or note.read_text(encoding="utf-8") != text:
        write_durably(note, text.encode(), "best")


def set_aside(place: Path) -> Path:
    """Take a damaged checkpoint out of the row, for whoever wants to look at it."""
    aside = place.with_name(DAMAGED + place.name)
    remove_durably(aside, "checkpoint")
    with durable("checkpoint/aside"):
        place.rename(aside)
        sync_folder(place.parent)
    return aside


def sweep(folder: Path) -> None:
    """Take away what kills have left: half-made checkpoints, half-done removals."""
    if folder.is_dir():
        for making in folder.glob(f".{PREFIX}*.making"):
            shutil.rmtree(making, ignore_errors=True)
        finish_removals(folder, "checkpoint")
