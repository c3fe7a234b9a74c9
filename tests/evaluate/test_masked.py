"""Masked genes: scored only where the input is <mask>, each number by hand."""

import math

import numpy as np
import pytest
import torch
from cytolake.evaluate.cells import encode_cells, units_of
from cytolake.evaluate.guessers import BASELINES, BY_RANK, BY_RANK_UNSEEN, UNIGRAM
from cytolake.evaluate.results import EvaluationResult
from cytolake.evaluate.tasks.masked import CHECKPOINT, CROSS_ENTROPY, TOP_1, TOP_10, masked
from cytolake.platform.errors import EvaluationError
from cytolake.train.checkpoints import Checkpoint
from cytolake.train.objectives.masked_genes import mask_pack
from cytolake.train.packing import pack_of

from .conftest import N_GENES, a_recipe, tiny_checkpoint, typed_cells

V2 = ("<pad>", "<mask>", "<cls>", "<eos>")


def ask(checkpoint: Checkpoint, **changes: object) -> EvaluationResult:
    cells = encode_cells([typed_cells(60, seed=2)], checkpoint.encoding, ("donor_id",))
    learnt = encode_cells([typed_cells(100, seed=3)], checkpoint.encoding).tokens
    units = units_of(cells.columns["donor_id"], "donor_id")
    return masked(checkpoint, cells, units, learnt, a_recipe("masked", **changes))


@pytest.mark.parametrize("special", [V2[:2], V2], ids=["V1", "V2"])
def test_scores_of_model_and_unigram_are_those_of_a_loop(special: tuple[str, ...]):
    checkpoint = tiny_checkpoint(special=special)
    n_special = len(special)
    tokens = checkpoint.encoding.encode(typed_cells(60, seed=2))
    learnt = checkpoint.encoding.encode(typed_cells(100, seed=3)).tokens.tolist()
    total = sum(token >= n_special for token in learnt)
    losses: dict[str, list[float]] = {CHECKPOINT: [], UNIGRAM: []}
    right: list[bool] = []
    among_ten: list[bool] = []
    for cell in range(60):
        pack = pack_of(tokens, [cell])
        hidden = mask_pack(
            pack, seed=42, epoch=0, n_special=n_special, vocabulary_size=N_GENES + n_special
        )
        with torch.no_grad():
            states = checkpoint.model.hidden_states(hidden.pack)
            logits = checkpoint.model.logits(states).double()
        for place in range(pack.n_tokens):
            if hidden.pack.tokens[place] != 1:
                continue
            truth = int(pack.tokens[place])
            row = logits[place].tolist()
            losses[CHECKPOINT].append(math.log(sum(map(math.exp, row))) - row[truth])
            order = sorted(range(len(row)), key=lambda v, row=row: -row[v])
            right.append(order[0] == truth)
            among_ten.append(truth in order[:10])
            losses[UNIGRAM].append(-math.log((learnt.count(truth) + 1) / (total + N_GENES)))
    result = ask(checkpoint)
    for model, expected in losses.items():
        found = result.score(CROSS_ENTROPY, model).value
        assert found == pytest.approx(np.mean(expected), abs=1e-5)
    assert result.score(TOP_1, CHECKPOINT).value == pytest.approx(np.mean(right))
    assert result.score(TOP_10, CHECKPOINT).value == pytest.approx(np.mean(among_ten))
    assert f"{len(right)} <mask> positions" in result.notes[0]


def test_intervals_are_over_donors_and_every_baseline_is_there(checkpoint: Checkpoint):
    result = ask(checkpoint)
    for model in (CHECKPOINT, *BASELINES):
        for name in (TOP_1, TOP_10, CROSS_ENTROPY):
            score = result.score(name, model)
            assert (score.unit, score.n) == ("donors", 6)
            assert score.low <= score.value <= score.high


def test_leaving_out_visible_genes_makes_the_baseline_better(checkpoint: Checkpoint):
    result = ask(checkpoint)
    unseen = result.score(CROSS_ENTROPY, BY_RANK_UNSEEN).value
    assert unseen < result.score(CROSS_ENTROPY, BY_RANK).value


def test_an_untrained_model_is_not_praised(checkpoint: Checkpoint):
    verdict = ask(checkpoint).verdict
    assert verdict.startswith("At <mask> the checkpoint beats none of the baselines")
    assert "behind it by" in verdict


def test_cells_without_a_donor_are_said_to_be_optimistic(checkpoint: Checkpoint):
    cells = encode_cells([typed_cells(30)], checkpoint.encoding)
    units = units_of(np.full(30, None, dtype=object), "donor_id")
    result = masked(checkpoint, cells, units, cells.tokens, a_recipe("masked"))
    assert "cells, not donors: optimistic" in result.notes
    assert result.score(TOP_1, CHECKPOINT).unit == "cells"


def test_cells_without_a_masked_position_are_refused(checkpoint: Checkpoint):
    cells = encode_cells([typed_cells(1)], checkpoint.encoding)
    short = type(cells.tokens).of_cells([cells.tokens.cell(0)[:0]], keys=cells.tokens.keys)
    empty = type(cells)(batches=cells.batches, tokens=short, columns={})
    units = units_of(np.array([None], dtype=object), "donor_id")
    with pytest.raises(EvaluationError, match="no position of 1 cells is masked"):
        masked(checkpoint, empty, units, cells.tokens, a_recipe("masked"))
