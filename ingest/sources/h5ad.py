"""AnnData's h5ad files: dense, CSR or CSC, raw and layers, every vintage.

Knows where AnnData keeps things; opens the file anew for each read, so it travels to any process.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import pyarrow as pa

from ...platform.errors import SourceError
from .annotations import column_names, index_of, read_column, text_columns
from .compressed import CompressedMatrix, dense_blocks
from .protocol import Layer, Names, RawBlock, Triplets, find_layer, sample_rows


@contextmanager
def open_hdf5(path: Path) -> Generator[Any]:
    """Open for reading; what HDF5 cannot read becomes a SourceError that names the file.

    Yields:
        The `h5py.File`; as Any, for what lies at a place of it is only known by looking.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise SourceError(
            f"{path}: not a whole HDF5 file (cut short, or still being written?): {error}"
        ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class H5adSource:
    """An h5ad file."""

    path: Path
    format: str = "h5ad"
    notes: tuple[str, ...] = ()

    def layers(self) -> list[Layer]:
        """raw/X, layers/counts, layers that sound like counts, X, then the other layers."""
        with open_hdf5(self.path) as file:
            places = [place for place in ("raw/X", "raw.X") if place in file]
            layers = file.get("layers")
            names = [str(name) for name in layers] if isinstance(layers, h5py.Group) else []
            likely = [name for name in names if sounds_like_counts(name)]
            likely.sort(key=_is_not_counts)
            places += [f"layers/{name}" for name in likely]
            places += [place for place in ("X",) if place in file]
            places += [f"layers/{name}" for name in names if name not in likely]
            found = [self._layer(file, place) for place in places]
        layers = [layer for layer in found if layer is not None]
        if not layers:
            raise SourceError(f"{self.path}: has no matrix; looked for raw/X, layers and X")
        return layers

    def genes(self, layer: str) -> dict[str, Names]:
        """The index of var (of raw.var for raw/X) and its columns of text."""
        n_genes = find_layer(self, layer).n_genes
        with open_hdf5(self.path) as file:
            place = {"raw/X": "raw/var", "raw.X": "raw.var"}.get(layer, "var")
            columns = text_columns(_table(file, place), n_genes)
            if place != "var" and "var" in file:
                columns |= self._columns_of_var(file, columns["index"])
        n_names = len(columns["index"])
        if n_names != n_genes:
            raise SourceError(
                f"{self.path}: {layer} has {n_genes} genes but {place} names {n_names}"
            )
        return columns

    def _columns_of_var(self, file: Any, index: Names) -> dict[str, Names]:
        """Columns of var for raw's genes, where both tables name the same genes."""
        n_rows = len(index_of(_table(file, "var")))
        if n_rows != len(index):
            return {}
        columns = text_columns(_table(file, "var"), n_rows)
        same = (columns.pop("index") == index).all()
        return columns if same else {}

    def barcodes(self) -> Names:
        """The index of obs."""
        with open_hdf5(self.path) as file:
            return index_of(_table(file, "obs"), self._n_cells(file))

    def obs_columns(self) -> list[str]:
        """The columns of obs."""
        with open_hdf5(self.path) as file:
            return column_names(_table(file, "obs"))

    def obs(self, start: int, stop: int) -> pa.Table:
        """The columns of obs for some cells."""
        with open_hdf5(self.path) as file:
            table = _table(file, "obs")
            names = column_names(table)
            columns = [read_column(table, name, start, stop) for name in names]
        return pa.table(columns, names=names)

    def sample(self, layer: str) -> Triplets:
        """The first piece of a CSC layer, some rows of any other."""
        if find_layer(self, layer).order == "columns":
            return next(self.triplets(layer))
        with open_hdf5(self.path) as file:
            n_cells = self._n_cells(file)
        return sample_rows(self, layer, n_cells)

    def blocks(self, layer: str, start: int, stop: int) -> Iterator[RawBlock]:
        """Cells `start` to `stop` of a dense or CSR layer."""
        with open_hdf5(self.path) as file:
            matrix = file[layer]
            if isinstance(matrix, h5py.Dataset):
                yield from dense_blocks(matrix, start, stop)
            else:
                n_cells, n_genes = _shape(matrix)
                yield from CompressedMatrix(
                    where=f"{self.path}: {layer}", group=matrix, n_major=n_cells, n_minor=n_genes
                ).row_blocks(start, stop)

    def triplets(self, layer: str) -> Iterator[Triplets]:
        """All values of a CSC layer."""
        with open_hdf5(self.path) as file:
            matrix = file[layer]
            n_cells, n_genes = _shape(matrix)
            yield from CompressedMatrix(
                where=f"{self.path}: {layer}", group=matrix, n_major=n_genes, n_minor=n_cells
            ).column_triplets()

    def _layer(self, file: Any, place: str) -> Layer | None:
        matrix = file[place]
        shape = _shape(matrix)
        if len(shape) != 2:
            return None
        n_cells = self._n_cells(file)
        if shape[0] != n_cells:
            raise SourceError(f"{self.path}: {place} has {shape[0]} cells, obs has {n_cells}")
        dense = isinstance(matrix, h5py.Dataset)
        n_stored = matrix.size if dense else int(matrix["data"].shape[0])
        order = "columns" if not dense and _format(matrix) == "csc" else "rows"
        return Layer(name=place, n_genes=shape[1], order=order, n_stored=n_stored)

    def _n_cells(self, file: Any) -> int:
        obs = _table(file, "obs")
        if isinstance(obs, h5py.Dataset):
            return int(obs.shape[0])
        index = obs.get(str(obs.attrs.get("_index", "_index")))
        if index is None:
            index = obs.get("index")
        if isinstance(index, h5py.Dataset):
            return int(index.shape[0])
        if isinstance(index, h5py.Group):
            return len(index_of(obs))
        return _shape(file["X"])[0]


def _table(file: Any, place: str) -> Any:
    table = file.get(place)
    if table is None:
        raise SourceError(f"{file.filename}: has no {place!r}: not an AnnData file")
    return table


def sounds_like_counts(name: str) -> bool:
    """Whether a layer's name suggests raw counts."""
    return any(word in name.lower() for word in ("count", "raw", "umi"))


def _is_not_counts(name: str) -> bool:
    return name != "counts"


def _format(matrix: Any) -> str:
    encoding = str(matrix.attrs.get("encoding-type", matrix.attrs.get("h5sparse_format", "")))
    return "csc" if encoding.startswith("csc") else "csr"


def _shape(matrix: Any) -> tuple[int, ...]:
    if isinstance(matrix, h5py.Dataset):
        return tuple(int(length) for length in matrix.shape)
    shape = matrix.attrs.get("shape", matrix.attrs.get("h5sparse_shape"))
    if shape is None or not {"data", "indices", "indptr"} <= set(matrix):
        return ()
    return tuple(int(length) for length in shape)
