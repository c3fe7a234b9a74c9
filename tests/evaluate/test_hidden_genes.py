"""The positions that are asked: what stands there, what is seen, the same for all guessers."""

import numpy as np
import pytest
from cytolake.evaluate.guessers import BASELINES, fit_guessers, guesses_of_baselines, hide_for
from cytolake.evaluate.hidden_genes import false_share_of, guesses_of_model
from cytolake.train.recipe import ObjectiveRecipe

from .conftest import tiny_checkpoint, typed_cells

V2 = ("<pad>", "<mask>", "<cls>", "<eos>")


@pytest.mark.parametrize("special", [V2[:2], V2], ids=["V1", "V2"])
def test_truth_and_rank_are_the_cells_own_and_the_rest_is_visible(special: tuple[str, ...]):
    checkpoint = tiny_checkpoint(special=special)
    tokens = checkpoint.encoding.encode(typed_cells(50, seed=2))
    hidden = hide_for(checkpoint, tokens, seed=1, pack_tokens=100)
    for cell in hidden.cells:
        [row] = set(hidden.cell_m[cell.positions].tolist())
        own = tokens.cell(row)
        genes = own[own >= len(special)]
        ranks = hidden.rank_m[cell.positions]
        assert genes[ranks].tolist() == hidden.truth_m[cell.positions].tolist()
        assert len(cell.visible) == len(genes) - len(ranks)
        kept = np.delete(genes, ranks)
        assert (kept == cell.visible).mean() > 0.5  # all but the few that were drawn at random
    assert sum(len(rows) for rows in hidden.rows) == len(hidden.truth_m)


def test_packs_of_another_size_ask_for_the_same_genes():
    checkpoint = tiny_checkpoint()
    tokens = checkpoint.encoding.encode(typed_cells(50, seed=2))
    asked = [
        {
            (int(c), int(r), int(t))
            for c, r, t in zip(hidden.cell_m, hidden.rank_m, hidden.truth_m, strict=True)
        }
        for hidden in (hide_for(checkpoint, tokens, seed=1, pack_tokens=n) for n in (60, 5000))
    ]
    assert asked[0] == asked[1]


def test_every_guesser_answers_at_every_position():
    checkpoint = tiny_checkpoint()
    tokens = checkpoint.encoding.encode(typed_cells(50, seed=2))
    learnt = checkpoint.encoding.encode(typed_cells(80, seed=3))
    hidden = hide_for(checkpoint, tokens, seed=1, pack_tokens=200)
    guessers = fit_guessers(checkpoint, learnt, None, seed=0)
    found = guesses_of_baselines(guessers, hidden)
    assert tuple(found) == BASELINES
    done: list[int] = []
    found["model"] = guesses_of_model(checkpoint.model, hidden, advance=done.append)
    assert sum(done) == 50
    for guesses in found.values():
        assert guesses.places.shape == guesses.losses.shape == hidden.truth_m.shape
        assert np.isfinite(guesses.losses).all()
        assert (guesses.losses > 0).all()


def test_the_share_of_visible_genes_that_are_not_the_cells_own():
    # Of 100 genes 15 are chosen, 12 masked, 1.5 replaced; 88 are seen.
    assert false_share_of(ObjectiveRecipe()) == pytest.approx(1.5 / 88)
    assert false_share_of(ObjectiveRecipe(random=0.0)) > 0
