"""Rows of several matrices in one new order. Knows no corpus and no commit."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..schema import VAR_COLUMNS
from ..sparse_counts import Rows

_CELLS_AT_ONCE = 4096

Read = Callable[[int, NDArray[np.int64], NDArray[np.int64]], Rows]
"""Reads rows of a matrix: its number, the rows, and which cells these are."""


def mixed_order(n_cells: int, names: Sequence[str]) -> NDArray[np.int64]:
    """A permutation that the names decide, the same on every machine. Shape (n_cells,)."""
    key = hashlib.sha256("\n".join(names).encode()).digest()
    drawn = (
        hashlib.blake2b(place.to_bytes(8, "little"), digest_size=16, key=key).digest()
        for place in range(n_cells)
    )
    return np.array(
        [place for _, place in sorted(zip(drawn, range(n_cells), strict=True))], dtype=np.int64
    )


def mixed_rows(
    place: NDArray[np.int64],
    rows: NDArray[np.int64],
    order: NDArray[np.int64],
    starts: Sequence[NDArray[np.int64]],
    read: Read,
    dtype: type[np.generic] = np.uint32,
) -> Rows:
    """The rows of several matrices, read in bounded pieces and brought into one order.

    Args:
        place: each cell's matrix, as a place in `starts`. Shape (n_cells,).
        rows: each cell's row in it. Shape (n_cells,).
        order: which cell comes first, second, ... Shape (n_cells,).
        starts: the indptr of each matrix; all have the same columns.
        read: reads them.
        dtype: of their numbers.
    """
    lengths = np.zeros(len(order), dtype=np.int64)
    for number, begins in enumerate(starts):
        mine = place == number
        lengths[mine] = begins[rows[mine] + 1] - begins[rows[mine]]
    indptr = np.concatenate([[0], np.cumsum(lengths[order])]).astype(np.int64)
    indices = np.empty(indptr[-1], dtype=np.int32)
    counts: NDArray[Any] = np.empty(indptr[-1], dtype=dtype)
    new_place = np.empty(len(order), dtype=np.int64)
    new_place[order] = np.arange(len(order))
    for number in range(len(starts)):
        mine = np.flatnonzero(place == number)
        for start in range(0, len(mine), _CELLS_AT_ONCE):
            some = mine[start : start + _CELLS_AT_ONCE]
            begins, columns, values = read(number, rows[some], some)
            for i, cell in enumerate(new_place[some].tolist()):
                into = slice(indptr[cell], indptr[cell + 1])
                indices[into] = columns[begins[i] : begins[i + 1]]
                counts[into] = values[begins[i] : begins[i + 1]]
    return indptr, indices, counts


def joined_genes(tables: Sequence[pa.Table]) -> pa.Table:
    """The first table's genes; the sources' names of a gene, where they differ, joined by `|`."""
    names = [table.column("source_name") for table in tables]
    first = tables[0].select(VAR_COLUMNS.names)
    if all(column.equals(names[0]) for column in names[1:]):
        return first
    rows = zip(*(pc.fill_null(column, "").to_pylist() for column in names), strict=True)
    joined = ["|".join(dict.fromkeys(word for n in row for word in n.split("|"))) for row in rows]
    place = first.column_names.index("source_name")
    return first.set_column(place, "source_name", pa.array(joined, pa.string()))
