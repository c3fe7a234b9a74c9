"""Writes a segment: whole, durably, frozen, under its final name or not at all.

Knows the parts of a segment (`corpus.segments` draws them); knows no snapshot and no query.
"""

import json
import os
import secrets
import shutil
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...platform.errors import CorpusError
from ...platform.faults import durable
from ...platform.refusals import storing_in
from ...platform.storage import (
    freeze,
    publish,
    remove_durably,
    sha256_file,
    sync_file,
    sync_folder,
    write_durably,
)
from .. import content
from ..cells import CellBatch
from ..features import FeatureBatch
from ..schema import (
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
from ..sparse_counts import by_column, in_order, row_sums
from .arrays import write_counts
from .companions import write_companion
from .expression import gene_statistics, write_gene_major
from .own_columns import storable
from .records import SegmentRecord, write_table
from .verification import verify_segment

_PROVENANCE = ("corpus_uuid", "source_id", "source_sha256", "first_row")

MIXED_DROPPED_COLUMNS = pa.schema(
    [*DROPPED_COLUMNS, pa.field("source_id", pa.string()), pa.field("source_sha256", pa.string())]
)
"""The columns of `dropped.parquet` in a segment made of others: each row says whose it is."""


def write_segment(
    folder: Path,
    segment_id: str,
    cells: CellBatch,
    var: pa.Table,
    source_obs: pa.Table,
    dropped: pa.Table,
    provenance: Mapping[str, Any],
    *,
    features: Mapping[str, FeatureBatch] | None = None,
) -> SegmentRecord:
    """Write a segment whole, durably, frozen; the genes are brought into ascending order.

    Where another process has just written the same segment, theirs is returned if it verifies.

    Args:
        folder: the segment's folder, `corpus.segments_folder / segment_id`.
        segment_id: its name, made from the unit.
        cells: the kept cells in the source's order; `obs` has columns of
            `schema.GIVEN_COLUMNS` (at least `barcode`) and any that are lifted into `cells`.
        var: the genes, in the order of `cells.gene_ids`: columns of `schema.VAR_COLUMNS`.
        source_obs: the source's own columns of the kept cells, verbatim (but see `storable`).
        dropped: the unit's dropped cells: columns of `schema.DROPPED_COLUMNS`.
        provenance: `corpus_uuid`, `source_id`, `source_sha256`, `first_row`, and more. With
            `cell_ids: "kept"` the segment is made of others: `cells.obs` then holds each cell's
            `cell_id` and `source_id` too, `dropped` has columns of `MIXED_DROPPED_COLUMNS`.
        features: modality -> its counts of the same cells, in the same order.

    Raises:
        CorpusError: the parts do not fit each other.
        StorageError: the disk says no; nothing of the segment is left.
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
    mixed = provenance.get("cell_ids") == "kept"
    dropped = conform(dropped, MIXED_DROPPED_COLUMNS if mixed else DROPPED_COLUMNS, what="dropped")
    cells, var = _in_order_of_genes(cells, var)
    block = secrets.randbits(BLOCK_BITS)
    if mixed:
        owners = {name: cells.obs.column(name) for name in ("cell_id", "source_id")}
    else:
        ids = (np.int64(block) << POSITION_BITS) + np.arange(cells.n_cells, dtype=np.int64)
        owner = str(provenance["source_id"])
        owners = {"cell_id": ids, "source_id": pa.array([owner] * cells.n_cells, pa.string())}
    table = _cell_rows(segment_id, cells, owners)
    with storing_in(folder.parent):
        temporary = _fresh_sibling(folder)
        try:
            _write_parts(temporary, segment_id, cells, var)
            barcodes = cells.obs.column("barcode").to_pylist()
            for modality, batch in (features or {}).items():
                write_companion(temporary, modality, segment_id, batch, barcodes)
            write_table(temporary / "cells.parquet", table)
            write_table(temporary / "obs.parquet", storable(source_obs))
            write_table(temporary / "dropped.parquet", dropped)
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
                "files": _seal(temporary),
            }
            account = temporary / "segment.json"
            write_durably(account, json.dumps(values, indent=1).encode(), "segment.json")
            freeze(account)
            _publish(temporary, folder)
        except BaseException:  # a full disk must not stay full of what nobody will read
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return SegmentRecord.load(folder)


def _write_parts(temporary: Path, segment_id: str, cells: CellBatch, var: pa.Table) -> None:
    """Write what is made of counts and genes: the array, its gene-major twin, the statistics."""
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
    columns = by_column((cells.indptr, cells.indices, cells.counts), cells.n_genes)
    names = pa.array([str(gene_id) for gene_id in cells.gene_ids], pa.string())
    write_gene_major(temporary / "expression", names, columns)
    statistics = gene_statistics(cells.gene_ids, var, columns, cells.n_counts)
    write_table(temporary / "statistics.parquet", statistics)


def _seal(temporary: Path) -> dict[str, tuple[int, str]]:
    """Sync and freeze every part.

    Returns:
        Size in bytes and sha256 of every file, by its path in the segment.
    """
    files: dict[str, tuple[int, str]] = {}
    with durable("segment/sync"):
        for path in sorted(path for path in temporary.rglob("*") if path.is_file()):
            sync_file(path)
            freeze(path)
            name = path.relative_to(temporary).as_posix()
            files[name] = (path.stat().st_size, sha256_file(path))
        for path in temporary.rglob("*"):
            if path.is_dir():
                sync_folder(path)
    return files


def _publish(temporary: Path, folder: Path) -> None:
    """Give a segment its name; where a whole one has it already, that one stays."""
    try:
        publish(temporary, folder, "segment", last="segment.json")
    except OSError:
        if not verify_segment(folder):
            shutil.rmtree(temporary)
        else:  # no whole segment there: what stands in the way is of no one
            remove_durably(folder, "segment")
            publish(temporary, folder, "segment", last="segment.json")


def _in_order_of_genes(cells: CellBatch, var: pa.Table) -> tuple[CellBatch, pa.Table]:
    """The same cells with ascending genes, after checking what every reader relies on."""
    gene_ids = [str(gene_id) for gene_id in cells.gene_ids]
    if var.column("gene_id").to_pylist() != gene_ids:
        raise CorpusError("var and the cells have different genes, or in different order")
    given = (cells.indptr, cells.indices, cells.counts)
    order, (indptr, indices, counts) = in_order(given, gene_ids, "gene")
    ordered = replace(
        cells, gene_ids=cells.gene_ids[order], indptr=indptr, indices=indices, counts=counts
    )
    return ordered, var.take(pa.array(order))


def _cell_rows(segment_id: str, cells: CellBatch, owners: Mapping[str, Any]) -> pa.Table:
    """The rows of `cells` for a segment; `owners` gives `cell_id` and `source_id`."""
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
    columns: dict[str, Any] = {name: given.column(name) for name in GIVEN_COLUMNS.names}
    columns |= {
        **owners,
        "segment": pa.array([segment_id] * n_cells, pa.string()),
        "row": np.arange(n_cells, dtype=np.int32),
        "n_counts": cells.n_counts,
        "n_counts_stored": row_sums(cells.indptr, cells.counts),
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
        if pid.isdigit() and not is_alive(int(pid)):
            shutil.rmtree(left)
    fresh = folder.with_name(stem + str(os.getpid()))
    if fresh.exists():
        shutil.rmtree(fresh)
    fresh.mkdir()
    return fresh


def is_alive(pid: int) -> bool:
    """Whether a process of this host is running."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
