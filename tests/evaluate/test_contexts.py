"""A gene's states across batches and labels, against loops over pairs of occurrences."""

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch
from cytolake.evaluate.cells import AskedCells, encode_cells, units_of
from cytolake.evaluate.contexts import (
    DIFFERENCE,
    GAIN,
    SAME_BATCH,
    SAME_LABEL,
    Occurrences,
    context_pairs,
    context_scores,
)
from cytolake.evaluate.tasks.contexts import CHECKPOINT, UNTRAINED, contexts, states_at
from cytolake.platform.errors import EvaluationError
from cytolake.train.checkpoints import Checkpoint
from cytolake.train.packing import pack_of
from numpy.typing import NDArray

from .conftest import TYPES, a_recipe, tiny_checkpoint, typed_cells

WIDTH = 5


def occurrences(n: int = 160, *, seed: int = 0, batch_is_unit: bool = True) -> Occurrences:
    draw = np.random.default_rng(seed)
    rank, unit = draw.integers(0, 6, n), draw.integers(0, 4, n)
    return Occurrences(
        gene_o=draw.integers(0, 5, n),
        bin_o=rank // 2,
        rank_o=rank,
        label_o=draw.integers(0, 3, n),
        batch_o=unit if batch_is_unit else draw.integers(0, 2, n),
        unit_o=unit,
        n_units=4,
    )


def random_states(n: int = 160, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, WIDTH)).astype(np.float32)


def by_hand(
    states: NDArray[np.float32], found: Occurrences, copies: list[int]
) -> tuple[float, float, int]:
    """Both means over strata, by a loop over all pairs; a unit's copies are units of their own."""
    of_gene: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    for state, gene in zip(states, found.gene_o.tolist(), strict=True):
        of_gene[gene].append(state.astype(np.float64))
    centred = [
        state - np.mean(of_gene[gene], axis=0)
        for state, gene in zip(states, found.gene_o.tolist(), strict=True)
    ]
    whole = [(o, c) for o in range(len(states)) for c in range(copies.count(found.unit_o[o]))]
    sums: dict[tuple[int, int, str], list[float]] = defaultdict(list)
    for first, (i, copy_i) in enumerate(whole):
        for j, copy_j in whole[first + 1 :]:
            same_unit = found.unit_o[i] == found.unit_o[j]
            if found.gene_o[i] != found.gene_o[j] or found.bin_o[i] != found.bin_o[j]:
                continue
            if same_unit and copy_i != copy_j:
                continue
            same_label = found.label_o[i] == found.label_o[j]
            same_batch = found.batch_o[i] == found.batch_o[j]
            if same_label == same_batch:
                continue
            lengths = math.sqrt(centred[i] @ centred[i]) * math.sqrt(centred[j] @ centred[j])
            kind = "label" if same_label else "batch"
            place = (int(found.gene_o[i]), int(found.bin_o[i]), kind)
            sums[place].append(float(centred[i] @ centred[j]) / lengths)
    strata = {place[:2] for place in sums}
    strata = [s for s in strata if sums.get((*s, "label")) and sums.get((*s, "batch"))]
    if not strata:
        return math.nan, math.nan, 0
    label = [np.mean(sums[(*s, "label")]) for s in strata]
    batch = [np.mean(sums[(*s, "batch")]) for s in strata]
    return float(np.mean(label)), float(np.mean(batch)), len(strata)


@pytest.mark.parametrize("batch_is_unit", [True, False], ids=["donors", "units in batches"])
@pytest.mark.parametrize("copies", [[0, 1, 2, 3], [0, 0, 2, 3], [1, 1, 1, 3]], ids=str)
def test_means_over_strata_are_those_of_a_loop_over_pairs(batch_is_unit: bool, copies: list[int]):
    found, states = occurrences(batch_is_unit=batch_is_unit), random_states()
    label_s, batch_s = context_pairs(states, found).means(np.array(copies))
    known = np.isfinite(label_s)
    label, batch, n_strata = by_hand(states, found, copies)
    assert known.sum() == n_strata > 5
    assert label_s[known].mean() == pytest.approx(label)
    assert batch_s[known].mean() == pytest.approx(batch)


def test_what_a_gene_always_says_and_how_long_a_state_is_change_nothing():
    found, states = occurrences(), random_states()
    shifted = 3.0 * (states + random_states(5, seed=9)[found.gene_o])
    plain, moved = (context_pairs(s, found).means() for s in (states, shifted))
    for one, other in zip(plain, moved, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_ranks_are_matched_within_a_bin():
    found = occurrences()
    for gap in context_pairs(random_states(), found).mean_gaps():
        assert 0 <= gap < 1  # bins of two ranks: pairs differ by 0 or 1


@pytest.mark.parametrize(("told", "sign"), [("label_o", 1), ("batch_o", -1)])
def test_what_states_tell_is_seen_in_the_sign(told: str, sign: int):
    found = occurrences(600)
    states = random_states(600) + 3 * np.eye(WIDTH)[getattr(found, told)]
    pairs = {"trained": context_pairs(states, found)}
    pairs["fresh"] = context_pairs(random_states(600), found)
    scores = context_scores(pairs, untrained="fresh", unit="donors", seed=0)
    known = {(score.name, score.model): score for score in scores}
    difference, gain = known[DIFFERENCE, "trained"], known[GAIN, "trained"]
    assert sign * difference.value > 0.3
    assert min(sign * difference.low, sign * difference.high) > 0
    assert known[DIFFERENCE, "fresh"].low < 0 < known[DIFFERENCE, "fresh"].high
    expected = difference.value - known[DIFFERENCE, "fresh"].value
    assert gain.value == pytest.approx(expected)
    label, batch = known[SAME_LABEL, "trained"].value, known[SAME_BATCH, "trained"].value
    assert label - batch == pytest.approx(difference.value)
    assert (difference.unit, difference.n) == ("donors", 4)


def test_the_interval_is_the_jackknife_over_donors():
    found, states = occurrences(), random_states()
    pairs = context_pairs(states, found)
    score = context_scores({"m": pairs, "u": pairs}, untrained="u", unit="donors", seed=0)[2]
    left_out = []
    for unit in range(4):
        label, batch, _ = by_hand(states, found, [other for other in range(4) if other != unit])
        left_out.append(label - batch)
    error = math.sqrt(3 / 4 * sum((x - np.mean(left_out)) ** 2 for x in left_out))
    assert score.high - score.value == pytest.approx(3.182446 * error, rel=1e-5)


def test_few_donors_can_be_resampled_too():
    found, states = occurrences(), random_states()
    pairs = context_pairs(states, found)
    told = {"m": pairs, "u": pairs}
    score = context_scores(told, untrained="u", unit="donors", seed=7, few_units=2)[2]
    draws = np.random.default_rng(7).integers(0, 4, size=(1000, 4)).tolist()
    means = {draw: by_hand(states, found, [*draw]) for draw in {tuple(sorted(d)) for d in draws}}
    values = [means[tuple(sorted(draw))] for draw in draws]
    expected = np.nanquantile([label - batch for label, batch, _ in values], [0.025, 0.975])
    assert (score.low, score.high) == pytest.approx(tuple(expected))
    assert score.method == "bootstrap over donors, 1000 resamples"


def test_a_state_that_is_its_genes_mean_is_left_out():
    states, found = random_states(), occurrences()
    lonely = replace(found, gene_o=np.where(np.arange(160) == 0, 99, found.gene_o))
    pairs = context_pairs(states, lonely)
    assert 99 not in pairs.gene_s
    assert all(np.isfinite(part).all() for part in pairs.means())


def test_without_both_kinds_of_pairs_there_is_nothing_to_say():
    found = occurrences()
    with pytest.raises(EvaluationError, match="no gene stands at one rank in two batches"):
        context_pairs(random_states(), replace(found, batch_o=found.label_o))


def asked(checkpoint: Checkpoint, n_cells: int = 60) -> AskedCells:
    columns = ("donor_id", "cell_type")
    return encode_cells([typed_cells(n_cells, seed=4)], checkpoint.encoding, columns)


@pytest.mark.parametrize("special", [2, 4], ids=["V1", "V2"])
@pytest.mark.parametrize("layer", [0, -1])
def test_states_are_those_of_each_cell_alone(special: int, layer: int):
    names = ("<pad>", "<mask>", "<cls>", "<eos>")[:special]
    checkpoint = tiny_checkpoint(special=names)
    tokens = asked(checkpoint, 12).tokens
    places = np.flatnonzero(tokens.tokens % 3 == 1)
    states = states_at(checkpoint.model, tokens, places, layer=layer, pack_tokens=50)
    expected = []
    for cell in range(12):
        with torch.no_grad():
            hidden = checkpoint.model.hidden_states(pack_of(tokens, [cell]), layer).numpy()
        expected.append(hidden[tokens.cell(cell) % 3 == 1])
    assert states == pytest.approx(np.concatenate(expected), abs=1e-5)


def test_the_answer_has_both_models_on_the_same_strata_and_says_what_it_stands_on():
    checkpoint = tiny_checkpoint()
    cells = asked(checkpoint, 90)
    units = units_of(cells.columns["donor_id"], "donor_id")
    done: list[int] = []
    result = contexts(checkpoint, cells, units, a_recipe("contexts"), advance=done.append)
    assert sum(done) == 180
    for model in (CHECKPOINT, UNTRAINED):
        for name in (SAME_LABEL, SAME_BATCH, DIFFERENCE):
            score = result.score(name, model)
            assert (score.unit, score.n) == ("donors", 6)
            assert score.low <= score.value <= score.high
    assert result.verdict.startswith("At one rank a gene's state is ")
    assert "90 cells, 3 values of cell_type, 6 of donor_id; 40 genes" in result.notes[0]
    for row in result.tables["bootstrap"].to_pylist():
        beside = result.score(row["name"], row["model"])
        assert row["value"] == beside.value and row["low"] < row["high"]
        assert row["low"] != beside.low and row["method"].startswith("bootstrap over donors")
    table = result.tables["by_rank"]
    strata = sum(table.column("strata").to_pylist())
    assert f"{strata} strata" in result.notes[1]


def test_only_the_commonest_genes_are_compared():
    checkpoint = tiny_checkpoint()
    cells = asked(checkpoint, 90)
    units = units_of(cells.columns["donor_id"], "donor_id")
    result = contexts(checkpoint, cells, units, a_recipe("contexts", contexts={"n_genes": 7}))
    assert "; 7 genes" in result.notes[0]


def test_cells_of_one_label_are_refused(checkpoint: Checkpoint):
    cells = asked(checkpoint)
    only = replace(cells, columns=cells.columns | {"cell_type": np.full(60, TYPES[0], object)})
    units = units_of(cells.columns["donor_id"], "donor_id")
    with pytest.raises(EvaluationError, match=r"1 value of cell_type \(T cell\)"):
        contexts(checkpoint, only, units, a_recipe("contexts"))
