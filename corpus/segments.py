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

import json
import os
import secrets
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from ..platform.errors import CorpusError, DamageError
from ..platform.storage import freeze, sha256_file, sync_file, sync_folder, write_durably
from . import content
from .arrays import CountsReader, write_counts
from .cells import CellBatch
from .expression import gene_statistics, write_expression
from .medians import Sketch, gene_major
from .records import SegmentRecord, read_table, write_table
from .schema import (
    BLOCK_BITS,
    CELL_COLUMNS,
    DROPPED_COLUMNS,
    FORMAT,
    GIVEN_COLUMNS,
    POSITION_BITS,
    VAR_COLUMNS,
    conform,
    lifted_columns,
)

_PROVENANCE = ("corpus_uuid", "source_id", "source_sha256", "first_row")


def write_segment(
    folder: Path,
    segment_id: str,
    cells: CellBatch,
    var: pa.Table,
    source_obs: pa.Table,
    dropped: pa.Table,
    provenance: Mapping[str, Any],
) -> SegmentRecord:
    """Write a segment whole, durably, frozen; the genes are brought into ascending order.

    Where another process has just written the same segment, theirs is returned if it verifies.

    Args:
        folder: the segment's folder, `corpus.segments_folder / segment_id`.
        segment_id: its name, made from the unit.
        cells: the kept cells in the source's order; `obs` has columns of
            `schema.GIVEN_COLUMNS` (at least `barcode`) and any that are lifted into `cells`.
        var: the genes, in the order of `cells.gene_ids`: columns of `schema.VAR_COLUMNS`.
        source_obs: the source's own columns of the kept cells, verbatim.
        dropped: the unit's dropped cells: columns of `schema.DROPPED_COLUMNS`.
        provenance: `corpus_uuid`, `source_id`, `source_sha256`, `first_row`, and more.

    Raises:
        CorpusError: the parts do not fit each other.
    """
    if folder.name != segment_id:
        raise CorpusError(f"segment {segment_id!r} must lie in a folder of that name, not {folder}")
    for name in _PROVENANCE:
        if name not in provenance:
            raise CorpusError(f"provenance of segment {segment_id} lacks {name!r}")
    if cells.n_cells >= 1 << POSITION_BITS:
        raise CorpusError(
            f"segment {segment_id} has {cells.n_cells} cells, expected fewer than "
            f"{1 << POSITION_BITS}: make its unit smaller"
        )
    if source_obs.num_rows != cells.n_cells:
        raise CorpusError(f"source_obs has {source_obs.num_rows} rows for {cells.n_cells} cells")
    var = conform(var, VAR_COLUMNS, what="var")
    dropped = conform(dropped, DROPPED_COLUMNS, what="dropped")
    cells, var = _in_order_of_genes(cells, var)
    temporary = _fresh_sibling(folder)
    block = secrets.randbits(BLOCK_BITS)
    table = _cell_rows(segment_id, block, cells, str(provenance["source_id"]))
    write_counts(
        temporary / "rna.zarr",
        segment_id=segment_id,
        indptr=cells.indptr,
        indices=cells.indices,
        counts=cells.counts,
        n_genes=cells.n_genes,
        obs={
            "barcode": cells.obs.column("barcode").to_pylist(),
            "n_counts": cells.n_counts.tolist(),
        }
        if cells.n_cells
        else {"barcode": []},
        var={
            name: ["" if value is None else value for value in var.column(name).to_pylist()]
            for name in VAR_COLUMNS.names
        },
    )
    order, starts = gene_major(cells.indices, cells.n_genes)
    write_expression(temporary / "expression", cells, order, starts)
    write_table(temporary / "cells.parquet", table)
    write_table(temporary / "obs.parquet", source_obs)
    write_table(temporary / "dropped.parquet", dropped)
    write_table(temporary / "statistics.parquet", gene_statistics(cells, var, order, starts))
    files: dict[str, tuple[int, str]] = {}
    for path in sorted(path for path in temporary.rglob("*") if path.is_file()):
        sync_file(path)
        freeze(path)
        name = path.relative_to(temporary).as_posix()
        files[name] = (path.stat().st_size, sha256_file(path))
    for path in temporary.rglob("*"):
        if path.is_dir():
            sync_folder(path)
    values = {
        "format": FORMAT,
        "segment_id": segment_id,
        "block": block,
        "n_cells": cells.n_cells,
        "n_dropped": dropped.num_rows,
        "n_genes": cells.n_genes,
        "n_nonzero": len(cells.counts),
        "total": int(cells.counts.sum(dtype=np.int64)),
        "provenance": dict(provenance),
        "files": files,
    }
    write_durably(temporary / "segment.json", json.dumps(values, indent=1).encode())
    freeze(temporary / "segment.json")
    try:
        temporary.rename(folder)
    except OSError:
        problems = verify_segment(folder)
        if problems:  # no whole segment there: what stands in the way is of no one
            shutil.rmtree(folder)
            temporary.rename(folder)
        else:
            shutil.rmtree(temporary)
    sync_folder(folder.parent)
    return SegmentRecord.load(folder)


def verify_segment(folder: Path, deep: bool = False) -> list[str]:
    """What is wrong with a segment; an empty list where nothing is.

    Args:
        folder: the segment's folder.
        deep: hash every file and hold the counts against the totals, not only the sizes.
    """
    try:
        record = SegmentRecord.load(folder)
    except DamageError as error:
        return [str(error)]
    problems = list(record.problems_of_sizes())
    if problems or not deep:
        return problems
    for name, (_, sha256) in record.files.items():
        if sha256_file(folder / name) != sha256:
            problems.append(f"{folder / name} has other bytes than were written")
    if problems:
        return problems
    segment = Segment.open(folder)
    n_counts, hashes = segment.totals_and_hashes()
    cells = record.cells()
    if n_counts.tolist() != cells.column("n_counts_stored").to_pylist():
        problems.append(f"{folder / 'rna.zarr'}: totals of cells are not those in cells.parquet")
    if hashes.tolist() != content.from_binary(cells.column("content_hash")).tolist():
        problems.append(f"{folder / 'rna.zarr'}: contents are not those hashed in cells.parquet")
    by_gene = sum(read_table(folder / "statistics.parquet").column("total").to_pylist())
    if by_gene != record.total or int(n_counts.sum()) != record.total:
        problems.append(f"{folder}: totals by gene and by cell are not {record.total}")
    return problems


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


def _in_order_of_genes(cells: CellBatch, var: pa.Table) -> tuple[CellBatch, pa.Table]:
    """The same cells with ascending genes, after checking what every reader relies on."""
    gene_ids = [str(gene_id) for gene_id in cells.gene_ids]
    if var.column("gene_id").to_pylist() != gene_ids:
        raise CorpusError("var and the cells have different genes, or in different order")
    if len(set(gene_ids)) != len(gene_ids):
        raise CorpusError("a gene appears twice: sum duplicates before writing")
    if cells.counts.size and not cells.counts.all():
        raise CorpusError("a stored count is 0: leave zeros out")
    order = np.array(sorted(range(len(gene_ids)), key=gene_ids.__getitem__), dtype=np.int64)
    place = np.empty(len(order), dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    shape = (cells.n_cells, cells.n_genes)
    matrix = sparse.csr_matrix((cells.counts, place[cells.indices], cells.indptr), shape=shape)
    matrix.sort_indices()
    if not matrix.has_canonical_format:
        raise CorpusError("a cell holds a gene twice: sum duplicates before writing")
    ordered = CellBatch(
        gene_ids=cells.gene_ids[order],
        indptr=cells.indptr,
        indices=matrix.indices.astype(np.int32),
        counts=matrix.data.astype(np.uint32),
        n_counts=cells.n_counts,
        content_keys=cells.content_keys,
        obs=cells.obs,
    )
    return ordered, var.take(pa.array(order))


def _cell_rows(segment_id: str, block: int, cells: CellBatch, source_id: str) -> pa.Table:
    """The rows of `cells` for a segment."""
    n_cells = cells.n_cells
    lifted = lifted_columns(cells.obs)
    given = conform(
        cells.obs.drop_columns(
            [name for name in cells.obs.column_names if name in _made_here]
        ).drop_columns(lifted.names),
        GIVEN_COLUMNS,
        what="obs",
    )
    if given.column("barcode").null_count:
        raise CorpusError(f"segment {segment_id}: a cell has no barcode")
    gene_ids = [str(gene_id) for gene_id in cells.gene_ids]
    hashes = content.content_hashes(gene_ids, cells.indptr, cells.indices, cells.counts)
    running = np.concatenate([[0], np.cumsum(cells.counts, dtype=np.int64)])
    columns: dict[str, Any] = {name: given.column(name) for name in GIVEN_COLUMNS.names}
    columns |= {
        "cell_id": (np.int64(block) << POSITION_BITS) + np.arange(n_cells, dtype=np.int64),
        "segment": pa.array([segment_id] * n_cells, pa.string()),
        "row": np.arange(n_cells, dtype=np.int32),
        "source_id": pa.array([source_id] * n_cells, pa.string()),
        "n_counts": cells.n_counts,
        "n_counts_stored": running[cells.indptr[1:]] - running[cells.indptr[:-1]],
        "content_hash": content.to_binary(hashes),
    }
    columns |= {field.name: cells.obs.column(field.name).cast(field.type) for field in lifted}
    schema = pa.schema([*CELL_COLUMNS, *lifted])
    return pa.table([columns[name] for name in schema.names], schema=schema)


_made_here = {"cell_id", "segment", "row", "source_id", "n_counts_stored", "content_hash"}


def _fresh_sibling(folder: Path) -> Path:
    """A hidden folder to write in; what dead writers of this host left of it is cleared away."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    stem = f".{folder.name}.{socket.gethostname()}."
    for left in folder.parent.glob(stem + "*"):
        pid = left.name.removeprefix(stem)
        if pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(left)
    fresh = folder.with_name(stem + str(os.getpid()))
    if fresh.exists():
        shutil.rmtree(fresh)
    fresh.mkdir()
    return fresh


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
