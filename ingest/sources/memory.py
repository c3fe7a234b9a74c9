"""An AnnData object as a source: what is in memory already, read like a file.

Knows AnnData's attributes; imports anndata only through the object it is given.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import sparse

from ...platform.errors import SourceError
from .anndata_file import sounds_like_counts
from .compressed import MOST_VALUES, widened
from .protocol import INDEX, Layer, Names, RawBlock, Triplets, sample_rows

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True, kw_only=True, slots=True)
class MemorySource:
    """An AnnData object."""

    adata: "AnnData"
    path: Path = Path("AnnData object")
    format: str = "memory"
    notes: tuple[str, ...] = ()

    def layers(self) -> list[Layer]:
        """raw/X, layers that sound like counts, X, then the other layers."""
        names = [str(name) for name in self.adata.layers]
        likely = sorted(filter(sounds_like_counts, names), key=lambda name: name != "counts")
        places = ["raw/X"] if self._raw() is not None else []
        places += [f"layers/{name}" for name in likely]
        places += ["X"] if self.adata.X is not None else []
        places += [f"layers/{name}" for name in names if name not in likely]
        return [
            Layer(name=place, n_genes=int(self._matrix(place).shape[1]), order="rows",
                  n_stored=None)
            for place in places
        ]  # fmt: skip

    def genes(self, layer: str) -> dict[str, Names]:
        """The index of var (of raw.var for raw/X) and its columns of text."""
        raw = self._raw()
        var = raw.var if layer == "raw/X" and raw is not None else self.adata.var
        found: dict[str, Names] = {INDEX: np.array(var.index.astype(str), dtype=object)}
        for name in var.columns:
            column = var[name]
            if isinstance(column.dtype, pd.CategoricalDtype) or column.dtype.kind not in "iufb":
                found[str(name)] = np.array(column.astype(str), dtype=object)
        return found

    def barcodes(self) -> Names:
        """The index of obs."""
        return np.array(self.adata.obs_names.astype(str), dtype=object)

    def obs_columns(self) -> list[str]:
        """The columns of obs."""
        return [str(name) for name in self.adata.obs.columns]

    def obs(self, start: int, stop: int) -> pa.Table:
        """The columns of obs for some cells."""
        part = self.adata.obs.iloc[start:stop]
        names = self.obs_columns()
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise SourceError(f"{self.path}: obs has the column {repeated[0]!r} more than once")
        columns = [_column(part.iloc[:, place]) for place in range(len(names))]
        return pa.table(columns, names=names)

    def sample(self, layer: str) -> Triplets:
        """Some rows."""
        return sample_rows(self, layer, self.adata.n_obs)

    def blocks(self, layer: str, start: int, stop: int) -> Iterator[RawBlock]:
        """Cells `start` to `stop`."""
        matrix = self._matrix(layer)
        rows = max(1, MOST_VALUES // max(1, int(matrix.shape[1])))
        for first in range(start, stop, rows):
            # a copy: a slice of all rows is the caller's own matrix, and sorting changes it
            block = sparse.csr_matrix(matrix[first : min(stop, first + rows)], copy=True)
            block.data = widened(block.data, f"{self.path}: {layer}")
            block.sum_duplicates()
            yield RawBlock(start=first, matrix=block)

    def triplets(self, layer: str) -> Iterator[Triplets]:
        """Not needed: what is in memory is read by rows."""
        raise SourceError(f"{self.path}: {layer} is read by rows, not spooled")

    def _raw(self) -> Any:
        return self.adata.raw  # None where there is none, whatever its annotation says

    def _matrix(self, place: str) -> Any:
        raw = self._raw()
        if place == "raw/X" and raw is not None:
            return raw.X
        return self.adata.X if place == "X" else self.adata.layers[place.removeprefix("layers/")]


def _column(values: Any) -> pa.Array:
    """One column; text where its values are of several types."""
    plain = values.astype(object) if values.dtype == "category" else values
    try:
        return pa.array(plain, from_pandas=True)
    except pa.ArrowException:
        texts = [None if missing else str(value)
                 for value, missing in zip(plain, values.isna(), strict=True)]  # fmt: skip
        return pa.array(texts, pa.string())
