"""Whether a segment is what was written: its bytes, its tables, its counts. Knows no snapshot.

Deep verification reads every byte anew, whatever this process has read before. Then the parts are
held against each other, which tells a writer's mistake from a disk's: hashes are right in both.
Where bytes are wrong, what they say is not read. Two threads: one for the array, one for the
expression index. Memory: that of `corpus.verified_counts`, and the segment's tables.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from ...platform.errors import CytolakeError, DamageError, StorageError
from ...platform.places import is_mirrored
from ...platform.storage import sha256_file
from .. import content
from ..schema import CELL_COLUMNS, POSITION_BITS, VAR_COLUMNS
from ..sketches import Sketch
from .companions import problems_of_companions
from .records import SegmentRecord
from .segments import Segment
from .verified_counts import Account, problems_of_array, problems_of_expression

_STATISTICS = ("n_cells", "total", "bins", "n_values")


def verify_segment(folder: Path, deep: bool = False, *, sha256: str | None = None) -> list[str]:
    """What is wrong with a segment; an empty list where nothing is.

    Safe to call from several threads, each for another segment.

    Args:
        folder: the segment's folder.
        deep: read every byte, and hold the counts against all that is said of them; else only
            the record and the sizes of files are looked at.
        sha256: the hash of the `segment.json` that was committed, where it is known.

    Raises:
        StorageError: the bucket that it is in cannot be reached.
    """
    try:
        record = SegmentRecord.load(folder, sha256)
        problems = list(record.problems_of_sizes())
        if problems or not deep:
            return problems
        record.bring_anew()
        return _deep(record)
    except StorageError:  # a bucket out of reach is no damage
        raise
    except (CytolakeError, OSError) as error:
        return [str(error)]


def _deep(record: SegmentRecord) -> list[str]:
    problems = list(_unknown_files(record))
    tables, array, expression = _parts(record)
    damaged = _damaged(record, tables)
    if damaged:
        return [*problems, *damaged, *_damaged(record, [*array, *expression])]
    with ThreadPoolExecutor(2) as pool:
        hashing = [pool.submit(_damaged, record, names) for names in (array, expression)]
        cells = _read(record, "cells", CELL_COLUMNS.names)
        genes = _read(record, "statistics", [*VAR_COLUMNS.names, *_STATISTICS])
        contradictions = [*_problems_of_cells(record, cells), *_problems_of_genes(record, genes)]
        damaged = [problem for job in hashing for problem in job.result()]
        if damaged or contradictions:  # the counts cannot be held against such an account
            return [*problems, *damaged, *contradictions]
        account = _account(record, cells, genes)
        files = [record.folder / name for name in expression]
        where = record.folder / "expression"
        by_gene = pool.submit(problems_of_expression, files, where, account)
        problems += _problems_of_group(record, cells, genes)
        reader = Segment.open(record.folder).counts
        problems += problems_of_array(reader, record.folder / "rna.zarr/X", account)
        problems += problems_of_companions(record)
        return problems + by_gene.result()


def _read(record: SegmentRecord, name: str, needed: Iterable[str]) -> pa.Table:
    """A table whose bytes have just been hashed: checksums of pages would say no more."""
    path = record.folder / f"{name}.parquet"
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DamageError(f"{path} cannot be read: {error}") from error
    for column in needed:
        if column not in table.column_names:
            raise DamageError(f"{path} lacks the column {column!r}")
    return table


def _parts(record: SegmentRecord) -> tuple[list[str], list[str], list[str]]:
    """The names of the tables, of the array's files and of the expression index's."""
    names = sorted(record.files)
    array = [name for name in names if name.startswith("rna.zarr/")]
    expression = [name for name in names if name.startswith("expression/")]
    others = set(array) | set(expression)
    return [name for name in names if name not in others], array, expression


def _damaged(record: SegmentRecord, names: Iterable[str]) -> list[str]:
    problems: list[str] = []
    for name in names:
        _, sha256 = record.files[name]
        path = record.folder / name
        try:
            found = sha256_file(path)
        except (CytolakeError, OSError) as error:
            problems.append(f"{path} cannot be read: {error}")
            continue
        if found != sha256:
            sums = f"sha256 {found:.12}, not {sha256:.12}"
            problems.append(f"{path} has other bytes than were written ({sums})")
    return problems


def _unknown_files(record: SegmentRecord) -> Iterator[str]:
    for path in sorted(record.folder.rglob("*")):
        name = path.relative_to(record.folder).as_posix()
        if is_mirrored(path) and path.name.startswith(".") and path.name.endswith(".tmp"):
            continue  # of a fetch that was killed
        if not path.is_dir() and name != "segment.json" and name not in record.files:
            yield f"{path} is no file of the segment: remove it"


def _problems_of_cells(record: SegmentRecord, cells: pa.Table) -> Iterator[str]:
    """Rows, ids and names in `cells.parquet`; numbers of rows of its neighbours."""
    where, n_cells = record.folder / "cells.parquet", record.n_cells
    heights = {
        name: pq.read_metadata(record.folder / f"{name}.parquet").num_rows
        for name in ("obs", "dropped")
    }
    heights["cells"] = cells.num_rows
    for name, expected in {"cells": n_cells, "obs": n_cells, "dropped": record.n_dropped}.items():
        if heights[name] != expected:
            yield f"{where.with_stem(name)} has {heights[name]} rows, expected {expected}"
    if cells.num_rows != n_cells:
        return
    rows = np.arange(n_cells, dtype=np.int64)
    same = {"segment": record.segment_id}
    ids = cells.column("cell_id").to_numpy()
    if record.provenance.get("cell_ids", "block") == "block":
        same["source_id"] = str(record.provenance["source_id"])
        if (ids != (record.block << POSITION_BITS) + rows).any():
            yield f"{where}: cell_id is not block << {POSITION_BITS} | row"
    elif len(np.unique(ids)) != n_cells:
        yield f"{where}: a cell_id appears twice"
    if (cells.column("row").to_numpy() != rows).any():
        yield f"{where}: the rows are not numbered from 0 to {n_cells - 1} in order"
    for name, expected in same.items():
        if set(cells.column(name).unique().to_pylist()) - {expected}:
            yield f"{where}: a cell has another {name} than {expected!r}"
    for name in ("n_counts", "n_counts_stored", "content_hash", "barcode"):
        if cells.column(name).null_count:
            yield f"{where}: {name} holds NULL"


def _problems_of_genes(record: SegmentRecord, genes: pa.Table) -> Iterator[str]:
    """Names and totals in `statistics.parquet`."""
    where = record.folder / "statistics.parquet"
    gene_ids = genes.column("gene_id").to_pylist()
    if len(gene_ids) != record.n_genes:
        yield f"{where} has {len(gene_ids)} genes, expected {record.n_genes}"
    if None in gene_ids or any(a >= b for a, b in pairwise(gene_ids)):
        yield f"{where}: the genes do not ascend, each once"
    for name in _STATISTICS:
        if genes.column(name).null_count:
            yield f"{where}: {name} holds NULL"
            return
    lengths = [
        np.concatenate([chunk.value_lengths().to_numpy() for chunk in genes.column(name).chunks])
        for name in ("bins", "n_values")
        if genes.num_rows
    ]
    if len({array.tobytes() for array in lengths}) > 1:
        yield f"{where}: a gene has not as many bins as values in them"
    found = {"n_nonzero": genes.column("n_cells"), "total": genes.column("total")}
    for name, column in found.items():
        value = int(column.to_numpy().sum())
        if value != getattr(record, name):
            yield f"{where}: {name} is {value}, segment.json says {getattr(record, name)}"


def _problems_of_group(record: SegmentRecord, cells: pa.Table, genes: pa.Table) -> Iterator[str]:
    """The names that AnnData's readers see are those of the tables."""
    folder = record.folder / "rna.zarr"
    shape = zarr.open_group(folder / "X", mode="r").attrs.get("shape")
    if shape != [record.n_cells, record.n_genes]:
        yield f"{folder}/X says its shape is {shape}, not {[record.n_cells, record.n_genes]}"
    columns = {f"var/{name}": genes.column(name).fill_null("") for name in VAR_COLUMNS.names}
    columns["obs/barcode"] = cells.column("barcode")
    if record.n_cells:
        columns["obs/n_counts"] = cells.column("n_counts")
    for name, expected in columns.items():
        found: Any = zarr.open_array(folder / name, mode="r")[:]
        if found.tolist() != expected.to_pylist():
            yield f"{folder / name} says otherwise than the segment's tables"


def _account(record: SegmentRecord, cells: pa.Table, genes: pa.Table) -> Account:
    sketch = Sketch.from_table(genes)
    return Account(
        n_nonzero=record.n_nonzero,
        words=np.ascontiguousarray(content.gene_words(map(str, sketch.gene_ids)).T),
        n_counts=cells.column("n_counts").to_numpy(),
        totals=cells.column("n_counts_stored").to_numpy(),
        hashes=content.from_binary(cells.column("content_hash")),
        sketch=sketch,
        gene_cells=genes.column("n_cells").to_numpy(),
        gene_totals=genes.column("total").to_numpy(),
    )
