"""Deletions against their own rank: slow windows, invariances, and a planted gene."""

import statistics as plain
from typing import Any

import numpy as np
import pytest
from cytolake.evaluate.perturbation.statistics import (
    against_same_rank,
    gene_statistics,
    more_than_uniform,
)
from cytolake.platform.errors import EvaluationError
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats


def a_screen(
    seed: int, n_cells: int = 12, n_genes: int = 30, planted: int | None = None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Shifts that fall with rank, a random order of genes in each cell."""
    generator = np.random.default_rng(seed)
    genes = np.concatenate([generator.permutation(n_genes) for _ in range(n_cells)])
    ranks = np.tile(np.arange(n_genes), n_cells)
    shifts = np.exp(-ranks / 10) * generator.lognormal(sigma=0.2, size=len(ranks))
    if planted is not None:
        shifts[genes == planted] *= 2
    return shifts, ranks, genes


def slow_z(
    shifts: NDArray[Any], ranks: NDArray[Any], genes: NDArray[Any], at: int, min_peers: int
) -> tuple[float, int, int]:
    peers: list[float] = []
    width = 0
    for width in range(int(max(ranks)) + 1):
        peers = [
            float(shifts[other])
            for other in range(len(shifts))
            if abs(ranks[other] - ranks[at]) <= width and genes[other] != genes[at]
        ]
        if len(peers) >= min_peers:
            break
    return (shifts[at] - plain.fmean(peers)) / plain.stdev(peers), width, len(peers)


@given(st.integers(0, 1000), st.sampled_from([2, 15, 40, 10_000]))
def test_z_is_taken_against_other_genes_of_the_same_rank(seed: int, min_peers: int):
    shifts, ranks, genes = a_screen(seed, n_cells=4, n_genes=8)
    found = against_same_rank(shifts, ranks, genes, min_peers=min_peers)
    for at in (0, 3, 7, 17):
        z, width, n_peers = slow_z(shifts, ranks, genes, at, min_peers)
        assert found.z[at] == pytest.approx(z, abs=1e-9)
        assert (found.reach[at], found.n_peers[at]) == (width, n_peers)


@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-5, 5))
def test_z_does_not_change_when_all_shifts_are_scaled_and_moved(
    seed: int, scale: float, offset: float
):
    shifts, ranks, genes = a_screen(seed, n_cells=4, n_genes=8)
    before = against_same_rank(shifts, ranks, genes, min_peers=10)
    after = against_same_rank(shifts * scale + offset, ranks, genes, min_peers=10)
    assert after.z == pytest.approx(before.z, abs=1e-5)


def test_the_order_of_the_deletions_does_not_matter():
    shifts, ranks, genes = a_screen(5)
    order = np.random.default_rng(1).permutation(len(shifts))
    straight = against_same_rank(shifts, ranks, genes)
    mixed = against_same_rank(shifts[order], ranks[order], genes[order])
    assert mixed.z == pytest.approx(straight.z[order], abs=1e-12)


def test_a_gene_that_doubles_its_shift_comes_first_though_others_shift_more():
    shifts, ranks, genes = a_screen(2, planted=7)
    found = gene_statistics(shifts, ranks, genes, against_same_rank(shifts, ranks, genes))
    assert found.genes[0] == 7
    assert found.fdr[0] < 0.01
    assert found.mean_shift[0] == pytest.approx(shifts[genes == 7].mean())


def test_p_is_uniform_where_no_gene_differs():
    p = np.concatenate(
        [
            gene_statistics(*screen, against_same_rank(*screen)).p
            for screen in (a_screen(seed) for seed in range(20))
        ]
    )
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_genes_in_too_few_cells_are_counted_and_not_tested():
    shifts, ranks, genes = a_screen(2, n_cells=3, n_genes=10)
    genes[0] = 99
    found = gene_statistics(shifts, ranks, genes, against_same_rank(shifts, ranks, genes))
    assert 99 not in found.genes
    assert found.n_untested == 2  # the new gene, and the one that lost a cell to it


def test_the_sum_of_uniforms_by_hand():
    found = more_than_uniform(np.array([0.25, 1.5, 1.0]), np.array([1, 2, 2]))
    assert found == pytest.approx([0.75, 0.125, 0.5])


def test_long_sums_join_the_normal_law_smoothly():
    at = 30.0
    exact = stats.irwinhall.sf(at, 51)
    assert more_than_uniform(np.array([at]), np.array([51])) == pytest.approx([exact], abs=1e-3)


def test_a_shift_without_peers_is_refused():
    with pytest.raises(EvaluationError, match="has 0 peers"):
        against_same_rank(np.array([0.1, 0.2]), np.array([0, 0]), np.array([5, 5]))


def test_shifts_that_are_not_finite_are_refused():
    with pytest.raises(EvaluationError, match="not finite"):
        against_same_rank(np.array([np.nan, 0.2]), np.array([0, 0]), np.array([5, 6]))
