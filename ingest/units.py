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
from ..corpus.features import ABUNDANCE, FeatureBatch
from ..corpus.payload.records import SegmentRecord
from ..corpus.payload.verification import verify_segment
from ..corpus.payload.writing import write_segment
from ..corpus.sparse_counts import Rows
from ..platform.configuration import Configuration
from ..platform.errors import NotRawCountsError
from ..platform.places import is_there
from ..platform.storage import remove_durably
from .companions import tested
from .doublets import RowScores, read_scores, score_column
from .judging import (
    Judged,
    Unit,
    counts_of,
    filtered_rows,
    judge_unit,
    own_columns,
    with_duplicates,
)
from .quality import DUPLICATE, CellMeasures, Thresholds, join_measures, measure
from .sources.companions import Companion
from .staging import leaving
from .survey import Opened, Survey

_VERDICT = 2
"""Raised when the same settings come to judge cells otherwise: what an older cytolake prepared,
and never committed, is then not adopted beside new units."""


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


def segment_id_of(survey: Survey, unit: Unit) -> str:
    """A name that the same unit of the same bytes under the same recipe always gets."""
    source = (survey.sha256, survey.recipe_hash, survey.layer, unit.source_id)
    words = (*source, unit.start, unit.stop, _VERDICT)
    return hashlib.sha256("\n".join(map(str, words)).encode()).hexdigest()[:32]


def measure_unit(opened: Opened, unit: Unit) -> Path:
    """Pass 1: measure a unit's cells and leave the measures in the staging folder.

    Returns:
        An Arrow file with the columns row, n_counts, n_genes, n_mitochondrial, n_coding and
        passes (whether the source's filters let the cell pass).

    Raises:
        NotRawCountsError: a value of the unit is no count.
        StorageError: the disk says no.
    """
    name = f"measured-{opened.survey.layer.replace('/', '-')}-{unit.start}-{unit.stop}.arrow"
    path = opened.survey.folder / name
    if path.exists():
        return path
    parts = [
        (part.rows, measure(part.matrix, opened.genes), _passing(opened, unit, part.rows))
        for part in counts_of(opened, unit)
    ]
    joined = join_measures([measures for _, measures, _ in parts])
    table = pa.table(
        {
            "row": np.concatenate([np.zeros(0, dtype=np.int64), *(rows for rows, _, _ in parts)]),
            "n_counts": joined.n_counts_c,
            "n_genes": joined.n_genes_c,
            "n_mitochondrial": joined.n_mitochondrial_c,
            "n_coding": joined.n_coding_c,
            "passes": np.concatenate([np.zeros(0, dtype=bool), *(ok for _, _, ok in parts)]),
        }
    )
    with leaving(path, "measures") as unfinished:
        feather.write_feather(table, unfinished)
    return path


def read_measures(paths: list[Path]) -> CellMeasures:
    """The measures of a source's cells that its filters let pass, in the source's order."""
    table = pa.concat_tables([feather.read_table(path) for path in paths])
    return _measures_in(table.filter(table.column("passes")))


def all_measures(path: Path) -> CellMeasures:
    """The measures of a unit's cells, those that filters keep out included."""
    return _measures_in(feather.read_table(path))


def _measures_in(table: pa.Table) -> CellMeasures:
    return CellMeasures(
        n_counts_c=table.column("n_counts").to_numpy(),
        n_genes_c=table.column("n_genes").to_numpy(),
        n_mitochondrial_c=table.column("n_mitochondrial").to_numpy(),
        n_coding_c=table.column("n_coding").to_numpy(),
    )


def prepare_unit(
    opened: Opened,
    unit: Unit,
    thresholds: Thresholds,
    *,
    segments: Path,
    corpus_uuid: str,
    scores: tuple[Path, ...] = (),
) -> PreparedUnit:
    """Pass 2: judge a unit's cells and write its segment, or adopt the one that is there.

    Args:
        opened: the unit's source.
        unit: the unit.
        thresholds: of the whole source, frozen in pass 1.
        segments: the corpus's folder of segments.
        corpus_uuid: the corpus's own name.
        scores: the doublet scores of the source's samples; none where it was not asked for them.
    """
    segment_id = segment_id_of(opened.survey, unit)
    folder = segments / segment_id
    if is_there(folder / "segment.json"):
        if not verify_segment(folder):
            return _prepared(unit, SegmentRecord.load(folder), adopted=True)
        # never committed: its source would have been "nothing added"
        remove_durably(folder, "segment")
    doublets = read_scores(scores, opened.survey.n_cells) if scores else None
    parts = list(_parts(opened, unit, thresholds, doublets))
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
        features=_features(opened, parts),
    )
    if n_kept + dropped.num_rows != unit.stop - unit.start or n_summed != by_reason.get(
        DUPLICATE, 0
    ):
        raise NotRawCountsError(f"{opened.survey.path}: unit {unit} lost count of its rows")
    return _prepared(unit, record, adopted=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """The cells of one block: those kept (`rows` in the source), and the dropped ones.

    Of `matrix`, the block's counts by name, the rows `stays` are the kept cells.
    """

    rows: NDArray[np.int64]
    matrix: sparse.csr_matrix
    stays: NDArray[np.int64]
    kept: pa.Table
    own: pa.Table
    dropped: pa.Table


def _passing(opened: Opened, unit: Unit, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    if not opened.survey.entry.filters.columns:  # columns cost time to read
        return np.ones(len(rows), dtype=bool)
    why = filtered_rows(opened, own_columns(opened, rows, unit))
    return np.ones(len(rows), dtype=bool) if why is None else why == ""


def _parts(
    opened: Opened, unit: Unit, thresholds: Thresholds, doublets: RowScores | None
) -> Iterator[_Part]:
    rules = opened.survey.entry.doublets
    dropping = doublets is not None and rules is not None and rules.drop
    called = doublets.doublet_c if doublets is not None and dropping else None
    for cells in judge_unit(opened, unit, thresholds, called):
        yield _part(opened, cells, doublets)


def _part(opened: Opened, cells: Judged, doublets: RowScores | None) -> _Part:
    own, measures = cells.own, cells.measures
    if doublets is not None:
        score_c = doublets.score_c[cells.rows]
        scores = pa.array(score_c, mask=np.isnan(score_c))
        own = own.append_column(score_column(own.column_names), scores)
    fractions = measures.mito_fraction_c
    unknown = np.isnan(fractions) | (not opened.genes.measures_mitochondria)
    measured = {
        "barcode": pa.array([str(name) for name in opened.barcodes[cells.rows]], pa.string()),
        "n_counts": pa.array(measures.n_counts_c),
        "n_genes": pa.array(measures.n_genes_c),
        "mito_fraction": pa.array(fractions, mask=unknown),
    }
    stays = np.flatnonzero(cells.reason_c == "")
    goes = pa.array(np.flatnonzero(cells.reason_c != ""))
    dropped = pa.table({"reason": pa.array(cells.reason_c, pa.string()), **measured})
    return _Part(
        rows=cells.rows[stays],
        matrix=cells.matrix,
        stays=stays,
        kept=pa.table({**measured, **cells.lifted}).take(pa.array(stays)),
        own=own.take(pa.array(stays)),
        dropped=dropped.take(goes),
    )


def _features(opened: Opened, parts: list[_Part]) -> dict[str, FeatureBatch]:
    """The kept cells' other modalities, counts of rows of one barcode summed."""
    rows = np.concatenate([np.zeros(0, dtype=np.int64), *(part.rows for part in parts)])
    found: dict[str, FeatureBatch] = {}
    for modality, companion in opened.companions.items():

        def read(some: NDArray[np.int64], one: Companion = companion) -> sparse.csr_matrix:
            return one.read(some, tested)

        counts = with_duplicates(opened.duplicates, rows, read(rows), read)
        found[modality] = companion.batch(counts)
    if opened.abundance is not None:
        found[ABUNDANCE] = opened.abundance.batch(rows)
    return found


def _batch(opened: Opened, parts: list[_Part]) -> CellBatch:
    kept = pa.concat_tables([part.kept for part in parts])
    rows = opened.genes.sum_genes([(part.matrix, part.stays) for part in parts])
    return cell_batch(opened.genes.gene_ids, rows, kept)


def cell_batch(gene_ids: NDArray[np.object_], rows: Rows, obs: pa.Table) -> CellBatch:
    """Counts by gene (`Harmonised.sum_genes`) and their cells' columns as a CellBatch.

    Args:
        gene_ids: the genes. Shape (n_genes,).
        rows: the counts.
        obs: the cells' columns, `n_counts` among them.
    """
    indptr, indices, counts = rows
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
