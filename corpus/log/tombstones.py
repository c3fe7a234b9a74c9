"""Cells whose use is no longer allowed: what is kept of them so that no open brings them back.

Knows ids and hashes; keeps no barcode and no name. A tombstone is the cell's id (for snapshots
that still hold it), its content hash and a hash of source and barcode (for a source that is
ingested once more); the latter is keyed by the corpus's uuid, so that it tells nothing elsewhere.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...platform.errors import WithdrawnError
from ..payload.integrity import check_file
from ..payload.records import read_table
from .history import Withdrawal
from .ledger import NewFile, write_rows
from .rows import open_engine, select_rows

COLUMNS = pa.schema(
    [
        pa.field("cell_id", pa.int64()),
        pa.field("content_hash", pa.binary()),
        pa.field("barcode_hash", pa.binary()),
    ]
)


def tombstones_of(cells: pa.Table, uuid: str) -> pa.Table:
    """The tombstones of some rows of `cells`: `cell_id, content_hash, source_id, barcode`."""
    return pa.table(
        [
            cells.column("cell_id"),
            cells.column("content_hash"),
            pa.array(_barcode_hashes(cells, uuid), pa.binary()),
        ],
        schema=COLUMNS,
    )


def write_tombstones(folder: Path, tombstones: pa.Table) -> NewFile:
    """Write tombstones into a corpus; a commit makes them count."""
    return write_rows(folder / "withdrawn", tombstones)


def read_tombstones(folder: Path, withdrawals: Sequence[Withdrawal]) -> pa.Table:
    """All tombstones of some withdrawals.

    Raises:
        DamageError: a file of them is missing or damaged.
    """
    return pa.concat_tables(
        [COLUMNS.empty_table(), *(_read(folder, w.tombstones, w.n_bytes) for w in withdrawals)]
    )


def is_withdrawn(cells: pa.Table, tombstones: pa.Table, uuid: str) -> NDArray[np.bool_]:
    """Which rows of `cells`-to-be are of withdrawn cells: the same counts, or the same barcode."""
    if not tombstones.num_rows:
        return np.zeros(cells.num_rows, dtype=np.bool_)
    contents = set(tombstones.column("content_hash").to_pylist())
    barcodes = set(tombstones.column("barcode_hash").to_pylist())
    pairs = zip(cells.column("content_hash").to_pylist(), _barcode_hashes(cells, uuid), strict=True)
    return np.array(
        [content in contents or name in barcodes for content, name in pairs], dtype=bool
    )


def refuse_withdrawn(
    folder: Path, version: int, files: Mapping[Path, int], withdrawals: Sequence[Withdrawal]
) -> None:
    """Refuse a snapshot that holds cells which were withdrawn later.

    Raises:
        WithdrawnError: how many, why, and what to do.
    """
    if not withdrawals:
        return
    tombstones = read_tombstones(folder, withdrawals)
    connection = open_engine()
    connection.register("x", tombstones)
    rows = select_rows(files, pa.schema([("cell_id", pa.int64())]))
    row = connection.execute(
        f"SELECT count(*) FROM ({rows}) c SEMI JOIN x USING (cell_id)"
    ).fetchone()
    connection.close()
    n_cells = int(row[0]) if row else 0
    if n_cells:
        last = withdrawals[-1]
        reasons = "; ".join(dict.fromkeys(w.reason for w in withdrawals))
        raise WithdrawnError(
            f"{folder}: snapshot {version} holds {n_cells} cells that were withdrawn since "
            f"({reasons}): open snapshot {last.snapshot} or a newer one; what was made from "
            f"snapshot {version} (a run, a tag) must be made anew"
        )


@lru_cache(maxsize=64)
def _read(folder: Path, name: str, n_bytes: int) -> pa.Table:
    path = folder / "withdrawn" / name
    check_file(path, n_bytes, path.stem)
    return read_table(path).cast(COLUMNS)


def _barcode_hashes(cells: pa.Table, uuid: str) -> list[bytes]:
    key = bytes.fromhex(uuid)
    pairs = zip(
        cells.column("source_id").to_pylist(), cells.column("barcode").to_pylist(), strict=True
    )
    return [
        hashlib.blake2b(f"{source}\0{barcode}".encode(), digest_size=16, key=key).digest()
        for source, barcode in pairs
    ]
