"""The cells of a unit as the rules see them: counts, own columns, measures, and the verdict.

Knows surveys, filters and rules; knows no segment and no commit. Array suffix: c cell.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from ..platform.configuration import Configuration
from ..platform.errors import NotRawCountsError
from .filters import filter_reasons
from .metadata import annotations, burdened
from .proof import checked_counts
from .quality import CellMeasures, Thresholds, measure, reasons
from .recover import LARGEST_COUNT
from .sources.companions import rows_of
from .sources.protocol import RawBlock, Source
from .survey import Duplicates, Opened, Survey
from .unpacked import Counts, keeping, kept


class Unit(Configuration):
    """Rows `start` to `stop` of a source."""

    source_id: str
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """Some cells of a source, and what becomes of each.

    Attributes:
        rows: the rows in the source, ascending. Shape (n_cells,).
        matrix: counts, cells x the source's names, uint32.
        own: the source's own columns.
        lifted: the corpus's columns.
        measures: what the rules looked at.
        reason_c: the first rule that a cell failed, an empty string where it is kept.
    """

    rows: NDArray[np.int64]
    matrix: sparse.csr_matrix
    own: pa.Table
    lifted: dict[str, pa.Array]
    measures: CellMeasures
    reason_c: NDArray[np.object_]


def units_of(survey: Survey) -> list[Unit]:
    """A source's units."""
    step = survey.cells_per_unit
    return [
        Unit(source_id=survey.source_id, start=start, stop=min(start + step, survey.n_cells))
        for start in range(0, survey.n_cells, step)
    ]


def counts_of(opened: Opened, unit: Unit) -> Iterator[Counts]:
    """A unit's raw counts, every value tested, rows with one barcode summed into the first.

    Of a packed source they are kept as they pass, and come from there the next time.

    Raises:
        NotRawCountsError: a value is no count; the message names its place.
    """
    if not opened.survey.packed:
        return _tested_counts(opened, unit)
    layer = opened.survey.layer.replace("/", "-")
    path = opened.survey.folder / f"counts-{layer}-{unit.start}-{unit.stop}.arrow"
    if path.exists():
        return kept(path, opened.genes.n_names)
    return keeping(path, _tested_counts(opened, unit), opened.genes.n_names)


def _tested_counts(opened: Opened, unit: Unit) -> Iterator[Counts]:
    blocks = opened.source.blocks(opened.survey.layer, unit.start, unit.stop)
    for block in blocks:
        counts = _tested(opened, block)
        rows = np.arange(block.start, block.start + block.n_cells, dtype=np.int64)
        duplicates = opened.duplicates
        if len(duplicates.rows):
            counts = with_duplicates(duplicates, rows, counts, partial(_rows, opened))
            first = ~np.isin(rows, duplicates.rows)
            rows, counts = rows[first], sparse.csr_matrix(counts[np.flatnonzero(first)])
        yield Counts(rows=rows, matrix=counts)


def judge_unit(
    opened: Opened,
    unit: Unit,
    thresholds: Thresholds,
    doublet_c: NDArray[np.bool_] | None = None,
) -> Iterator[Judged]:
    """Judge a unit's cells by thresholds that are frozen.

    Args:
        opened: the unit's source.
        unit: the unit.
        thresholds: of the whole source.
        doublet_c: which rows of the whole source are to be dropped as doublets. Shape (n_rows,).
    """
    entry = opened.survey.entry
    for counts in counts_of(opened, unit):
        rows = counts.rows
        own = own_columns(opened, rows, unit)
        lifted = annotations(entry, own, len(rows))
        measures = measure(counts.matrix, opened.genes)
        yield Judged(
            rows=rows,
            matrix=counts.matrix,
            own=own,
            lifted=lifted,
            measures=measures,
            reason_c=reasons(
                measures,
                thresholds,
                burdened(entry, own, lifted, len(rows)),
                filtered_c=filtered_rows(opened, own),
                doublet_c=None if doublet_c is None else doublet_c[rows],
            ),
        )


def own_columns(opened: Opened, rows: NDArray[np.int64], unit: Unit) -> pa.Table:
    """The source's own columns of some rows of a unit."""
    start, stop = _span(rows, unit)
    return opened.own_columns(start, stop).take(pa.array(rows - start))


def filtered_rows(opened: Opened, own: pa.Table) -> NDArray[np.object_] | None:
    """What the source's filters say of some cells; None where it has none."""
    filters = opened.survey.entry.filters
    return filter_reasons(filters, own, own.num_rows) if filters.columns else None


def _rows(opened: Opened, rows: NDArray[np.int64]) -> sparse.csr_matrix:
    def tested(source: Source, layer: str, block: RawBlock) -> sparse.csr_matrix:
        return checked_counts(source, layer, block, opened.survey.recover_total)

    return rows_of(opened.source, opened.survey.layer, rows, tested, opened.genes.n_names)


def _tested(opened: Opened, block: RawBlock) -> sparse.csr_matrix:
    survey = opened.survey
    return checked_counts(opened.source, survey.layer, block, survey.recover_total)


def with_duplicates(
    duplicates: Duplicates,
    rows: NDArray[np.int64],
    counts: sparse.csr_matrix,
    read: Callable[[NDArray[np.int64]], sparse.csr_matrix],
) -> sparse.csr_matrix:
    """The counts with those of later rows of the same barcode added.

    Args:
        duplicates: of the source.
        rows: ascending rows of the source. Shape (n_rows,).
        counts: their counts.
        read: the counts of other rows.

    Raises:
        NotRawCountsError: a sum is no count any more.
    """
    mine = np.flatnonzero(np.isin(duplicates.into, rows))
    if not mine.size:
        return counts
    later = read(duplicates.rows[mine])
    place = np.searchsorted(rows, duplicates.into[mine])
    shape = (len(rows), len(mine))
    adding = sparse.csr_matrix(
        (np.ones(len(mine), dtype=np.int64), (place, np.arange(len(mine)))), shape=shape
    )
    summed = sparse.csr_matrix(counts + adding @ later)
    summed.sort_indices()
    if (largest := int(summed.max())) > LARGEST_COUNT:
        raise NotRawCountsError(
            f"rows of one barcode sum to {largest} counts of a gene, expected {LARGEST_COUNT} at "
            'most: set duplicate_barcodes = "keep"'
        )
    return sparse.csr_matrix(summed, dtype=np.uint32)


def _span(rows: NDArray[np.int64], unit: Unit) -> tuple[int, int]:
    """The range of the source that holds some rows; rows without any give an empty one."""
    return (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (unit.start, unit.start)
