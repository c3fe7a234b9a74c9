"""Counts as compressed rows: checked, brought into order, up-cast. Knows no gene and no file.

What cells (`corpus.cells`) and their other modalities (`corpus.features`) have in common.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..platform.errors import CorpusError

Rows = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint32]]
"""indptr, shape (n_rows + 1,); indices and counts, shape (n_nonzero,)."""


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

    float32 holds every integer up to 2**24; larger counts make the matrix float64.
    """
    indptr, indices, counts = rows
    wide = counts.size and int(counts.max()) > 2**24
    values = counts.astype(np.float64 if wide else np.float32)
    return sparse.csr_matrix((values, indices, indptr), shape=(len(indptr) - 1, n_columns))


def in_order(rows: Rows, names: Sequence[str], what: str) -> tuple[NDArray[np.int64], Rows]:
    """The columns in ascending order of their names; the arrays given stay as they are.

    Args:
        rows: counts, all above 0.
        names: of the columns.
        what: what a column is, for errors: gene, feature.

    Returns:
        The old place of each new column, and the rows; the same arrays where nothing moves.

    Raises:
        CorpusError: a name stands twice, a row holds a column twice, or a stored count is 0.
    """
    indptr, indices, counts = rows
    if len(set(names)) != len(names):
        raise CorpusError(f"a {what} appears twice: sum duplicates before writing")
    if counts.size and not counts.all():
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
    return order, (indptr, matrix.indices.astype(np.int32), matrix.data.astype(np.uint32))
