"""One immutable payload: written once, verified, read by rows. Knows no snapshot and no query.

    <segment id>/
        rna.zarr              counts, cell-major: a valid AnnData group (corpus.arrays)
        expression/*.parquet  the same counts gene-major: gene, row, count; sorted
        cells.parquet         the rows that a commit adds to the table `cells`
        obs.parquet           the source's own obs columns, verbatim
        dropped.parquet       the unit's dropped cells
        statistics.parquet    genes, their totals and the sketch of their values
        segment.json          written last: every file's size and sha256, totals, provenance

A segment is written under a hidden sibling name and renamed, so that a folder that has its final
name is whole. A segment exists for readers only once a commit to `cells` names it.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..platform.errors import CorpusError, DamageError
from . import content
from .arrays import CountsReader
from .medians import Sketch
from .records import SegmentRecord, read_table


@dataclass(frozen=True, kw_only=True)
class Segment:
    """An open segment: its record and its counts."""

    record: SegmentRecord
    _counts: CountsReader

    @classmethod
    def open(cls, folder: Path) -> "Segment":
        """Open a segment after checking the size of every one of its files.

        Raises:
            DamageError: a file is missing or has another size: it is named.
        """
        record = SegmentRecord.load(folder)
        for problem in record.problems_of_sizes():
            raise DamageError(f"{problem}: restore it from a copy, or ingest the source again")
        counts = CountsReader(folder / "rna.zarr", record.segment_id)
        if counts.n_cells != record.n_cells:
            raise DamageError(f"{folder} has {counts.n_cells} rows, {record.n_cells} were written")
        return cls(record=record, _counts=counts)

    @cached_property
    def genes(self) -> pa.Table:
        """The gene table: `gene_id`, `symbol`, `biotype`, `flag`, `n_cells`, `total`, sketch."""
        return read_table(self.record.folder / "statistics.parquet")

    @cached_property
    def gene_ids(self) -> NDArray[np.object_]:
        """The measured genes, ascending. Shape (n_genes,)."""
        return np.array(self.genes.column("gene_id").to_pylist(), dtype=object)

    @property
    def sketch(self) -> Sketch:
        """The stored sketch over all cells of the segment."""
        return Sketch.from_table(self.genes)

    def read(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint32]]:
        """Some rows in the order asked for: indptr, indices into `gene_ids`, counts.

        Raises:
            CorpusError: a row is outside the segment.
            DamageError: a chunk does not decode to what was written.
        """
        if rows.size and not (0 <= rows.min() and rows.max() < self.record.n_cells):
            raise CorpusError(
                f"rows {rows.min()} to {rows.max()} of segment {self.record.segment_id}, "
                f"which has {self.record.n_cells}"
            )
        return self._counts.read(rows)

    def totals_and_hashes(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Each cell's stored total and content hash, computed anew, some cells at a time."""
        totals: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
        hashes: list[NDArray[np.uint64]] = [np.zeros((0, 2), dtype=np.uint64)]
        gene_ids = [str(gene_id) for gene_id in self.gene_ids]
        for start in range(0, self.record.n_cells, 8192):
            rows = np.arange(start, min(start + 8192, self.record.n_cells))
            indptr, indices, counts = self.read(rows)
            running = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
            totals.append(running[indptr[1:]] - running[indptr[:-1]])
            hashes.append(content.content_hashes(gene_ids, indptr, indices, counts))
        return np.concatenate(totals), np.concatenate(hashes)
