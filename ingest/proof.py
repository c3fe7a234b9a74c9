"""Which layer holds raw counts, and the proof: every value a non-negative integer.

Knows sources and recovery; knows no corpus. Floats that are integers are integers.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from ..platform.errors import NotRawCountsError, SourceError, did_you_mean
from .recover import LARGEST_COUNT, recovery_offence, unrounded_counts
from .sources.protocol import Layer, RawBlock, Source, Triplets, find_layer, triplets_of

Recovery = Literal["log1p_cp10k"]
TOTALS = ("n_counts", "total_counts", "nCount_RNA", "n_umi", "nUMI")
"""Columns of obs that may hold the totals that log values were made with, the likeliest first."""

_FEWEST_NUMBERED = 20
"""So many values that follow one another are no chance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerChoice:
    """The layer that counts are taken from.

    Attributes:
        layer: the layer.
        n_tested: how many of its values the sample tested; ingest tests all.
        rejected: for each layer tried before, what spoke against it.
    """

    layer: Layer
    n_tested: int
    rejected: tuple[str, ...]


def count_offence(values: NDArray[Any]) -> int | None:
    """Position of the first value that is no raw count, None where all are. Shape (n_values,)."""
    if values.dtype.kind in "ub" and values.dtype.itemsize <= 4:
        return None
    first = int(_first_offence(values))
    return None if first < 0 else first


@numba.njit(cache=True, nogil=True)
def _first_offence(values: NDArray[Any]) -> int:  # pragma: no cover - compiled
    """Position of the first value that is no whole number from 0 to the largest count, else -1."""
    for place in range(len(values)):
        value = values[place]
        if not (value >= 0 and value <= LARGEST_COUNT and value == np.floor(value)):
            return place  # NaN is none of these
    return -1


def totals_column(source: Source, named: str | None) -> str:
    """The column of obs with the totals that log values were made with.

    Raises:
        SourceError: there is none.
    """
    columns = source.obs_columns()
    for name in [named] if named else TOTALS:
        if name in columns:
            return name
    raise SourceError(
        f"{source.path}: to recover counts, obs needs each cell's total; looked for "
        f"{named or ', '.join(TOTALS)} among {', '.join(columns) or 'no columns'}"
        f"{did_you_mean(named or TOTALS[0], columns)}; name it with `recover_total`"
    )


def totals_of(table: pa.Table, column: str) -> NDArray[np.float64]:
    """The totals of some cells; NaN where one is missing. Shape (n_cells,)."""
    values = table.column(column).combine_chunks()
    try:
        return values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SourceError(f"obs column {column!r} holds {values.type}, expected numbers") from error


def choose_layer(
    source: Source,
    *,
    named: str | None = None,
    recover: Recovery | None = None,
    recover_total: str | None = None,
    leave_out: tuple[str, ...] = (),
    rejected: tuple[str, ...] = (),
    bulk: bool = False,
) -> LayerChoice:
    """The first layer whose sample passes: raw counts, or what `recover` can undo.

    Args:
        source: the source.
        named: the layer that the user names; the only one tried then.
        recover: undo a normalisation instead of looking for counts.
        recover_total: the column of obs with the totals for `recover`.
        leave_out: layers that failed already when all their values were tested.
        rejected: what spoke against those.
        bulk: whether rows are bulk samples, whose expected counts could be rounded if asked for.

    Raises:
        NotRawCountsError: none passes.
        SourceError: the source has no such layer, or no totals to recover with.
    """
    layers = [find_layer(source, named)] if named else source.layers()
    total = totals_column(source, recover_total) if recover else None
    against = list(rejected)
    for layer in layers:
        if layer.name in leave_out:
            continue
        sample = source.sample(layer.name)
        fault = judge(source, layer.name, sample, total)
        if fault is None:
            n_tested = len(sample.values)
            return LayerChoice(layer=layer, n_tested=n_tested, rejected=tuple(against))
        against.append(fault)
    raise not_raw_counts(source, against, recovering=recover is not None, bulk=bulk)


def _numbers_its_genes(values: Triplets) -> bool:
    """Whether the values of the only cell are 1, 2, 3, ... in some order: a vocabulary's tokens."""
    found = np.sort(values.values)
    return (
        len(found) >= _FEWEST_NUMBERED
        and not values.cells.any()
        and bool((np.diff(found) == 1).all())
    )


def judge(source: Source, layer: str, values: Triplets, total: str | None) -> str | None:
    """What speaks against some values as counts, with its place; None where nothing does."""
    if not values.values.any():
        return f"{layer}: holds no value but 0"
    if _numbers_its_genes(values):
        return f"{layer}: numbers its genes one by one: a list of genes, not a cell"
    if total is None:
        offence = count_offence(values.values)
    else:
        unrounded = unrounded_counts(values.values, _totals_for(source, values, total))
        offence = recovery_offence(unrounded)
    if offence is None:
        return None
    value = float(values.values[offence])
    return describe_offence(
        source, layer, int(values.cells[offence]), int(values.genes[offence]), value
    )


def checked_counts(
    source: Source, layer: str, block: RawBlock, recover_total: str | None
) -> sparse.csr_matrix:
    """A block's counts as integers without stored zeros, after a test of every value.

    Args:
        source: where the block comes from.
        layer: the layer that it is of.
        block: the block.
        recover_total: the column of obs with the totals where counts are recovered.

    Returns:
        Counts, cells x the source's names of genes, uint32.

    Raises:
        NotRawCountsError: a value is no count; the message names its place.
    """
    matrix = block.matrix
    values: NDArray[Any] = matrix.data
    if recover_total is None:
        offence = count_offence(values)
    else:
        stop = block.start + block.n_cells
        totals = totals_of(source.obs(block.start, stop), recover_total)
        values = unrounded_counts(values, np.repeat(totals, np.diff(matrix.indptr)))
        offence = recovery_offence(values)
        values = np.rint(values)
    if offence is not None:
        at = triplets_of(block)
        cell, gene = int(at.cells[offence]), int(at.genes[offence])
        found = float(matrix.data[offence])
        raise NotRawCountsError(describe_offence(source, layer, cell, gene, found))
    whole = values.astype(np.uint32)
    counts = sparse.csr_matrix((whole, matrix.indices, matrix.indptr), shape=matrix.shape)
    if not whole.all():
        counts.eliminate_zeros()
    return counts


def describe_offence(source: Source, layer: str, cell: int, gene: int, value: float) -> str:
    """One line: the layer, and one value that is no raw count, with its place.

    The cell is told by its row, from 0: the line goes on record, where no barcode may stand.
    """
    name = next(iter(source.genes(layer).values()))[gene]
    return f"{layer}: {value!r} at row {cell}, gene {name}"


def not_raw_counts(
    source: Source, against: list[str], *, recovering: bool = False, bulk: bool = False
) -> NotRawCountsError:
    """The error for a source none of whose layers passes."""
    tried = "; ".join(against)
    if recovering:
        message = f"{source.path}: counts cannot be recovered as log1p CP10k. Tried {tried}"
    else:
        message = (
            f"{source.path}: no raw counts (non-negative integers) found. Tried {tried}. Give the "
            "file with the counts as they were measured"
        )
        if (place := recoverable_layer(source)) is not None:
            message += (
                f"; or, as {place} looks like log1p of counts per 10,000 and obs has "
                f'{totals_column(source, None)}, set recover = "log1p_cp10k" for this source'
            )
    if bulk and not recovering:
        message += (
            "; or, where they are expected counts of RSEM, salmon or kallisto (no TPM, FPKM or "
            'logarithms), set expected_counts = "round" for this source'
        )
    return NotRawCountsError(message)


def recoverable_layer(source: Source) -> str | None:
    """A layer whose sample gives integers when log1p CP10k is undone, None where there is none."""
    columns = source.obs_columns()
    total = next((name for name in TOTALS if name in columns), None)
    if total is None:
        return None
    for layer in source.layers():
        sample = source.sample(layer.name)
        if judge(source, layer.name, sample, total) is None:
            return layer.name
    return None


def _totals_for(source: Source, values: Triplets, column: str) -> NDArray[np.float64]:
    low = int(values.cells.min()) if len(values.cells) else 0
    high = int(values.cells.max()) + 1 if len(values.cells) else 0
    return totals_of(source.obs(low, high), column)[values.cells - low]
