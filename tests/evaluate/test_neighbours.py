"""Cell kNN against loops over plain lists."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from cytolake.evaluate import neighbours
from cytolake.evaluate.baselines import RankUnigram, fit_rank_unigram
from cytolake.evaluate.neighbours import CellNeighbours, fit_neighbours
from cytolake.platform.errors import EvaluationError
from cytolake.train.encodings.tokens import TokenBatch
from hypothesis import given
from hypothesis import strategies as st

N_SPECIAL, N_TOKENS, LENGTH = 2, 22, 12


def some_cells(n_cells: int, seed: int) -> list[list[int]]:
    """Cells of two kinds: low tokens are common in one, high tokens in the other."""
    draw = np.random.default_rng(seed)
    cells: list[list[int]] = []
    for cell in range(n_cells):
        chances = np.where((np.arange(20) < 10) == (cell % 2 == 0), 6.0, 1.0)
        size = int(draw.integers(0, LENGTH + 1))
        genes = draw.choice(np.arange(2, 22), size, replace=False, p=chances / chances.sum())
        cells.append(genes.tolist())
    return cells


def batch_of(cells: list[list[int]], *, leading: tuple[int, ...] = ()) -> TokenBatch:
    whole = [np.array([*leading, *cell], dtype=np.int32) for cell in cells]
    keys = np.random.default_rng(0).integers(0, 2**62, len(cells)).astype(np.uint64)
    return TokenBatch.of_cells(whole, keys=keys)


def table_of(cells: list[list[int]]) -> RankUnigram:
    tokens = np.array([gene for cell in cells for gene in cell])
    ranks = np.array([rank for cell in cells for rank in range(len(cell))])
    return fit_rank_unigram(tokens, ranks, n_tokens=N_TOKENS, n_special=N_SPECIAL, length=LENGTH)


def known_cells(
    cells: list[list[int]], *, k: int, strength: float, donors: list[str | None] | None = None
) -> CellNeighbours:
    units = None if donors is None else np.array(donors, dtype=object)
    found = fit_neighbours(batch_of(cells), table_of(cells), n_special=N_SPECIAL, units_c=units)
    return replace(found, n_neighbours=k, strength=strength)


def known_without(cells: list[list[int]], own: list[int], table: RankUnigram) -> RankUnigram:
    """The table with the frequencies of the other cells, smoothed as strongly."""
    left = [cell for row, cell in enumerate(cells) if row not in own]
    anywhere = Counter(gene for cell in left for gene in cell)
    bins_bv = np.zeros_like(table.bins_bv)
    for place in range(len(bins_bv)):
        here = Counter(g for cell in left for r, g in enumerate(cell) if bin_of(table, r) == place)
        for gene in range(N_SPECIAL, N_TOKENS):
            share = (anywhere[gene] + 1) / (anywhere.total() + N_TOKENS - N_SPECIAL)
            bins_bv[place, gene] = here[gene] + table.strength * share
        bins_bv[place] /= here.total() + table.strength
    return replace(table, bins_bv=bins_bv)


def bin_of(table: RankUnigram, rank: int) -> int:
    return max(b for b, edge in enumerate(table.edges.tolist()) if edge <= rank)


def nearest_by_hand(cells: list[list[int]], visible: list[int], rows: list[int]) -> list[int]:
    """Rows by falling cosine of weighted gene sets; equals by row."""
    having = Counter(gene for cell in cells for gene in cell)
    weight = {g: math.log((1 + len(cells)) / (1 + having[g])) for g in range(2, N_TOKENS)}

    def cosine(row: int) -> float:
        length = math.sqrt(sum(weight[g] ** 2 for g in cells[row]))
        both = sum(weight[g] ** 2 for g in cells[row] if g in visible)
        return both / length if length else 0.0

    return sorted(rows, key=lambda row: (-round(cosine(row), 12), row))


def chances_by_hand(
    cells: list[list[int]],
    near: list[int],
    table: RankUnigram,
    rank: int,
    visible: list[int],
    *,
    strength: float,
    share: float,
) -> list[float]:
    place = bin_of(table, rank)
    weights = [0.0] * N_TOKENS
    for row in near:
        for at, gene in enumerate(cells[row]):
            weights[gene] += bin_of(table, at) == place
    for token in range(N_TOKENS):
        weights[token] += strength * float(table.bins_bv[place, token])
        weights[token] *= share if token in visible else 1.0
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("k", [1, 3, 8])
@pytest.mark.parametrize("strength", [1.0, 100.0])
def test_chances_are_those_of_a_loop_over_the_nearest_cells(k: int, strength: float):
    cells = some_cells(40, seed=1)
    known, table = known_cells(cells, k=k, strength=strength), table_of(cells)
    for asked in some_cells(12, seed=2):
        visible, ranks = asked[::2], [0, 3, 7, 11]
        near = nearest_by_hand(cells, visible, list(range(len(cells))))[:k]
        found_mv = known.at_ranks(np.array(ranks), np.array(visible, dtype=int), false_share=0.02)
        for row, rank in enumerate(ranks):
            expected = chances_by_hand(
                cells, near, table, rank, visible, strength=strength, share=0.02
            )
            assert found_mv[row] == pytest.approx(expected)


@given(
    st.lists(st.integers(2, N_TOKENS - 1), max_size=10),
    st.lists(st.integers(0, 3 * LENGTH), min_size=1, max_size=6),
    st.sampled_from([1e-6, 0.017, 1.0]),
)
def test_chances_sum_to_one_over_genes_and_special_tokens_have_none(
    visible: list[int], ranks: list[int], share: float
):
    known = known_cells(some_cells(15, seed=3), k=4, strength=1.0)
    found_mv = known.at_ranks(np.array(ranks), np.array(visible, dtype=int), false_share=share)
    assert found_mv.sum(axis=1) == pytest.approx(np.ones(len(ranks)))
    assert (found_mv[:, :N_SPECIAL] == 0).all()
    assert (found_mv[:, N_SPECIAL:] > 0).all()


def test_a_guess_is_the_place_and_the_cross_entropy_of_the_truth():
    cells = some_cells(30, seed=4)
    known = known_cells(cells, k=5, strength=10.0)
    ranks, truth, visible = np.array([0, 5, 9]), np.array([4, 15, 21]), np.array([2, 3, 17])
    places, losses = known.guess(ranks, truth, visible, false_share=0.017)
    for row, chances in enumerate(known.at_ranks(ranks, visible, false_share=0.017).tolist()):
        own = chances[truth[row]]
        assert losses[row] == pytest.approx(-math.log(own))
        before = [g for g, p in enumerate(chances) if p > own or (p == own and g < truth[row])]
        assert places[row] == len(before)


def test_special_tokens_before_the_genes_move_no_rank():
    cells = some_cells(20, seed=5)
    plain = fit_neighbours(batch_of(cells), table_of(cells), n_special=2)
    led = fit_neighbours(batch_of(cells, leading=(0,)), table_of(cells), n_special=2)
    asked = (np.array([0, 4]), np.array([3, 9]))
    assert (plain.at_ranks(*asked, false_share=0.1) == led.at_ranks(*asked, false_share=0.1)).all()


@pytest.mark.parametrize("donors", [None, ["a", "b", "c"]], ids=["other cells", "other donors"])
def test_k_and_smoothing_are_the_best_of_a_loop_that_asks_no_cell_of_the_same_donor(
    donors: list[str] | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(neighbours, "NUMBERS", (2, 6, 15))
    monkeypatch.setattr(neighbours, "STRENGTHS", (1.0, 30.0))
    cells = some_cells(36, seed=6)
    table = table_of(cells)
    units = [(donors or list(map(str, range(36))))[row % len(donors or cells)] for row in range(36)]
    totals: dict[tuple[int, float], float] = {}
    for k in (2, 6, 15):
        for strength in (1.0, 30.0):
            total = 0.0
            for row, cell in enumerate(cells):
                visible = [g for rank, g in enumerate(cell) if (rank + row) % 7]
                own = [other for other in range(36) if units[other] == units[row]]
                others = [other for other in range(36) if other not in own]
                prior = known_without(cells, own, table)
                near = nearest_by_hand(cells, visible, others)[:k]
                for rank, gene in enumerate(cell):
                    if (rank + row) % 7 == 0:
                        chances = chances_by_hand(
                            cells, near, prior, rank, visible, strength=strength, share=0.02
                        )
                        total -= math.log(chances[gene])
            totals[k, strength] = total
    found = fit_neighbours(
        batch_of(cells),
        table,
        n_special=N_SPECIAL,
        units_c=None if donors is None else np.array(units, dtype=object),
        false_share=0.02,
    )
    assert (found.n_neighbours, found.strength) == min(totals, key=lambda s: totals[s])


def test_neighbours_help_where_cells_come_in_kinds():
    cells, asked = some_cells(200, seed=7), some_cells(60, seed=8)
    known, table = known_cells(cells, k=30, strength=10.0), table_of(cells)
    ours, theirs = [], []
    for cell in asked:
        hidden = [rank for rank in range(len(cell)) if rank % 5 == 2]
        visible = np.array([g for rank, g in enumerate(cell) if rank not in hidden], dtype=int)
        if hidden:
            asked_for = (np.array(hidden), np.array([cell[rank] for rank in hidden]), visible)
            ours += known.guess(*asked_for, false_share=1e-6)[1].tolist()
            theirs += table.guess_unseen(*asked_for, false_share=1e-6)[1].tolist()
    assert np.mean(ours) < np.mean(theirs) - 0.1


def test_too_few_cells_and_units_that_do_not_fit_are_refused():
    cells = some_cells(5, seed=9)
    with pytest.raises(EvaluationError, match="1 pretraining cells to look for neighbours in"):
        fit_neighbours(batch_of(cells[:1]), table_of(cells), n_special=2)
    with pytest.raises(EvaluationError, match="2 units of 5 pretraining cells"):
        fit_neighbours(
            batch_of(cells),
            table_of(cells),
            n_special=2,
            units_c=np.array(["a", "b"], dtype=object),
        )
