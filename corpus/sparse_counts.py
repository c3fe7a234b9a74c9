"""Counts as compressed rows: checked, in order, up-cast, by column. Knows no gene and no file.

What cells (`corpus.cells`) and their other modalities (`corpus.features`) have in common. Of real
values (float32) zeros are data and are stored; what is not stored was not measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..platform.errors import CorpusError

Rows = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[Any]]
"""indptr, shape (n_rows + 1,); indices, and counts (uint32) or values (float32), (n_stored,)."""


def check_lengths(rows: Rows) -> None:
    """Refuse arrays that do not fit each other.

    Raises:
        CorpusError: indices or counts have not as many values as indptr ends with.
    """
    indptr, indices, counts = rows
    if len(indices) != len(counts) or len(counts) != indptr[-1]:
        raise CorpusError(
            f"indices has {len(indices)} and counts {len(counts)} values, "
            f"expected {indptr[-1]} (the last of indptr)"
        )


def to_csr(rows: Rows, n_columns: int) -> sparse.csr_matrix:
    """The counts as float32 CSR: up-cast, for small integers overflow silently.

    float32 holds every integer up to 2**24; larger counts make the matrix float64. Real values
    stay as they are, stored zeros among them.
    """
    indptr, indices, counts = rows
    wide = counts.size and counts.dtype.kind != "f" and int(counts.max()) > 2**24
    values = counts.astype(np.float64 if wide else np.float32)
    return sparse.csr_matrix((values, indices, indptr), shape=(len(indptr) - 1, n_columns))


def in_order(rows: Rows, names: Sequence[str], what: str) -> tuple[NDArray[np.int64], Rows]:
    """The columns in ascending order of their names; the arrays given stay as they are.

    Args:
        rows: counts, all above 0; or real values.
        names: of the columns.
        what: what a column is, for errors: gene, feature.

    Returns:
        The old place of each new column, and the rows; the same arrays where nothing moves.

    Raises:
        CorpusError: a name stands twice, a row holds a column twice, a stored count is 0, or a
            value is not finite.
    """
    indptr, indices, counts = rows
    if len(set(names)) != len(names):
        raise CorpusError(f"a {what} appears twice: sum duplicates before writing")
    real = counts.dtype.kind == "f"
    if real and not np.isfinite(counts).all():
        raise CorpusError("a stored value is not finite: leave out what was not measured")
    if not real and counts.size and not counts.all():
        raise CorpusError("a stored count is 0: leave zeros out")
    shape = (len(indptr) - 1, len(names))
    order = np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)
    as_it_is = sparse.csr_matrix((counts, indices, indptr), shape=shape)
    if (order == np.arange(len(order))).all() and as_it_is.has_canonical_format:
        return order, rows  # a copy less
    place = np.empty(len(order), dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    matrix = sparse.csr_matrix((counts.copy(), place[indices], indptr), shape=shape)
    matrix.sort_indices()
    if not matrix.has_canonical_format:
        raise CorpusError(f"a cell holds a {what} twice: sum duplicates before writing")
    stored = matrix.data.astype(np.float32 if real else np.uint32)
    return order, (indptr, matrix.indices.astype(np.int32), stored)


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The same values by column, and within a column by row.

    Attributes:
        starts: where each column begins. Shape (n_columns + 1,), int64.
        rows: the row of each value. Shape (n_stored,), uint32.
        values: counts, or real values. Shape (n_stored,).
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.uint32]
    values: NDArray[Any]


def by_column(rows: Rows, n_columns: int) -> Columns:
    """Turn rows into columns, by a counting sort."""
    indptr, indices, values = rows
    starts = column_starts(indices, n_columns)
    # numpy's own large arrays lie in large pages, which halves the time of scattered writes.
    row_of, turned = np.empty(len(indices), dtype=np.uint32), np.empty_like(values)
    _turn(indptr, indices, values, starts[:-1].copy(), row_of, turned)
    return Columns(starts=starts, rows=row_of, values=turned)


def column_starts(indices: NDArray[np.int32], n_columns: int) -> NDArray[np.int64]:
    """Where each column begins once values are sorted by column. Shape (n_columns + 1,)."""
    starts = np.zeros(n_columns + 1, dtype=np.int64)
    _count(indices, starts)
    return np.cumsum(starts)


@numba.njit(cache=True, nogil=True)
def _count(
    indices: NDArray[np.int32], starts: NDArray[np.int64]
) -> None:  # pragma: no cover - compiled
    for place in range(len(indices)):
        starts[indices[place] + 1] += 1


@numba.njit(cache=True, nogil=True)
def _turn(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[Any],
    free: NDArray[np.int64],
    row_of: NDArray[np.uint32],
    turned: NDArray[Any],
) -> None:  # pragma: no cover - compiled
    """Put each value to the next free place of its column."""
    for row in range(len(indptr) - 1):
        for place in range(indptr[row], indptr[row + 1]):
            into = free[indices[place]]
            free[indices[place]] = into + 1
            row_of[into] = row
            turned[into] = values[place]


@numba.njit(cache=True, nogil=True)
def row_sums(
    indptr: NDArray[np.int64], counts: NDArray[Any]
) -> NDArray[np.int64]:  # pragma: no cover - compiled
    """Each row's sum, without a sum that runs over all rows. Shape (n_rows,)."""
    sums = np.zeros(len(indptr) - 1, dtype=np.int64)
    for row in range(len(sums)):
        for place in range(indptr[row], indptr[row + 1]):
            sums[row] += counts[place]
    return sums
