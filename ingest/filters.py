"""Which cells of a source its own columns keep out. Knows tables; knows no matrix.

A cell that is kept out has the reason `filter:<column>`, so that every account counts by column.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..platform.errors import SourceError
from .rules import CellFilters

FILTER = "filter:"
"""What a reason begins with whose rule is a filter; the column follows."""

_TRUTH = ("true", "false")


def filter_reasons(filters: CellFilters, own: pa.Table, n_cells: int) -> NDArray[np.object_]:
    """Why each cell is kept out, an empty string where it is not. Shape (n_cells,).

    A cell that several columns keep out has the first one's name: those of `keep`, then `drop`,
    `min` and `max`, each in the order of their names.

    Args:
        filters: the conditions.
        own: the source's own columns of the cells.
        n_cells: number of cells.

    Raises:
        SourceError: a column that is held against a number holds none.
    """
    result = np.full(n_cells, "", dtype=object)
    for column, values in sorted(filters.keep.items()):
        _mark(result, ~has_value(own.column(column), values), column)
    for column, values in sorted(filters.drop.items()):
        _mark(result, has_value(own.column(column), values), column)
    for column, least in sorted(filters.min.items()):
        _mark(result, ~(_numbers(own, column) >= least), column)  # NaN is not: it is kept out
    for column, most in sorted(filters.max.items()):
        _mark(result, ~(_numbers(own, column) <= most), column)
    return result


def has_value(column: pa.ChunkedArray, values: Iterable[str]) -> NDArray[np.bool_]:
    """Which cells have one of some values; a missing value is none. Shape (n_cells,).

    Numbers are compared as numbers (`1` is 1.0), so that the answer does not depend on the other
    cells that are looked at. The words true and false are met in any letter case, as pandas, R
    and Arrow write them.

    Args:
        column: of the source.
        values: the values, as words.
    """
    plain: Any = _plain(column)
    words = list(values)
    if pa.types.is_integer(plain.type) or pa.types.is_floating(plain.type):
        wanted = [number for word in words if (number := _number(word)) is not None]
        return np.isin(plain.to_numpy(), np.array(wanted)) if wanted else _none(len(plain))
    wanted = {word.lower() if word.lower() in _TRUTH else word for word in words}
    codes = plain.cast(pa.string()).combine_chunks().dictionary_encode()
    names = [
        name.lower() if name.lower() in _TRUTH else name for name in codes.dictionary.to_pylist()
    ]
    found = np.array([*(name in wanted for name in names), False], dtype=bool)
    return found[codes.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)]


def unseen_values(filters: CellFilters, tables: Iterable[pa.Table]) -> list[str]:
    """A line for each column some of whose values stand in no cell: likely a slip of the pen.

    The values are not told: a line goes on record, where no donor's name may stand.

    Args:
        filters: the conditions.
        tables: the source's own columns, piece by piece.
    """
    places = [
        (kind, column, value)
        for kind in ("keep", "drop")
        for column, values in sorted(getattr(filters, kind).items())
        for value in values
    ]
    seen = {place: False for place in places}
    for table in tables:
        for place in (place for place in places if not seen[place]):
            _, column, value = place
            seen[place] = bool(has_value(table.column(column), [value]).any())
    lines: list[str] = []
    for kind in ("keep", "drop"):
        for column, values in sorted(getattr(filters, kind).items()):
            n_unseen = sum(not seen[kind, column, value] for value in values)
            if n_unseen:
                lines.append(
                    f"filters.{kind}.{column}: {n_unseen} of {len(values)} values stand in no cell"
                )
    return lines


def _mark(result: NDArray[np.object_], out: NDArray[np.bool_], column: str) -> None:
    result[(result == "") & out] = f"{FILTER}{column}"


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    return column.cast(kind.value_type) if pa.types.is_dictionary(kind) else column


def _numbers(own: pa.Table, column: str) -> NDArray[np.float64]:
    """A column's numbers, NaN where one is missing. Shape (n_cells,)."""
    plain = _plain(own.column(column))
    try:
        values: Any = plain.cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SourceError(
            f"filters: column {column!r} holds {plain.type}, expected numbers for `min` and "
            "`max`; compare words by `keep` and `drop`"
        ) from error
    return values.to_numpy(zero_copy_only=False)


def _none(n_cells: int) -> NDArray[np.bool_]:
    return np.zeros(n_cells, dtype=bool)


def _number(word: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return None
