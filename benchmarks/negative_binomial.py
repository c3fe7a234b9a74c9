"""Counts of many cells by the negative binomial law, fast. Knows no statistics and no file.

Array suffixes: c cell, g gene, k cell type, o gene drawn directly.
"""

import numba
import numpy as np
from cytolake.corpus.content import mix64
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15


def alias_table(share_g: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Walker's table of a discrete law (Vose 1991, doi:10.1109/32.92917).

    Args:
        share_g: probabilities. Shape (n_genes,), sum 1.

    Returns:
        Of each place: the share of it that is its own, in units of 2**-32, in the upper half; in
        the lower half whose the rest is. Shape (n_genes,).
    """
    kept, other = _fill_alias(share_g * len(share_g))
    own = np.minimum(kept * 2.0**32, 2.0**32 - 1).astype(np.uint64)
    return (own << np.uint64(32)) | other.astype(np.uint64)


@numba.njit(cache=True)
def _fill_alias(
    left: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:  # pragma: no cover - compiled
    n_genes = len(left)
    kept = np.ones(n_genes)
    other = np.arange(n_genes).astype(np.int32)
    small = [np.int64(0) for _ in range(0)]
    large = [np.int64(0) for _ in range(0)]
    for gene in range(n_genes):
        if left[gene] < 1:
            small.append(np.int64(gene))
        else:
            large.append(np.int64(gene))
    while small and large:
        poor, rich = small.pop(), large[-1]
        kept[poor] = left[poor]
        other[poor] = rich
        left[rich] -= 1 - left[poor]
        if left[rich] < 1:
            small.append(large.pop())
    return kept, other


@numba.njit(cache=True, nogil=True)
def draw_counts(
    type_c: NDArray[np.int64],
    size_c: NDArray[np.float64],
    n_proposals_c: NDArray[np.int64],
    key_c: NDArray[np.uint64],
    often: NDArray[np.int64],
    often_co: NDArray[np.int64],
    alias_kg: NDArray[np.uint64],
    spread_kg: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint32]]:  # pragma: no cover - compiled
    """Counts of the negative binomial law, at the price of one random word a count.

    That law is a Poisson number of bursts whose lengths follow the logarithmic series (Quenouille
    1949, doi:10.2307/3001938). With mean m and dispersion d, x = d m and q = x / (1 + x), there are
    log(1 + x) / d bursts in the mean: fewer than m. So m are proposed (for all genes of a cell at
    once: a Poisson number of genes drawn by share), and of a proposal comes a burst of length j
    with probability q ** j / (j x), nothing with the rest. For j = 1 that is 1 / (1 + x), nearly
    always enough to know.

    Args:
        type_c: each cell's type. Shape (n_cells,).
        size_c: its mean counts. Shape (n_cells,).
        n_proposals_c: drawn from the Poisson law of that mean. Shape (n_cells,).
        key_c: key of its words: word i is mix64(key + (i + 1) * golden ratio). Shape (n_cells,).
        often: places of genes whose counts are drawn already. Shape (n_often,).
        often_co: those counts. Shape (n_cells, n_often).
        alias_kg: the types' alias tables. Shape (n_types, n_genes).
        spread_kg: dispersion times share: x of a cell of size 1. Shape (n_types, n_genes).

    Returns:
        CSR: indptr (n_cells + 1,), indices ascending within a cell, counts > 0.
    """
    n_cells, n_genes = len(type_c), alias_kg.shape[1]
    n_groups = (n_genes + 63) // 64  # a cell's genes are looked for in the groups it touched
    tally = np.zeros(n_genes, dtype=np.uint32)
    touched = np.zeros(n_groups, dtype=np.bool_)
    start = np.zeros(n_cells, dtype=np.int64)
    n_found = np.zeros(n_cells, dtype=np.int64)
    room = np.int64(0)
    for c in range(n_cells):
        room += min(n_proposals_c[c] + len(often), n_genes)
    found = np.empty(room, dtype=np.int32)
    value = np.empty(room, dtype=np.uint32)
    low24, low32 = np.uint64((1 << 24) - 1), np.uint64((1 << 32) - 1)
    used = 0
    for c in np.argsort(type_c):  # a type's tables stay in the cache
        k, size = type_c[c], size_c[c]
        start[c] = used
        for o in range(len(often)):
            if often_co[c, o]:
                tally[often[o]] = often_co[c, o]
                touched[often[o] >> 6] = True
        word_at = key_c[c]
        for _ in range(n_proposals_c[c]):
            word_at += np.uint64(GOLDEN)
            word = mix64(word_at)
            place = (word >> np.uint64(24)) * np.uint64(n_genes)
            gene = np.int64(place >> np.uint64(40))
            entry = alias_kg[k, gene]
            if ((place >> np.uint64(8)) & low32) >= (entry >> np.uint64(32)):
                gene = np.int64(entry & low32)
            x = np.float64(spread_kg[k, gene]) * size
            left = (np.float64(word & low24) + 0.5) / 16777216.0
            length = 1
            if left * (1 + x) >= 1:
                chance = 1 / (1 + x)
                if left * x >= np.log1p(x):
                    length = 0
                else:
                    left -= chance
                    while left >= 0 and chance > 1e-12:
                        chance *= x / (1 + x) * length / (length + 1)
                        left -= chance
                        length += 1
            if length:
                tally[gene] += np.uint32(length)
                touched[gene >> 6] = True
        for group in range(n_groups):
            if touched[group]:
                touched[group] = False
                for gene in range(group * 64, min(group * 64 + 64, n_genes)):
                    if tally[gene]:
                        found[used] = gene
                        value[used] = tally[gene]
                        tally[gene] = 0
                        used += 1
        n_found[c] = used - start[c]
    indptr = np.zeros(n_cells + 1, dtype=np.int64)
    indptr[1:] = np.cumsum(n_found)
    indices = np.empty(used, dtype=np.int32)
    counts = np.empty(used, dtype=np.uint32)
    for c in range(n_cells):
        indices[indptr[c] : indptr[c + 1]] = found[start[c] : start[c] + n_found[c]]
        counts[indptr[c] : indptr[c + 1]] = value[start[c] : start[c] + n_found[c]]
    return indptr, indices, counts
