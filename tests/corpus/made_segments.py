"""Segments of random cells by the real writer, and ways to damage them or to make them lie."""

import json
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cytolake.corpus.cells import CellBatch
from cytolake.corpus.content import content_hashes, content_keys
from cytolake.corpus.features import FeatureBatch
from cytolake.corpus.payload.records import SegmentRecord
from cytolake.corpus.payload.verification import verify_segment
from cytolake.corpus.payload.writing import write_segment


def made_batch(n_cells: int, n_genes: int, *, seed: int, highest: int = 40) -> CellBatch:
    """Random cells; most counts are 1, some reach `highest`; the first cell is empty."""
    rng = np.random.default_rng(seed)
    counts = rng.geometric(0.6, (n_cells, n_genes)) * (rng.random((n_cells, n_genes)) < 0.3)
    if counts.size:
        counts[rng.integers(n_cells), rng.integers(n_genes)] = highest
        counts[0] = 0
    rows, indices = np.nonzero(counts)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_cells))])
    stored, indices = counts[rows, indices].astype(np.uint32), indices.astype(np.int32)
    gene_ids = [f"ENSG{i:011d}" for i in range(n_genes)]
    hashes = content_hashes(gene_ids, indptr.astype(np.int64), indices, stored)
    n_counts = counts.sum(axis=1).astype(np.int64) + rng.integers(0, 9, n_cells)
    obs = {
        "barcode": [f"C{i}" for i in range(n_cells)],
        "organism": ["Homo sapiens"] * n_cells,
        "n_counts": n_counts,
        "n_genes": np.diff(indptr).astype(np.int32),
        "mito_fraction": pa.nulls(n_cells, pa.float64()),
    }
    return CellBatch(
        gene_ids=np.array(gene_ids, dtype=object),
        indptr=indptr.astype(np.int64),
        indices=indices,
        counts=stored,
        n_counts=n_counts,
        content_keys=content_keys(hashes),
        obs=pa.table(obs),
    )


def with_features(folder: Path, batch: CellBatch, **features: FeatureBatch) -> SegmentRecord:
    """Write the batch and its other modalities as a segment, with nothing else in it."""
    return write_segment(
        folder,
        folder.name,
        batch,
        pa.table({"gene_id": list(batch.gene_ids)}),
        pa.table({"k": [0] * batch.n_cells}),
        pa.table({"barcode": pa.array([], pa.string())}),
        {"corpus_uuid": "u", "source_id": "a", "source_sha256": "b", "first_row": 0},
        features=features,
    )


def made_segment(folder: Path, batch: CellBatch, **provenance: Any) -> Path:
    """Write the batch as a segment."""
    var = {"gene_id": list(batch.gene_ids), "symbol": [f"S{i}" for i in range(batch.n_genes)]}
    write_segment(
        folder,
        folder.name,
        batch,
        pa.table(var),
        pa.table({"cluster": pa.array([f"k{i % 7}" for i in range(batch.n_cells)], pa.string())}),
        pa.table({"barcode": ["D0", "D1"], "reason": ["total_counts"] * 2}),
        {"corpus_uuid": "u", "source_id": "a", "source_sha256": "b", "first_row": 0, **provenance},
    )
    return folder


def copied(folder: Path, target: Path) -> Path:
    """A copy whose files may be changed; it keeps the segment's name."""
    shutil.copytree(folder, target / folder.name)
    for path in (target / folder.name).rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target / folder.name


def files_of(folder: Path) -> list[str]:
    """The relative names of all files of a segment, ascending."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(found)


def record_sha256(folder: Path) -> str:
    """The hash of `segment.json`, as a commit keeps it."""
    return sha256((folder / "segment.json").read_bytes()).hexdigest()


@contextmanager
def damaged(path: Path, data: bytes | None) -> Generator[None]:
    """Other bytes in a file, or no file at all, for a while."""
    good = path.read_bytes()
    try:
        path.unlink() if data is None else path.write_bytes(data)
        yield
    finally:
        path.write_bytes(good)


def flipped(data: bytes, place: int, bit: int) -> bytes:
    """The same bytes but for one bit."""
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    return bytes(changed)


def sealed(folder: Path, **said: Any) -> Path:
    """Make the record true to the files as they are now: a writer's mistake, not a disk's."""
    path = folder / "segment.json"
    values = json.loads(path.read_bytes()) | said
    values["files"] = {
        name: [len(data := (folder / name).read_bytes()), sha256(data).hexdigest()]
        for name in files_of(folder)
        if name != "segment.json"
    }
    path.write_text(json.dumps(values))
    return folder


def retold(folder: Path, name: str, column: str, change: Callable[[list[Any]], Any]) -> None:
    """Change a column of one of the Parquet files."""
    table = pq.read_table(folder / name)
    place = table.schema.get_field_index(column)
    values = change(table.column(column).to_pylist())
    new = pa.array(values, table.schema.field(column).type)
    pq.write_table(table.set_column(place, table.schema.field(column), new), folder / name)


def unnoticed(sound: Path, part: str, tmp_path: Path) -> list[str]:
    """The faults in a part of a segment that verify does not find: each file flipped and lost."""
    seal, silent = record_sha256(sound), list[str]()
    for name in part_of(sound, part):
        folder = copied(sound, tmp_path / name.replace("/", "-"))
        data = bytearray((folder / name).read_bytes())
        if data:
            data[len(data) // 2] ^= 4
            (folder / name).write_bytes(data)
            if not verify_segment(folder, deep=True, sha256=seal):
                silent.append(f"{name}: a flipped bit")
        (folder / name).unlink()
        if not verify_segment(folder, sha256=seal):
            silent.append(f"{name}: lost")
    return silent


def part_of(folder: Path, part: str) -> list[str]:
    """The files of a part of a segment, ascending."""
    return [name for name in files_of(folder) if name.startswith(part)]
