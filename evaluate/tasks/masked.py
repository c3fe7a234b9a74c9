"""Masked: how well does a model guess genes that are hidden from it, beside gene frequencies?

Only positions whose input IS `<mask>` are scored: where the objective left the gene in place or
put another there, the answer may be read off. Knows no corpus. Array suffixes: m masked position,
v token of the vocabulary, c cell.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ...platform.errors import EvaluationError
from ...train.checkpoints import Checkpoint
from ...train.encodings.tokens import TokenBatch
from ...train.objectives.masked_genes import MASK, mask_pack
from ...train.packing import pack_cells
from ..baselines import RankUnigram, fit_rank_unigram
from ..cells import AskedCells, Units
from ..figures import score_bars
from ..metrics import cross_entropies, ranks_of_truth, ratio_score, sums_by_unit
from ..recipe import EvaluationRecipe
from ..results import EvaluationResult, compare, joined
from ..scores import Score

CHECKPOINT, UNIGRAM = "checkpoint", "unigram"
BY_RANK, BY_RANK_UNSEEN = "rank-unigram", "rank-unigram without visible genes"
TOP_1, TOP_10, CROSS_ENTROPY = "top-1 accuracy", "top-10 accuracy", "cross-entropy (nats)"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Guesses:
    """What one guesser did at every masked position. Shapes (m,)."""

    ranks: NDArray[np.int64]
    losses: NDArray[np.float64]

    @classmethod
    def of(cls, guess: tuple[NDArray[np.int64], NDArray[np.float64]]) -> "_Guesses":
        """Places and cross-entropies, as a baseline gives them."""
        return cls(ranks=guess[0], losses=guess[1])


def masked(
    checkpoint: Checkpoint,
    cells: AskedCells,
    units: Units,
    pretraining: TokenBatch,
    recipe: EvaluationRecipe,
    *,
    advance: Callable[[int], object] | None = None,
) -> EvaluationResult:
    """Ask for hidden genes.

    Args:
        checkpoint: the model.
        cells: cells it has not seen.
        units: the independent units of these cells.
        pretraining: the cells it was pretrained on, encoded alike: what the baselines count.
        recipe: masks come from its seed, shares from the checkpoint's own objective.
        advance: told the number of cells done, now and then.

    Raises:
        EvaluationError: no position is masked.
    """
    n_special = len(checkpoint.vocabulary.special)
    leading = int("<cls>" in checkpoint.vocabulary.special)
    table = _count_genes(checkpoint, pretraining, n_special, leading)
    guesses, cell_m = _guess(checkpoint, cells.tokens, table, recipe, leading, advance)
    unit_m = units.unit_c[cell_m]
    seen = np.unique(unit_m)  # a unit without a masked position has nothing to say
    place_m = np.searchsorted(seen, unit_m)
    scores: list[Score] = []
    values: dict[tuple[str, str], tuple[NDArray[np.float64], NDArray[np.int64]]] = {}
    for model, guess in guesses.items():
        measured = {
            TOP_1: (guess.ranks < 1).astype(np.float64),
            TOP_10: (guess.ranks < 10).astype(np.float64),
            CROSS_ENTROPY: guess.losses,
        }
        for name, value_m in measured.items():
            sums = sums_by_unit(value_m, place_m, len(seen))
            values[name, model] = sums
            scores.append(
                ratio_score(*sums, name=name, model=model, unit=units.word, seed=recipe.seed)
            )
    gains: dict[str, Score] = {}
    for model in (UNIGRAM, BY_RANK, BY_RANK_UNSEEN):
        theirs, counts = values[CROSS_ENTROPY, model]
        ours, _ = values[CROSS_ENTROPY, CHECKPOINT]
        gains[model] = ratio_score(
            theirs - ours,
            counts,
            name="cross-entropy saved by the checkpoint (nats)",
            model=model,
            unit=units.word,
            seed=recipe.seed,
        )
    scores += gains.values()
    notes = [
        f"{len(cell_m):,} <mask> positions of {len(np.unique(cell_m)):,} cells",
        f"baselines count {table.n_tokens:,} genes of {pretraining.n_cells:,} pretraining cells; "
        f"rank bins smoothed with {table.strength:g} genes' worth of the unigram",
        *filter(None, [units.note]),
    ]
    return EvaluationResult(
        task="masked",
        verdict=_verdict(gains),
        scores=tuple(scores),
        tables={"positions": _over_positions(guesses, table)},
        figures={"masked": score_bars(scores, (TOP_1, TOP_10, CROSS_ENTROPY))},
        notes=tuple(notes),
    )


def _count_genes(
    checkpoint: Checkpoint, pretraining: TokenBatch, n_special: int, leading: int
) -> RankUnigram:
    is_gene = pretraining.tokens >= n_special
    places = np.arange(len(pretraining.tokens)) - np.repeat(
        pretraining.offsets[:-1], pretraining.lengths
    )
    return fit_rank_unigram(
        pretraining.tokens[is_gene],
        (places - leading)[is_gene],
        n_tokens=checkpoint.vocabulary.size,
        n_special=n_special,
        length=checkpoint.encoding.length,
    )


def _guess(
    checkpoint: Checkpoint,
    tokens: TokenBatch,
    table: RankUnigram,
    recipe: EvaluationRecipe,
    leading: int,
    advance: Callable[[int], object] | None,
) -> tuple[dict[str, _Guesses], NDArray[np.int64]]:
    """Each guesser's work at each masked position, and the positions' cells."""
    model, n_special = checkpoint.model, len(checkpoint.vocabulary.special)
    objective = checkpoint.info.pretrain_recipe.objective
    false_share = objective.share * objective.random / (1 - objective.share * objective.masked)
    found: dict[str, list[_Guesses]] = {
        name: [] for name in (CHECKPOINT, UNIGRAM, BY_RANK, BY_RANK_UNSEEN)
    }
    cells: list[NDArray[np.int64]] = []
    budget = max(recipe.pack_tokens, int(tokens.lengths.max(initial=1)))
    for pack in pack_cells(tokens, budget):
        hidden = mask_pack(
            pack,
            seed=recipe.seed,
            epoch=0,
            n_special=n_special,
            vocabulary_size=checkpoint.vocabulary.size,
            share=objective.share,
            masked=objective.masked,
            random=objective.random,
        )
        scored = hidden.pack.tokens[hidden.rows] == MASK
        rows, labels = hidden.rows[scored], hidden.labels[scored].numpy()
        with torch.inference_mode():
            on_device = hidden.pack.to(model.device)
            states = model.hidden_states(on_device)[rows.to(model.device)]
            logits_mv = model.logits(states).float().cpu().numpy()
        places_m = ranks_of_truth(logits_mv, labels)
        found[CHECKPOINT].append(
            _Guesses(ranks=places_m, losses=cross_entropies(logits_mv, labels))
        )
        ranks_m = pack.positions[rows].numpy() - leading
        found[UNIGRAM].append(_Guesses.of(table.guess_anywhere(labels)))
        found[BY_RANK].append(_Guesses.of(table.guess(ranks_m, labels)))
        place_m = np.searchsorted(pack.offsets.numpy(), rows.numpy(), side="right") - 1
        for place in range(pack.n_cells):
            here = place_m == place
            begin, end = int(pack.offsets[place]), int(pack.offsets[place + 1])
            shown = hidden.pack.tokens[begin:end].numpy()
            unseen = table.guess_unseen(
                ranks_m[here], labels[here], shown[shown >= n_special], false_share=false_share
            )
            found[BY_RANK_UNSEEN].append(_Guesses.of(unseen))
        cells.append(np.array(pack.rows, dtype=np.int64)[place_m])
        if advance is not None:
            advance(pack.n_cells)
    cell_m = np.concatenate([*cells, np.empty(0, dtype=np.int64)])
    if not len(cell_m):
        raise EvaluationError(
            f"no position of {tokens.n_cells} cells is masked: they express too few genes of the "
            "vocabulary, or too few cells were chosen"
        )
    joint = {
        name: _Guesses(
            ranks=np.concatenate([part.ranks for part in parts]),
            losses=np.concatenate([part.losses for part in parts]),
        )
        for name, parts in found.items()
    }
    return joint, cell_m


def _over_positions(guesses: dict[str, _Guesses], table: RankUnigram) -> pa.Table:
    rows: list[dict[str, object]] = []
    for model, guess in guesses.items():
        rows.append(
            {
                "model": model,
                "positions": len(guess.ranks),
                "top-1 accuracy": float((guess.ranks < 1).mean()),
                "top-10 accuracy": float((guess.ranks < 10).mean()),
                "median place of the true gene": float(np.median(guess.ranks)) + 1,
                "cross-entropy (nats)": float(guess.losses.mean()),
                "perplexity": float(np.exp(guess.losses.mean())),
            }
        )
    genes = int((table.unigram_v > 0).sum())
    rows.append({"model": f"chance, {genes:,} genes", "cross-entropy (nats)": float(np.log(genes))})
    return pa.Table.from_pylist(rows, schema=pa.Table.from_pylist(rows[:1]).schema)


def _verdict(gains: dict[str, Score]) -> str:
    words = [f"{compare(gain)} ({model})" for model, gain in gains.items()]
    beaten = [model for model, gain in gains.items() if gain.low > 0]
    lead = (
        f"At <mask> the checkpoint beats {joined(beaten)} in cross-entropy. "
        if beaten
        else "At <mask> the checkpoint beats none of the baselines in cross-entropy. "
    )
    return lead + f"Against each baseline it is: {'; '.join(words)}."
