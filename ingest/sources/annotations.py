"""Tables of AnnData in HDF5 (obs, var), every vintage, as Arrow columns.

Knows the encodings of AnnData 0.6 to 0.12; knows no matrix.
"""

from typing import Any

import h5py
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...platform.errors import SourceError
from .protocol import INDEX, Names

_HIDDEN = {"__categories"}


def column_names(table: Any) -> list[str]:
    """Names of the table's columns in their order, the index excluded."""
    index = _index_name(table)
    if isinstance(table, h5py.Dataset):
        return [str(name) for name in table.dtype.names or () if name != index]
    ordered = [str(name) for name in table.attrs.get("column-order", ())]
    rest = [str(name) for name in table if name not in ordered]
    return [name for name in [*ordered, *rest] if name != index and name not in _HIDDEN]


def index_of(table: Any, n_rows: int | None = None) -> Names:
    """The index: the names of the rows. Shape (n_rows,)."""
    name = _index_name(table)
    if isinstance(table, h5py.Dataset):
        return _strings(table[name])
    item = table.get(name)
    if item is None:
        if n_rows is None:
            raise SourceError(f"{table.file.filename}: {table.name} has no index {name!r}")
        return np.array([str(row) for row in range(n_rows)], dtype=object)
    column = _column(item, 0, _length(item))
    if column is None:
        raise SourceError(f"{table.file.filename}: the index of {table.name} is not understood")
    return np.array([str(value) for value in column.to_pylist()], dtype=object)


def read_column(table: Any, name: str, start: int, stop: int) -> pa.Array:
    """Rows `start` to `stop` of one column: numbers, booleans or text; codes are looked up.

    Returns:
        The column; all null where its encoding has no table form (a nested group).
    """
    if isinstance(table, h5py.Dataset):
        column = _legacy_column(table, name, start, stop)
    else:
        column = _column(table[name], start, stop)
    return pa.nulls(stop - start) if column is None else column


def text_columns(table: Any, n_rows: int) -> dict[str, Names]:
    """The index and every column of text or whole numbers that could name something."""
    found = {INDEX: index_of(table, n_rows)}
    for name in column_names(table):
        column = read_column(table, name, 0, n_rows)
        if pa.types.is_string(column.type):
            found[name] = np.array([v or "" for v in column.to_pylist()], dtype=object)
    return found


def _index_name(table: Any) -> str:
    if isinstance(table, h5py.Dataset):
        names = table.dtype.names or ()
        if not names:
            raise SourceError(f"{table.file.filename}: {table.name} is not a table")
        return "index" if "index" in names else "_index" if "_index" in names else names[0]
    return str(table.attrs.get("_index", "_index" if "_index" in table else "index"))


def _length(item: Any) -> int:
    if isinstance(item, h5py.Dataset):
        return int(item.shape[0])
    return int((item["codes"] if "codes" in item else item["values"]).shape[0])


def _column(item: Any, start: int, stop: int) -> pa.Array | None:
    if isinstance(item, h5py.Dataset):
        categories = item.attrs.get("categories")
        if isinstance(categories, h5py.Reference):  # AnnData 0.7
            named: Any = item.file[categories]
            return _look_up(item[start:stop], named[:])
        return _array(item[start:stop]) if item.ndim == 1 else None
    encoding = str(item.attrs.get("encoding-type", ""))
    if encoding == "categorical" or {"codes", "categories"} <= set(item):
        return _look_up(item["codes"][start:stop], _values_of(item["categories"]))
    if {"values", "mask"} <= set(item):  # nullable integers, booleans, strings
        values, mask = _array(item["values"][start:stop]), item["mask"][start:stop]
        return pa.array(values.to_numpy(zero_copy_only=False), values.type, mask=mask)
    return None


def _values_of(item: Any) -> NDArray[Any]:
    if isinstance(item, h5py.Dataset):
        return item[:]
    return item["values"][:]


def _legacy_column(table: Any, name: str, start: int, stop: int) -> pa.Array | None:
    values = table.fields(name)[start:stop]
    if values.ndim != 1:
        return None
    categories = table.file.get(f"uns/{name}_categories")
    if isinstance(categories, h5py.Dataset) and values.dtype.kind in "iu":  # AnnData 0.6
        return _look_up(values, np.atleast_1d(categories[()]))
    return _array(values)


def _look_up(codes: NDArray[Any], categories: NDArray[Any]) -> pa.Array:
    """Categories by code; a negative code is a missing value."""
    known = _array(categories)
    codes = codes.astype(np.int64)
    if codes.size and int(codes.max()) >= len(known):
        raise SourceError(f"category {int(codes.max())} of {len(known)}: the table is damaged")
    return known.take(pa.array(codes, mask=codes < 0))


def _array(values: NDArray[Any]) -> pa.Array:
    if values.dtype.kind in "OSU":
        return pa.array(_strings(values), pa.string())
    return pa.array(values.astype(values.dtype.newbyteorder("=")))


def _strings(values: NDArray[Any]) -> Names:
    return np.array(
        [
            value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
            for value in values
        ],
        dtype=object,
    )
