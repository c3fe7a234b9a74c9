"""How often each gene took which value: mergeable exact sketches. Knows no file and no model.

The value is count / n_counts x 10,000, zeros left out (Theodoris et al. 2023, Methods). A sketch
holds, for each gene, exact integer counts of logarithmic bins whose borders are 1.01 apart, so that
sketches merge by adding and a median is within 0.5 % (a bin's middle is 1.01**0.5 from its borders)
whatever was merged in which order. Price: a few hundred small integers a gene.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..platform.errors import DamageError
from .sparse_counts import Columns, by_column

PER = 10_000.0
"""Counts are measured per this many counts of the cell."""

RATIO = 1.01
"""Neighbouring bin borders differ by this factor."""

# Bin b holds values in [RATIO**b, RATIO**(b + 1)); int16 reaches far beyond any real value.
_LOG_RATIO = math.log(RATIO)
LOWEST_BIN, _HIGHEST_BIN = -2000, 1000  # 2e-9 to 2e4; the largest value there can be is 1e4
N_BINS = _HIGHEST_BIN - LOWEST_BIN + 1

TABLE = 16
"""Counts below this are looked up, not computed: some 98 % of those of droplet methods."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Binning:
    """The bins that the counts of some cells fall into: most counts are small and looked up.

    Attributes:
        n_counts: each cell's total, the denominator. Shape (n_cells,), int64.
        small: the bin of each count from 0 to `TABLE - 1` in each cell; a count of 0 has none.
            Shape (n_cells, TABLE), int16. 32 bytes a cell.
    """

    n_counts: NDArray[np.int64]
    small: NDArray[np.int16]

    @classmethod
    def of(cls, n_counts: NDArray[np.int64]) -> "Binning":
        """Prepare the tables of some cells.

        Args:
            n_counts: each cell's total. Shape (n_cells,).
        """
        # A cell of total 0 has no count to bin.
        n_counts = np.maximum(n_counts, 1)
        small = np.zeros((len(n_counts), TABLE), dtype=np.int16)
        every = np.arange(1, TABLE, dtype=np.uint32)
        for start in range(0, len(n_counts), 4096):  # the decimals are four times the table
            stop = start + 4096
            small[start:stop, 1:] = _bin_of(every[None, :], n_counts[start:stop, None])
        return cls(n_counts=n_counts, small=small)

    def bins(self, cells: NDArray[np.uint32], counts: NDArray[np.uint32]) -> NDArray[np.int16]:
        """The bin of each count.

        Args:
            cells: the cell of each count. Shape (n_nonzero,).
            counts: raw counts, all > 0. Shape (n_nonzero,).
        """
        bins = _look_up(self.small, cells, counts)
        large = np.flatnonzero(counts >= TABLE)
        bins[large] = self._computed(cells[large], counts[large])
        return bins

    def large_bins(
        self, cells: NDArray[np.uint32], counts: NDArray[np.uint32]
    ) -> NDArray[np.int16]:
        """The bins of those counts that no table holds, in their order. Shape (n_large,)."""
        large = np.flatnonzero(counts >= TABLE)
        return self._computed(cells[large], counts[large])

    def _computed(self, cells: NDArray[np.uint32], counts: NDArray[np.uint32]) -> NDArray[np.int16]:
        return _bin_of(counts, self.n_counts[cells])


def _bin_of(counts: NDArray[np.uint32], n_counts: NDArray[np.int64]) -> NDArray[np.int16]:
    """The one formula: bins of counts in cells of some totals."""
    bins = np.floor(np.log(counts / n_counts * PER) / _LOG_RATIO)
    return np.clip(bins, LOWEST_BIN, _HIGHEST_BIN).astype(np.int16)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sketch:
    """How often each gene took which value, in logarithmic bins.

    Attributes:
        gene_ids: the genes. Shape (n_genes,), dtype object (str).
        indptr: where each gene's bins begin and end. Shape (n_genes + 1,), int64.
        bins: bin numbers, ascending within a gene. Shape (n_bins,), int16.
        n_values: how many values fell into each bin, > 0. Shape (n_bins,), int64.
    """

    gene_ids: NDArray[np.object_]
    indptr: NDArray[np.int64]
    bins: NDArray[np.int16]
    n_values: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        gene_ids: NDArray[np.object_],
        indptr: NDArray[np.int64],
        indices: NDArray[np.int32],
        counts: NDArray[np.uint32],
        n_counts: NDArray[np.int64],
    ) -> "Sketch":
        """Sketch some cells.

        Args:
            gene_ids: the gene list. Shape (n_genes,).
            indptr: where each cell's non-zeros begin. Shape (n_cells + 1,).
            indices: positions in `gene_ids`. Shape (n_nonzero,).
            counts: raw counts, all > 0. Shape (n_nonzero,).
            n_counts: each cell's total, the denominator, > 0. Shape (n_cells,).
        """
        return cls.by_gene(gene_ids, by_column((indptr, indices, counts), len(gene_ids)), n_counts)

    @classmethod
    def by_gene(
        cls, gene_ids: NDArray[np.object_], columns: Columns, n_counts: NDArray[np.int64]
    ) -> "Sketch":
        """Sketch some cells whose counts lie by gene.

        Args:
            gene_ids: the gene list. Shape (n_genes,).
            columns: raw counts, all > 0, by gene.
            n_counts: each cell's total, the denominator, > 0. Shape (n_cells,).
        """
        bins = Binning.of(n_counts).bins(columns.rows, columns.values)
        ends, used, n_values = _count_bins(columns.starts, bins)
        return cls(gene_ids=gene_ids, indptr=ends, bins=used, n_values=n_values)

    @classmethod
    def merge(cls, sketches: Iterable["Sketch"]) -> "Sketch":
        """Add sketches up; genes come out in ascending order of id.

        One after the other: what is held at a time is the sum and the next one, and a sum of many
        sketches is hardly larger than one of them, for bins fill up.
        """
        merged = _NOTHING
        for sketch in sketches:
            merged = merged._combined(sketch, 1)
        return merged

    def without(self, other: "Sketch") -> "Sketch":
        """The sketch of what is left when some of its values go; exact, like a sum.

        Args:
            other: of values that this sketch holds.

        Raises:
            DamageError: it does not hold them.
        """
        left = self._combined(other, -1)
        if len(left.n_values) and left.n_values.min() < 0:
            gene = int(np.searchsorted(left.indptr, left.n_values.argmin(), side="right")) - 1
            raise DamageError(
                f"a sketch of gene {left.gene_ids[gene]} lacks values that its own cells have: "
                "verify --deep says which segment is damaged"
            )
        return left

    def _combined(self, other: "Sketch", sign: int) -> "Sketch":
        """The sum or difference, gene by gene and bin by bin; bins that come to 0 are left out."""
        gene_ids, places = _union(self.gene_ids, other.gene_ids)
        indptr, bins, n_values = _combine(
            *places,
            (self.indptr, self.bins, self.n_values),
            (other.indptr, other.bins, other.n_values),
            sign,
        )
        return Sketch(gene_ids=gene_ids, indptr=indptr, bins=bins, n_values=n_values)

    def n_cells(self) -> NDArray[np.int64]:
        """How many cells express each gene. Shape (n_genes,)."""
        running = np.concatenate([[0], np.cumsum(self.n_values)])
        return running[self.indptr[1:]] - running[self.indptr[:-1]]

    def medians(self) -> NDArray[np.float64]:
        """Each gene's median, to 0.5 %; NaN for a gene without values. Shape (n_genes,).

        With an even number of values it is the mean of the middle two, as in numpy.
        """
        medians = np.full(len(self.gene_ids), np.nan)
        for gene, (start, end) in enumerate(zip(self.indptr[:-1], self.indptr[1:], strict=True)):
            if start == end:
                continue
            ends = np.cumsum(self.n_values[start:end])
            middle = np.array([(ends[-1] - 1) // 2, ends[-1] // 2])
            bins = self.bins[start + np.searchsorted(ends, middle, side="right")]
            medians[gene] = np.mean(RATIO ** (bins + 0.5))
        return medians

    def to_columns(self) -> dict[str, pa.Array]:
        """The sketch as the columns `bins` and `n_values`, one list a gene."""
        offsets = pa.array(self.indptr.astype(np.int32))
        return {
            "bins": pa.ListArray.from_arrays(offsets, pa.array(self.bins)),
            "n_values": pa.ListArray.from_arrays(offsets, pa.array(self.n_values)),
        }

    @classmethod
    def from_table(cls, table: pa.Table) -> "Sketch":
        """Read the columns `gene_id`, `bins` and `n_values`."""
        table = table.combine_chunks()
        lengths = table.column("bins").combine_chunks().value_lengths().to_numpy()
        return cls(
            gene_ids=np.array(table.column("gene_id").to_pylist(), dtype=object),
            indptr=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            bins=table.column("bins").combine_chunks().flatten().to_numpy(),
            n_values=table.column("n_values").combine_chunks().flatten().to_numpy(),
        )


_NOTHING = Sketch(
    gene_ids=np.zeros(0, dtype=object),
    indptr=np.zeros(1, dtype=np.int64),
    bins=np.zeros(0, dtype=np.int16),
    n_values=np.zeros(0, dtype=np.int64),
)


def _union(
    one: NDArray[np.object_], other: NDArray[np.object_]
) -> tuple[NDArray[np.object_], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All genes of two lists, ascending, and the place of each in the lists; -1 where it is not."""
    if len(one) == len(other) and (one is other or bool((one == other).all())):
        names = one if all(a < b for a, b in pairwise(one)) else np.sort(one)
    else:
        names = np.array(sorted({str(name) for name in (*one, *other)}), dtype=object)
    found: list[NDArray[np.int64]] = []
    for genes in (one, other):
        if genes is names:
            found.append(np.arange(len(names)))
        else:
            place = {name: i for i, name in enumerate(genes)}
            found.append(np.array([place.get(name, -1) for name in names], dtype=np.int64))
    return names, (found[0], found[1])


@numba.njit(cache=True, nogil=True)
def _look_up(
    small: NDArray[np.int16], cells: NDArray[np.uint32], counts: NDArray[np.uint32]
) -> NDArray[np.int16]:  # pragma: no cover - compiled
    """The bins of small counts; of others the bin is left open."""
    bins = np.empty(len(counts), dtype=np.int16)
    for place in range(len(counts)):
        if counts[place] < TABLE:
            bins[place] = small[cells[place], counts[place]]
    return bins


@numba.njit(cache=True, nogil=True)
def _count_bins(
    starts: NDArray[np.int64], bins: NDArray[np.int16]
) -> tuple[NDArray[np.int64], NDArray[np.int16], NDArray[np.int64]]:  # pragma: no cover - compiled
    n_genes = len(starts) - 1
    ends = np.zeros(n_genes + 1, dtype=np.int64)
    room = 16 * n_genes + N_BINS
    used = np.empty(room, dtype=np.int16)
    n_values = np.empty(room, dtype=np.int64)
    tally = np.zeros(N_BINS, dtype=np.int64)
    n_used = 0
    for gene in range(n_genes):
        low, high = N_BINS, -1
        for place in range(starts[gene], starts[gene + 1]):
            slot = bins[place] - LOWEST_BIN
            tally[slot] += 1
            low, high = min(low, slot), max(high, slot)
        if n_used + N_BINS > len(used):
            used = np.concatenate((used, np.empty(len(used), dtype=np.int16)))
            n_values = np.concatenate((n_values, np.empty(len(n_values), dtype=np.int64)))
        for slot in range(low, high + 1):
            if tally[slot]:
                used[n_used] = slot + LOWEST_BIN
                n_values[n_used] = tally[slot]
                tally[slot] = 0
                n_used += 1
        ends[gene + 1] = n_used
    return ends, used[:n_used].copy(), n_values[:n_used].copy()


_Bins = tuple[NDArray[np.int64], NDArray[np.int16], NDArray[np.int64]]


@numba.njit(cache=True, nogil=True)
def _combine(
    in_one: NDArray[np.int64],
    in_other: NDArray[np.int64],
    one: _Bins,
    other: _Bins,
    sign: int,
) -> _Bins:  # pragma: no cover - compiled
    """Walk along both lists of bins of each gene at once: both ascend."""
    n_genes = len(in_one)
    ends = np.zeros(n_genes + 1, dtype=np.int64)
    bins = np.empty(len(one[1]) + len(other[1]), dtype=np.int16)
    n_values = np.empty(len(bins), dtype=np.int64)
    n = 0
    for gene in range(n_genes):
        a = b = a_end = b_end = np.int64(0)
        if in_one[gene] >= 0:
            a, a_end = one[0][in_one[gene]], one[0][in_one[gene] + 1]
        if in_other[gene] >= 0:
            b, b_end = other[0][in_other[gene]], other[0][in_other[gene] + 1]
        while a < a_end or b < b_end:
            total = np.int64(0)
            if b >= b_end or (a < a_end and one[1][a] <= other[1][b]):
                here = one[1][a]
            else:
                here = other[1][b]
            if a < a_end and one[1][a] == here:
                total += one[2][a]
                a += 1
            if b < b_end and other[1][b] == here:
                total += sign * other[2][b]
                b += 1
            if total != 0:
                bins[n], n_values[n] = here, total
                n += 1
        ends[gene + 1] = n
    return ends, bins[:n].copy(), n_values[:n].copy()
