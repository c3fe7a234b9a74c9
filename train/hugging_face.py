"""A Hugging Face folder of stock `BertForMaskedLM`, to begin with: a published model, or one's own.

    config.json, model.safetensors     what `save_pretrained` writes and `hf download` brings
    vocabulary.json, medians.json      ours, where somebody has laid them beside

Such a folder does not say which gene a token is: that comes from the two files beside, or from the
official set that the recipe names. Nothing is unpickled. Knows files and genes; trains nothing.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..corpus.medians import MediansSet
from ..corpus.vocabularies import Vocabulary
from ..platform.errors import CheckpointError, RecipeError
from ..platform.settings import Settings
from .checkpoints import TIED, UNUSED, CheckpointInfo
from .models.bert import PackedBert, bert_config
from .recipe import PretrainRecipe
from .vocabularies import official_set

_WEIGHTS, _PICKLED = "model.safetensors", "pytorch_model.bin"
_EXPECTED = {
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
    "is_decoder": False,
}
"""Of config.json; Hugging Face's default where the file is silent, which is the same."""


def is_hugging_face_folder(folder: Path) -> bool:
    """Whether a folder holds a model, and nothing that cytolake has written of it."""
    ours = ("checkpoint.json", "cytolake.json")
    return (folder / "config.json").is_file() and not any((folder / n).exists() for n in ours)


def read_hugging_face_folder(
    folder: Path, recipe: PretrainRecipe, settings: Settings
) -> tuple[CheckpointInfo, Vocabulary, MediansSet]:
    """What such a folder is to a run that begins with it; its tensors are not looked at yet.

    Args:
        folder: the folder.
        recipe: names the official set, where no vocabulary lies beside.
        settings: where official sets are found.

    Raises:
        CheckpointError: it is no BERT of ours to read, or its weights are pickled.
        RecipeError: nothing says which gene a token is, or not of as many tokens as it has.
        ResourceError: the official set is out of reach.
    """
    config = _read_config(folder)
    if not (folder / _WEIGHTS).is_file():
        there = f"it has {_PICKLED}, which is pickled, and nothing is unpickled here"
        why = there if (folder / _PICKLED).exists() else "there is none"
        raise CheckpointError(
            f"{folder}: expected the weights in one {_WEIGHTS}; {why}. Where you trust it: "
            "BertForMaskedLM.from_pretrained(folder).save_pretrained(another)"
        )
    vocabulary, medians, said = _genes(folder, recipe, settings)
    if vocabulary.size != config["vocab_size"]:
        raise RecipeError(
            f"{folder}: its model has {config['vocab_size']:,} tokens, {said} has "
            f"{vocabulary.size:,}: a token would stand for another gene than the one its weights "
            "were trained for. Name the set it was trained with"
        )
    info = CheckpointInfo(
        family=recipe.family,
        recipe={"name": folder.name},
        length=config["max_position_embeddings"],
        snapshot=-1,
        corpus_uuid="",
        where=None,
        part=None,
        selection_digest="",
        n_cells=0,
        vocabulary_digest=vocabulary.digest,
        medians_digest=medians.digest,
        step=0,
        epoch=0.0,
    )
    return info, vocabulary, medians


def refuse_other_tensors(folder: Path, recipe: PretrainRecipe, vocabulary: Vocabulary) -> None:
    """Hold the names and shapes of the file's tensors against those of the recipe's model.

    Raises:
        CheckpointError: one is missing, too many, of another shape, or the file is cut short.
    """
    config = bert_config(
        vocabulary_size=vocabulary.size, length=recipe.encoding.length, **recipe.model.model_dump()
    )
    with torch.device("meta"):  # names and shapes, no memory
        model = PackedBert(config)
    wanted = {name: list(value.shape) for name, value in model.state_dict().items()}
    try:
        with safe_open(folder / _WEIGHTS, framework="pt") as file:
            found = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / _WEIGHTS}: cannot be read: {error}") from error
    missing = [name for name in wanted if name not in found and name not in TIED]
    unknown = [name for name in found if name not in wanted and name not in UNUSED]
    other = [name for name in found if name in wanted and found[name] != wanted[name]]
    if missing or unknown or other:
        said = [
            f"{len(names)} {what} (such as {names[0]})"
            for names, what in (
                (missing, "missing"),
                (unknown, "unknown"),
                (other, "of another shape"),
            )
            if names
        ]
        raise CheckpointError(
            f"{folder / _WEIGHTS}: of its tensors, {', '.join(said)}: expected those of "
            "`BertForMaskedLM` in the recipe's shape"
        )


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        found = {name: config.get(name, usual) for name, usual in _EXPECTED.items()}
        kinds = list(config["architectures"])
        config["vocab_size"], config["max_position_embeddings"] = (
            int(config[name]) for name in ("vocab_size", "max_position_embeddings")
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: config.json cannot be read: {error!r}") from error
    if "BertForMaskedLM" not in kinds:
        raise CheckpointError(
            f"{folder}: holds {', '.join(kinds)}, expected BertForMaskedLM, which has the head for "
            "hidden genes"
        )
    for name, value in found.items():
        if value != _EXPECTED[name]:
            raise CheckpointError(
                f"{folder}: config.json has {name} = {value!r}, expected {_EXPECTED[name]!r}"
            )
    return config


def _genes(
    folder: Path, recipe: PretrainRecipe, settings: Settings
) -> tuple[Vocabulary, MediansSet, str]:
    beside = [folder / name for name in ("vocabulary.json", "medians.json")]
    if all(path.is_file() for path in beside):
        tokens, medians = (path.read_text(encoding="utf-8") for path in beside)
        return Vocabulary.from_json(tokens), MediansSet.from_json(medians), "its vocabulary.json"
    name = recipe.vocabulary.set
    if name in ("corpus", "checkpoint"):
        raise RecipeError(
            f"{folder}: a folder of Hugging Face does not say which gene a token is. Name the "
            'official set it was trained with (vocabulary.set = "geneformer-v1" or '
            '"geneformer-v2"), or lay vocabulary.json and medians.json beside it'
        )
    return *official_set(name, settings), f'vocabulary.set = "{name}"'
