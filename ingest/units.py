"""Work units: a bounded range of a source, measured in pass 1, prepared as a segment in pass 2.

Knows surveys and segments; knows no commit and no Ray. A unit prepared before (and killed before
its source was committed) is adopted if it verifies.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
from numpy.typing import NDArray
from scipy import sparse

from ..corpus import content
from ..corpus.cells import CellBatch
from ..corpus.payload.records import SegmentRecord
from ..corpus.payload.verification import verify_segment
from ..corpus.payload.writing import write_segment
from ..platform.configuration import Configuration
from ..platform.errors import NotRawCountsError
from ..platform.faults import durable
from ..platform.storage import publish, remove_durably, storing_in, sync_file
from .metadata import annotations, burdened
from .proof import checked_counts
from .quality import DUPLICATE, CellMeasures, Thresholds, join_measures, measure, reasons
from .sources.protocol import RawBlock
from .survey import Opened, Survey


class Unit(Configuration):
    """Rows `start` to `stop` of a source."""

    source_id: str
    start: int
    stop: int


class PreparedUnit(Configuration):
    """What became of a unit.

    Attributes:
        unit: the unit.
        segment: folder of its segment.
        n_kept: cells kept.
        dropped: cells dropped, by reason.
        pid: the process that prepared it, or that adopted it.
        adopted: whether the segment was there already, from a run that was ended.
    """

    unit: Unit
    segment: Path
    n_kept: int
    dropped: dict[str, int]
    pid: int
    adopted: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Raw counts of some rows of a source.

    Attributes:
        rows: the rows in the source, ascending. Shape (n_rows,).
        matrix: counts, rows x the source's names, int64, no stored zeros.
    """

    rows: NDArray[np.int64]
    matrix: sparse.csr_matrix


def units_of(survey: Survey) -> list[Unit]:
    """A source's units."""
    step = survey.cells_per_unit
    return [
        Unit(source_id=survey.source_id, start=start, stop=min(start + step, survey.n_cells))
        for start in range(0, survey.n_cells, step)
    ]


def segment_id_of(survey: Survey, unit: Unit) -> str:
    """A name that the same unit of the same bytes under the same recipe always gets."""
    words = (survey.sha256, survey.recipe_hash, survey.layer, unit.source_id, unit.start, unit.stop)
    return hashlib.sha256("\n".join(map(str, words)).encode()).hexdigest()[:32]


def counts_of(opened: Opened, unit: Unit) -> Iterator[Counts]:
    """A unit's raw counts, every value tested, rows with one barcode summed into the first.

    Raises:
        NotRawCountsError: a value is no count; the message names its place.
    """
    blocks = opened.source.blocks(opened.survey.layer, unit.start, unit.stop)
    for block in blocks:
        counts = _tested(opened, block)
        rows = np.arange(block.start, block.start + block.n_cells, dtype=np.int64)
        duplicates = opened.duplicates
        if len(duplicates.rows):
            counts = _with_duplicates(opened, rows, counts)
            kept = ~np.isin(rows, duplicates.rows)
            rows, counts = rows[kept], sparse.csr_matrix(counts[np.flatnonzero(kept)])
        yield Counts(rows=rows, matrix=counts)


def measure_unit(opened: Opened, unit: Unit) -> Path:
    """Pass 1: measure a unit's cells and leave the measures in the staging folder.

    Returns:
        An Arrow file with the columns row, n_counts, n_genes, n_mitochondrial, n_coding.

    Raises:
        NotRawCountsError: a value of the unit is no count.
        StorageError: the disk says no.
    """
    name = f"measures-{opened.survey.layer.replace('/', '-')}-{unit.start}-{unit.stop}.arrow"
    path = opened.survey.folder / name
    if path.exists():
        return path
    parts = [(part.rows, measure(part.matrix, opened.genes)) for part in counts_of(opened, unit)]
    joined = join_measures([measures for _, measures in parts])
    table = pa.table(
        {
            "row": np.concatenate([np.zeros(0, dtype=np.int64), *(rows for rows, _ in parts)]),
            "n_counts": joined.n_counts_c,
            "n_genes": joined.n_genes_c,
            "n_mitochondrial": joined.n_mitochondrial_c,
            "n_coding": joined.n_coding_c,
        }
    )
    with storing_in(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        with durable("measures/write"):
            feather.write_feather(table, unfinished)
            sync_file(unfinished)
        publish(unfinished, path, "measures")
    return path


def read_measures(paths: list[Path]) -> CellMeasures:
    """The measures of a source's units, in the source's order."""
    table = pa.concat_tables([feather.read_table(path) for path in paths])
    return CellMeasures(
        n_counts_c=table.column("n_counts").to_numpy(),
        n_genes_c=table.column("n_genes").to_numpy(),
        n_mitochondrial_c=table.column("n_mitochondrial").to_numpy(),
        n_coding_c=table.column("n_coding").to_numpy(),
    )


def prepare_unit(
    opened: Opened, unit: Unit, thresholds: Thresholds, *, segments: Path, corpus_uuid: str
) -> PreparedUnit:
    """Pass 2: judge a unit's cells and write its segment, or adopt the one that is there.

    Args:
        opened: the unit's source.
        unit: the unit.
        thresholds: of the whole source, frozen in pass 1.
        segments: the corpus's folder of segments.
        corpus_uuid: the corpus's own name.
    """
    segment_id = segment_id_of(opened.survey, unit)
    folder = segments / segment_id
    if folder.exists():
        if not verify_segment(folder):
            return _prepared(unit, SegmentRecord.load(folder), adopted=True)
        # never committed: its source would have been "nothing added"
        remove_durably(folder, "segment")
    parts = list(_judged(opened, unit, thresholds))
    n_kept = sum(part.kept.num_rows for part in parts)
    duplicates = opened.duplicates.rows
    n_summed = int(((duplicates >= unit.start) & (duplicates < unit.stop)).sum())
    dropped = pa.concat_tables([*(part.dropped for part in parts), _summed_rows(opened, unit)])
    by_reason = _count(dropped.column("reason").to_pylist())
    batch = _batch(opened, parts)
    record = write_segment(
        folder,
        segment_id,
        batch,
        opened.genes.var,
        pa.concat_tables([part.own for part in parts]),
        dropped,
        {
            "corpus_uuid": corpus_uuid,
            "source_id": unit.source_id,
            "source_sha256": opened.survey.sha256,
            "first_row": unit.start,
            "stop_row": unit.stop,
            "recipe_hash": opened.survey.recipe_hash,
            "layer": opened.survey.layer,
            "thresholds": thresholds.bounds,
            "dropped": by_reason,
            "pid": os.getpid(),
        },
    )
    if n_kept + dropped.num_rows != unit.stop - unit.start or n_summed != by_reason.get(
        DUPLICATE, 0
    ):
        raise NotRawCountsError(f"{opened.survey.path}: unit {unit} lost count of its rows")
    return _prepared(unit, record, adopted=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """The cells of one block: those kept, and the dropped ones."""

    matrix: sparse.csr_matrix
    kept: pa.Table
    own: pa.Table
    dropped: pa.Table


def _judged(opened: Opened, unit: Unit, thresholds: Thresholds) -> Iterator[_Part]:
    for counts in counts_of(opened, unit):
        rows = counts.rows
        start, stop = _span(rows, unit)
        own = opened.own_columns(start, stop).take(pa.array(rows - start))
        lifted = annotations(opened.survey.entry, own, len(rows))
        measures = measure(counts.matrix, opened.genes)
        why = reasons(measures, thresholds, burdened(opened.survey.entry, own, lifted, len(rows)))
        fractions = measures.mito_fraction_c
        unknown = np.isnan(fractions) | (not opened.genes.measures_mitochondria)
        measured = {
            "barcode": pa.array([str(name) for name in opened.barcodes[rows]], pa.string()),
            "n_counts": pa.array(measures.n_counts_c),
            "n_genes": pa.array(measures.n_genes_c),
            "mito_fraction": pa.array(fractions, mask=unknown),
        }
        stays = np.flatnonzero(why == "")
        goes = np.flatnonzero(why != "")
        yield _Part(
            matrix=opened.genes.sum_genes(sparse.csr_matrix(counts.matrix[stays])),
            kept=pa.table({**measured, **lifted}).take(pa.array(stays)),
            own=own.take(pa.array(stays)),
            dropped=pa.table({"reason": pa.array(why, pa.string()), **measured}).take(
                pa.array(goes)
            ),
        )


def _batch(opened: Opened, parts: list[_Part]) -> CellBatch:
    matrix = sparse.csr_matrix(sparse.vstack([part.matrix for part in parts], format="csr"))
    kept = pa.concat_tables([part.kept for part in parts])
    return cell_batch(opened.genes.gene_ids, matrix, kept)


def cell_batch(
    gene_ids: NDArray[np.object_], matrix: sparse.csr_matrix, obs: pa.Table
) -> CellBatch:
    """Counts by gene and their cells' columns (`n_counts` among them) as a CellBatch."""
    indptr = matrix.indptr.astype(np.int64)
    indices = matrix.indices.astype(np.int32, copy=False)
    counts = matrix.data.astype(np.uint32)
    hashes = content.content_hashes([str(name) for name in gene_ids], indptr, indices, counts)
    return CellBatch(
        gene_ids=gene_ids,
        indptr=indptr,
        indices=indices,
        counts=counts,
        n_counts=obs.column("n_counts").to_numpy(),
        content_keys=content.content_keys(hashes),
        obs=obs,
    )


def _tested(opened: Opened, block: RawBlock) -> sparse.csr_matrix:
    survey = opened.survey
    return checked_counts(opened.source, survey.layer, block, survey.recover_total)


def _with_duplicates(
    opened: Opened, rows: NDArray[np.int64], counts: sparse.csr_matrix
) -> sparse.csr_matrix:
    """The counts with those of later rows of the same barcode added."""
    duplicates = opened.duplicates
    mine = np.flatnonzero(np.isin(duplicates.into, rows))
    if not mine.size:
        return counts
    layer = opened.survey.layer
    runs = np.split(duplicates.rows[mine], np.flatnonzero(np.diff(duplicates.rows[mine]) != 1) + 1)
    later = [
        _tested(opened, block)
        for run in runs
        for block in opened.source.blocks(layer, int(run[0]), int(run[-1]) + 1)
    ]
    place = np.searchsorted(rows, duplicates.into[mine])
    shape = (len(rows), len(mine))
    adding = sparse.csr_matrix(
        (np.ones(len(mine), dtype=np.int64), (place, np.arange(len(mine)))), shape=shape
    )
    summed = sparse.csr_matrix(counts + adding @ sparse.vstack(later, format="csr"))
    summed.sort_indices()
    return summed


def _summed_rows(opened: Opened, unit: Unit) -> pa.Table:
    """The rows of the unit that were added to an earlier row, as rows of `dropped`."""
    rows = opened.duplicates.rows
    rows = rows[(rows >= unit.start) & (rows < unit.stop)]
    n_rows = len(rows)
    return pa.table(
        {
            "reason": pa.array([DUPLICATE] * n_rows, pa.string()),
            "barcode": pa.array([str(name) for name in opened.barcodes[rows]], pa.string()),
            "n_counts": pa.nulls(n_rows, pa.int64()),
            "n_genes": pa.nulls(n_rows, pa.int32()),
            "mito_fraction": pa.nulls(n_rows, pa.float64()),
        }
    )


def _span(rows: NDArray[np.int64], unit: Unit) -> tuple[int, int]:
    """The range of the source that holds some rows; rows without any give an empty one."""
    return (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (unit.start, unit.start)


def _prepared(unit: Unit, record: SegmentRecord, *, adopted: bool) -> PreparedUnit:
    return PreparedUnit(
        unit=unit,
        segment=record.folder,
        n_kept=record.n_cells,
        dropped=dict(record.provenance["dropped"]),
        pid=os.getpid() if adopted else int(record.provenance["pid"]),
        adopted=adopted,
    )


def _count(words: list[str]) -> dict[str, int]:
    return {word: words.count(word) for word in sorted(set(words))}
