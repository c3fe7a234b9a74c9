"""What a source is: layers of cells x genes, read a bounded block at a time.

Knows no file format, no corpus and no quality rule.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from ...platform.errors import SourceError

Names = NDArray[np.object_]

INDEX = "index"
"""What the name index of a table of genes is called among its columns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One matrix of a source.

    Attributes:
        name: where it lies: `raw/X`, `layers/counts`, `X`, `matrix`.
        n_genes: its number of genes (columns).
        order: `rows` if a range of cells can be read by itself, `columns` if the matrix has to
            be read from its beginning and spooled.
        n_stored: values stored in the file (the non-zeros where it is sparse), None if unknown.
        packed: whether unpacking the values takes longer than reading a copy would.
    """

    name: str
    n_genes: int
    order: Literal["rows", "columns"]
    n_stored: int | None
    packed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RawBlock:
    """The values of some consecutive cells, as they stand in the file.

    Attributes:
        start: the first cell's row in the source.
        matrix: cells x genes, CSR, indices ascending and unique in a row.
    """

    start: int
    matrix: sparse.csr_matrix

    @property
    def n_cells(self) -> int:
        """Number of cells (rows)."""
        return len(self.matrix.indptr) - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Triplets:
    """Some stored values with their places. All arrays have shape (n_values,).

    Attributes:
        cells: rows in the source, int64.
        genes: columns of the layer, int32.
        values: as they stand in the file.
    """

    cells: NDArray[np.int64]
    genes: NDArray[np.int32]
    values: NDArray[Any]


class Source(Protocol):
    """A file, a folder or an object in memory that holds cells."""

    @property
    def path(self) -> Path:
        """The file or folder."""
        ...

    @property
    def format(self) -> str:
        """Name of the reader (`formats.READERS`), or spool, or memory."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader left out or took for granted, for the receipt."""
        ...

    def layers(self) -> list[Layer]:
        """The matrices found, in the order in which raw counts are looked for."""
        ...

    def genes(self, layer: str) -> dict[str, Names]:
        """Columns of text that may name the genes of `layer`; the index comes first."""
        ...

    def barcodes(self) -> Names:
        """The names of the cells. Shape (n_cells,)."""
        ...

    def obs_columns(self) -> list[str]:
        """Names of the columns of `obs`, barcode excluded."""
        ...

    def obs(self, start: int, stop: int) -> pa.Table:
        """The source's own columns for cells `start` to `stop`, verbatim."""
        ...

    def sample(self, layer: str) -> Triplets:
        """A bounded number of values of `layer`, for a first judgement."""
        ...

    def blocks(self, layer: str, start: int, stop: int) -> Iterator[RawBlock]:
        """Cells `start` to `stop` of a layer whose order is `rows`, in bounded blocks."""
        ...

    def triplets(self, layer: str) -> Iterator[Triplets]:
        """All values of a layer whose order is `columns`, in one pass, in bounded pieces."""
        ...


def find_layer(source: Source, name: str) -> Layer:
    """The layer called `name`; `counts` stands for `layers/counts`, too.

    Raises:
        SourceError: the source has no such layer.
    """
    layers = {layer.name: layer for layer in source.layers()}
    name = name if name in layers else next((x for x in layers if x == f"layers/{name}"), name)
    if name not in layers:
        raise SourceError(f"{source.path}: has no layer {name!r}; it has {', '.join(layers)}")
    return layers[name]


def shape_of_names(names: Sequence[object] | Names) -> str:
    """How the first name is made, without the name itself: letters as A, digits as 0."""
    shapes = [re.sub(r"[^\W\d_]", "A", re.sub(r"\d", "0", str(name))) for name in names[:1]]
    return f"(it begins with one like {shapes[0]!r})" if shapes else "(it is empty)"


def triplets_of(block: RawBlock) -> Triplets:
    """The block's stored values with their places in the source."""
    matrix = block.matrix
    rows = np.repeat(np.arange(block.n_cells, dtype=np.int64), np.diff(matrix.indptr))
    return Triplets(
        cells=rows + block.start,
        genes=matrix.indices.astype(np.int32, copy=False),
        values=matrix.data,
    )


def sample_rows(source: Source, layer: str, n_cells: int, n_rows: int = 200) -> Triplets:
    """The values of the first, the middle and the last cells of a layer read by rows."""
    starts = sorted({0, max(0, n_cells // 2 - n_rows // 2), max(0, n_cells - n_rows)})
    pieces = [
        triplets_of(block)
        for start in starts
        for block in source.blocks(layer, start, min(n_cells, start + n_rows))
    ]
    return join_triplets(pieces)


def join_triplets(pieces: list[Triplets]) -> Triplets:
    """Several pieces as one; an empty one if there is none."""
    if not pieces:
        none = np.zeros(0)
        return Triplets(cells=none.astype(np.int64), genes=none.astype(np.int32), values=none)
    return Triplets(
        cells=np.concatenate([piece.cells for piece in pieces]),
        genes=np.concatenate([piece.genes for piece in pieces]),
        values=np.concatenate([piece.values for piece in pieces]),
    )
