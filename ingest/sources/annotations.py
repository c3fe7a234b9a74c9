"""Tables of AnnData (obs, var) in HDF5 or zarr, every vintage, as Arrow columns.

Knows the encodings of AnnData 0.6 to 0.12; knows no matrix, and of a tree only what h5py's and
ours have in common: groups and arrays by name, attributes, ranges.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...platform.errors import SourceError
from .protocol import INDEX, Names

_HIDDEN = {"__categories"}


def is_array(item: Any) -> bool:
    """Whether a place of a tree holds values, not other places."""
    return hasattr(item, "shape")


def member(group: Any, place: str) -> Any:
    """What lies at a place of a group, None where nothing is.

    HDF5 gives nothing, too, for what is there and cannot be opened; names would then be numbered,
    and a matrix passed over for the next.

    Raises:
        SourceError: it is there and cannot be opened.
    """
    item = group
    for part in place.split("/"):
        if item is None or is_array(item):
            return None
        found = item.get(part)
        if found is None and part in list(item):
            raise SourceError(
                f"{_where(item)}: {part!r} in {item.name} cannot be opened: the file is damaged"
            )
        item = found
    return item


def text_attribute(item: Any, name: str, default: str = "") -> str:
    """An attribute that is text; R's and Java's writers leave bytes of a fixed length."""
    value = item.attrs.get(name)
    if value is None:
        return default
    return str(as_names(np.atleast_1d(value))[0])


def column_names(table: Any) -> list[str]:
    """Names of the table's columns in their order, the index excluded."""
    index = _index_name(table)
    if is_array(table):
        return [str(name) for name in table.dtype.names or () if name != index]
    ordered = as_names(np.atleast_1d(table.attrs.get("column-order", ()))).tolist()
    rest = [str(name) for name in table if name not in ordered]
    return [name for name in [*ordered, *rest] if name != index and name not in _HIDDEN]


def index_of(table: Any, n_rows: int | None = None) -> Names:
    """The index: the names of the rows. Shape (n_rows,)."""
    name = _index_name(table)
    if is_array(table):
        return as_names(table[name])
    item = member(table, name)
    if item is None:
        if n_rows is None or "_index" in table.attrs:
            raise SourceError(f"{_where(table)}: {table.name} has no index {name!r}")
        return np.array([str(row) for row in range(n_rows)], dtype=object)
    column = column_of(item, 0, _length(item))
    if column is None:
        raise SourceError(f"{_where(table)}: the index of {table.name} is not understood")
    return np.array([str(value) for value in column.to_pylist()], dtype=object)


def read_column(table: Any, name: str, start: int, stop: int) -> pa.Array:
    """Rows `start` to `stop` of one column: numbers, booleans or text; codes are looked up.

    Returns:
        The column; all null where its encoding has no table form (a nested group).
    """
    if is_array(table):
        column = _legacy_column(table, name, start, stop)
    else:
        column = column_of(table[name], start, stop)
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
    if is_array(table):
        names = table.dtype.names or ()
        if not names:
            raise SourceError(f"{_where(table)}: {table.name} is not a table")
        return "index" if "index" in names else "_index" if "_index" in names else names[0]
    return text_attribute(table, "_index", "_index" if "_index" in list(table) else "index")


def _length(item: Any) -> int:
    if is_array(item):
        return int(item.shape[0])
    return int((item["codes"] if "codes" in item else item["values"]).shape[0])


def column_of(item: Any, start: int, stop: int) -> pa.Array | None:
    """Rows `start` to `stop` of an item that is a column; None where it is none."""
    if is_array(item):
        categories = item.attrs.get("categories")
        if categories is not None:  # AnnData 0.7: a reference in HDF5, a name in zarr
            named: Any = (item.parent if isinstance(categories, str) else item.file)[categories]
            return _look_up(item[start:stop], named[:])
        return _array(item[start:stop]) if item.ndim == 1 else None
    encoding = text_attribute(item, "encoding-type")
    if encoding == "categorical" or {"codes", "categories"} <= set(item):
        return _look_up(item["codes"][start:stop], _values_of(item["categories"]))
    if {"values", "mask"} <= set(item):  # nullable integers, booleans, strings
        values, mask = _array(item["values"][start:stop]), item["mask"][start:stop]
        if values is None:
            return None
        return pa.array(values.to_numpy(zero_copy_only=False), values.type, mask=mask)
    return None


def _values_of(item: Any) -> NDArray[Any]:
    if is_array(item):
        return item[:]
    return item["values"][:]


def _legacy_column(table: Any, name: str, start: int, stop: int) -> pa.Array | None:
    values = table.fields(name)[start:stop]
    if values.ndim != 1:
        return None
    categories = member(table.file, f"uns/{name}_categories")
    if is_array(categories) and values.dtype.kind in "iu":  # AnnData 0.6
        return _look_up(values, np.atleast_1d(categories[()]))
    return _array(values)


def _look_up(codes: NDArray[Any], categories: NDArray[Any]) -> pa.Array | None:
    """Categories by code; a negative code is a missing value."""
    known = _array(categories)
    if known is None:
        return None
    codes = codes.astype(np.int64)
    if codes.size and int(codes.max()) >= len(known):
        raise SourceError(f"category {int(codes.max())} of {len(known)}: the table is damaged")
    return known.take(pa.array(codes, mask=codes < 0))


def _array(values: NDArray[Any]) -> pa.Array | None:
    """Values as a column; None where a table has no such type (records, complex numbers)."""
    kind = values.dtype.kind
    if kind in "OSU":
        return pa.array(as_names(values), pa.string())
    if kind not in "biufmM":
        return None
    if kind == "f" and values.dtype.itemsize not in (4, 8):  # half and long double
        return pa.array(values.astype(np.float32 if values.dtype.itemsize < 4 else np.float64))
    return pa.array(values.astype(values.dtype.newbyteorder("=")))


def as_names(values: Iterable[Any]) -> Names:
    r"""Text or bytes as text; bytes that are no UTF-8 as `\xe9`, so that two names stay two."""
    return np.array(
        [
            value.decode("utf-8", errors="backslashreplace")
            if isinstance(value, bytes)
            else str(value)
            for value in values
        ],
        dtype=object,
    )


def _where(item: Any) -> str:
    return str(item.file.filename)
