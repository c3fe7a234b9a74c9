"""Deletion against taking an item out of a list."""

import numpy as np
import pytest
from cytolake.evaluate.perturbation.deletion import delete, every_deletion
from cytolake.platform.errors import EvaluationError
from hypothesis import given
from hypothesis import strategies as st

cells = st.lists(st.integers(4, 40), min_size=2, max_size=20, unique=True)


@given(cells, st.booleans())
def test_every_deletion_is_a_pop_of_the_list_and_specials_stay(genes: list[int], framed: bool):
    cell = [2, *genes, 3] if framed else genes
    found = every_deletion(np.array(cell, dtype=np.int32), n_special=4)
    for row, gene in enumerate(genes):
        rest = list(cell)
        rest.pop(cell.index(gene))
        assert found.tokens_st[row].tolist() == rest
    assert found.deleted.tolist() == genes
    assert found.ranks.tolist() == list(range(len(genes)))
    assert found.positions.tolist() == [cell.index(gene) for gene in genes]


@given(cells, st.data())
def test_deleting_one_gene_leaves_the_others_in_order(genes: list[int], data: st.DataObject):
    gene = data.draw(st.sampled_from(genes))
    rest = [other for other in genes if other != gene]
    assert delete(np.array(genes, dtype=np.int32), gene).tolist() == rest


def test_deleting_a_gene_that_the_cell_lacks_is_refused():
    with pytest.raises(EvaluationError, match="token 9 is not among"):
        delete(np.array([4, 5], dtype=np.int32), 9)


def test_a_cell_with_one_gene_is_refused():
    with pytest.raises(EvaluationError, match="cannot lose one"):
        every_deletion(np.array([2, 7, 3], dtype=np.int32), n_special=4)
