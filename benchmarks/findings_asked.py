"""What trained sizes and baselines are asked: the same cells, the same hidden genes.

Knows runs and their checkpoints; knows no study and no page.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from cytolake.evaluate.cells import AskedCells, Units, scattered, units_of
from cytolake.evaluate.guessers import (
    IN_ORDER,
    NEIGHBOURS,
    GeneGuessers,
    fit_guessers,
    guesses_of_baselines,
    hide_for,
)
from cytolake.evaluate.hidden_genes import guesses_of_model
from cytolake.evaluate.question import prepare
from cytolake.evaluate.recipe import EvaluationRecipe
from cytolake.evaluate.tasks.masked import saved, scores_of_guesses
from cytolake.platform.configuration import parse_values
from cytolake.platform.progress import progress
from cytolake.train.checkpoints import (
    Checkpoint,
    checkpoints_in,
    load_checkpoint,
    read_info,
    untrained_like,
)
from cytolake.train.encodings.tokens import TokenBatch


def question_of(task: str, seed: int, **changes: Any) -> EvaluationRecipe:
    """A question about the held-out part, unless the changes say otherwise."""
    values = {"name": f"findings-{task}", "task": task, "seed": seed, **changes}
    return parse_values(values, EvaluationRecipe, origin="findings")


def _n_cut(checkpoint: Checkpoint, tokens: TokenBatch) -> int:
    """How many cells have as many genes as a cell may have, or had more."""
    return int((tokens.lengths >= checkpoint.encoding.length).sum())


class Asking:
    """Cells, positions and baselines, the same for all sizes."""

    def __init__(
        self,
        *,
        corpus_uri: str,
        places: dict[str, Path],
        seed: int,
        n_cells: int,
        n_curve_cells: int,
        n_learnt: int,
    ) -> None:
        """Bind runs, all of the same cells and vocabulary, to a corpus.

        Args:
            corpus_uri: the corpus.
            places: size -> the folder of its run.
            seed: of the choice of cells and of what is hidden.
            n_cells: the most cells that are asked in the end.
            n_curve_cells: the most cells that every checkpoint is asked.
            n_learnt: the most pretraining cells that the baselines use.
        """
        self._corpus_uri, self._places, self._seed = corpus_uri, places, seed
        self._n_cells, self._n_curve_cells, self._n_learnt = n_cells, n_curve_cells, n_learnt
        self._guessers: GeneGuessers | None = None

    def _any(self) -> Path:
        return checkpoints_in(next(iter(self._places.values())) / "checkpoints")[-1]

    def _cells(self, part: str, most: int) -> tuple[Checkpoint, AskedCells, Units]:
        recipe = question_of("masked", self._seed, part=part)
        question = prepare(self._corpus_uri, recipe, self._any(), None)
        rows, names, _ = question.rows_with_units("donor_id")
        order = scattered(question.selection.content_key[rows], self._seed)
        chosen = np.sort(order[:most])
        cells = question.read(rows[chosen])
        return question.checkpoint, cells, units_of(names[chosen], "donor_id")

    def guessers(self) -> GeneGuessers:
        """The baselines, counted once."""
        if self._guessers is None:
            question = prepare(
                self._corpus_uri, question_of("masked", self._seed), self._any(), None
            )
            learnt = question.pretraining_cells(
                most=self._n_learnt, seed=self._seed, columns=("donor_id",)
            )
            self._guessers = fit_guessers(
                question.checkpoint, learnt.tokens, learnt.columns["donor_id"], seed=self._seed
            )
        return self._guessers

    def settings_of_baselines(self) -> dict[str, float]:
        """What was chosen on the pretraining cells."""
        found = self.guessers()
        return {
            "k": found.neighbours.n_neighbours,
            "kNN strength": found.neighbours.strength,
            "rank strength": found.table.strength,
            "n_cells": found.neighbours.n_cells,
            "n_tokens": found.table.n_tokens,
        }

    def counts(self) -> dict[str, Any]:
        """Cells and tokens of the pretraining, and the vocabulary."""
        question = prepare(self._corpus_uri, question_of("masked", self._seed), self._any(), None)
        learnt = question.pretraining_cells(most=10**9, seed=self._seed).tokens
        model = {
            name: load_checkpoint(place).model.num_parameters()
            for name, place in self._places.items()
        }
        return {
            "learnt cells": learnt.n_cells,
            "learnt tokens": len(learnt.tokens),
            "learnt cells cut": _n_cut(question.checkpoint, learnt),
            "held-out cells": question.selection.n_cells,
            "vocabulary": question.checkpoint.vocabulary.size,
            "parameters": model,
        }

    def curve(self, name: str, part: str) -> list[tuple[float, float]]:
        """Epochs seen and the loss on held-out donors, for each checkpoint; 0 is untrained."""
        checkpoint, cells, _ = self._cells(part, self._n_curve_cells)
        hidden = hide_for(checkpoint, cells.tokens, seed=self._seed, pack_tokens=8192)
        places = checkpoints_in(self._places[name] / "checkpoints")
        fresh = untrained_like(load_checkpoint(places[-1]), self._seed)
        points = [(0.0, float(guesses_of_model(fresh.model, hidden).losses.mean()))]
        with progress(f"curve {name}", len(places), "checkpoints") as bar:
            for place in places:
                model = load_checkpoint(place).model
                loss = float(guesses_of_model(model, hidden).losses.mean())
                points.append((read_info(place).epoch, loss))
                bar.advance(1)
        return points

    def baselines_of_curve(self, part: str) -> dict[str, float]:
        """The baselines' losses at the positions of the curve."""
        checkpoint, cells, _ = self._cells(part, self._n_curve_cells)
        hidden = hide_for(checkpoint, cells.tokens, seed=self._seed, pack_tokens=8192)
        found = guesses_of_baselines(self.guessers(), hidden)
        return {name: float(guess.losses.mean()) for name, guess in found.items()}

    def masked(self, part: str) -> dict[str, Any]:
        """Scores of all sizes, trained, and of the baselines, at one set of hidden genes.

        Untrained models are asked by `curve` alone: they begin it.
        """
        checkpoint, cells, units = self._cells(part, self._n_cells)
        hidden = hide_for(checkpoint, cells.tokens, seed=self._seed, pack_tokens=8192)
        baselines = guesses_of_baselines(self.guessers(), hidden)
        trained = {}
        for name, place in self._places.items():
            trained[name] = guesses_of_model(load_checkpoint(place).model, hidden)
        everyone = {**baselines, **trained}
        scores = scores_of_guesses(everyone, hidden, units, seed=self._seed)
        gains = {
            name: [
                asdict(saved(ours, theirs, hidden, units, model=other, seed=self._seed))
                for other, theirs in everyone.items()
                if other != name
            ]
            for name, ours in trained.items()
        }
        return {
            "scores": [asdict(score) for score in scores],
            "saved": gains,
            "order": asdict(
                saved(
                    baselines[IN_ORDER],
                    baselines[NEIGHBOURS],
                    hidden,
                    units,
                    model=NEIGHBOURS,
                    seed=self._seed,
                )
            ),
            "n_positions": len(hidden.truth_m),
            "n_cells": len(hidden.cells),
            "n_cut": _n_cut(checkpoint, cells.tokens),
        }
