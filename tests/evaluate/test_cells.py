"""Which cells are asked, and what their independent units are."""

from typing import Any

import numpy as np
from cytolake.evaluate.cells import encode_cells, genes_of, scattered, thinned, units_of
from cytolake.train.checkpoints import Checkpoint
from cytolake.train.encodings.tokens import TokenBatch
from hypothesis import given
from hypothesis import strategies as st

from .conftest import DONORS, typed_cells


def names(*given: str | None) -> Any:
    return np.array(given, dtype=object)


def test_donors_are_the_units_where_two_or_more_are_named():
    units = units_of(names("b", "a", "b"), "donor_id")
    assert (units.names, units.unit_c.tolist(), units.word) == (("a", "b"), [1, 0, 1], "donors")
    assert not units.note


def test_cells_take_the_place_of_donors_and_it_is_said():
    for given_names in (names("a", "a"), names(None, None), names("a", "b", None)):
        units = units_of(given_names, "donor_id")
        assert units.are_cells
        assert units.n_units == len(given_names)
        assert units.note == "cells, not donors: optimistic"


def test_another_unit_is_called_by_its_column():
    assert units_of(names("x", "y"), "tissue").word == "values of tissue"


@given(st.lists(st.lists(st.integers(2, 30), max_size=9), max_size=6), st.booleans())
def test_genes_have_their_ranks_whatever_stands_around_them(cells: list[list[int]], led: bool):
    whole = [np.array([0, *cell, 1] if led else cell, dtype=np.int32) for cell in cells]
    batch = TokenBatch.of_cells(whole, keys=np.zeros(len(cells), dtype=np.uint64))
    found = genes_of(batch, 2)
    expected = [(c, r, gene) for c, cell in enumerate(cells) for r, gene in enumerate(cell)]
    rows = zip(found.cell_o, found.rank_o, found.token_o, strict=True)
    assert [tuple(map(int, row)) for row in rows] == expected
    assert batch.tokens[found.place_o].tolist() == [gene for _, _, gene in expected]
    assert np.diff(found.offsets).tolist() == [len(cell) for cell in cells]


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=30), st.integers(0, 5))
def test_the_scattered_order_depends_on_content_and_not_on_the_place(keys: list[int], seed: int):
    array = np.array(keys, dtype=np.uint64)
    order = scattered(array, seed)
    assert sorted(order.tolist()) == list(range(len(keys)))
    turned = array[::-1].copy()
    assert turned[scattered(turned, seed)].tolist() == array[order].tolist()


def test_other_seeds_scatter_otherwise():
    keys = np.arange(50, dtype=np.uint64)
    assert scattered(keys, 1).tolist() != scattered(keys, 2).tolist()


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 5))
def test_thinning_keeps_small_groups_whole_and_cuts_large_ones(groups: list[str], most: int):
    rows = thinned(groups, np.arange(len(groups), dtype=np.uint64), most=most, seed=3)
    kept = [groups[row] for row in rows]
    assert rows.tolist() == sorted(rows.tolist())
    for group in set(groups):
        assert kept.count(group) == min(most, groups.count(group))


def test_encoded_cells_keep_their_order_and_columns(checkpoint: Checkpoint):
    batch = typed_cells(9)
    cells = encode_cells([batch, batch], checkpoint.encoding, ("donor_id",))
    assert cells.n_cells == 18
    assert cells.columns["donor_id"][:6].tolist() == list(DONORS)
    assert cells.tokens.keys.tolist() == [*batch.content_keys, *batch.content_keys]
