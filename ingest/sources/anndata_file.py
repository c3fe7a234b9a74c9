"""AnnData's layout of a file: where matrices, genes and cells lie, every vintage.

Knows a tree of groups and arrays; whether it is HDF5 or zarr is known by whoever opens it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...platform.errors import SourceError
from .annotations import (
    column_names,
    index_of,
    is_array,
    member,
    read_column,
    text_attribute,
    text_columns,
)
from .compressed import REPEATS, CompressedMatrix, dense_blocks, is_packed
from .protocol import Layer, Names, RawBlock, Triplets, find_layer, sample_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnDataFile(ABC):
    """A file that AnnData wrote. It is opened anew for each read: it travels to any process."""

    path: Path
    format: str

    @abstractmethod
    def _open(self) -> AbstractContextManager[Any]:
        """The group at the root; what cannot be read becomes a SourceError."""

    def layers(self) -> list[Layer]:
        """raw/X, layers/counts, layers that sound like counts, X, then the other layers."""
        with self._open() as file:
            places = [place for place in ("raw/X", "raw.X") if member(file, place) is not None]
            layers = member(file, "layers")
            names = [str(name) for name in layers] if _is_group(layers) else []
            likely = [name for name in names if sounds_like_counts(name)]
            likely.sort(key=_is_not_counts)
            places += [f"layers/{name}" for name in likely]
            places += [place for place in ("X",) if member(file, place) is not None]
            places += [f"layers/{name}" for name in names if name not in likely]
            found = [self._layer(file, place) for place in places]
        layers = [layer for layer in found if layer is not None]
        if not layers:
            raise SourceError(f"{self.path}: has no matrix; looked for raw/X, layers and X")
        return layers

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader took for granted."""
        return self.repeats()

    def repeats(self) -> tuple[str, ...]:
        """Whether some cells name a gene twice: their values are summed, as scipy does."""
        with self._open() as file:
            return tuple(
                f"{layer.name}: {REPEATS}"
                for layer in self.layers()
                if not is_array(file[layer.name])
                if self._repeats(file, layer.name)
            )

    def _repeats(self, file: Any, layer: str) -> bool:
        try:
            return self._matrix(file, layer).has_repeats()
        except SourceError:  # a damaged layer is told when it is read, if ever
            return False

    def genes(self, layer: str) -> dict[str, Names]:
        """The index of var (of raw.var for raw/X) and its columns of text."""
        n_genes = find_layer(self, layer).n_genes
        with self._open() as file:
            place = {"raw/X": "raw/var", "raw.X": "raw.var"}.get(layer, "var")
            columns = text_columns(_table(file, place), n_genes)
            if place != "var" and member(file, "var") is not None:
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
        with self._open() as file:
            return index_of(_table(file, "obs"), self._n_cells(file))

    def obs_columns(self) -> list[str]:
        """The columns of obs."""
        with self._open() as file:
            return column_names(_table(file, "obs"))

    def obs(self, start: int, stop: int) -> pa.Table:
        """The columns of obs for some cells."""
        with self._open() as file:
            table = _table(file, "obs")
            names = column_names(table)
            columns = [read_column(table, name, start, stop) for name in names]
        return pa.table(columns, names=names)

    def sample(self, layer: str) -> Triplets:
        """The first piece of a CSC layer, some rows of any other."""
        if find_layer(self, layer).order == "columns":
            return next(self.triplets(layer))
        with self._open() as file:
            n_cells = self._n_cells(file)
        return sample_rows(self, layer, n_cells)

    def blocks(self, layer: str, start: int, stop: int) -> Iterator[RawBlock]:
        """Cells `start` to `stop` of a dense or CSR layer."""
        with self._open() as file:
            matrix = file[layer]
            if is_array(matrix):
                yield from dense_blocks(matrix, start, stop)
            else:
                yield from self._matrix(file, layer).row_blocks(start, stop)

    def triplets(self, layer: str) -> Iterator[Triplets]:
        """All values of a CSC layer."""
        with self._open() as file:
            yield from self._matrix(file, layer).column_triplets()

    def _matrix(self, file: Any, layer: str) -> CompressedMatrix:
        matrix = file[layer]
        n_cells, n_genes = _shape(matrix)
        by_gene = _format(matrix) == "csc"
        return CompressedMatrix(
            where=f"{self.path}: {layer}",
            group=matrix,
            n_major=n_genes if by_gene else n_cells,
            n_minor=n_cells if by_gene else n_genes,
        )

    def _layer(self, file: Any, place: str) -> Layer | None:
        matrix = file[place]
        shape = _shape(matrix)
        if len(shape) != 2:
            return None
        n_cells = self._n_cells(file)
        if shape[0] != n_cells:
            raise SourceError(f"{self.path}: {place} has {shape[0]} cells, obs has {n_cells}")
        dense = is_array(matrix)
        n_stored = matrix.size if dense else int(matrix["data"].shape[0])
        order = "columns" if not dense and _format(matrix) == "csc" else "rows"
        values = matrix if dense else matrix["data"]
        return Layer(
            name=place, n_genes=shape[1], order=order, n_stored=n_stored, packed=is_packed(values)
        )

    def _n_cells(self, file: Any) -> int:
        obs = _table(file, "obs")
        if is_array(obs):
            return int(obs.shape[0])
        index = member(obs, text_attribute(obs, "_index", "_index"))
        if index is None:
            index = member(obs, "index")
        if is_array(index):
            return int(index.shape[0])
        if index is not None:
            return len(index_of(obs))
        return _shape(file["X"])[0]


def _is_group(item: Any) -> bool:
    return item is not None and not is_array(item)


def _table(file: Any, place: str) -> Any:
    table = member(file, place)
    if table is None:
        raise SourceError(f"{_where(file)}: has no {place!r}: not an AnnData file")
    return table


def _where(file: Any) -> str:
    """The file of a tree, or of a group in one."""
    return str(file.filename if hasattr(file, "filename") else file.file.filename)


def sounds_like_counts(name: str) -> bool:
    """Whether a layer's name suggests raw counts."""
    return any(word in name.lower() for word in ("count", "raw", "umi"))


def _is_not_counts(name: str) -> bool:
    return name != "counts"


def _format(matrix: Any) -> str:
    encoding = text_attribute(matrix, "encoding-type", text_attribute(matrix, "h5sparse_format"))
    return "csc" if encoding.startswith("csc") else "csr"


def _shape(matrix: Any) -> tuple[int, ...]:
    if is_array(matrix):
        return tuple(int(length) for length in matrix.shape)
    shape = matrix.attrs.get("shape", matrix.attrs.get("h5sparse_shape"))
    if shape is None or not {"data", "indices", "indptr"} <= set(matrix):
        return ()
    return tuple(int(length) for length in shape)
