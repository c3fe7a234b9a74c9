"""Cells as Arrow rows, a cell's counts as two lists, and back. Knows no file and no Ray.

A row has `indices` (places in a list of genes, ascending) and `counts` (raw, > 0), as Ray Data and
Hugging Face's datasets hold what has another length in each row.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..platform.errors import CorpusError
from .cells import CellBatch
from .content import content_hashes, content_keys
from .schema import GIVEN_COLUMNS
from .sparse_counts import row_sums

ROW_COLUMNS = ("cell_id", "n_counts", "indices", "counts")
"""What every row has, whatever else was asked for."""

COUNTS = ("cell_id", "indices", "counts")
"""The columns of a row that go neither to `cells` nor to `source_obs`."""


def cells_to_rows(batch: CellBatch, genes: Sequence[str]) -> pa.Table:
    """A batch as rows of `ROW_COLUMNS`.

    Args:
        batch: the cells; `obs` has `cell_id`.
        genes: Ensembl ids that `indices` point into, ascending; counts of others are left out.
    """
    place = {gene_id: i for i, gene_id in enumerate(genes)}
    places = np.array([place.get(str(gene), -1) for gene in batch.gene_ids], dtype=np.int32)
    moved = places[batch.indices]  # both lists of genes ascend, so a row still does
    kept = moved >= 0
    running = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])
    offsets = pa.array(running[batch.indptr].astype(np.int32))
    return pa.table(
        {
            "cell_id": batch.obs.column("cell_id"),
            "n_counts": batch.n_counts,
            "indices": pa.ListArray.from_arrays(offsets, pa.array(moved[kept])),
            "counts": pa.ListArray.from_arrays(offsets, pa.array(batch.counts[kept])),
        }
    )


def rows_to_cells(table: pa.Table, genes: Sequence[str], *, where: str) -> CellBatch:
    """Rows as a batch, every value tested.

    Args:
        table: `barcode` or `cell_id`, `indices`, `counts`, and columns of `schema.GIVEN_COLUMNS`;
            `n_counts` where the denominator is not the counts' sum. Others are not looked at.
        genes: Ensembl ids that `indices` point into.
        where: whose the rows are, for errors.

    Raises:
        CorpusError: a column is missing, an index is outside the genes, or a value is no count.
    """
    for name in ("indices", "counts"):
        if name not in table.column_names:
            raise CorpusError(f"{where}: rows have no column {name!r}: {table.column_names}")
    named = next((name for name in ("barcode", "cell_id") if name in table.column_names), None)
    if named is None:
        raise CorpusError(f"{where}: rows have neither 'barcode' nor 'cell_id' to be named by")
    columns = {name: table.column(name).combine_chunks() for name in ("indices", "counts")}
    indptr, indices = _lists(columns["indices"], f"{where}: indices")
    ends, values = _lists(columns["counts"], f"{where}: counts")
    if (indptr != ends).any():
        raise CorpusError(f"{where}: a row has not as many counts as indices")
    if indices.size and indices.dtype.kind not in "iu":
        raise CorpusError(f"{where}: indices are {indices.dtype}, expected whole numbers")
    if indices.size and (indices.min() < 0 or indices.max() >= len(genes)):
        raise CorpusError(f"{where}: an index lies outside its {len(genes)} genes")
    if not _all_counts(values):
        raise CorpusError(f"{where}: expected raw counts, whole numbers from 1 to 2**32 - 1")
    counts = values.astype(np.uint32)
    rows = indptr, indices.astype(np.int32), counts
    hashes = content_hashes(genes, *rows)
    n_counts = (
        table.column("n_counts").to_numpy().astype(np.int64)
        if "n_counts" in table.column_names
        else row_sums(indptr, counts)
    )
    names = table.column(named).cast(pa.string())
    obs = {"barcode": names, "n_counts": n_counts, "n_genes": np.diff(indptr).astype(np.int32)}
    given = [name for name in GIVEN_COLUMNS.names if name not in obs]
    obs |= {name: table.column(name) for name in given if name in table.column_names}
    return CellBatch(
        gene_ids=np.array(list(genes), dtype=object),
        indptr=indptr,
        indices=rows[1],
        counts=counts,
        n_counts=n_counts,
        content_keys=content_keys(hashes),
        obs=pa.table(obs),
    )


def in_tables(blocks: Iterable[pa.Table], n_rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of at most `n_rows`, few of them smaller."""
    waiting: list[pa.Table] = []
    n_waiting = 0
    for table in blocks:
        for start in range(0, table.num_rows, n_rows):
            piece = table.slice(start, n_rows)
            if waiting and n_waiting + piece.num_rows > n_rows:
                yield pa.concat_tables(waiting, promote_options="permissive")
                waiting, n_waiting = [], 0
            waiting.append(piece)
            n_waiting += piece.num_rows
    if n_waiting:
        yield pa.concat_tables(waiting, promote_options="permissive")


def _lists(column: pa.Array, what: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Where each list begins and ends, and the values of all."""
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise CorpusError(f"{what}: expected lists of numbers, found {column.type}")
    if column.null_count:
        raise CorpusError(f"{what}: {column.null_count} rows have none; expected an empty list")
    lengths = column.value_lengths().to_numpy()
    values = column.flatten().to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), values


def _all_counts(values: NDArray[Any]) -> bool:
    if values.dtype.kind not in "iuf":
        return not values.size
    whole = values.dtype.kind != "f" or bool((values == np.floor(values)).all())
    return not values.size or (whole and values.min() >= 1 and values.max() <= 2**32 - 1)
