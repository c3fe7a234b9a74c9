"""What is counted in a cell beside its genes: proteins, open chromatin. Knows no file.

RNA is what a cell of the corpus is known by (`corpus.cells`); the others are its companions: raw
counts of features that bear names of their own, in the same rows. A cell whose source did not
measure a modality has no row in it: not measured is never 0.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from ..platform.errors import CorpusError
from .schema import conform

MODALITIES = ("protein", "atac")
"""The modalities beside `rna`: antibody-derived tags; counts of accessible peaks."""

FEATURE_COLUMNS = pa.schema(
    [
        pa.field("feature_id", pa.string()),  # as the source names it; unique in its modality
        pa.field("name", pa.string()),  # what people call it; NULL where it has no other name
        pa.field("feature_type", pa.string()),  # 10x's words: Antibody Capture, Peaks, ...
        pa.field("genome", pa.string()),  # the assembly that peaks are placed on
    ]
)
"""The columns of a modality's table of features."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureBatch:
    """One modality's raw counts of some cells.

    Attributes:
        var: the features, columns of `FEATURE_COLUMNS`. n_features rows.
        indptr: where each cell's non-zeros begin and end. Shape (n_cells + 1,), int64.
        indices: rows of `var`, ascending and unique within a cell. Shape (n_nonzero,), int32.
        counts: raw counts, all > 0. Shape (n_nonzero,), uint32.
    """

    var: pa.Table
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    counts: NDArray[np.uint32]

    def __post_init__(self) -> None:
        """Check what every reader relies on."""
        if len(self.indices) != len(self.counts) or len(self.counts) != self.indptr[-1]:
            raise CorpusError(
                f"indices has {len(self.indices)} and counts {len(self.counts)} values, "
                f"expected {self.indptr[-1]} (the last of indptr)"
            )

    @property
    def n_cells(self) -> int:
        """Number of cells (rows)."""
        return len(self.indptr) - 1

    @property
    def n_features(self) -> int:
        """Number of features (columns)."""
        return self.var.num_rows

    @property
    def feature_ids(self) -> list[str]:
        """The features' own names."""
        return self.var.column("feature_id").to_pylist()

    def to_csr(self) -> sparse.csr_matrix:
        """The counts as float32 CSR, cells x features; float64 where one exceeds 2**24."""
        wide = self.counts.size and int(self.counts.max()) > 2**24
        values = self.counts.astype(np.float64 if wide else np.float32)
        shape = (self.n_cells, self.n_features)
        return sparse.csr_matrix((values, self.indices, self.indptr), shape=shape)

    def canonical(self) -> "FeatureBatch":
        """The same with features ascending by `feature_id`, after checking what is stored.

        Raises:
            CorpusError: a feature stands twice, a cell holds one twice, or a stored count is 0.
        """
        var = conform(self.var, FEATURE_COLUMNS, what="features")
        ids = self.feature_ids
        if var.column("feature_id").null_count or len(set(ids)) != len(ids):
            raise CorpusError("a feature has no id, or the id of another: name each once")
        if self.counts.size and not self.counts.all():
            raise CorpusError("a stored count is 0: leave zeros out")
        order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
        place = np.empty(len(order), dtype=np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        shape = (self.n_cells, self.n_features)
        given = (self.counts.copy(), place[self.indices], self.indptr)  # sorted in place below
        matrix = sparse.csr_matrix(given, shape=shape)
        matrix.sort_indices()
        if not matrix.has_canonical_format:
            raise CorpusError("a cell holds a feature twice: sum duplicates before writing")
        return FeatureBatch(
            var=var.take(pa.array(order)),
            indptr=self.indptr,
            indices=matrix.indices.astype(np.int32),
            counts=matrix.data.astype(np.uint32),
        )
