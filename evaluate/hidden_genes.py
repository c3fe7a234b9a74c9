"""Hidden genes: the positions that are asked, the same for every guesser. Knows no baseline.

Only positions whose input IS `<mask>` are asked: where the objective left the gene in place or
put another there, the answer may be read off. Array suffixes: m masked position, v token of the
vocabulary.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..platform.errors import EvaluationError
from ..train.encodings.tokens import TokenBatch
from ..train.models.bert import PackedBert
from ..train.objectives.masked_genes import MASK, MaskedPack, mask_pack
from ..train.packing import packs_of
from ..train.recipe import ObjectiveRecipe
from .metrics import cross_entropies, ranks_of_truth

NOBODY = -1
"""Stands for the gene beside a position where none is visible on that side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedCell:
    """What is asked of one cell, and what it shows.

    Attributes:
        positions: the cell's places in all the arrays of `HiddenGenes`.
        visible: the genes that are seen; a few of them are not the cell's own. Shape (n_visible,).
    """

    positions: slice
    visible: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class HiddenGenes:
    """Cells with some of their genes hidden.

    Attributes:
        packs: the cells as the model is shown them.
        rows: the places of `<mask>` in each pack.
        cells: what is asked of each cell, in the order of the positions.
        cell_m: each position's cell, a row of the batch that was asked. Shape (m,).
        rank_m: how many genes stand before it in its cell. Shape (m,).
        truth_m: the gene that stands there. Shape (m,).
        before_m: the nearest visible gene before it; `NOBODY` where there is none. Shape (m,).
        after_m: the same after it. Shape (m,).
        false_share: the expected share of visible genes that are not the cell's own, > 0.
    """

    packs: tuple[MaskedPack, ...]
    rows: tuple[torch.Tensor, ...]
    cells: tuple[AskedCell, ...]
    cell_m: NDArray[np.int64]
    rank_m: NDArray[np.int64]
    truth_m: NDArray[np.int64]
    before_m: NDArray[np.int64]
    after_m: NDArray[np.int64]
    false_share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Guesses:
    """What one guesser did at every position.

    Attributes:
        places: how many genes it held likelier than the true one. Shape (m,).
        losses: cross-entropies in nats. Shape (m,).
    """

    places: NDArray[np.int64]
    losses: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: "list[tuple[NDArray[np.int64], NDArray[np.float64]]]") -> "Guesses":
        """Places and losses of some positions after others."""
        return cls(
            places=np.concatenate([places for places, _ in parts]),
            losses=np.concatenate([losses for _, losses in parts]),
        )


def hide_genes(
    tokens: TokenBatch,
    objective: ObjectiveRecipe,
    *,
    seed: int,
    n_special: int,
    vocabulary_size: int,
    leading: int,
    pack_tokens: int,
) -> HiddenGenes:
    """Hide genes of some cells; pure.

    Args:
        tokens: the cells.
        objective: which shares are hidden.
        seed: another seed, other genes.
        n_special: how many special tokens the vocabulary begins with.
        vocabulary_size: one above the largest token.
        leading: how many special tokens stand before a cell's first gene.
        pack_tokens: the most tokens of a pack; more where a cell alone has more.

    Raises:
        EvaluationError: no position is hidden.
    """
    packs: list[MaskedPack] = []
    rows: list[torch.Tensor] = []
    cells: list[AskedCell] = []
    cell_m: list[NDArray[np.int64]] = []
    rank_m: list[NDArray[np.int64]] = []
    truth_m: list[NDArray[np.int64]] = []
    before_m: list[NDArray[np.int64]] = []
    after_m: list[NDArray[np.int64]] = []
    n_asked = 0
    for pack in packs_of(tokens, max(pack_tokens, int(tokens.lengths.max(initial=1)))):
        hidden = mask_pack(
            pack,
            seed=seed,
            epoch=0,
            n_special=n_special,
            vocabulary_size=vocabulary_size,
            share=objective.share,
            masked=objective.masked,
            random=objective.random,
        )
        is_asked = hidden.pack.tokens[hidden.rows] == MASK
        here, offsets = hidden.rows[is_asked], pack.offsets.numpy()
        place_m = np.searchsorted(offsets, here.numpy(), side="right") - 1
        for place, n_here in enumerate(np.bincount(place_m, minlength=pack.n_cells).tolist()):
            shown = hidden.pack.tokens[offsets[place] : offsets[place + 1]].numpy()
            if n_here:
                positions = slice(n_asked, n_asked + n_here)
                cells.append(AskedCell(positions=positions, visible=shown[shown >= n_special]))
                at = np.flatnonzero(shown == MASK)
                before, after = beside(shown, shown >= n_special, at)
                before_m.append(before)
                after_m.append(after)
            n_asked += n_here
        packs.append(hidden)
        rows.append(here)
        cell_m.append(np.array(pack.rows, dtype=np.int64)[place_m])
        rank_m.append(pack.positions[here].numpy() - leading)
        truth_m.append(hidden.labels[is_asked].numpy())
    if not n_asked:
        raise EvaluationError(
            f"no position of {tokens.n_cells} cells is masked: they express too few genes of the "
            "vocabulary, or too few cells were chosen"
        )
    return HiddenGenes(
        packs=tuple(packs),
        rows=tuple(rows),
        cells=tuple(cells),
        cell_m=np.concatenate(cell_m),
        rank_m=np.concatenate(rank_m),
        truth_m=np.concatenate(truth_m),
        before_m=np.concatenate(before_m),
        after_m=np.concatenate(after_m),
        false_share=false_share_of(objective),
    )


def beside(
    tokens: NDArray[np.integer], is_visible: NDArray[np.bool_], places_m: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The nearest visible tokens before and after some places; `NOBODY` where there is none.

    Args:
        tokens: a cell's tokens by rank.
        is_visible: which of them are seen.
        places_m: places that are not. Shape (m,).
    """
    shown = np.flatnonzero(is_visible)
    at_m = np.searchsorted(shown, places_m)
    padded = np.concatenate([[NOBODY], tokens[shown], [NOBODY]]).astype(np.int64)
    return padded[at_m], padded[at_m + 1]


def false_share_of(objective: ObjectiveRecipe) -> float:
    """The expected share of visible genes that the objective drew at random; above 0."""
    visible = 1 - objective.share * objective.masked
    return max(objective.share * objective.random / visible, 1e-6) if visible > 0 else 1e-6


def guesses_of_model(
    model: PackedBert,
    hidden: HiddenGenes,
    *,
    advance: Callable[[int], object] | None = None,
) -> Guesses:
    """Ask a model in evaluation mode; `advance` is told the number of cells done, now and then."""
    parts: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
    for logits_mv, truth_m, n_cells in _logits(model, hidden):
        parts.append((ranks_of_truth(logits_mv, truth_m), cross_entropies(logits_mv, truth_m)))
        if advance is not None:
            advance(n_cells)
    return Guesses.joined(parts)


def _logits(
    model: PackedBert, hidden: HiddenGenes
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64], int]]:
    begin = 0
    for pack, rows in zip(hidden.packs, hidden.rows, strict=True):
        with torch.inference_mode():
            states = model.hidden_states(pack.pack.to(model.device))[rows.to(model.device)]
            logits_mv = model.logits(states).float().cpu().numpy()
        yield logits_mv, hidden.truth_m[begin : begin + len(rows)], pack.pack.n_cells
        begin += len(rows)
