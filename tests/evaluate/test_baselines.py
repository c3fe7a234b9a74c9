"""Baselines against counting by hand."""

import numpy as np
import pytest
from cytolake.evaluate.baselines import fit_rank_unigram, log_normalised, logistic_regression
from cytolake.evaluate.metrics import ranks_of_truth
from cytolake.platform.errors import EvaluationError
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

CELLS = [[4, 2, 3], [4, 3, 5], [4, 2], [5, 4, 2]]  # tokens 2 to 5 are genes, 6 is never seen


def fitted(length: int = 8):
    tokens = np.concatenate([np.array(cell) for cell in CELLS])
    ranks = np.concatenate([np.arange(len(cell)) for cell in CELLS])
    return fit_rank_unigram(tokens, ranks, n_tokens=7, n_special=2, length=length)


def test_the_unigram_counts_each_gene_and_adds_one():
    # 4 is seen 4 times, 2 3 times, 3 and 5 twice each, 6 never: 11 tokens and 5 genes.
    expected = np.array([0, 0, 4, 3, 5, 3, 1]) / 16
    assert fitted().unigram_v == pytest.approx(expected)


def test_a_rank_bin_is_the_counts_at_that_rank_smoothed_with_the_unigram():
    found = fitted()
    first = found.at_ranks(np.array([0]))[0]
    # Of the four cells three begin with gene 4, one with gene 5.
    for gene, count in {2: 0, 3: 0, 4: 3, 5: 1, 6: 0}.items():
        expected = (count + found.strength * found.unigram_v[gene]) / (4 + found.strength)
        assert first[gene] == pytest.approx(expected)


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=20), st.integers(1, 4096))
def test_every_rank_has_a_bin_that_is_a_distribution(ranks: list[int], length: int):
    found = fitted(length)
    probabilities = found.at_ranks(np.array(ranks))
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(ranks)))
    assert found.edges[0] == 0
    assert (np.diff(found.edges) > 0).all()


def test_early_ranks_have_a_bin_each():
    assert fitted(100).edges[:3].tolist() == [0, 1, 2]


def test_places_and_cross_entropies_are_those_of_the_whole_distribution():
    found = fitted()
    ranks, truth = np.array([0, 1, 2, 2]), np.array([4, 6, 5, 2])
    places, losses = found.guess(ranks, truth)
    whole = found.at_ranks(ranks)
    assert places.tolist() == ranks_of_truth(whole, truth).tolist()
    assert losses == pytest.approx(-np.log(whole[range(4), truth]))
    places, losses = found.guess_anywhere(truth)
    assert places.tolist() == ranks_of_truth(found.unigram_v[None].repeat(4, 0), truth).tolist()
    assert losses == pytest.approx(-np.log(found.unigram_v[truth]))


@given(
    st.lists(st.integers(2, 6), max_size=5),
    st.lists(st.tuples(st.integers(0, 7), st.integers(2, 6)), min_size=1, max_size=6),
    st.sampled_from([1e-9, 0.017, 0.5, 1.0]),
)
def test_visible_genes_are_struck_down_and_the_rest_renormalised(
    visible: list[int], asked: list[tuple[int, int]], share: float
):
    found = fitted()
    ranks, truth = np.array([rank for rank, _ in asked]), np.array([gene for _, gene in asked])
    whole = found.at_ranks(ranks)
    for gene in set(visible):
        whole[:, gene] *= share
    whole /= whole.sum(axis=1, keepdims=True)
    places, losses = found.guess_unseen(
        ranks, truth, np.array(visible, dtype=int), false_share=share
    )
    expected = whole[range(len(asked)), truth]
    assert losses == pytest.approx(-np.log(expected))
    # Rounding may part what is equal, so a place is held against the values around it.
    for row, place in enumerate(places):
        above = (whole[row] > expected[row] * (1 + 1e-12)).sum()
        at_least = (whole[row] >= expected[row] * (1 - 1e-12)).sum()
        assert above <= place < at_least


def test_smoothing_is_weak_where_ranks_tell_much_and_strong_where_they_do_not():
    generator = np.random.default_rng(0)
    ranks = np.tile(np.arange(20), 200)
    telling = fit_rank_unigram(ranks + 2, ranks, n_tokens=22, n_special=2, length=20)
    mixed = generator.integers(2, 22, size=len(ranks))
    telling_nothing = fit_rank_unigram(mixed, ranks, n_tokens=22, n_special=2, length=20)
    assert telling.strength < telling_nothing.strength


def test_special_tokens_among_the_genes_are_refused():
    with pytest.raises(EvaluationError, match="expected genes, 2 to 6"):
        fit_rank_unigram(np.array([1]), np.array([0]), n_tokens=7, n_special=2, length=4)
    with pytest.raises(EvaluationError, match="no token"):
        fit_rank_unigram(np.array([]), np.array([]), n_tokens=7, n_special=2, length=4)


def test_log_normalised_is_log1p_of_cp10k():
    counts = sparse.csr_matrix(np.array([[1.0, 0.0, 3.0], [0.0, 2.0, 0.0]]))
    found = log_normalised(counts, np.array([10, 4]))
    expected = np.log1p([[1e3, 0.0, 3e3], [0.0, 5e3, 0.0]])
    assert found.toarray() == pytest.approx(expected)


def test_logistic_regression_finds_what_can_be_found_and_gives_absent_labels_nothing():
    train = sparse.csr_matrix(np.array([[3.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 2.0]]))
    test = sparse.csr_matrix(np.array([[3.0, 0.0], [0.0, 3.0]]))
    found = logistic_regression(train, np.array([0, 0, 2, 2]), test, n_classes=3)
    assert found.argmax(axis=1).tolist() == [0, 2]
    assert found[:, 1].tolist() == [0.0, 0.0]
    assert found.sum(axis=1) == pytest.approx([1.0, 1.0])


def test_logistic_regression_of_one_label_is_refused():
    cells = sparse.csr_matrix(np.eye(2))
    with pytest.raises(EvaluationError, match="at least 2 labels"):
        logistic_regression(cells, np.array([1, 1]), cells, n_classes=2)
