"""The content hash of a cell: 128 bits of its (gene id, count) pairs. Knows no order and no file.

The hash is a sum over the cell's stored non-zeros of two independently mixed 64-bit lanes, so it
does not depend on the order of genes, on the genes that are zero, nor on where the cell lies.
Mixing: the finaliser of splitmix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195).
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

N_BYTES = 16


def content_hashes(
    gene_ids: Iterable[str],
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    counts: NDArray[np.uint32],
) -> NDArray[np.uint64]:
    """Each cell's content hash as two lanes. Shape (n_cells, 2).

    Args:
        gene_ids: the gene list that `indices` points into.
        indptr: where each cell's non-zeros begin and end. Shape (n_cells + 1,).
        indices: positions in `gene_ids`, unique within a cell. Shape (n_nonzero,).
        counts: the counts, all > 0. Shape (n_nonzero,).
    """
    return sum_lanes(gene_words(gene_ids), indptr, indices, counts)


def gene_words(gene_ids: Iterable[str]) -> NDArray[np.uint64]:
    """Each gene's own two words, which its counts are mixed with. Shape (n_genes, 2)."""
    return _words(tuple(gene_ids))


@lru_cache(maxsize=8)
def _words(gene_ids: tuple[str, ...]) -> NDArray[np.uint64]:
    """The words, kept: a source's units have one list of genes."""
    words = b"".join(
        hashlib.blake2b(gene_id.encode(), digest_size=N_BYTES).digest() for gene_id in gene_ids
    )
    return np.frombuffer(words, dtype="<u8").reshape(-1, 2).astype(np.uint64)


def content_keys(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The first 64 bits of each hash: the key of masks and splits. Shape (n_cells,)."""
    return np.ascontiguousarray(hashes[:, 0])


def to_binary(hashes: NDArray[np.uint64]) -> pa.Array:
    """Hashes as the 16-byte values that the table `cells` holds."""
    data = np.ascontiguousarray(hashes.astype("<u8")).tobytes()
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(N_BYTES), len(hashes), [None, pa.py_buffer(data)]
    )
    return fixed.cast(pa.binary())


def from_binary(values: pa.ChunkedArray | pa.Array) -> NDArray[np.uint64]:
    """The inverse of `to_binary`. Shape (n_cells, 2)."""
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    fixed = pa.chunked_array(chunks, values.type).cast(pa.binary(N_BYTES)).combine_chunks()
    data = np.frombuffer(fixed.buffers()[1] or b"", dtype="<u8")
    start = 2 * fixed.offset
    return data[start : start + 2 * len(fixed)].reshape(-1, 2).astype(np.uint64)


@numba.njit(cache=True, nogil=True)
def mix64(value: np.uint64) -> np.uint64:  # pragma: no cover - compiled
    """Scatter 64 bits: the finaliser of splitmix64."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def mix_first(word: np.uint64, count: np.uint64) -> np.uint64:  # pragma: no cover - compiled
    """What one (gene, count) adds to a cell's first lane."""
    return mix64(word + count * np.uint64(0x9E3779B97F4A7C15))


@numba.njit(cache=True, nogil=True)
def mix_second(word: np.uint64, count: np.uint64) -> np.uint64:  # pragma: no cover - compiled
    """What one (gene, count) adds to a cell's second lane."""
    return mix64(word ^ (count * np.uint64(0xD6E8FEB86659FD93)))


@numba.njit(cache=True, nogil=True)
def sum_lanes(
    genes: NDArray[np.uint64],
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    counts: NDArray[np.uint32],
) -> NDArray[np.uint64]:  # pragma: no cover - compiled
    """What each row's (gene, count) add up to; sums over parts of a cell may be added up, too."""
    n_cells = len(indptr) - 1
    lanes = np.zeros((n_cells, 2), dtype=np.uint64)
    for cell in range(n_cells):
        first, second = np.uint64(0), np.uint64(0)
        for place in range(indptr[cell], indptr[cell + 1]):
            gene = indices[place]
            count = np.uint64(counts[place])
            first += mix_first(genes[gene, 0], count)
            second += mix_second(genes[gene, 1], count)
        lanes[cell, 0] = first
        lanes[cell, 1] = second
    return lanes
