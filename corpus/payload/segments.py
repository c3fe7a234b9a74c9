"""One immutable payload: written once, verified, read by rows. Knows no snapshot and no query.

    <segment id>/
        rna.zarr              counts, cell-major: a valid AnnData group (corpus.arrays)
        expression/*.parquet  the same counts gene-major: gene, row, count; sorted
        protein..., atac..., protein_abundance...
                              other modalities, where the source has them (corpus.companions)
        cells.parquet         the rows that a commit adds to the table `cells`
        obs.parquet           the source's own obs columns, verbatim
        dropped.parquet       the unit's dropped cells
        statistics.parquet    genes, their totals and the sketch of their values
        segment.json          written last: every file's size and sha256, totals, provenance

A segment is written under a hidden sibling name and renamed, so that a folder that has its final
name is whole. A segment exists for readers only once a commit to `cells` names it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...platform.errors import CorpusError, DamageError
from .. import content
from ..sketches import Sketch
from ..sparse_counts import Rows
from .arrays import CountsReader
from .companions import Companion, modalities_of
from .integrity import WAY_OUT
from .records import SegmentRecord, bring_parts, read_table

_STEERING = tuple(f"rna.zarr/X/{name}/zarr.json" for name in ("data", "indices", "indptr"))
"""Small files that say how the others are read: no checksum of their own tells of a change."""
_GENE_LISTS: WeakValueDictionary[bytes, NDArray[np.object_]] = WeakValueDictionary()
"""Each list of genes once in this process: a list of 30,000 takes 2 MB, and a corpus has few."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """An open segment: its record and its counts."""

    record: SegmentRecord
    _counts: CountsReader
    _proven: set[int] = field(default_factory=set[int], repr=False)  # shards, see `read`

    @classmethod
    def open(cls, folder: Path, sha256: str | None = None) -> "Segment":
        """Open a segment: the size of every file is checked, and the bytes of those that steer.

        Args:
            folder: the segment's folder.
            sha256: the hash of its `segment.json` that was committed, where it is known.

        Raises:
            DamageError: a file is missing, has another size, or other bytes: it is named.
        """
        record = SegmentRecord.load(folder, sha256)
        bring_parts([record], "rna.zarr")
        for problem in record.problems_of_sizes(in_bucket=False):
            raise DamageError(f"{problem}: {WAY_OUT}")
        for name in _STEERING:
            record.check(name)
        for name in record.files:
            if name.startswith("rna.zarr/X/indptr/c/"):
                record.check(name)
        counts = CountsReader(folder / "rna.zarr", record.segment_id, record.n_genes)
        if counts.n_cells != record.n_cells:
            raise DamageError(
                f"{folder} has {counts.n_cells} rows, {record.n_cells} were written: {WAY_OUT}"
            )
        return cls(record=record, _counts=counts)

    @cached_property
    def genes(self) -> pa.Table:
        """The gene table: `gene_id`, `symbol`, `biotype`, `flag`, `n_cells`, `total`, sketch.

        Raises:
            DamageError: `statistics.parquet` has other bytes than were written.
        """
        return self.record.table("statistics.parquet")

    @cached_property
    def gene_ids(self) -> NDArray[np.object_]:
        """The measured genes, ascending: one list for all segments that have the same.

        Shape (n_genes,). Of the gene table, whose sketch is large, nothing else is kept.
        """
        self.record.check("statistics.parquet")
        found = read_table(self.record.folder / "statistics.parquet", columns=["gene_id"])
        names = np.array(found.column("gene_id").to_pylist(), dtype=object)
        words = "\n".join(names.tolist()).encode()
        digest = hashlib.blake2b(words, digest_size=16).digest()
        return _GENE_LISTS.setdefault(digest, names)

    @property
    def sketch(self) -> Sketch:
        """The stored sketch over all cells of the segment: some 30 MB, so it is not kept."""
        self.record.check("statistics.parquet")
        path = self.record.folder / "statistics.parquet"
        return Sketch.from_table(read_table(path, columns=["gene_id", "bins", "n_values"]))

    @cached_property
    def companions(self) -> Mapping[str, Companion]:
        """Modality -> its features and counts; RNA is not among them."""
        return {name: Companion(self.record, name) for name in modalities_of(self.record)}

    @property
    def counts(self) -> CountsReader:
        """The counts as they are stored."""
        return self._counts

    def read(
        self, rows: NDArray[np.int64], content_keys: NDArray[np.uint64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint32]]:
        """Some rows in the order asked for: indptr, indices into `gene_ids`, counts.

        A chunk's checksum does not tell a shard that was swapped for another sound one of equal
        size. So where the cells' content keys are given, one cell of each shard is held against
        its key when the shard is first read: a few milliseconds a shard.

        Args:
            rows: row numbers; any order, repeats allowed. Shape (n_rows,).
            content_keys: what `cells` says of these rows (`corpus.content`). Shape (n_rows,).

        Raises:
            CorpusError: a row is outside the segment.
            DamageError: a chunk does not decode to what was written.
        """
        if rows.size and not (0 <= rows.min() and rows.max() < self.record.n_cells):
            raise CorpusError(
                f"rows {rows.min()} to {rows.max()} of segment {self.record.segment_id}, "
                f"which has {self.record.n_cells}"
            )
        read = self._counts.read(rows)
        if content_keys is not None:
            self._prove(rows, content_keys, read)
        return read

    def prove(self, rows: NDArray[np.int64], content_keys: NDArray[np.uint64]) -> None:
        """Read one cell of each shard that holds some of the rows, and was not proven, as `read`.

        For whoever fills memory by `counts.filling`, which tests chunks only.

        Raises:
            DamageError: a shard holds other cells than `cells` knows of.
        """
        if len(self._proven) < self._counts.n_shards:
            for shard, place in self._counts.one_row_a_shard(rows):
                if shard not in self._proven:
                    self.read(rows[place : place + 1], content_keys[place : place + 1])

    def _prove(self, rows: NDArray[np.int64], content_keys: NDArray[np.uint64], read: Rows) -> None:
        if len(self._proven) >= self._counts.n_shards:
            return
        indptr, indices, counts = read
        for shard, place in self._counts.one_row_a_shard(rows):
            if shard in self._proven:
                continue
            start, end = int(indptr[place]), int(indptr[place + 1])
            [key] = content.content_keys(
                content.content_hashes(
                    [str(gene_id) for gene_id in self.gene_ids[indices[start:end]]],
                    np.array([0, end - start]),
                    np.arange(end - start, dtype=np.int32),
                    counts[start:end],
                )
            )
            if key != content_keys[place]:
                raise DamageError(
                    f"{self.record.folder / 'rna.zarr/X'}: row {rows[place]} holds other "
                    f"counts than the table cells knows of it: {WAY_OUT}"
                )
            self._proven.add(shard)
