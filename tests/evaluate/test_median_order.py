"""What the order of medians tells, against loops; and that it tells what it should."""

from dataclasses import replace

import numpy as np
import pytest
from cytolake.corpus.medians import MediansSet
from cytolake.corpus.vocabularies import Vocabulary
from cytolake.evaluate.hidden_genes import NOBODY, beside
from cytolake.evaluate.median_order import (
    MedianOrder,
    fit_median_order,
    order_of_medians,
    places_beside,
)
from cytolake.evaluate.neighbours import fit_neighbours
from cytolake.platform.errors import EvaluationError
from hypothesis import given
from hypothesis import strategies as st

from .test_neighbours import (
    N_SPECIAL,
    N_TOKENS,
    batch_of,
    known_without,
    some_cells,
    table_of,
)

ORDER = np.array([-1, -1, *np.random.default_rng(11).permutation(20)])


def sorted_cells(n_cells: int, seed: int) -> list[list[int]]:
    """Cells whose genes stand in one order, as where all counts are 1."""
    return [sorted(cell, key=lambda gene: ORDER[gene]) for cell in some_cells(n_cells, seed)]


def fitted(cells: list[list[int]]) -> MedianOrder:
    known = fit_neighbours(batch_of(cells), table_of(cells), n_special=N_SPECIAL)
    return fit_median_order(batch_of(cells), known, ORDER)


def test_genes_are_ordered_by_median_and_those_without_one_are_last():
    vocabulary = Vocabulary(gene_ids=("A", "B", "C", "D"))
    medians = MediansSet(gene_ids=("A", "B", "D"), medians=np.array([2.0, 0.5, 1.0]))
    assert order_of_medians(vocabulary, medians).tolist() == [-1, -1, 2, 0, 3, 1]


def test_the_nearest_visible_genes_stand_beside_a_place():
    visible = np.array([False, True, False, False, True, False])
    before, after = beside(np.array([9, 8, 7, 6, 5, 4]), visible, np.array([0, 2, 3, 5]))
    assert before.tolist() == [NOBODY, 8, 8, 5]
    assert after.tolist() == [8, 5, 5, NOBODY]


@given(st.integers(-1, 19), st.integers(-1, 19))
def test_places_are_those_of_a_loop(first: int, last: int):
    before, after = first + 2 if first >= 0 else NOBODY, last + 2 if last >= 0 else NOBODY
    [width], [places] = places_beside(ORDER, np.array([before]), np.array([after]))
    low = -1 if before == NOBODY else int(ORDER[before])
    high = 20 if after == NOBODY else int(ORDER[after])
    between = [g for g in range(2, 22) if low < ORDER[g] < high]
    assert width == (0 if low >= high else 1 + len(between).bit_length())
    ends = sorted((low, high))
    for gene in range(2, 22):
        if ORDER[gene] < ends[0]:
            assert places[gene] == int(ends[0] - ORDER[gene]).bit_length()
        elif ORDER[gene] > ends[1]:
            assert places[gene] == 5 + 1 + int(ORDER[gene] - ends[1]).bit_length()
        else:
            assert places[gene] == 0


def test_ratios_are_truths_over_what_the_neighbours_expect():
    cells = sorted_cells(30, seed=1)
    batch = batch_of(cells)
    known = fit_neighbours(batch, table_of(cells), n_special=N_SPECIAL)
    donors = np.array([f"d{row % 3}" for row in range(30)], dtype=object)
    found = fit_median_order(batch, known, ORDER, units_c=donors, false_share=0.02)
    truths, expected = np.zeros_like(found.ratio_wk), np.zeros_like(found.ratio_wk)
    for row, cell in enumerate(cells):
        own = np.flatnonzero(donors == donors[row]).tolist()
        prior_bv = known_without(cells, own, known.table).bins_bv
        hidden = [rank for rank in range(len(cell)) if (rank + row) % 7 == 0]
        seen = [gene for rank, gene in enumerate(cell) if rank not in hidden]
        for rank in hidden:
            left = [g for r, g in enumerate(cell) if r < rank and r not in hidden]
            right = [g for r, g in enumerate(cell) if r > rank and r not in hidden]
            [width], [places] = places_beside(
                ORDER,
                np.array([left[-1] if left else NOBODY]),
                np.array([right[0] if right else NOBODY]),
            )
            [chances] = replace(known, prior_bv=prior_bv).at_ranks(
                np.array([rank]),
                np.array(seen, dtype=int),
                false_share=0.02,
                allowed=donors != donors[row],
            )
            truths[width, places[cell[rank]]] += 1
            for gene in range(N_TOKENS):
                expected[width, places[gene]] += chances[gene]
    assert found.ratio_wk == pytest.approx((truths + 1) / (expected + 1))


@given(
    st.lists(st.integers(2, N_TOKENS - 1), max_size=8),
    st.lists(
        st.tuples(st.integers(0, 15), st.integers(1, 21), st.integers(1, 21)),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([1e-6, 0.017, 0.5]),
)
def test_chances_sum_to_one_over_genes(
    visible: list[int], asked: list[tuple[int, int, int]], share: float
):
    ranks, before, after = (np.array(column) for column in zip(*asked, strict=True))
    before, after = (np.where(side == 1, NOBODY, side) for side in (before, after))
    found_mv = FITTED.at_ranks(
        ranks, np.array(visible, dtype=int), before, after, false_share=share
    )
    assert found_mv.sum(axis=1) == pytest.approx(np.ones(len(ranks)))
    assert (found_mv[:, :N_SPECIAL] == 0).all() and (found_mv[:, N_SPECIAL:] > 0).all()


@pytest.mark.parametrize("in_order", [True, False])
def test_the_order_helps_where_cells_are_in_order_and_only_there(in_order: bool):
    make = sorted_cells if in_order else some_cells
    cells, asked = make(200, 2), make(60, 3)
    found = fitted(cells)
    gains: list[float] = []
    for cell in asked:
        is_hidden = np.arange(len(cell)) % 5 == 2
        tokens, ranks = np.array(cell, dtype=int), np.flatnonzero(is_hidden)
        if not len(ranks):
            continue
        before, after = beside(tokens, ~is_hidden, ranks)
        visible, truth = tokens[~is_hidden], tokens[is_hidden]
        places, ours = found.guess(ranks, truth, visible, before, after, false_share=1e-6)
        _, theirs = found.neighbours.guess(ranks, truth, visible, false_share=1e-6)
        gains += (theirs - ours).tolist()
        chances = found.at_ranks(ranks, visible, before, after, false_share=1e-6)
        assert ours == pytest.approx(-np.log(chances[np.arange(len(truth)), truth]))
        own = chances[0, truth[0]]
        assert (chances[0] > own * (1 + 1e-12)).sum() <= places[0]
        assert places[0] < (chances[0] >= own * (1 - 1e-12)).sum()
    if in_order:
        assert np.mean(gains) > 0.3
    else:
        assert -0.15 < np.mean(gains) < 0.05  # what few cells seem to tell costs a little


def test_cells_that_are_not_the_neighbours_own_are_refused():
    cells = some_cells(10, seed=4)
    known = fit_neighbours(batch_of(cells), table_of(cells), n_special=N_SPECIAL)
    with pytest.raises(EvaluationError, match="9 cells and 22 tokens"):
        fit_median_order(batch_of(cells[:9]), known, ORDER)


FITTED = fitted(sorted_cells(40, seed=5))
