"""What is measured in a cell beside its genes: proteins, open chromatin. Knows no file.

RNA is what a cell of the corpus is known by (`corpus.cells`); the others are its companions: raw
counts, or real values, of features that bear names of their own, in the same rows. A cell whose
source did not measure a modality has no row in it: not measured is never 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from ..platform.errors import CorpusError
from .schema import conform
from .sparse_counts import check_lengths, in_order, to_csr


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What the numbers of a modality are.

    Attributes:
        column: what SQL and the feature-major files call a number.
        dtype: of the numbers in memory.
        sql: the same in SQL's words.
    """

    column: str
    dtype: type[np.uint32] | type[np.float32]
    sql: str

    @property
    def real(self) -> bool:
        """Whether zero and sign are data, so that zeros are stored."""
        return self.dtype is np.float32


COUNTS = Kind(column="count", dtype=np.uint32, sql="UINTEGER")
VALUES = Kind(column="value", dtype=np.float32, sql="FLOAT")

ABUNDANCE = "protein_abundance"

MODALITIES: Mapping[str, Kind] = MappingProxyType(
    {"protein": COUNTS, "atac": COUNTS, ABUNDANCE: VALUES}
)
"""The modalities beside `rna`, and what their numbers are.

| modality | what |
|---|---|
| `protein` | counts of antibody-derived tags |
| `atac` | counts of accessible peaks |
| `protein_abundance` | amounts of proteins, as arrays or mass spectrometers tell them |
"""

FEATURE_COLUMNS = pa.schema(
    [
        pa.field("feature_id", pa.string()),  # as the source names it; unique in its modality
        pa.field("name", pa.string()),  # what people call it; NULL where it has no other name
        pa.field("feature_type", pa.string()),  # Antibody Capture, Peaks (10x's), Abundance
        pa.field("genome", pa.string()),  # the assembly that peaks are placed on
    ]
)
"""The columns of a modality's table of features."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureBatch:
    """One modality's numbers of some cells: raw counts, or real values.

    Attributes:
        var: the features, columns of `FEATURE_COLUMNS`. n_features rows.
        indptr: where each cell's stored numbers begin and end. Shape (n_cells + 1,), int64.
        indices: rows of `var`, ascending and unique within a cell. Shape (n_stored,), int32.
        values: raw counts, all > 0, uint32; or measured values, finite, float32, where what is
            not stored was not measured. Shape (n_stored,).
    """

    var: pa.Table
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[Any]

    def __post_init__(self) -> None:
        """Check what every reader relies on."""
        check_lengths((self.indptr, self.indices, self.values))

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
        """The stored numbers as CSR, cells x features; see `sparse_counts.to_csr`."""
        return to_csr((self.indptr, self.indices, self.values), self.n_features)

    def canonical(self) -> "FeatureBatch":
        """The same with features ascending by `feature_id`.

        Raises:
            CorpusError: a feature has no id or stands twice, a cell holds one twice, a stored
                count is 0, or a value is not finite.
        """
        var = conform(self.var, FEATURE_COLUMNS, what="features")
        if var.column("feature_id").null_count:
            raise CorpusError("a feature has no id: name each")
        given = (self.indptr, self.indices, self.values)
        order, (indptr, indices, values) = in_order(given, self.feature_ids, "feature")
        var = var.take(pa.array(order))
        return FeatureBatch(var=var, indptr=indptr, indices=indices, values=values)
