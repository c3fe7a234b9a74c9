"""Checkpoints: a Hugging Face folder with vocabulary, medians, recipe and resume state beside it.

    README.md                        the model card: data, settings, scores so far, limits
    config.json, model.safetensors   what stock `BertForMaskedLM.from_pretrained` reads
    vocabulary.json, medians.json    what turns cells into tokens, whole
    cytolake.json                    where it comes from: recipe, snapshot, split, step, versions
    training.safetensors             the optimizer's moments, whole, whatever the number of ranks
    validation.json                  loss and accuracy on held-out cells, where they were asked
    checkpoint.json                  written last: size and SHA-256 of every file above

Knows no Ray and no engine. A folder is made beside its place and renamed when it is whole; which
ones stay: `retention.py`.
Nothing is pickled. There is no state of random generators to keep: masks, order and dropout are
drawn from (seed, step, cell), and the learning rate is a function of the step.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import BertConfig

from ..corpus.medians import MediansSet
from ..corpus.splits import Split
from ..corpus.vocabularies import Vocabulary
from ..platform.configuration import parse_values
from ..platform.errors import CheckpointError, NewerFormatError, StorageError
from ..platform.faults import durable
from ..platform.storage import sha256_file, sync_file, write_durably
from .encodings.rank_value import RankValueEncoding
from .families import FAMILIES
from .model_card import model_card
from .models.bert import PackedBert, fresh_bert
from .recipe import PretrainRecipe
from .retention import (
    SCORES,
    checkpoint_at,
    checkpoints_in,
    folder_name,
    making_name,
    publish_checkpoint,
    retain,
    scores_text,
    set_aside,
)

FORMAT = 1
TIED = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
UNUSED = ("bert.embeddings.position_ids",)
"""Tensors that are others by another name, and those that older versions of transformers wrote."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointInfo:
    """Where a model comes from.

    Attributes:
        family: a row of `train.families`.
        recipe: the recipe, whole.
        length: the most tokens of a cell.
        snapshot: the corpus's snapshot; -1 where no corpus was read.
        corpus_uuid: the corpus.
        where: the query that chose the cells.
        part: the part of the split that was seen.
        selection_digest: hash of the list of cells.
        n_cells: number of cells of that list.
        vocabulary_digest: the vocabulary.
        medians_digest: the medians.
        step: optimizer steps done.
        epoch: passes over the cells done, with decimals.
        run_id: the run in the tracking store.
        versions: of what the training used.
        origin: whose weights it began with (see `starting.keep_start`); empty for fresh ones.
        precision: what the recipe's came to; empty in checkpoints of before it was kept.
        format: of the checkpoint's folder.
    """

    family: str
    recipe: dict[str, Any]
    length: int
    snapshot: int
    corpus_uuid: str
    where: str | None
    part: str | None
    selection_digest: str
    n_cells: int
    vocabulary_digest: str
    medians_digest: str
    step: int
    epoch: float
    run_id: str = ""
    versions: dict[str, str] = field(default_factory=dict[str, str])
    origin: dict[str, Any] = field(default_factory=dict[str, Any])
    precision: str = ""
    format: int = FORMAT

    @property
    def split(self) -> Split | None:
        """How the corpus was cut into parts; None where it was not."""
        return self.pretrain_recipe.split

    @property
    def pretrain_recipe(self) -> PretrainRecipe:
        """The recipe, parsed."""
        return parse_values(self.recipe, PretrainRecipe, origin="the checkpoint's recipe")

    def refuse_other_genes(self, place: Path, vocabulary: Vocabulary, medians: MediansSet) -> None:
        """Refuse files beside the weights that are not those of the training.

        Raises:
            CheckpointError: a digest is not the one that was written down.
        """
        for name, found, expected in (
            ("vocabulary", vocabulary.digest, self.vocabulary_digest),
            ("medians", medians.digest, self.medians_digest),
        ):
            if found != expected:
                raise CheckpointError(
                    f"{place}: its {name} is {found:.12}, the model was trained with {expected:.12}"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A model and all that is needed to use it on cells.

    Attributes:
        model: in evaluation mode.
        encoding: turns cells into its tokens.
        vocabulary: its tokens.
        medians: its medians.
        info: where it comes from.
    """

    model: PackedBert
    encoding: RankValueEncoding
    vocabulary: Vocabulary
    medians: MediansSet
    info: CheckpointInfo


def save_checkpoint(
    folder: Path,
    *,
    model: PackedBert,
    vocabulary: Vocabulary,
    medians: MediansSet,
    info: CheckpointInfo,
    moments: Mapping[str, torch.Tensor] | None = None,
    weights: Mapping[str, torch.Tensor] | None = None,
    scores: Mapping[str, float] | None = None,
    keep: int = 2,
    reports: Sequence[Mapping[str, float]] = (),
    keep_best: bool = True,
    maker: str = "",
    may_publish: Callable[[], None] = lambda: None,
) -> Path:
    """Write a checkpoint into `folder`, then let all but the newest `keep` go, and the best.

    Args:
        folder: the run's folder of checkpoints.
        model: its weights and configuration are written.
        vocabulary: the model's.
        medians: the model's.
        info: where the model comes from; its step names the checkpoint.
        moments: the optimizer's, for resuming; may be left out.
        weights: copies that `weights_of` took, where the model goes on learning meanwhile.
        scores: what held-out cells said, with `validation_loss`; may be left out.
        keep: how many checkpoints stay.
        reports: what the run has said so far, for the model card.
        keep_best: whether the best by validation loss stays besides.
        maker: comes into the name of the folder while it is made.
        may_publish: asked just before anything is published or removed; raises what forbids it.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; none is left half-made.
    """
    place = folder / folder_name(info.step)
    making = folder / making_name(info.step, maker)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        with durable("checkpoint/write"):
            kept = weights if weights is not None else weights_of(model)
            _write_files(making, model, vocabulary, medians, info, kept, moments, reports)
            if scores is not None:
                (making / SCORES).write_text(scores_text(scores), encoding="utf-8")
        listed = {
            path.name: {"n_bytes": path.stat().st_size, "sha256": sha256_file(path)}
            for path in sorted(making.iterdir())
        }
        for path in making.iterdir():
            sync_file(path)
        text = json.dumps({"format": FORMAT, "files": listed}, indent=2)
        write_durably(making / "checkpoint.json", text.encode(), "checkpoint/list")
        may_publish()
        publish_checkpoint(making, place)
        retain(folder, keep, keep_best=keep_best)
    except (OSError, StorageError, SafetensorError) as error:
        shutil.rmtree(making, ignore_errors=True)
        may_publish()  # if not, whoever forbids it has taken the folder away
        raise CheckpointError(
            f"{place}: cannot be written: {error}; the checkpoints before it are whole. Make room "
            "or give another home, then run the same command again"
        ) from error
    return place


def weights_of(model: PackedBert) -> dict[str, torch.Tensor]:
    """Copies of a model's weights on the host, tied ones once, under Hugging Face's names."""
    return {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in model.state_dict().items()
        if name not in TIED
    }


def newest_sound(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose files are what was written; damaged ones are set aside.

    Returns:
        The checkpoint, None where there is none at all; and what was found at newer ones.

    Raises:
        CheckpointError: there are checkpoints, and none of them is sound.
        NewerFormatError: a newer cytolake wrote one.
    """
    found, passed_over = checkpoints_in(folder), list[str]()
    for place in reversed(found):
        try:
            check_files(place)
        except CheckpointError as error:
            passed_over.append(f"{place.name} was passed over: {error}")
            continue
        for damaged in found[len(found) - len(passed_over) :]:
            set_aside(damaged)
        return place, passed_over
    if found:
        raise CheckpointError(
            f"{folder}: none of {len(found)} checkpoints is sound: {passed_over[0]}. Put a copy in "
            "its place, or remove the run's folder to begin anew"
        )
    return None, []


def check_files(place: Path) -> None:
    """Hash a checkpoint's files.

    Raises:
        CheckpointError: a file is missing, cut short or changed.
        NewerFormatError: a newer cytolake wrote it.
    """
    try:
        written = json.loads((place / "checkpoint.json").read_text(encoding="utf-8"))
        version, files = int(written["format"]), dict(written["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{place}: checkpoint.json cannot be read: {error}") from error
    if version > FORMAT:
        raise NewerFormatError(
            f"{place}: written in format {version}, this cytolake reads up to {FORMAT}: update it"
        )
    for name, expected in files.items():
        path = place / name
        if not path.is_file() or path.stat().st_size != expected["n_bytes"]:
            found = f"{path.stat().st_size} bytes" if path.is_file() else "no such file"
            raise CheckpointError(
                f"{path}: {found}, expected {expected['n_bytes']} bytes; use the checkpoint "
                f"before {place.name}: the run's command goes on from it"
            )
        if sha256_file(path) != expected["sha256"]:
            raise CheckpointError(
                f"{path}: its bytes have changed since it was written; use the checkpoint before "
                f"{place.name}: the run's command goes on from it"
            )


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Load a checkpoint; every file is checked.

    Args:
        path: its folder; a run's folder for the newest, or that with `@best` after it for the one
            with the least validation loss.

    Raises:
        CheckpointError: there is none, or it is damaged.
        NewerFormatError: a newer cytolake wrote it.
    """
    place = checkpoint_at(Path(path))
    check_files(place)
    info = read_info(place)
    vocabulary = Vocabulary.from_json((place / "vocabulary.json").read_text(encoding="utf-8"))
    medians = MediansSet.from_json((place / "medians.json").read_text(encoding="utf-8"))
    info.refuse_other_genes(place, vocabulary, medians)
    model = fresh_bert(BertConfig.from_json_file(place / "config.json"), seed=0)
    load_weights(model, place)
    encoding = FAMILIES[info.family].encoding(vocabulary, medians, info.length)
    return Checkpoint(
        model=model.eval(), encoding=encoding, vocabulary=vocabulary, medians=medians, info=info
    )


def read_info(place: Path) -> CheckpointInfo:
    """Where a checkpoint's model comes from.

    Raises:
        CheckpointError: cytolake.json is missing or something else.
    """
    path = place / "cytolake.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        info = CheckpointInfo(**values)
    except (OSError, ValueError, TypeError) as error:
        known = ", ".join(f.name for f in fields(CheckpointInfo))
        raise CheckpointError(f"{path}: {error}; expected {known}") from error
    if info.family not in FAMILIES:
        raise CheckpointError(f"{path}: family {info.family!r}, known are {', '.join(FAMILIES)}")
    return info


def load_weights(model: PackedBert, place: Path) -> None:
    """Put a checkpoint's weights into a model.

    Raises:
        CheckpointError: names or shapes differ.
    """
    weights = load_file(place / "model.safetensors")
    for name in UNUSED:
        weights.pop(name, None)
    weights["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"]
    weights["cls.predictions.decoder.bias"] = weights["cls.predictions.bias"]
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{place}: the weights are not this model's: {error}") from error


def load_moments(place: Path) -> dict[str, torch.Tensor]:
    """The optimizer's moments of a checkpoint; empty where it holds none."""
    path = place / "training.safetensors"
    return load_file(path) if path.exists() else {}


def untrained_like(checkpoint: Checkpoint, seed: int) -> Checkpoint:
    """The same shape, vocabulary and medians with fresh weights: what training is held against."""
    model = fresh_bert(BertConfig.from_dict(checkpoint.model.config.to_dict()), seed)
    return Checkpoint(
        model=model.eval(),
        encoding=checkpoint.encoding,
        vocabulary=checkpoint.vocabulary,
        medians=checkpoint.medians,
        info=checkpoint.info,
    )


def _write_files(
    folder: Path,
    model: PackedBert,
    vocabulary: Vocabulary,
    medians: MediansSet,
    info: CheckpointInfo,
    weights: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor] | None,
    reports: Sequence[Mapping[str, float]],
) -> None:
    config = {**model.config.to_dict(), "architectures": ["BertForMaskedLM"]}
    texts = {
        "config.json": json.dumps(config, indent=2, sort_keys=True),
        "vocabulary.json": vocabulary.to_json(),
        "medians.json": medians.to_json(),
        "cytolake.json": json.dumps(asdict(info), indent=2),
        "README.md": model_card(
            info,
            vocabulary=vocabulary,
            medians=medians,
            n_parameters=sum(p.numel() for p in model.parameters()),
            reports=reports,
        ),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    # transformers reads only files that say "pt".
    save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})
    if moments:
        whole = {name: value.cpu().contiguous() for name, value in moments.items()}
        save_file(whole, folder / "training.safetensors", metadata={"format": "pt"})
