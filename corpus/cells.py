"""CellBatch: some cells' raw counts, sparse and frozen. Knows no file, no snapshot and no model.

Array suffixes: c cell, g gene, n stored non-zero.
"""

from dataclasses import dataclass

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from ..platform.errors import CorpusError
from .sparse_counts import check_lengths, to_csr


@dataclass(frozen=True, kw_only=True, slots=True)
class CellBatch:
    """Some cells that share one gene list, in the order they were asked for.

    Attributes:
        gene_ids: the gene list: Ensembl ids without version, or `unmapped:<name>`.
            Shape (n_genes,), dtype object (str).
        indptr: where each cell's non-zeros begin and end. Shape (n_cells + 1,), int64.
        indices: positions in `gene_ids`, ascending and unique within a cell.
            Shape (n_nonzero,), int32.
        counts: raw UMI or read counts, all > 0. Shape (n_nonzero,), uint32.
        n_counts: each cell's total over the source's raw matrix BEFORE gene mapping: the
            denominator of every normalisation. Shape (n_cells,), int64.
        content_keys: the first 64 bits of each cell's content hash: the key of masks and
            splits, the same in a corpus built anew. Shape (n_cells,), uint64.
        obs: the cells' metadata, one row a cell, columns of `corpus.schema`.
    """

    gene_ids: NDArray[np.object_]
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    counts: NDArray[np.uint32]
    n_counts: NDArray[np.int64]
    content_keys: NDArray[np.uint64]
    obs: pa.Table

    def __post_init__(self) -> None:
        """Check the lengths that every reader relies on."""
        n_cells = len(self.indptr) - 1
        lengths = {
            "n_counts": len(self.n_counts),
            "content_keys": len(self.content_keys),
            "obs": self.obs.num_rows,
        }
        for name, length in lengths.items():
            if length != n_cells:
                raise CorpusError(f"{name} has {length} rows, expected {n_cells} (one per cell)")
        check_lengths((self.indptr, self.indices, self.counts))

    @property
    def n_cells(self) -> int:
        """Number of cells (rows)."""
        return len(self.indptr) - 1

    @property
    def n_genes(self) -> int:
        """Number of genes (columns)."""
        return len(self.gene_ids)

    def to_csr(self) -> sparse.csr_matrix:
        """The counts as CSR, cells x genes; see `sparse_counts.to_csr`."""
        return to_csr((self.indptr, self.indices, self.counts), self.n_genes)

    def take(self, rows: NDArray[np.int64]) -> "CellBatch":
        """Some of the cells, in the order asked for.

        Args:
            rows: row numbers; any order, repeats allowed. Shape (n_rows,).
        """
        indptr, indices, counts = _gather_rows(self.indptr, self.indices, self.counts, rows)
        return CellBatch(
            gene_ids=self.gene_ids,
            indptr=indptr,
            indices=indices,
            counts=counts,
            n_counts=self.n_counts[rows],
            content_keys=self.content_keys[rows],
            obs=self.obs.take(pa.array(rows)),
        )


@numba.njit(cache=True, nogil=True)
def _gather_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    counts: NDArray[np.uint32],
    rows: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint32]]:  # pragma: no cover - compiled
    """Some rows of a CSR matrix in memory, in the order asked for."""
    out_indptr = np.zeros(len(rows) + 1, dtype=np.int64)
    for i in range(len(rows)):
        out_indptr[i + 1] = out_indptr[i] + indptr[rows[i] + 1] - indptr[rows[i]]
    out_indices = np.empty(out_indptr[-1], dtype=np.int32)
    out_counts = np.empty(out_indptr[-1], dtype=np.uint32)
    for i in range(len(rows)):
        target = out_indptr[i]
        for place in range(indptr[rows[i]], indptr[rows[i] + 1]):
            out_indices[target] = indices[place]
            out_counts[target] = counts[place]
            target += 1
    return out_indptr, out_indices, out_counts
