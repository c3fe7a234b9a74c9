"""Counts that pass 1 has unpacked and tested, kept in staging for pass 2: gzip is undone once.

Knows surveys and rows of counts; knows no rule and no segment. Of a source that is not packed
nothing is kept: reading it twice costs less than a copy.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from .staging import leaving

_HALF = np.uint32(16)


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Raw counts of some rows of a source.

    Attributes:
        rows: the rows in the source, ascending. Shape (n_rows,).
        matrix: counts, rows x the source's names, uint32, no stored zeros.
    """

    rows: NDArray[np.int64]
    matrix: sparse.csr_matrix


def keeping(path: Path, counts: Iterable[Counts], n_names: int) -> Iterator[Counts]:
    """Pass counts on, and keep them: whole under their name, once all were passed on.

    Args:
        path: where to; nothing is there yet. Needs 4 bytes a count, as a rule.
        counts: tested ones, each <= `recover.LARGEST_COUNT`.
        n_names: number of the source's names.

    Raises:
        StorageError: the disk says no.
    """
    schema = _schema(n_names)
    with leaving(path, "unpacked") as unfinished, pa.ipc.new_file(unfinished, schema) as file:
        for some in counts:
            file.write_batch(_batch(some, schema))
            yield some


def kept(path: Path, n_names: int) -> Iterator[Counts]:
    """What `keeping` kept, some rows at a time.

    Args:
        path: where.
        n_names: number of the source's names.
    """
    with pa.OSFile(str(path)) as raw, pa.ipc.open_file(raw) as file:
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            rows, names, low, high = batch.columns
            counts = low.flatten().to_numpy().astype(np.uint32)
            if not high.null_count:
                counts |= high.flatten().to_numpy().astype(np.uint32) << _HALF
            parts = counts, names.flatten().to_numpy().astype(np.int32), names.offsets.to_numpy()
            matrix = sparse.csr_matrix(parts, shape=(len(rows), n_names))
            yield Counts(rows=rows.to_numpy(), matrix=matrix)


def _schema(n_names: int) -> pa.Schema:
    """Counts as two halves; of counts below 65,536 the high half is null."""
    name = pa.uint16() if n_names <= 1 << 16 else pa.int32()
    return pa.schema(
        [
            pa.field("row", pa.int64()),
            pa.field("names", pa.list_(name)),
            pa.field("low", pa.list_(pa.uint16())),
            pa.field("high", pa.list_(pa.uint16())),
        ]
    )


def _batch(some: Counts, schema: pa.Schema) -> pa.RecordBatch:
    offsets = pa.array(some.matrix.indptr.astype(np.int32))
    values: NDArray[Any] = some.matrix.data
    names = some.matrix.indices.astype(schema.field("names").type.value_type.to_pandas_dtype())
    lists = [names, values.astype(np.uint16)]
    if values.max(initial=0) > np.iinfo(np.uint16).max:
        lists.append((values >> _HALF).astype(np.uint16))
    columns: list[pa.Array] = [pa.ListArray.from_arrays(offsets, pa.array(x)) for x in lists]
    if len(lists) == 2:
        columns.append(pa.nulls(len(some.rows), schema.field("high").type))
    return pa.RecordBatch.from_arrays([pa.array(some.rows), *columns], schema=schema)
