from itertools import accumulate, pairwise

import numpy as np
import pytest
from cytolake.corpus.rooms import Rooms
from cytolake.platform.errors import TrainingError
from cytolake.train.encodings.tokens import TokenBatch
from cytolake.train.packing import (
    empty_pack,
    pack_cells,
    pack_of,
    pack_rows,
    packs_of,
    padded_packs_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def batch_of(lengths: list[int]) -> TokenBatch:
    cells = [np.arange(10 * i, 10 * i + n, dtype=np.int32) for i, n in enumerate(lengths)]
    return TokenBatch.of_cells(
        cells, keys=np.arange(len(lengths)).astype(np.uint64) + np.uint64(2**63)
    )


@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 12), max_size=30), budget=st.integers(12, 40))
def test_every_cell_with_tokens_is_in_one_pack_and_no_pack_is_over_its_budget(
    lengths: list[int], budget: int
):
    packs = pack_rows(lengths, budget)
    assert sorted(row for rows in packs for row in rows) == [i for i, n in enumerate(lengths) if n]
    assert all(0 < sum(lengths[row] for row in rows) <= budget for rows in packs)
    # First fit: at most one pack is half empty or less.
    assert sum(sum(lengths[row] for row in rows) * 2 <= budget for rows in packs) <= 1


def test_a_pack_tells_cells_apart():
    (pack,) = pack_cells(batch_of([2, 0, 3]), budget=5)
    assert pack.tokens.tolist() == [0, 1, 20, 21, 22]
    assert pack.positions.tolist() == [0, 1, 0, 1, 2]
    assert pack.offsets.tolist() == [0, 2, 5]
    assert pack.rows == (0, 2)
    assert pack.n_cells == 2
    assert pack.keys.tolist() == [-(2**63)] * 2 + [-(2**63) + 2] * 3


def slow_pack_rows(lengths: list[int], budget: int) -> list[list[int]]:
    """First fit, spelled out."""
    packs: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not lengths[row]:
            continue
        for rows in packs:
            if sum(lengths[i] for i in rows) + lengths[row] <= budget:
                rows.append(row)
                break
        else:
            packs.append([row])
    return [sorted(rows) for rows in packs]


@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 9), max_size=20), budget=st.integers(9, 30))
def test_packs_are_their_cells_end_to_end(lengths: list[int], budget: int):
    """In memory that is used again as in new memory."""
    batch, rooms = batch_of(lengths), Rooms(kept=2)
    keys = batch.keys.view(np.int64).tolist()
    dealt = slow_pack_rows(lengths, budget)
    assert pack_rows(lengths, budget) == dealt
    for packs in (pack_cells(batch, budget), *(packs_of(batch, budget, rooms) for _ in range(2))):
        for pack, rows in zip(packs, dealt, strict=True):
            cells = [batch.cell(row).tolist() for row in rows]
            assert pack.tokens.tolist() == [token for cell in cells for token in cell]
            assert pack.positions.tolist() == [i for cell in cells for i in range(len(cell))]
            assert pack.keys.tolist() == [keys[row] for row in rows for _ in batch.cell(row)]
            assert pack.offsets.tolist() == [0, *accumulate(len(cell) for cell in cells)]
            assert pack.lengths == tuple(len(cell) for cell in cells)
            assert pack.rows == tuple(rows)


def slow_padded_rows(lengths: list[int], budget: int) -> list[list[int]]:
    """Longest first, as many rows as fit with their padding, spelled out."""
    packs: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not lengths[row]:
            continue
        if packs and (len(packs[-1]) + 1) * lengths[packs[-1][0]] <= budget:
            packs[-1].append(row)
        else:
            packs.append([row])
    return [sorted(rows) for rows in packs]


@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 9), max_size=20), budget=st.integers(9, 30))
def test_padded_packs_hold_like_lengths_and_no_more_than_the_budget_with_padding(
    lengths: list[int], budget: int
):
    batch = batch_of(lengths)
    packs = list(padded_packs_of(batch, budget))
    assert [list(pack.rows) for pack in packs] == slow_padded_rows(lengths, budget)
    assert all(pack.n_cells * max(pack.lengths) <= budget for pack in packs)
    for longer, shorter in pairwise(packs):
        assert min(longer.lengths) >= max(shorter.lengths)
    for pack in packs:
        cells = [batch.cell(row).tolist() for row in pack.rows]
        assert pack.tokens.tolist() == [token for cell in cells for token in cell]


def test_a_cell_over_the_padded_budget_is_refused_with_the_way_out():
    with pytest.raises(TrainingError, match="pack_tokens"):
        padded_packs_of(batch_of([3, 9]), 8)


def test_a_pack_is_never_written_to_again():
    rooms = Rooms(kept=2)
    kept = [next(packs_of(batch_of([n, n]), 2 * n, rooms)).tokens[1:] for n in range(2, 20)]
    assert [tokens.tolist() for tokens in kept] == [
        [*range(1, n), *range(10, 10 + n)] for n in range(2, 20)
    ]


def test_cells_are_packed_in_the_order_given():
    assert pack_of(batch_of([1, 1, 1]), [2, 0]).tokens.tolist() == [20, 0]


def test_a_cell_over_the_budget_is_refused_with_the_way_out():
    with pytest.raises(TrainingError, match="pack_tokens"):
        pack_rows([3, 9], 8)


def test_the_empty_pack_has_no_cell():
    assert empty_pack().rows == ()
    assert empty_pack().n_tokens == 1
