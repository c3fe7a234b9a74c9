"""What a source says about its cells: its own columns, a table beside it, the corpus's columns.

Knows the schema of cells; knows no matrix.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ..corpus.log.receipts import BULK
from ..corpus.schema import ANNOTATIONS
from ..platform.errors import SourceError, did_you_mean
from .sources.protocol import Names, shape_of_names
from .sources.tables import delimiter_of
from .sources_toml import SourceEntry

MALIGNANT: dict[str, tuple[str, ...]] = {
    "cell_type": ("malignant cell", "neoplastic cell"),
    "cell_type_ontology_term_id": ("CL:0001064", "CL:0001063"),
    "tissue_type": ("cell line",),
    "tissue_ontology_term_id": ("CVCL_*", "CVCL:*"),
}
"""CELLxGENE's own words for cells of high mutational burden: columns and their values; `*` at the
end stands for any ending.

| word | source |
|---|---|
| malignant cell, CL:0001064; neoplastic cell, CL:0001063 | Cell Ontology: CELLxGENE asks for it |
| cell line | CELLxGENE schema 7.0, `tissue_type` |
| CVCL_... | schema 7.0: the tissue of a cell line is its Cellosaurus entry (HeLa: CVCL_0030) |

Not in it, for they do not say that a cell is mutated: `tissue_type` "cell culture" (schema 4 to 6:
primary cells and lines alike) and "primary cell culture" (7.0), "organoid", and `disease`, which is
the donor's (a T cell in a tumour is no tumour cell). Where they mean it in a source, its
`mutational_burden` says so by column and values.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellTable:
    """A table of cells that lies beside a source.

    Attributes:
        columns: one row a cell of the source, in the source's order; NULL where the table lacks
            the barcode.
        n_missing: cells of the source that the table lacks.
    """

    columns: pa.Table
    n_missing: int


def read_cell_table(path: Path, barcodes: Names) -> CellTable:
    """Read a text table whose first column is the barcode, and bring it to a source's order.

    Raises:
        SourceError: it is no table, names a barcode twice, or names none of the source's.
    """
    try:
        frame = pd.read_csv(path, sep=delimiter_of(path), index_col=0)
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise SourceError(f"{path}: cannot be read as a table of cells: {error}") from error
    frame.index = frame.index.astype(str)
    if not frame.index.is_unique:
        # Errors of a source go on record, where no barcode may stand: lines and shapes tell too.
        twice = frame.index == frame.index[frame.index.duplicated()][0]
        first, second, *_ = np.flatnonzero(twice) + 2
        raise SourceError(f"{path}: one barcode stands in lines {first} and {second}")
    known = frame.index.isin(barcodes)
    if not known.any():
        raise SourceError(
            f"{path}: none of its first column {shape_of_names(list(frame.index[:1]))} is a "
            f"barcode of the source {shape_of_names(list(barcodes[:1]))}"
        )
    ordered = frame.reindex(barcodes)
    columns = {str(name): pa.array(ordered[name], from_pandas=True) for name in ordered.columns}
    n_missing = int((~np.isin(barcodes.astype(str), frame.index.to_numpy(dtype=str))).sum())
    return CellTable(columns=pa.table(columns), n_missing=n_missing)


def join_columns(obs: pa.Table, beside: pa.Table | None) -> pa.Table:
    """The source's own columns and those of the table beside it.

    Raises:
        SourceError: both have a column of one name.
    """
    columns = {name: obs.column(name) for name in obs.column_names}
    near = pa.table({}) if beside is None else beside  # a table without rows is false
    for name, column in zip(near.column_names, near.columns, strict=True):
        if name in columns:
            raise SourceError(f"column {name!r} is in obs and in the metadata: leave one out")
        columns[name] = column
    return pa.table(columns)


def check_columns(entry: SourceEntry, known: list[str], where: str) -> None:
    """Refuse settings that name a column which the source lacks.

    Raises:
        SourceError: naming the column and the nearest one.
    """
    wanted = [*entry.columns.values(), *entry.filters.columns]
    if entry.doublets is not None and entry.doublets.batch is not None:
        wanted.append(entry.doublets.batch)
    if entry.mutational_burden is not None and entry.mutational_burden.column is not None:
        wanted.append(entry.mutational_burden.column)
    for name in wanted:
        if name not in known:
            raise SourceError(
                f"{where}: has no column {name!r} of cells; it has "
                f"{', '.join(known) or 'none'}{did_you_mean(name, known)}"
            )


def annotations(entry: SourceEntry, own: pa.Table, n_rows: int) -> dict[str, pa.Array]:
    """The corpus's columns of some cells.

    A constant of the entry is stronger than its column mapping, and that than a column of the
    source that has the corpus's own name. Where nothing says otherwise, organism is human and a
    bulk sample's suspension_type CELLxGENE's `na`: no cells were brought into suspension.

    Args:
        entry: the source's settings.
        own: the source's own columns.
        n_rows: number of cells.
    """
    found: dict[str, pa.Array] = {}
    for name in ANNOTATIONS.names:
        source_name = entry.columns.get(name, name)
        if name in entry.constants:
            found[name] = pa.array([entry.constants[name]] * n_rows, pa.string())
        elif source_name in own.column_names:
            found[name] = as_text(own.column(source_name))
    if "organism" not in found:
        found["organism"] = pa.array(["Homo sapiens"] * n_rows, pa.string())
    if entry.kind == BULK and "suspension_type" not in found:
        found["suspension_type"] = pa.array(["na"] * n_rows, pa.string())
    return found


def as_text(column: pa.ChunkedArray) -> pa.Array:
    """A column as text: 1015.0 becomes `1015`, for a donor is a name and not a number."""
    values: Any = column.combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.chunks else pa.nulls(0)
    if pa.types.is_floating(values.type):
        known = values.drop_null().to_numpy(zero_copy_only=False)
        if (known == np.floor(known)).all() and (np.abs(known) < 2.0**53).all():
            values = values.cast(pa.int64())
    return values.cast(pa.string())


def declares_burden(entry: SourceEntry, known: list[str]) -> bool:
    """Whether anything says which cells are malignant or immortalised."""
    mapped = {*known, *entry.columns, *entry.constants}
    return entry.mutational_burden is not None or any(name in mapped for name in MALIGNANT)


def burdened(
    entry: SourceEntry, own: pa.Table, lifted: dict[str, pa.Array], n_rows: int
) -> NDArray[np.bool_]:
    """Which cells are declared malignant or immortalised. Shape (n_rows,)."""
    result = np.zeros(n_rows, dtype=bool)
    declared = entry.mutational_burden
    if declared is not None and declared.column is None:
        result[:] = True
    elif declared is not None:
        marked = as_text(own.column(str(declared.column))).to_pylist()
        result |= np.array([value in declared.values for value in marked], dtype=bool)
    for name, values in MALIGNANT.items():
        if name in lifted:
            result |= _is_one_of(lifted[name], values)
        elif name in own.column_names:
            result |= _is_one_of(as_text(own.column(name)), values)
    return result


def _is_one_of(column: pa.Array, values: tuple[str, ...]) -> NDArray[np.bool_]:
    whole = {value for value in values if not value.endswith("*")}
    beginnings = tuple(value[:-1] for value in values if value.endswith("*"))
    return np.array(
        [
            value in whole or (value is not None and value.startswith(beginnings))
            for value in column.to_pylist()
        ],
        dtype=bool,
    )
