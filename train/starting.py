"""A run that begins with a checkpoint's weights: what is taken over, and what must fit.

Knows checkpoints and recipes; knows no corpus and no engine. The weights are copied into the run's
folder at its first start (`start/`), so that the run goes on when the other's checkpoints are gone.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..corpus.medians import MediansSet
from ..corpus.vocabularies import Vocabulary
from ..platform.errors import CheckpointError, RecipeError
from ..platform.settings import Settings
from ..platform.storage import sha256_file, sync_file, sync_folder
from .checkpoints import CheckpointInfo, check_files, load_moments, load_weights, read_info
from .hugging_face import (
    is_hugging_face_folder,
    read_hugging_face_folder,
    refuse_other_tensors,
)
from .model_names import find_model
from .models.bert import PackedBert
from .recipe import PretrainRecipe

FOLDER = "start"
_WEIGHTS, _MOMENTS = "model.safetensors", "training.safetensors"
_SHAPE = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "feed_forward": "intermediate_size",
    "activation": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """The checkpoint that a run begins with.

    Attributes:
        place: its folder; every file of it was checked, as far as it has checksums.
        info: where it comes from; of a folder of Hugging Face next to nothing is known.
        vocabulary: its tokens.
        medians: its medians.
    """

    place: Path
    info: CheckpointInfo
    vocabulary: Vocabulary
    medians: MediansSet

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return f"the checkpoint {self.place}"


def find_start(recipe: PretrainRecipe, settings: Settings) -> Start | None:
    """The checkpoint that a recipe's `[start]` names; None where it names none.

    It may be a folder of Hugging Face, see `hugging_face.py`.

    Raises:
        CheckpointError: there is none, it is damaged, or it has no moments to take.
        RecipeError: its model has another shape than the recipe's, or nothing says its genes.
        ResourceError: an official set is out of reach.
    """
    if recipe.start.checkpoint is None:
        return None
    named = Path(recipe.start.checkpoint).expanduser()
    is_foreign = is_hugging_face_folder(named)
    if is_foreign:
        place = named.absolute()
        info, vocabulary, medians = read_hugging_face_folder(place, recipe, settings)
    else:
        place = find_model(recipe.start.checkpoint, settings).absolute()
        check_files(place)
        info = read_info(place)
        vocabulary = Vocabulary.from_json((place / "vocabulary.json").read_text(encoding="utf-8"))
        medians = MediansSet.from_json((place / "medians.json").read_text(encoding="utf-8"))
        info.refuse_other_genes(place, vocabulary, medians)
    start = Start(place=place, info=info, vocabulary=vocabulary, medians=medians)
    _refuse_other_shape(recipe, start)
    if is_foreign:
        refuse_other_tensors(place, recipe, vocabulary)
    if recipe.start.moments and not (place / _MOMENTS).exists():
        raise CheckpointError(
            f"{place}: holds no {_MOMENTS}, so there are no moments to begin with: leave "
            "start.moments out"
        )
    return start


def keep_start(start: Start, run_folder: Path, *, moments: bool) -> dict[str, Any]:
    """Copy what a run begins with into its folder.

    Args:
        start: the checkpoint.
        run_folder: the run's folder.
        moments: whether the optimizer's moments are taken over.

    Returns:
        The origin, for run.json and every checkpoint of the run: JSON can hold it.

    Raises:
        CheckpointError: the disk is full, or the folder cannot be written.
    """
    place, making = run_folder / FOLDER, run_folder / f".{FOLDER}.making"
    names = [_WEIGHTS, "config.json", "cytolake.json", *([_MOMENTS] if moments else [])]
    names = [name for name in names if (start.place / name).exists()]  # no such word of a stranger
    try:
        for old in (place, making):
            shutil.rmtree(old, ignore_errors=True)
        making.mkdir(parents=True)
        for name in names:
            shutil.copyfile(start.place / name, making / name)
            sync_file(making / name)
        making.rename(place)
        sync_folder(run_folder)
    except OSError as error:
        shutil.rmtree(making, ignore_errors=True)
        raise CheckpointError(
            f"{place}: the weights to begin with cannot be copied: {error}; make room, then run "
            "the same command again"
        ) from error
    info = start.info
    return {
        "checkpoint": str(start.place),
        "run_id": info.run_id,
        "step": info.step,
        "epoch": info.epoch,
        "corpus_uuid": info.corpus_uuid,
        "snapshot": info.snapshot,
        "selection_digest": info.selection_digest,
        "sha256": {name: sha256_file(place / name) for name in names},
        "moments": moments,
        "steps_before": info.step + steps_before(info.origin) if moments else 0,
        "origin": info.origin,
    }


def steps_before(origin: dict[str, Any]) -> int:
    """Steps that the optimizer's moments have seen before a run of that origin began."""
    return int(origin.get("steps_before", 0))


def load_start(
    run_folder: Path, origin: dict[str, Any], model: PackedBert
) -> dict[str, torch.Tensor]:
    """Put the weights that a run begins with into its model; nothing where it begins afresh.

    Returns:
        The moments that it begins with; empty where it takes none.

    Raises:
        CheckpointError: the copies have changed since they were made.
    """
    if not origin:
        return {}
    place = run_folder / FOLDER
    for name, expected in origin["sha256"].items():
        if not (place / name).is_file() or sha256_file(place / name) != expected:
            raise CheckpointError(
                f"{place / name}: is not what the run began with; remove {run_folder} to start "
                "this run anew"
            )
    load_weights(model, place)
    return load_moments(place) if origin["moments"] else {}


def _refuse_other_shape(recipe: PretrainRecipe, start: Start) -> None:
    config = json.loads((start.place / "config.json").read_text(encoding="utf-8"))
    asked = {f"model.{name}": getattr(recipe.model, name) for name in _SHAPE}
    found = {f"model.{name}": config[theirs] for name, theirs in _SHAPE.items()}
    asked |= {"encoding.length": recipe.encoding.length, "family": recipe.family}
    found |= {"encoding.length": config["max_position_embeddings"], "family": start.info.family}
    differing = [name for name in asked if asked[name] != found[name]]
    if differing:
        said = ", ".join(f"{name} = {asked[name]!r} (there {found[name]!r})" for name in differing)
        raise RecipeError(
            f"the recipe's model is not that of {start.name}, whose weights it is to begin with: "
            f"{said}. Write the checkpoint's values into the recipe"
        )
