from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from cytolake.corpus.sketches import PER, RATIO, TABLE, Binning, Sketch
from cytolake.platform.errors import DamageError
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

BOUND = 0.005
"""Relative error allowed; the middle of a bin is 1.01**0.5 - 1 = 0.4988 % from its borders."""


def sketch_of(matrix: np.ndarray, n_counts: np.ndarray) -> Sketch:
    counts = sparse.csr_matrix(matrix)
    return Sketch.of(
        np.array([f"G{i:02d}" for i in range(matrix.shape[1])], dtype=object),
        counts.indptr.astype(np.int64),
        counts.indices.astype(np.int32),
        counts.data.astype(np.uint32),
        n_counts.astype(np.int64),
    )


def bins_by_formula(counts: np.ndarray, n_counts: np.ndarray) -> np.ndarray:
    return np.floor(np.log(counts / n_counts * PER) / np.log(RATIO)).astype(np.int64)


def medians_by_hand(matrix: np.ndarray, n_counts: np.ndarray) -> np.ndarray:
    values = matrix / n_counts[:, None] * PER
    return np.array([np.median(column[column > 0]) for column in values.T])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4 * TABLE), st.integers(0, 10**7)), max_size=60))
def test_a_bin_that_is_looked_up_is_the_bin_that_is_computed(cells: list[tuple[int, int]]) -> None:
    counts = np.array([count for count, _ in cells], dtype=np.uint32)
    n_counts = counts.astype(np.int64) + np.array([more for _, more in cells], dtype=np.int64)
    found = Binning.of(n_counts).bins(np.arange(len(cells), dtype=np.uint32), counts)
    assert found.tolist() == bins_by_formula(counts, n_counts).tolist()


def test_every_count_that_a_table_holds_is_binned_bit_by_bit() -> None:
    n_counts = np.arange(TABLE, 20_000, dtype=np.int64)
    binning = Binning.of(n_counts)
    for count in (1, 2, 3, TABLE - 1, TABLE):
        counts = np.full(len(n_counts), count, dtype=np.uint32)
        found = binning.bins(np.arange(len(n_counts), dtype=np.uint32), counts)
        np.testing.assert_array_equal(found, bins_by_formula(counts, n_counts))


def test_a_cell_without_counts_needs_no_denominator() -> None:
    assert sketch_of(np.array([[0, 0], [1, 0]]), np.array([0, 10])).n_cells().tolist() == [1, 0]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 10**6)), min_size=1, max_size=9))
def test_a_median_of_a_few_cells_is_within_half_a_percent(cells: list[tuple[int, int]]) -> None:
    matrix = np.array([[count] for count, _ in cells])
    n_counts = matrix[:, 0] + np.array([more for _, more in cells])
    expected = medians_by_hand(matrix, n_counts)
    np.testing.assert_allclose(sketch_of(matrix, n_counts).medians(), expected, rtol=BOUND)


@pytest.mark.parametrize("n_cells", [1, 2, 3, 4, 1000, 1001])
def test_medians_of_many_genes_are_within_half_a_percent(n_cells: int) -> None:
    rng = np.random.default_rng(n_cells)
    matrix = rng.geometric(0.2, (n_cells, 50)) ** rng.integers(1, 4, 50)
    n_counts = matrix.sum(axis=1) + rng.integers(0, 5000, n_cells)
    expected = medians_by_hand(matrix, n_counts)
    np.testing.assert_allclose(sketch_of(matrix, n_counts).medians(), expected, rtol=BOUND)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(6)), st.integers(0, 99))
def test_sketches_merge_in_any_order_and_grouping(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.geometric(0.1, (60, 7)) * (rng.random((60, 7)) < 0.5)
    n_counts = matrix.sum(axis=1) + 3
    parts = [sketch_of(matrix[i::6], n_counts[i::6]) for i in order]
    pairs = [Sketch.merge(parts[:2]), Sketch.merge(parts[2:3]), Sketch.merge(parts[3:])]
    whole = sketch_of(matrix, n_counts)
    for merged in (Sketch.merge(parts), Sketch.merge(pairs)):
        for name in ("indptr", "bins", "n_values"):
            assert getattr(merged, name).tolist() == getattr(whole, name).tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_medians_of_the_seventy_percent_that_live_are_exact_to_half_a_percent(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.geometric(0.05, (40, 9)) * (rng.random((40, 9)) < 0.6)
    matrix[:, 0] = 7  # a gene that every cell has
    n_counts = matrix.sum(axis=1) + rng.integers(1, 900, 40)
    living = np.sort(rng.permutation(40)[:28])
    kept = matrix[living].any(axis=0)
    expected = medians_by_hand(matrix[living][:, kept], n_counts[living])
    found = sketch_of(matrix[living], n_counts[living]).medians()
    np.testing.assert_allclose(found[kept], expected, rtol=BOUND)
    assert np.isnan(found[~kept]).all()


def values_of(sketch: Sketch) -> dict[str, Counter[int]]:
    """What a sketch holds, gene by gene; genes without a value too."""
    ends = zip(sketch.gene_ids, sketch.indptr[:-1], sketch.indptr[1:], strict=True)
    return {
        str(gene): Counter(
            dict(zip(sketch.bins[a:b].tolist(), sketch.n_values[a:b].tolist(), strict=True))
        )
        for gene, a, b in ends
    }


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sets(st.sampled_from("ABCDEFG"), min_size=1), max_size=4),
    st.integers(0, 999),
    st.booleans(),
)
def test_sketches_of_other_genes_add_up_and_come_apart_again(
    lists: list[set[str]], seed: int, backwards: bool
) -> None:
    """Also where genes stand in no order: the oracle adds up counters."""
    rng = np.random.default_rng(seed)
    parts: list[Sketch] = []
    expected: dict[str, Counter[int]] = {}
    for genes in lists:
        matrix = rng.geometric(0.2, (8, len(genes))) * (rng.random((8, len(genes))) < 0.5)
        part = sketch_of(matrix, matrix.sum(axis=1) + rng.integers(1, 9, 8))
        named = np.array(sorted(genes, reverse=backwards), dtype=object)
        part = replace(part, gene_ids=named)
        parts.append(part)
        for gene, counter in values_of(part).items():
            expected[gene] = expected.get(gene, Counter()) + counter
    whole = Sketch.merge(parts)
    assert whole.gene_ids.tolist() == sorted(expected)
    assert values_of(whole) == expected
    for part in parts:
        whole = whole.without(part)
    assert values_of(whole) == {gene: Counter() for gene in expected}


def test_values_that_a_sketch_does_not_hold_cannot_be_taken_off() -> None:
    one, two = (sketch_of(np.array([[0, count]]), np.array([10])) for count in (1, 2))
    with pytest.raises(DamageError, match="gene G01 lacks values"):
        one.without(two)
