"""10x Genomics HDF5 matrices: Cell Ranger 2 (a group per genome) and 3 or later.

Knows 10x's layout; keeps the features of type Gene Expression only, and says what it left out.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...platform.errors import SourceError
from .compressed import CompressedMatrix
from .h5ad import open_hdf5
from .protocol import INDEX, Layer, Names, RawBlock, Triplets, sample_rows

GENE_EXPRESSION = "Gene Expression"


@dataclass(frozen=True, kw_only=True, slots=True)
class TenxH5Source:
    """A filtered_feature_bc_matrix.h5 or filtered_gene_bc_matrices_h5.h5."""

    path: Path
    format: str = "10x_h5"

    @property
    def notes(self) -> tuple[str, ...]:
        """The feature types that are left out, with their numbers."""
        with open_hdf5(self.path) as file:
            return left_out_note(_feature_types(self._group(file)))

    def layers(self) -> list[Layer]:
        """One layer: the matrix."""
        with open_hdf5(self.path) as file:
            group = self._group(file)
            n_genes = len(_kept(group))
            n_stored = int(group["data"].shape[0])
            return [Layer(name="matrix", n_genes=n_genes, order="rows", n_stored=n_stored)]

    def genes(self, layer: str) -> dict[str, Names]:
        """Ids first, then names."""
        with open_hdf5(self.path) as file:
            group = self._group(file)
            kept = _kept(group)
            features = group.get("features")
            if isinstance(features, h5py.Group):
                return {INDEX: _text(features["id"])[kept], "name": _text(features["name"])[kept]}
            return {INDEX: _text(group["genes"])[kept], "name": _text(group["gene_names"])[kept]}

    def barcodes(self) -> Names:
        """The barcodes."""
        with open_hdf5(self.path) as file:
            return _text(self._group(file)["barcodes"])

    def obs_columns(self) -> list[str]:
        """None: 10x files have no table of cells."""
        return []

    def obs(self, start: int, stop: int) -> pa.Table:
        """An empty table: 10x files have none."""
        return pa.table({})

    def sample(self, layer: str) -> Triplets:
        """Some rows."""
        return sample_rows(self, layer, len(self.barcodes()))

    def blocks(self, layer: str, start: int, stop: int) -> Iterator[RawBlock]:
        """Cells `start` to `stop`."""
        with open_hdf5(self.path) as file:
            group = self._group(file)
            n_features, n_cells = (int(length) for length in group["shape"][:])
            kept = _kept(group)
            matrix = CompressedMatrix(
                where=f"{self.path}: {group.name}",
                group=group,
                n_major=n_cells,
                n_minor=n_features,
            )
            for block in matrix.row_blocks(start, stop):
                genes = block.matrix if len(kept) == n_features else block.matrix[:, kept]
                yield RawBlock(start=block.start, matrix=genes)

    def triplets(self, layer: str) -> Iterator[Triplets]:
        """Not offered: the matrix is read by rows."""
        raise SourceError(f"{self.path}: {layer} is read by rows, not spooled")

    def _group(self, file: Any) -> Any:
        groups = [
            name
            for name, item in file.items()
            if isinstance(item, h5py.Group) and {"barcodes", "data", "indptr"} <= set(item)
        ]
        if len(groups) != 1:
            found = ", ".join(groups) or ", ".join(file)
            raise SourceError(
                f"{self.path}: expected one 10x matrix with barcodes, found {found}; "
                "split a file of several genomes first"
            )
        return file[groups[0]]


def left_out_note(types: Names | None) -> tuple[str, ...]:
    """One line for the receipt if some features are no genes."""
    others = Counter(str(kind) for kind in types) if types is not None else Counter[str]()
    others.pop(GENE_EXPRESSION, None)
    if not others:
        return ()
    listed = ", ".join(f"{n} {kind}" for kind, n in sorted(others.items()))
    return (f"features that are not genes were left out: {listed}",)


def _feature_types(group: Any) -> Names | None:
    features = group.get("features")
    if isinstance(features, h5py.Group) and "feature_type" in features:
        return _text(features["feature_type"])
    return None


def _kept(group: Any) -> NDArray[np.int64]:
    types = _feature_types(group)
    if types is None:
        return np.arange(int(group["shape"][0]))
    return np.flatnonzero(types == GENE_EXPRESSION)


def _text(column: Any) -> Names:
    return np.array([value.decode() if isinstance(value, bytes) else str(value)
                     for value in column[:]], dtype=object)  # fmt: skip
