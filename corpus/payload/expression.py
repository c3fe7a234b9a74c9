"""A segment's counts by gene: the Parquet that SQL reads, and statistics. Knows no Zarr."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..schema import VAR_COLUMNS
from ..sketches import Sketch
from ..sparse_counts import Columns, row_sums

_ROW_GROUPS = 128
_ROW_GROUP_SIZES = (1 << 14, 1 << 18)
_ROWS_PER_FILE = 1 << 27
_BATCH = 1 << 16
"""Values that pyarrow encodes at a time: it looks for the distinct genes of each batch."""


def gene_statistics(
    gene_ids: NDArray[np.object_], var: pa.Table, columns: Columns, n_counts: NDArray[np.int64]
) -> pa.Table:
    """Per gene: names, cells expressing it, total, and the sketch of its values.

    Args:
        gene_ids: the genes. Shape (n_genes,).
        var: the same genes' columns of `VAR_COLUMNS`.
        columns: raw counts by gene.
        n_counts: each cell's total before gene mapping. Shape (n_cells,).
    """
    sketch = Sketch.by_gene(gene_ids, columns, np.maximum(n_counts, 1))
    stored: dict[str, Any] = {name: var.column(name) for name in VAR_COLUMNS.names}
    stored |= {
        "n_cells": np.diff(columns.starts),
        "total": row_sums(columns.starts, columns.values),
        **sketch.to_columns(),
    }
    return pa.table(stored)


def write_gene_major(
    folder: Path,
    names: pa.Array,
    columns: Columns,
    *,
    column: str = "gene",
    number: str = "count",
) -> None:
    """The counts gene-major, in row groups that each name only their own genes.

    Args:
        folder: not there yet.
        names: of the genes, ascending. n_genes values.
        columns: counts, or real values, by gene, then by cell.
        column: what the column of names is called.
        number: what the column of counts is called.
    """
    folder.mkdir()
    starts, rows, values = columns.starts, columns.rows, columns.values
    numbers = pa.float32() if values.dtype.kind == "f" else pa.uint32()
    fields = [(column, pa.dictionary(pa.int32(), pa.string())), ("row", pa.uint32()),
              (number, numbers)]  # fmt: skip
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])
    size = _row_group_size(len(rows))
    for file, begin in enumerate(range(0, max(1, len(rows)), _ROWS_PER_FILE)):
        with pq.ParquetWriter(
            folder / f"{file:04d}.parquet",
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=[column],  # pyright: ignore[reportArgumentType] - a list is taken
            # A count's bytes side by side: smaller and sooner written than codes (decision 43).
            column_encoding={"row": "DELTA_BINARY_PACKED", number: "BYTE_STREAM_SPLIT"},
            # Queries skip row groups by the gene alone.
            write_statistics=[column],  # pyright: ignore[reportArgumentType] - a list is taken
            write_batch_size=_BATCH,
            write_page_checksum=True,
        ) as writer:
            stop = min(begin + _ROWS_PER_FILE, len(rows))
            for start in range(begin, stop, size):
                end = min(start + size, stop)
                first, last = np.searchsorted(starts, [start, end - 1], side="right") - 1
                ends = np.clip(starts[first + 1 : last + 2], None, end)
                lengths = np.diff(ends, prepend=start)
                gene = pa.DictionaryArray.from_arrays(
                    pa.array(np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)),
                    names.slice(int(first), len(lengths)),
                )
                group = [gene, pa.array(rows[start:end]), pa.array(values[start:end])]
                writer.write_table(pa.table(group, schema=schema), row_group_size=size)


def _row_group_size(n_rows: int) -> int:
    """Rows in a group: what a question about one gene decodes of a segment.

    A footer is searched group by group, so that a large file takes larger groups; in a small one
    (300,000 counts) groups of 2^14 made the question 2.5 times as fast as groups of 2^18.
    """
    fewest, most = _ROW_GROUP_SIZES
    size = fewest
    while size < most and size * _ROW_GROUPS < n_rows:
        size *= 2
    return size
