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

from ...platform.errors import SourceError, did_you_mean
from .annotations import as_names, member
from .compressed import REPEATS, CompressedMatrix, is_packed
from .h5ad import open_hdf5
from .protocol import INDEX, Layer, Names, RawBlock, Triplets, sample_rows

GENE_EXPRESSION = "Gene Expression"
MODALITIES = {"Antibody Capture": "protein", "Peaks": "atac", "Chromatin Accessibility": "atac"}
"""10x's other feature types that are modalities (`companions`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TenxH5Source:
    """A filtered_feature_bc_matrix.h5 or filtered_gene_bc_matrices_h5.h5.

    Attributes:
        genome: the genome to read, where the file holds several; its name is the layer's.
        feature_type: what is read, 10x's words; genes, unless it is asked for a companion.
    """

    path: Path
    genome: str | None = None
    feature_type: str = GENE_EXPRESSION
    format: str = "10x_h5"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out: features that are no genes, other genomes; what was supposed."""
        with open_hdf5(self.path) as file:
            group = self._group(file)
            notes = list(left_out_note(_column(group, "feature_type")))
            if "features" in group and _column(group, "feature_type") is None:
                notes.append("no feature types: all features are taken for genes")
            if self._matrix(group).has_repeats():
                notes.append(REPEATS)
            others = [name for name in _genomes(file) if name != self.genome]
            if self.genome is not None and others:
                notes.append(f"genomes that were left out: {', '.join(others)}")
        return tuple(notes)

    def feature_types(self) -> list[str]:
        """The types of features that it holds; none where the file does not say."""
        with open_hdf5(self.path) as file:
            types = _column(self._group(file), "feature_type")
        return [] if types is None else sorted({str(kind) for kind in types})

    def layers(self) -> list[Layer]:
        """One layer: the matrix, or the chosen genome of it."""
        with open_hdf5(self.path) as file:
            group = self._group(file)
            n_genes = len(self._kept(group))
            values = _part(group, "data")
            n_stored = int(values.shape[0])
            if n_genes == 0:
                raise SourceError(
                    f"{self.path}: holds no feature of type {self.feature_type}: "
                    f"it has {listed_types(_column(group, 'feature_type'))}"
                )
            name = "matrix" if self.genome is None else self.genome
            return [
                Layer(
                    name=name, n_genes=n_genes, order="rows", n_stored=n_stored,
                    packed=is_packed(values),
                )
            ]  # fmt: skip

    def genes(self, layer: str) -> dict[str, Names]:
        """Ids first, then names, as far as they are there."""
        with open_hdf5(self.path) as file:
            group = self._group(file)
            kept = self._kept(group)
            found = [_column(group, "id"), _column(group, "name")]
            columns = [column[kept] for column in found if column is not None]
        if not columns:
            raise SourceError(f"{self.path}: {group.name} has neither ids nor names of its genes")
        return dict(zip((INDEX, "name"), columns, strict=False))

    def barcodes(self) -> Names:
        """The barcodes."""
        with open_hdf5(self.path) as file:
            return as_names(_part(self._group(file), "barcodes")[:])

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
            n_features, _ = _shape(group, self.path)
            kept = self._kept(group)
            for block in self._matrix(group).row_blocks(start, stop):
                genes = block.matrix if len(kept) == n_features else block.matrix[:, kept]
                yield RawBlock(start=block.start, matrix=genes)

    def triplets(self, layer: str) -> Iterator[Triplets]:
        """Not offered: the matrix is read by rows."""
        raise SourceError(f"{self.path}: {layer} is read by rows, not spooled")

    def _group(self, file: Any) -> Any:
        """The group of the matrix.

        Raises:
            SourceError: there is none, or the file holds several genomes and none is chosen.
        """
        groups = matrices(file)
        if not groups:
            raise SourceError(
                f"{self.path}: no 10x matrix (barcodes, data, indptr); it holds {', '.join(file)}"
            )
        genomes = _genomes(file)
        if self.genome is None and len(genomes) > 1:
            raise SourceError(
                f"{self.path}: holds several genomes: {', '.join(genomes)}; choose one of them: "
                f'layer = "{genomes[0]}"'
            )
        if self.genome is not None and self.genome not in genomes:
            raise SourceError(
                f"{self.path}: has no genome {self.genome!r}{did_you_mean(self.genome, genomes)}; "
                f"it has {', '.join(genomes) or 'one, without a name'}"
            )
        if len(groups) > 1 and self.genome is not None:
            return file[self.genome]
        return file[groups[0]]

    def _matrix(self, group: Any) -> CompressedMatrix:
        n_features, n_cells = _shape(group, self.path)
        return CompressedMatrix(
            where=f"{self.path}: {group.name}", group=group, n_major=n_cells, n_minor=n_features
        )

    def _kept(self, group: Any) -> NDArray[np.int64]:
        """Positions of the features that are genes (of the genome, where one is chosen)."""
        n_features, _ = _shape(group, self.path)
        keeps = np.ones(n_features, dtype=bool)
        wanted = {"feature_type": self.feature_type}
        if self.genome is not None and "features" in group:
            wanted["genome"] = self.genome
        for name in ("id", "name", *wanted):
            column = _column(group, name)
            if column is None:
                continue
            if len(column) != n_features:
                raise SourceError(
                    f"{self.path}: {group.name} has {n_features} features and {len(column)} times "
                    f"{name}: the file is damaged"
                )
            if name in wanted:
                keeps &= column == wanted[name]
        return np.flatnonzero(keeps)


def matrices(file: Any) -> list[str]:
    """Names of the groups of an open HDF5 file that are 10x matrices."""
    return [
        str(name)
        for name in file
        if isinstance(item := member(file, str(name)), h5py.Group)
        and {"barcodes", "data", "indptr"} <= set(item)
    ]


def listed_types(types: Names | None) -> str:
    """How many features of each type there are, for messages."""
    counted = Counter(str(kind) for kind in types) if types is not None else Counter[str]()
    return ", ".join(f"{n} {kind}" for kind, n in sorted(counted.items())) or "none"


def left_out_note(types: Names | None) -> tuple[str, ...]:
    """One line for the receipt if some features are neither genes nor of another modality."""
    others = Counter(str(kind) for kind in types) if types is not None else Counter[str]()
    for kind in (GENE_EXPRESSION, *MODALITIES):
        others.pop(kind, None)
    if not others:
        return ()
    listed = ", ".join(f"{n} {kind}" for kind, n in sorted(others.items()))
    return (f"features of other kinds were left out: {listed}",)


def _genomes(file: Any) -> list[str]:
    """The genomes: of Cell Ranger 2 a group each, later a column of the genes."""
    groups = matrices(file)
    if len(groups) != 1 or "features" not in file[groups[0]]:
        return groups
    group = file[groups[0]]
    genomes, types = _column(group, "genome"), _column(group, "feature_type")
    if genomes is None:
        return []
    if types is not None and len(types) == len(genomes):
        genomes = genomes[types == GENE_EXPRESSION]
    return sorted({str(name) for name in genomes} - {""})


def _column(group: Any, name: str) -> Names | None:
    """A column of the features: id, name, feature_type or genome; None where there is none."""
    features = member(group, "features")
    if isinstance(features, h5py.Group):
        item = member(features, name)
    else:
        place = {"id": "genes", "name": "gene_names"}.get(name)
        item = member(group, place) if place else None
    return as_names(item[:]) if isinstance(item, h5py.Dataset) else None


def _part(group: Any, name: str) -> Any:
    item = member(group, name)
    if not isinstance(item, h5py.Dataset) or item.ndim != 1:
        raise SourceError(f"{group.file.filename}: {group.name} has no list {name!r}")
    return item


def _shape(group: Any, path: Path) -> tuple[int, int]:
    """Features and cells.

    Raises:
        SourceError: the file does not say, or names another number of cells.
    """
    shape = [int(length) for length in _part(group, "shape")[:]]
    n_barcodes = int(_part(group, "barcodes").shape[0])
    if len(shape) != 2 or shape[1] != n_barcodes:
        raise SourceError(
            f"{path}: {group.name} is of shape {shape} and names {n_barcodes} barcodes: the file "
            "is damaged"
        )
    return shape[0], shape[1]
