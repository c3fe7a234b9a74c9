"""Compressed sparse and dense matrices in HDF5 or zarr, read a bounded range at a time.

Knows no AnnData and no 10x layout: its callers say which dimension holds the cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ...platform.errors import SourceError
from .annotations import is_array, member
from .hdf5_chunks import quickly_read
from .protocol import RawBlock, Triplets

MOST_VALUES = 2**22
"""Most values read at once: about 50 MB with their indices."""


REPEATS = "cells with a gene more than once: its values are summed, as scipy does"
"""The note of a matrix with repeated indices."""

_LOOKED_AT = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class CompressedMatrix:
    """data, indices and indptr in an open file; `major` is the dimension of indptr.

    Attributes:
        where: the file and place, for errors.
        group: the open group that holds `data`, `indices` and `indptr`.
        n_major: length of the dimension that can be sliced.
        n_minor: length of the other dimension.
    """

    where: str
    group: Any
    n_major: int
    n_minor: int

    def pieces(
        self, start: int, stop: int
    ) -> Iterator[tuple[int, int, NDArray[Any], NDArray[Any], NDArray[np.int64]]]:
        """(first, last, values, minor indices, indptr from 0) of bounded runs of the major."""
        data, indices = _array(self.group, "data"), _array(self.group, "indices")
        indptr = self._indptr(start, stop, len(data))
        if len(indices) != len(data):
            raise SourceError(
                f"{self.where}: {len(indices)} indices for {len(data)} values: the file is damaged"
            )
        first = start
        while first < stop:
            most = indptr[first - start] + MOST_VALUES
            last = start + int(np.searchsorted(indptr, most, side="right")) - 1
            last = min(stop, max(first + 1, last))
            low, high = int(indptr[first - start]), int(indptr[last - start])
            minor = indices[low:high]
            if minor.size and (int(minor.min()) < 0 or int(minor.max()) >= self.n_minor):
                raise SourceError(
                    f"{self.where}: an index of {int(minor.max())} lies outside the matrix of "
                    f"{self.n_major} x {self.n_minor}: the file is damaged"
                )
            runs = indptr[first - start : last - start + 1] - low
            yield first, last, widened(data[low:high], self.where), minor, runs
            first = last

    def _indptr(self, start: int, stop: int, n_values: int) -> NDArray[np.int64]:
        stored = _array(self.group, "indptr")
        if len(stored) != self.n_major + 1:
            raise SourceError(
                f"{self.where}: indptr has {len(stored)} values, expected {self.n_major + 1}"
            )
        indptr = stored[start : stop + 1].astype(np.int64)
        ascends = not (np.diff(indptr) < 0).any() and (start > 0 or int(indptr[0]) == 0)
        if not ascends or int(indptr[0]) < 0 or int(indptr[-1]) > n_values:
            raise SourceError(
                f"{self.where}: indptr does not fit the {n_values} stored values: expected to "
                "ascend from 0: the file is damaged"
            )
        if stop == self.n_major and int(indptr[-1]) < n_values:
            raise SourceError(
                f"{self.where}: indptr ends at {int(indptr[-1])} of {n_values} stored values: the "
                "file is damaged, or was written with room to spare: write it anew"
            )
        return indptr

    def row_blocks(self, start: int, stop: int) -> Iterator[RawBlock]:
        """Blocks of cells, where the major dimension holds the cells."""
        for first, last, values, minor, runs in self.pieces(start, stop):
            matrix = sparse.csr_matrix((values, minor, runs), shape=(last - first, self.n_minor))
            matrix.sum_duplicates()  # sorts, too: files with unsorted or repeated indices exist
            yield RawBlock(start=first, matrix=matrix)

    def has_repeats(self) -> bool:
        """Whether a run of the major, of some at its begin and end, has an index twice."""
        for start in {0, max(0, self.n_major - _LOOKED_AT)}:
            stop = min(self.n_major, start + _LOOKED_AT)
            for first, last, _, minor, runs in self.pieces(start, stop):
                rows = np.repeat(np.arange(first, last), np.diff(runs))
                if len(np.unique(rows * self.n_minor + minor)) < len(minor):
                    return True
        return False

    def column_triplets(self) -> Iterator[Triplets]:
        """All values, where the major dimension holds the genes."""
        for first, last, values, minor, runs in self.pieces(0, self.n_major):
            genes = np.repeat(np.arange(first, last, dtype=np.int32), np.diff(runs))
            yield Triplets(cells=minor.astype(np.int64), genes=genes, values=values)


def dense_blocks(matrix: Any, start: int, stop: int) -> Iterator[RawBlock]:
    """Blocks of cells of a dense cells x genes array."""
    n_genes = int(matrix.shape[1])
    rows = max(1, MOST_VALUES // max(1, n_genes))
    if matrix.chunks:  # whole chunks: a compressed chunk read twice is unpacked twice
        rows = max(matrix.chunks[0], rows // matrix.chunks[0] * matrix.chunks[0])
    for first in range(start, stop, rows):
        last = min(stop, first + rows)
        yield RawBlock(
            start=first, matrix=sparse.csr_matrix(widened(matrix[first:last], matrix.name))
        )


def is_packed(values: Any) -> bool:
    """Whether HDF5 unpacks an array's chunks one by one, with gzip as a rule.

    Zarr's chunks are unpacked as fast as a copy is read.
    """
    return getattr(values, "compression", None) is not None


def widened(values: NDArray[Any], where: str) -> NDArray[Any]:
    """Values in a type that holds their sums, and that scipy knows: repeated ones are summed.

    Raises:
        SourceError: they are no numbers.
    """
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind not in "biuf":
        raise SourceError(f"{where}: holds values of type {values.dtype}, expected numbers")
    if kind == "f":
        return values.astype(np.float32 if size < 4 else np.float64 if size > 4 else values.dtype)
    return values if size == 8 else values.astype(np.int64)


def _array(group: Any, name: str) -> Any:
    item = member(group, name)
    if not is_array(item):
        raise SourceError(f"{group.file.filename}: {group.name} has no {name!r}: not a matrix")
    return quickly_read(item)
