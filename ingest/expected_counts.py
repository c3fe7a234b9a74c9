"""Expected counts of bulk samples, rounded: RSEM, salmon and kallisto share reads among genes.

Knows sources; knows no setting. Only on demand (`expected_counts = "round"`), never silently: what
was no integer is counted, and values that cannot be expected counts are refused. Negative values
and NaN stay as they are, for the test of every value to find.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from ..platform.errors import NotRawCountsError
from .recover import LARGEST_COUNT
from .sources.protocol import Layer, Names, RawBlock, Source, Triplets

LARGEST_LOGARITHM = float(np.log2(LARGEST_COUNT + 1.0))
"""log2 of the greatest count that is stored: a table without a greater value holds logarithms."""

_MILLION = 1e6
_NEAR = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundedSource:
    """A source whose values are rounded as they are read; all else is the source's own.

    Attributes:
        source: the source.
    """

    source: Source

    @property
    def path(self) -> Path:
        """The file or folder."""
        return self.source.path

    @property
    def format(self) -> str:
        """Name of the reader."""
        return self.source.format

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader left out."""
        return self.source.notes

    def layers(self) -> list[Layer]:
        """The source's layers."""
        return self.source.layers()

    def genes(self, layer: str) -> dict[str, Names]:
        """The source's names of genes."""
        return self.source.genes(layer)

    def barcodes(self) -> Names:
        """The source's names of samples."""
        return self.source.barcodes()

    def obs_columns(self) -> list[str]:
        """The source's own columns."""
        return self.source.obs_columns()

    def obs(self, start: int, stop: int) -> pa.Table:
        """The source's own columns of some samples."""
        return self.source.obs(start, stop)

    def sample(self, layer: str) -> Triplets:
        """A bounded number of values, rounded."""
        return _rounded_triplets(self.source.sample(layer))

    def blocks(self, layer: str, start: int, stop: int) -> Iterator[RawBlock]:
        """Samples `start` to `stop`, rounded; what rounds to 0 stays stored."""
        for block in self.source.blocks(layer, start, stop):
            matrix = block.matrix
            parts = (rounded(matrix.data), matrix.indices, matrix.indptr)
            yield replace(block, matrix=sparse.csr_matrix(parts, shape=matrix.shape))

    def triplets(self, layer: str) -> Iterator[Triplets]:
        """All values of a layer that has to be spooled, rounded."""
        return map(_rounded_triplets, self.source.triplets(layer))


def rounded(values: NDArray[Any]) -> NDArray[Any]:
    """Values at the nearest integer, halves to the even one (IEEE 754, and R's `round`).

    Args:
        values: expected counts; negative ones and those that are not finite stay as they are.
            Shape (n_values,).
    """
    if values.dtype.kind != "f":
        return values
    with np.errstate(invalid="ignore"):
        return np.where(values >= 0, np.rint(values), values)


def check_expected_counts(source: Source, layer: str) -> str:
    """Read all values of a layer once, and tell how many of them rounding changes.

    Args:
        source: read by rows, not rounded.
        layer: its layer.

    Returns:
        A line for the receipt.

    Raises:
        NotRawCountsError: the values are logarithms, or were scaled to a million a sample.
    """
    n_samples = len(source.barcodes())
    n_values, n_broken, largest = 0, 0, 0.0
    totals_c = np.zeros(n_samples)
    for block in source.blocks(layer, 0, n_samples):
        values = block.matrix.data.astype(np.float64)
        n_values += int((values != 0).sum())
        n_broken += int((values != np.floor(values)).sum())
        largest = max(largest, float(np.nanmax(values, initial=0.0)))
        stop = block.start + block.n_cells
        totals_c[block.start : stop] = np.asarray(block.matrix.sum(axis=1)).ravel()
    what = None
    if n_broken and largest <= LARGEST_LOGARITHM:
        what = f"no value is above {largest:g}: these are logarithms"
    elif n_broken and (np.abs(totals_c - _MILLION) <= _NEAR * _MILLION).all():
        what = "every sample's total is 1,000,000: these are TPM or CPM"
    if what is not None:
        raise NotRawCountsError(
            f"{source.path}: {layer}: {what}, not expected counts; give the counts as RSEM "
            "(expected_count), salmon (NumReads) or kallisto (est_counts) tell them, or name "
            "their `layer`"
        )
    return (
        f"expected counts: {n_broken:,} of {n_values:,} values were no integers and were rounded "
        "to the nearest one, as asked"
    )


def _rounded_triplets(given: Triplets) -> Triplets:
    return replace(given, values=rounded(given.values))
