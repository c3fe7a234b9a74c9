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
from ..sparse_counts import Columns, column_sums

_ROW_GROUP = 1 << 18
_ROWS_PER_FILE = 1 << 27


def gene_statistics(cells: CellBatch, var: pa.Table, starts: NDArray[np.int64]) -> pa.Table:
    """Per gene: names, cells expressing it, total, and the sketch of its values."""
    sketch = Sketch.of(
        cells.gene_ids, cells.indptr, cells.indices, cells.counts, np.maximum(cells.n_counts, 1)
    )
    columns: dict[str, Any] = {name: var.column(name) for name in VAR_COLUMNS.names}
    columns |= {
        "n_cells": np.diff(starts),
        "total": column_sums(cells.indices, cells.counts, cells.n_genes),
        **sketch.to_columns(),
    }
    return pa.table(columns)


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
            write_page_checksum=True,
        ) as writer:
            stop = min(begin + _ROWS_PER_FILE, len(rows))
            for start in range(begin, stop, _ROW_GROUP):
                end = min(start + _ROW_GROUP, stop)
                first, last = np.searchsorted(starts, [start, end - 1], side="right") - 1
                ends = np.clip(starts[first + 1 : last + 2], None, end)
                lengths = np.diff(ends, prepend=start)
                gene = pa.DictionaryArray.from_arrays(
                    pa.array(np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)),
                    names.slice(int(first), len(lengths)),
                )
                group = [gene, pa.array(rows[start:end]), pa.array(values[start:end])]
                writer.write_table(pa.table(group, schema=schema), row_group_size=_ROW_GROUP)
