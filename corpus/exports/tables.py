"""An extract as Parquet tables: cells, genes and counts, by the names of the corpus's views.

Knows Parquet; knows no SQL. What has pandas, polars, DuckDB, Spark or R's arrow reads them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .extract import Extract

_ROWS_PER_GROUP = 1 << 20
_ROWS_PER_FILE = 1 << 28
"""Counts of one file: about a gigabyte."""


def write_tables(extract: Extract, folder: Path, advance: Callable[[int], None]) -> None:
    """Write a folder of tables; a block of cells is in memory at a time.

    | file | one row per | columns |
    |---|---|---|
    | `cells.parquet` | cell | those of `obs`, its index as `cell`; `cell_id` first |
    | `genes.parquet` | gene | `gene_id, symbol, biotype, n_cells_measured` |
    | `expression/*.parquet` | stored count | `cell_id, gene_id, count`, by cell, then gene |
    | `source.json` | | corpus, snapshot, condition |

    Args:
        extract: what.
        folder: where; nothing is there yet.
        advance: is told how many more cells are written.
    """
    (folder / "expression").mkdir(parents=True)
    obs = extract.obs().rename_axis("cell").reset_index()
    columns = ["cell_id", *(name for name in obs.columns if name != "cell_id")]
    cells = pa.Table.from_pandas(obs[columns], preserve_index=False)
    genes = pa.Table.from_pandas(extract.var().reset_index(), preserve_index=False)
    for name, table in (("cells", cells), ("genes", genes)):
        pq.write_table(
            table.replace_schema_metadata(None),
            folder / f"{name}.parquet",
            compression="zstd",
            write_page_checksum=True,
        )
    told = json.dumps(extract.uns["cytolake"], indent=1)
    (folder / "source.json").write_text(told + "\n", encoding="utf-8")
    _write_counts(extract, folder / "expression", advance)


def _write_counts(extract: Extract, folder: Path, advance: Callable[[int], None]) -> None:
    ids = pa.array(extract.gene_ids, pa.string())
    schema = pa.schema(
        [
            ("cell_id", pa.int64()),
            ("gene_id", pa.dictionary(pa.int32(), pa.string())),
            ("count", pa.uint32()),
        ]
    )
    repeated: Any = ["gene_id"]
    writer: pq.ParquetWriter | None = None
    first, n_rows, n_files = 0, 0, 0
    try:
        for block in extract.blocks():
            if writer is None or n_rows >= _ROWS_PER_FILE:
                if writer is not None:
                    writer.close()
                writer = pq.ParquetWriter(
                    folder / f"part-{n_files:05d}.parquet",
                    schema,
                    compression="zstd",
                    write_page_checksum=True,
                    use_dictionary=repeated,
                    column_encoding={"cell_id": "DELTA_BINARY_PACKED"},
                )
                n_rows, n_files = 0, n_files + 1
            n_stored = np.diff(block.indptr)
            n_cells = len(n_stored)
            cell_ids = np.repeat(extract.selection.cell_id[first : first + n_cells], n_stored)
            names = pa.DictionaryArray.from_arrays(pa.array(block.indices, pa.int32()), ids)
            counts = block.data.astype(np.uint32)
            table = pa.Table.from_arrays(
                [pa.array(cell_ids), names, pa.array(counts)], schema=schema
            )
            writer.write_table(table, row_group_size=_ROWS_PER_GROUP)
            first, n_rows = first + n_cells, n_rows + table.num_rows
            advance(n_cells)
    finally:
        if writer is not None:
            writer.close()
