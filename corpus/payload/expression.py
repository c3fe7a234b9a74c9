"""A segment's counts by gene: the Parquet that SQL reads, and statistics. Knows no Zarr."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..cells import CellBatch
from ..schema import VAR_COLUMNS
from ..sketches import Sketch

_ROW_GROUP = 1 << 18
_ROWS_PER_FILE = 1 << 27


def gene_statistics(
    cells: CellBatch, var: pa.Table, order: NDArray[np.int64], starts: NDArray[np.int64]
) -> pa.Table:
    """Per gene: names, cells expressing it, total, and the sketch of its values."""
    sketch = Sketch.of(
        cells.gene_ids, cells.indptr, cells.indices, cells.counts, np.maximum(cells.n_counts, 1)
    )
    running = np.concatenate([[0], np.cumsum(cells.counts[order], dtype=np.int64)])
    columns: dict[str, Any] = {name: var.column(name) for name in VAR_COLUMNS.names}
    columns |= {
        "n_cells": np.diff(starts),
        "total": running[starts[1:]] - running[starts[:-1]],
        **sketch.to_columns(),
    }
    return pa.table(columns)


def write_gene_major(
    folder: Path,
    names: pa.Array,
    indptr: NDArray[np.int64],
    counts: NDArray[np.uint32],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    *,
    column: str = "gene",
) -> None:
    """The counts gene-major, in row groups that each name only their own genes.

    Args:
        folder: not there yet.
        names: of the genes, ascending. n_genes values.
        indptr: where each cell's non-zeros begin and end. Shape (n_cells + 1,).
        counts: cell-major. Shape (n_nonzero,).
        order: the places in `counts` by gene, then by cell. Shape (n_nonzero,).
        starts: where each gene begins in `order`. Shape (n_genes + 1,).
        column: what the column of names is called.
    """
    folder.mkdir()
    schema = pa.schema(
        [
            (column, pa.dictionary(pa.int32(), pa.string())),
            ("row", pa.uint32()),
            ("count", pa.uint32()),
        ]
    )
    row_of = np.repeat(np.arange(len(indptr) - 1, dtype=np.uint32), np.diff(indptr))
    for number, begin in enumerate(range(0, max(1, len(order)), _ROWS_PER_FILE)):
        with pq.ParquetWriter(
            folder / f"{number:04d}.parquet",
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=[column, "count"],  # pyright: ignore[reportArgumentType] - a list is taken
            column_encoding={"row": "DELTA_BINARY_PACKED"},
            write_page_checksum=True,
        ) as writer:
            stop = min(begin + _ROWS_PER_FILE, len(order))
            for start in range(begin, stop, _ROW_GROUP):
                places = np.arange(start, min(start + _ROW_GROUP, stop))
                genes = np.searchsorted(starts, places, side="right") - 1
                first, last = int(genes[0]), int(genes[-1])
                chosen = order[places]
                gene = pa.DictionaryArray.from_arrays(
                    pa.array((genes - first).astype(np.int32)),
                    names.slice(first, last - first + 1),
                )
                columns = [gene, pa.array(row_of[chosen]), pa.array(counts[chosen])]
                writer.write_table(pa.table(columns, schema=schema), row_group_size=_ROW_GROUP)
