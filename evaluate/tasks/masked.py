"""Masked: how well does a model guess genes that are hidden from it, beside gene frequencies?

Model and baselines are asked at the very same `<mask>` positions. Knows no corpus.
Array suffix: m masked position.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...train.checkpoints import Checkpoint
from ...train.encodings.tokens import TokenBatch
from ..baselines import RankUnigram
from ..cells import AskedCells, Units
from ..figures import score_bars
from ..guessers import (
    BASELINES,
    fit_guessers,
    guesses_of_baselines,
    hide_for,
)
from ..hidden_genes import Guesses, HiddenGenes, guesses_of_model
from ..metrics import ratio_score, sums_by_unit
from ..recipe import EvaluationRecipe
from ..results import EvaluationResult, compare, joined
from ..scores import Score

CHECKPOINT = "checkpoint"
TOP_1, TOP_10, CROSS_ENTROPY = "top-1 accuracy", "top-10 accuracy", "cross-entropy (nats)"
SAVED = "cross-entropy saved by the checkpoint (nats)"


def masked(
    checkpoint: Checkpoint,
    cells: AskedCells,
    units: Units,
    pretraining: TokenBatch,
    recipe: EvaluationRecipe,
    *,
    pretraining_units: NDArray[np.object_] | None = None,
    advance: Callable[[int], object] | None = None,
) -> EvaluationResult:
    """Ask for hidden genes.

    Args:
        checkpoint: the model.
        cells: cells it has not seen.
        units: the independent units of these cells.
        pretraining: the cells it was pretrained on, encoded alike: what the baselines count.
        recipe: masks come from its seed, shares from the checkpoint's own objective.
        pretraining_units: their independent units, for choosing settings of the cell kNN.
            Shape (pretraining.n_cells,).
        advance: told the number of cells done, now and then.

    Raises:
        EvaluationError: no position is masked, or there are too few pretraining cells.
    """
    hidden = hide_for(checkpoint, cells.tokens, seed=recipe.seed, pack_tokens=recipe.pack_tokens)
    guessers = fit_guessers(checkpoint, pretraining, pretraining_units, seed=recipe.seed)
    guesses = {
        CHECKPOINT: guesses_of_model(checkpoint.model, hidden, advance=advance),
        **guesses_of_baselines(guessers, hidden),
    }
    scores = scores_of_guesses(guesses, hidden, units, seed=recipe.seed)
    gains = {
        name: saved(guesses[CHECKPOINT], guesses[name], hidden, units, model=name, seed=recipe.seed)
        for name in BASELINES
    }
    scores += gains.values()
    table, near = guessers.table, guessers.neighbours
    notes = [
        f"{len(hidden.cell_m):,} <mask> positions of {len(hidden.cells):,} cells",
        f"baselines count {table.n_tokens:,} genes of {pretraining.n_cells:,} pretraining cells; "
        f"rank bins smoothed with {table.strength:g} genes' worth of the unigram",
        f"cell kNN: k = {near.n_neighbours}, bins smoothed with {near.strength:g} genes' worth of "
        "the rank-unigram, both chosen on pretraining cells",
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


def scores_of_guesses(
    guesses: Mapping[str, Guesses], hidden: HiddenGenes, units: Units, *, seed: int
) -> list[Score]:
    """Accuracies and cross-entropy of each guesser, with intervals over units."""
    scores: list[Score] = []
    for model, guess in guesses.items():
        measured = {
            TOP_1: (guess.places < 1).astype(np.float64),
            TOP_10: (guess.places < 10).astype(np.float64),
            CROSS_ENTROPY: guess.losses,
        }
        for name, value_m in measured.items():
            scores.append(_mean(value_m, hidden, units, name=name, model=model, seed=seed))
    return scores


def saved(
    ours: Guesses, theirs: Guesses, hidden: HiddenGenes, units: Units, *, model: str, seed: int
) -> Score:
    """How many nats a position one guesser needs less than another, with an interval over units."""
    value_m = theirs.losses - ours.losses
    return _mean(value_m, hidden, units, name=SAVED, model=model, seed=seed)


def _mean(
    value_m: NDArray[np.float64],
    hidden: HiddenGenes,
    units: Units,
    *,
    name: str,
    model: str,
    seed: int,
) -> Score:
    unit_m = units.unit_c[hidden.cell_m]
    seen = np.unique(unit_m)  # a unit without a masked position has nothing to say
    sums = sums_by_unit(value_m, np.searchsorted(seen, unit_m), len(seen))
    return ratio_score(*sums, name=name, model=model, unit=units.word, seed=seed)


def _over_positions(guesses: Mapping[str, Guesses], table: RankUnigram) -> pa.Table:
    rows: list[dict[str, object]] = []
    for model, guess in guesses.items():
        rows.append(
            {
                "model": model,
                "positions": len(guess.places),
                "top-1 accuracy": float((guess.places < 1).mean()),
                "top-10 accuracy": float((guess.places < 10).mean()),
                "median place of the true gene": float(np.median(guess.places)) + 1,
                "cross-entropy (nats)": float(guess.losses.mean()),
                "perplexity": float(np.exp(guess.losses.mean())),
            }
        )
    genes = int((table.unigram_v > 0).sum())
    rows.append({"model": f"chance, {genes:,} genes", "cross-entropy (nats)": float(np.log(genes))})
    return pa.Table.from_pylist(rows, schema=pa.Table.from_pylist(rows[:1]).schema)


def _verdict(gains: Mapping[str, Score]) -> str:
    words = [f"{compare(gain)} ({model})" for model, gain in gains.items()]
    beaten = [model for model, gain in gains.items() if gain.low > 0]
    lead = (
        f"At <mask> the checkpoint beats {joined(beaten)} in cross-entropy. "
        if beaten
        else "At <mask> the checkpoint beats none of the baselines in cross-entropy. "
    )
    return lead + f"Against each baseline it is: {'; '.join(words)}."
