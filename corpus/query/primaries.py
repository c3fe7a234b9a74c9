"""Which of several equal cells is the primary one. Knows ids; knows no file and no count."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

COLUMNS = pa.schema([pa.field("cell_id", pa.int64()), pa.field("primary_id", pa.int64())])


ROWS_AT_ONCE = 1 << 16
"""Of a stream of hashes."""


def repeated(hashes: pa.RecordBatchReader) -> NDArray[np.uint64]:
    """The hashes that come more than once, ascending.

    To group a million cells by their contents took 100 bytes a cell; this takes eight, and only
    contents with such a hash need be grouped.

    Args:
        hashes: one column of uint64.
    """
    found = [batch.column(0).to_numpy(zero_copy_only=False).copy() for batch in hashes]
    values = np.concatenate([np.zeros(0, dtype=np.uint64), *found])
    found.clear()
    values.sort()
    return np.unique(values[1:][values[1:] == values[:-1]])


def join_pairs(duplicates: pa.Table, links: pa.Table, cells: pa.Table) -> pa.Table:
    """Groups out of two kinds of pairs, each with one primary cell.

    A cell that came later than the one it is linked to is not primary while another of its group
    is none of these; among the rest the first by (source_id, barcode, cell_id) is.

    Args:
        duplicates: `cell_id, primary_id` of equal contents.
        links: the same, of cells that a later source brought under another list of genes.
        cells: `cell_id, source_id, barcode` of all cells that the pairs name.

    Returns:
        `cell_id, primary_id` of every cell that is not primary.
    """
    pairs = pa.concat_tables([duplicates.select(COLUMNS.names), links.select(COLUMNS.names)])
    ids, places = np.unique(
        np.concatenate([pairs.column(name).to_numpy() for name in COLUMNS.names]),
        return_inverse=True,
    )
    first, second = places[: pairs.num_rows], places[pairs.num_rows :]
    graph = sparse.coo_matrix(
        (np.ones(len(first), dtype=np.int8), (first, second)), shape=(len(ids), len(ids))
    )
    _, group = connected_components(graph, directed=False)
    came_later = np.isin(ids, links.column("cell_id").to_numpy())
    known = cells.sort_by("cell_id")
    keys = {
        name: known.column(name)
        .to_numpy(zero_copy_only=False)[np.searchsorted(known.column("cell_id").to_numpy(), ids)]
        .astype(str)
        for name in ("source_id", "barcode")
    }
    order = np.lexsort((ids, keys["barcode"], keys["source_id"], came_later, group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    primary = np.empty(len(starts), dtype=np.int64)
    primary[group[order][starts]] = ids[order][starts]
    others = ids != primary[group]
    return pa.table([ids[others], primary[group][others]], schema=COLUMNS)
