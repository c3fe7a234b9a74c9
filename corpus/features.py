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
from .sparse_counts import check_lengths, in_order, to_csr

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
        check_lengths((self.indptr, self.indices, self.counts))

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
        """The counts as CSR, cells x features; see `sparse_counts.to_csr`."""
        return to_csr((self.indptr, self.indices, self.counts), self.n_features)

    def canonical(self) -> "FeatureBatch":
        """The same with features ascending by `feature_id`.

        Raises:
            CorpusError: a feature has no id or stands twice, a cell holds one twice, or a stored
                count is 0.
        """
        var = conform(self.var, FEATURE_COLUMNS, what="features")
        if var.column("feature_id").null_count:
            raise CorpusError("a feature has no id: name each")
        given = (self.indptr, self.indices, self.counts)
        order, (indptr, indices, counts) = in_order(given, self.feature_ids, "feature")
        var = var.take(pa.array(order))
        return FeatureBatch(var=var, indptr=indptr, indices=indices, counts=counts)
