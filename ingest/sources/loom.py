"""Loom files: genes x cells, dense and chunked, with attributes of rows and of columns.

Knows loom's layout (specification 2 and 3); opens the file anew for each read.
"""

import html
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
from scipy import sparse

from ...platform.errors import SourceError
from .annotations import column_of, member
from .compressed import MOST_VALUES, widened
from .h5ad import open_hdf5
from .protocol import INDEX, Layer, Names, RawBlock, Triplets, find_layer, sample_rows

CELLS = ("CellID", "cell_id", "cell_ids", "obs_names", "barcode", "barcodes", "index")
"""What writers call the names of the cells: loompy, scanpy, SeuratDisk, others."""

GENES = ("Accession", "Gene", "gene", "gene_ids", "var_names", "index", "Name")
"""What writers call the names of the genes, ids first."""

_WIDEST = 4 * MOST_VALUES


@dataclass(frozen=True, kw_only=True, slots=True)
class LoomSource:
    """A loom file. Its matrix is read by cells where chunks are narrow enough, else spooled."""

    path: Path
    format: str = "loom"

    @property
    def notes(self) -> tuple[str, ...]:
        """Whether the cells have names, and which columns are no table's columns."""
        with open_hdf5(self.path) as file:
            attributes, n_cells = file["col_attrs"], self._shape(file)[1]
            odd = sorted(set(attributes) - set(_columns(attributes, n_cells)))
            named = _named(attributes, CELLS, n_cells) is not None
        found = () if named else (f"no column names the cells ({CELLS[0]}): they are numbered",)
        return (*found, f"columns that are no list of values: {', '.join(odd)}") if odd else found

    def layers(self) -> list[Layer]:
        """The matrix, then the layers."""
        with open_hdf5(self.path) as file:
            shape = self._shape(file)
            names = [f"layers/{name}" for name in member(file, "layers") or ()]
            found: list[Layer] = []
            for name in ["matrix", *names]:
                matrix = file[name]
                if tuple(matrix.shape) != shape:
                    raise SourceError(f"{self.path}: {name} is {matrix.shape}, the matrix {shape}")
                found.append(
                    Layer(
                        name=name, n_genes=shape[0], order=_order(matrix), n_stored=int(matrix.size)
                    )
                )
        return found

    def genes(self, layer: str) -> dict[str, Names]:
        """Attributes of rows that are text, what loom calls the genes' names first."""
        with open_hdf5(self.path) as file:
            attributes, n_genes = file["row_attrs"], self._shape(file)[0]
            texts: dict[str, Names] = {}
            for name in _columns(attributes, n_genes):
                column = _read(attributes[name], 0, n_genes)
                if pa.types.is_string(column.type):
                    texts[name] = np.array(column.to_pylist(), dtype=object)
        if not texts:
            raise SourceError(
                f"{self.path}: no row attribute names the genes; expected {' or '.join(GENES[:2])}"
            )
        first = next((name for name in GENES if name in texts), next(iter(texts)))
        return {INDEX: texts.pop(first), **texts}

    def barcodes(self) -> Names:
        """The names of the cells; their numbers where they have none."""
        with open_hdf5(self.path) as file:
            attributes, n_cells = file["col_attrs"], self._shape(file)[1]
            name = _named(attributes, CELLS, n_cells)
            if name is None:
                return np.array([str(cell) for cell in range(n_cells)], dtype=object)
            column = _read(attributes[name], 0, n_cells)
            return np.array([str(value) for value in column.to_pylist()], dtype=object)

    def obs_columns(self) -> list[str]:
        """Attributes of columns that have one value a cell, its name excluded."""
        with open_hdf5(self.path) as file:
            attributes, n_cells = file["col_attrs"], self._shape(file)[1]
            index = _named(attributes, CELLS, n_cells)
            return [name for name in _columns(attributes, n_cells) if name != index]

    def obs(self, start: int, stop: int) -> pa.Table:
        """Those attributes for some cells."""
        names = self.obs_columns()
        with open_hdf5(self.path) as file:
            columns = [_read(file["col_attrs"][name], start, stop) for name in names]
        return pa.table(columns, names=names)

    def sample(self, layer: str) -> Triplets:
        """Some cells, or the first piece of a layer that has to be spooled."""
        if find_layer(self, layer).order == "columns":
            return next(self.triplets(layer))
        with open_hdf5(self.path) as file:
            n_cells = self._shape(file)[1]
        return sample_rows(self, layer, n_cells)

    def blocks(self, layer: str, start: int, stop: int) -> Iterator[RawBlock]:
        """Cells `start` to `stop`, whole chunks at a time."""
        with open_hdf5(self.path) as file:
            matrix = file[layer]
            n_genes, n_cells = matrix.shape
            width = _width(matrix)
            step = max(1, MOST_VALUES // max(1, n_genes * width)) * width
            first = start
            while first < stop:
                last = min(stop, n_cells, (first // step + 1) * step)
                values = widened(matrix[:, first:last], f"{self.path}: {layer}")
                yield RawBlock(start=first, matrix=sparse.csr_matrix(values.T))
                first = last

    def triplets(self, layer: str) -> Iterator[Triplets]:
        """All values that are not 0, in the order of the chunks."""
        with open_hdf5(self.path) as file:
            matrix = file[layer]
            n_genes, n_cells = matrix.shape
            tall, wide = matrix.chunks or (1, n_cells)
            wide = min(n_cells, max(1, MOST_VALUES // (tall * wide)) * wide)
            tall = min(n_genes, max(1, MOST_VALUES // (tall * wide)) * tall)
            for gene in range(0, n_genes, tall):
                for cell in range(0, n_cells, wide):
                    tile = matrix[gene : gene + tall, cell : cell + wide]
                    values = widened(tile, f"{self.path}: {layer}")
                    down, across = np.nonzero(values)
                    yield Triplets(
                        cells=across.astype(np.int64) + cell,
                        genes=(down + gene).astype(np.int32),
                        values=values[down, across],
                    )

    def _shape(self, file: Any) -> tuple[int, int]:
        matrix = member(file, "matrix")
        if not isinstance(matrix, h5py.Dataset) or matrix.ndim != 2:
            raise SourceError(f"{self.path}: has no matrix of genes x cells: not a loom file")
        for name in ("row_attrs", "col_attrs"):
            if not isinstance(member(file, name), h5py.Group):
                raise SourceError(f"{self.path}: has no {name}: not a loom file")
        return int(matrix.shape[0]), int(matrix.shape[1])


def _width(matrix: Any) -> int:
    """Cells of a chunk."""
    return int(matrix.chunks[1]) if matrix.chunks else 1


def _order(matrix: Any) -> Any:
    """By cells where a chunk's cells fit the memory, all their genes together.

    A matrix without chunks lies gene by gene: there some cells cost a pass over the whole file,
    which is only taken where the matrix is small.
    """
    n_genes, n_cells = matrix.shape
    width = _width(matrix) if matrix.chunks else n_cells
    return "rows" if n_genes * width <= _WIDEST else "columns"


def _columns(attributes: Any, length: int) -> list[str]:
    """Names of the attributes that have one value a row or column, and of a type that is known."""
    return [
        str(name)
        for name in attributes
        if isinstance(item := member(attributes, str(name)), h5py.Dataset)
        if item.shape == (length,)
        if column_of(item, 0, min(1, length)) is not None
    ]


def _named(attributes: Any, names: tuple[str, ...], length: int) -> str | None:
    known = _columns(attributes, length)
    return next((name for name in names if name in known), None)


def _read(item: Any, start: int, stop: int) -> pa.Array:
    """One attribute; text without the XML entities that loompy 2 writes for what is no ASCII."""
    column = column_of(item, start, stop)
    if column is None:
        raise SourceError(f"{item.file.filename}: {item.name} is no list of values")
    if not pa.types.is_string(column.type):
        return column
    return pa.array(
        [None if value is None else html.unescape(value) for value in column.to_pylist()],
        pa.string(),
    )
