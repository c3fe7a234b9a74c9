"""What a recipe asks: which model, which cells, with which labels and units.

Knows corpus and checkpoints; knows no task and no tracker. The split is the one stored in the
checkpoint, so that what was learnt from and what is asked cannot drift apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..corpus.store import Corpus
from ..corpus.stream import Selection
from ..platform.errors import EvaluationError
from ..train.checkpoints import (
    Checkpoint,
    CheckpointInfo,
    load_checkpoint,
)
from ..train.families import FAMILIES
from .cells import AskedCells, encode_cells, scattered
from .recipe import EvaluationRecipe
from .results import counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A model and the cells it may be asked about.

    Attributes:
        checkpoint: the model; its encoding cut to the recipe's length.
        place: the checkpoint's folder.
        corpus: the snapshot that is read.
        selection: the cells that the recipe chose.
        pretraining: the cells the model learnt from; None where they are in another corpus.
        notes: what to say of the choice.
    """

    checkpoint: Checkpoint
    place: Path
    corpus: Corpus
    selection: Selection
    pretraining: Selection | None
    notes: tuple[str, ...]

    def column(self, name: str) -> NDArray[np.object_]:
        """A column of `cells` for the whole selection; None where it is unknown."""
        values = self.corpus.column(self.selection, name).to_pylist()
        return np.array(values, dtype=object)

    def rows_with_units(
        self, unit: str
    ) -> tuple[NDArray[np.int64], NDArray[np.object_], tuple[str, ...]]:
        """Rows of the selection, their units, and what was left out.

        Cells without a unit are left out where others have one; where fewer than two units are
        named all cells stay.
        """
        names = self.column(unit)
        named = np.array([name is not None for name in names], dtype=bool)
        rows = np.arange(self.selection.n_cells)
        if len({str(name) for name in names[named]}) < 2 or named.all():
            return rows, names, ()
        left_out = counted(int((~named).sum()), "cell")
        return rows[named], names[named], (f"left out: {left_out} without {unit}",)

    def read(self, positions: NDArray[np.int64], columns: Sequence[str] = ()) -> AskedCells:
        """Read and encode cells; ascending positions come back in the same order."""
        batches = self.corpus.read(self.selection, positions, columns=columns)
        return encode_cells(batches, self.checkpoint.encoding, columns)

    def pretraining_cells(self, *, most: int, seed: int, columns: Sequence[str] = ()) -> AskedCells:
        """Cells that the model learnt from, encoded alike; at most `most`.

        Raises:
            EvaluationError: they are in another corpus.
        """
        if self.pretraining is None:
            raise EvaluationError(
                "the baselines count genes in the pretraining cells, which are in another corpus "
                f"({self.checkpoint.info.corpus_uuid}): give that one"
            )
        corpus = self.corpus
        if corpus.snapshot != self.pretraining.snapshot:
            corpus = Corpus.open(corpus.uri, self.pretraining.snapshot)
        rows = np.sort(scattered(self.pretraining.content_key, seed)[:most])
        batches = corpus.read(self.pretraining, rows, columns=columns)
        return encode_cells(batches, self.checkpoint.encoding, columns)


def prepare(
    corpus_uri: str, recipe: EvaluationRecipe, place: Path, snapshot: int | str | None
) -> Question:
    """Load the model and choose the cells.

    Args:
        corpus_uri: the corpus.
        recipe: part, where, length, and what to do with seen cells.
        place: the checkpoint's folder.
        snapshot: number or tag of the one to read; where None, the one that the model was trained
            on, or the newest where that was another corpus.

    Raises:
        EvaluationError: the model has no split, or cells were pretrained on.
        CheckpointError: the checkpoint is damaged.
    """
    checkpoint = load_checkpoint(place)
    if torch.cuda.is_available():
        checkpoint.model.to(torch.device("cuda"))  # pyright: ignore[reportArgumentType] - transformers wraps torch's `to` without its types
    info, corpus = checkpoint.info, Corpus.open(corpus_uri, snapshot)
    same_corpus = corpus.uuid == info.corpus_uuid
    if snapshot is None and same_corpus:
        corpus = Corpus.open(corpus_uri, info.snapshot)
    if recipe.length is not None and recipe.length < checkpoint.encoding.length:
        shorter = FAMILIES[info.family].encoding(
            checkpoint.vocabulary, checkpoint.medians, recipe.length
        )
        checkpoint = replace(checkpoint, encoding=shorter)
    if recipe.part is not None and info.split is None:
        raise EvaluationError(
            f"part = {recipe.part!r}, but the model was trained without a split, so on every cell "
            'that its query chose: set where, leave part out, or say seen_cells = "use"'
        )
    selection = corpus.select(
        recipe.where, split=info.split if recipe.part else None, part=recipe.part
    )
    notes: list[str] = []
    pretraining = None
    if same_corpus:
        # The cells that were learnt from are those of the snapshot that was learnt from.
        trained = (
            corpus if corpus.snapshot == info.snapshot else Corpus.open(corpus_uri, info.snapshot)
        )
        pretraining = trained.select(
            info.where, split=info.split if info.part else None, part=info.part
        )
        notes += _other_cells(info, pretraining, recipe)
        seen = int(np.isin(selection.content_key, pretraining.content_key).sum())
        if seen and recipe.seen_cells == "refuse":
            raise EvaluationError(
                f"{seen:,} of {selection.n_cells:,} cells were pretrained on: choose another part "
                f"(the split has {', '.join(info.split.names) if info.split else 'none'}) or "
                'where, or say seen_cells = "use"'
            )
        if seen:
            notes.append(f"{seen:,} of {selection.n_cells:,} cells were pretrained on: optimistic")
        elif info.split is not None and not info.split.surely_keeps(recipe.unit):
            asked, learnt = (
                set(lake.column(cells, recipe.unit).unique().to_pylist()) - {None}
                for lake, cells in ((corpus, selection), (trained, pretraining))
            )
            if known := asked & learnt:
                notes.append(
                    f"{len(known)} of {len(asked)} values of {recipe.unit} were pretrained on, "
                    "through other cells: optimistic"
                )
    else:
        notes.append("another corpus than the model was trained on: seen cells cannot be told")
    return Question(
        checkpoint=checkpoint,
        place=place,
        corpus=corpus,
        selection=selection,
        pretraining=pretraining,
        notes=tuple(notes),
    )


def _other_cells(
    info: CheckpointInfo, pretraining: Selection, recipe: EvaluationRecipe
) -> list[str]:
    """Whether the part that was learnt from is still cut as it was: an older version cut otherwise.

    Raises:
        EvaluationError: it is not, and the recipe refuses cells that were seen.
    """
    capped = info.pretrain_recipe.data.cap_per_tissue is not None  # the digest is of fewer cells
    if capped or not info.selection_digest or info.selection_digest == pretraining.digest:
        return []
    told = (
        f"the model learnt from other cells than part {info.part!r} of its split has now: which "
        "cells it has seen cannot be told"
    )
    if recipe.seen_cells == "refuse":
        raise EvaluationError(
            f"{told}; an older cytolake cut donors who share cells apart. Pretrain anew, or say "
            'seen_cells = "use"'
        )
    return [told]
