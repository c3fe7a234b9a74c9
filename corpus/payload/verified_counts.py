"""The counts of a segment, cell-major and gene-major, held against its account of them.

Knows no file's bytes and no table's columns: `corpus.verification` has checked those. Both forms
are summed into the same content hashes: two sums of 64 bits a cell that do not depend on order. So
both forms are compared with `cells.parquet` and, through it, with each other, and neither is ever
held whole.

Memory: some chunks or one row group at a time (under 10 MB), and some 150 bytes a cell and 100 a
gene of the segment.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...platform.errors import DamageError
from ..content import mix_first, mix_second
from ..sketches import LOWEST_BIN, N_BINS, TABLE, Binning, Sketch
from .arrays import CountsReader
from .integrity import WAY_OUT

_CHUNKS_AT_ONCE = 4
_EXPRESSION = ("gene", "row", "count")


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """What a segment's tables say of its counts.

    Attributes:
        n_nonzero: stored counts.
        words: each gene's words, see `content.gene_words`, turned. Shape (2, n_genes).
        n_counts: each cell's denominator. Shape (n_cells,), int64.
        totals: each cell's sum of stored counts. Shape (n_cells,), int64.
        hashes: each cell's content hash. Shape (n_cells, 2), uint64.
        sketch: the stored sketch, its `gene_ids` ascending.
        gene_cells: cells that express each gene. Shape (n_genes,), int64.
        gene_totals: each gene's sum of counts. Shape (n_genes,), int64.
    """

    n_nonzero: int
    words: NDArray[np.uint64]
    n_counts: NDArray[np.int64]
    totals: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    sketch: Sketch
    gene_cells: NDArray[np.int64]
    gene_totals: NDArray[np.int64]


def _no_sums(n_cells: int) -> NDArray[np.uint64]:
    """Of each cell the two lanes of its content hash, its total, and nothing: half a cache line."""
    return np.zeros((n_cells, 4), dtype=np.uint64)


def _problems_of_sums(sums: NDArray[np.uint64], where: Path, account: Account) -> Iterator[str]:
    totals = sums[:, 2].astype(np.int64)
    wrong = np.flatnonzero(totals != account.totals)
    if wrong.size:
        row = int(wrong[0])
        yield (
            f"{where}: the counts of row {row} sum to {totals[row]}, cells.parquet says "
            f"{account.totals[row]} ({wrong.size} rows differ)"
        )
    wrong = np.flatnonzero((sums[:, :2] != account.hashes).any(axis=1))
    if wrong.size:
        yield (
            f"{where}: the contents of row {wrong[0]} are not those hashed in cells.parquet "
            f"({wrong.size} rows differ)"
        )


def problems_of_array(reader: CountsReader, where: Path, account: Account) -> list[str]:
    """What is wrong with the cell-major counts.

    Args:
        reader: the open arrays, whose `indptr` ascends from 0.
        where: what to name in messages.
        account: what the tables say.
    """
    n_cells = len(account.totals)
    if (reader.n_cells, int(reader.indptr[-1])) != (n_cells, account.n_nonzero):
        return [
            f"{where} has {reader.n_cells} rows and {reader.indptr[-1]} counts, expected "
            f"{n_cells} and {account.n_nonzero}"
        ]
    sums = _no_sums(n_cells)
    last = np.full(n_cells, -1, dtype=np.int64)
    for first, indices, counts in reader.blocks(_CHUNKS_AT_ONCE):
        row = int(np.searchsorted(reader.indptr, first, side="right")) - 1
        given = (reader.indptr, indices, counts, account.words, last, sums)
        row, wrong = _add_cells(first, row, *given)
        if wrong:
            return [f"{where}: row {row}: {_WRONG[wrong]}"]
    return list(_problems_of_sums(sums, where, account))


def problems_of_expression(files: Sequence[Path], where: Path, account: Account) -> list[str]:
    """What is wrong with the gene-major counts, the statistics of genes, or the sketch.

    Args:
        files: the Parquet files in order.
        where: what to name in messages.
        account: what the tables say.
    """
    n_genes = len(account.sketch.gene_ids)
    sums = _no_sums(len(account.totals))
    gene_cells = np.zeros(n_genes, dtype=np.int64)
    gene_totals = np.zeros(n_genes, dtype=np.int64)
    tally = np.zeros(N_BINS, dtype=np.int64)
    state = np.array([-1, -1], dtype=np.int64)  # the gene and row of the last place
    binning = Binning.of(account.n_counts)
    place_of = {str(gene_id): i for i, gene_id in enumerate(account.sketch.gene_ids)}
    sketch = (account.sketch.indptr, account.sketch.bins, account.sketch.n_values)
    for path in files:
        for genes, codes, rows, counts in _row_groups(path, place_of):
            if rows.size and int(rows.max()) >= len(account.totals):
                return [f"{path}: row {rows.max()}, expected below {len(account.totals)}"]
            large = binning.large_bins(rows, counts)
            given = (genes, codes, rows, counts, binning.small, large, account.words)
            wrong = _add_genes(*given, sums, gene_cells, gene_totals, tally, state, *sketch)
            if wrong:
                gene_id = account.sketch.gene_ids[state[0]] if state[0] >= 0 else "?"
                return [f"{path}: gene {gene_id}, row {state[1]}: {_WRONG[wrong]}"]
    if state[0] >= 0 and not _is_sketched(state[0], tally, gene_cells, *sketch):
        return [f"{where}: gene {account.sketch.gene_ids[state[0]]}: {_WRONG[_SKETCH]}"]
    problems = list(_problems_of_sums(sums, where, account))
    named = {
        "n_cells": (gene_cells, account.gene_cells),
        "total": (gene_totals, account.gene_totals),
    }
    named["values in the sketch"] = (gene_cells, account.sketch.n_cells())
    for name, (found, said) in named.items():
        wrong_genes = np.flatnonzero(found != said)
        if wrong_genes.size:
            gene = int(wrong_genes[0])
            problems.append(
                f"{where}: {name} of gene {account.sketch.gene_ids[gene]} is {found[gene]}, "
                f"statistics.parquet says {said[gene]} ({wrong_genes.size} genes differ)"
            )
    return problems


def _row_groups(path: Path, place_of: dict[str, int]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Row groups as genes, codes (places in `genes`), rows and counts."""
    try:
        # The file has just been hashed whole: the checksums of its pages would say no more.
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=list(_EXPRESSION))
                if any(column.null_count for column in table.columns):
                    raise DamageError(f"{path}: row group {group} holds NULL: {WAY_OUT}")
                gene, row, count = table.columns
                if gene.num_chunks > 1:
                    gene = gene.unify_dictionaries()
                codes = gene.combine_chunks()
                names = codes.dictionary.to_pylist()
                unknown = [name for name in names if name not in place_of]
                if unknown:
                    raise DamageError(f"{path} has a gene {unknown[0]!r}, the segment has not")
                genes = np.array([place_of[name] for name in names], dtype=np.int64)
                yield genes, codes.indices.to_numpy(), row.to_numpy(), count.to_numpy()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamageError(f"{path} cannot be read ({error}): {WAY_OUT}") from error


_ORDER, _ZERO, _SKETCH = 1, 2, 3
_WRONG = {
    _ORDER: "the places do not ascend strictly, or are beyond the last gene",
    _ZERO: "a stored count is 0",
    _SKETCH: "the sketch in statistics.parquet is not that of these counts",
}


@numba.njit(cache=True, nogil=True)
def _add_cells(
    first: int,
    row: int,
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    counts: NDArray[Any],
    words: NDArray[np.uint64],
    last: NDArray[np.int64],
    sums: NDArray[np.uint64],
) -> tuple[int, int]:  # pragma: no cover - compiled
    """Add non-zeros from number `first` on; tell the last row seen and what is wrong with it."""
    stop, n_genes = first + len(indices), len(words[0])
    first_words, second_words = words[0], words[1]
    while row < len(sums) and indptr[row] < stop:
        begin, end = max(indptr[row], first) - first, min(indptr[row + 1], stop) - first
        # Two loops without branches: the first makes the second's places safe.
        unsorted, zeros, total = 0, 0, np.int64(0)
        for place in range(begin, end):
            zeros += counts[place] == 0
            total += counts[place]
        for place in range(begin + 1, end):
            unsorted += indices[place] <= indices[place - 1]
        if begin < end:
            unsorted += indices[begin] <= last[row] or indices[end - 1] >= n_genes
            last[row] = indices[end - 1]
        if unsorted or zeros:
            return row, _ORDER if unsorted else _ZERO
        one, two = np.uint64(0), np.uint64(0)
        for place in range(begin, end):
            gene, count = indices[place], np.uint64(counts[place])
            one += mix_first(first_words[gene], count)
            two += mix_second(second_words[gene], count)
        sums[row, 0] += one
        sums[row, 1] += two
        sums[row, 2] += np.uint64(total)
        row += 1
    return row, 0


@numba.njit(cache=True, nogil=True)
def _is_sketched(
    gene: int,
    tally: NDArray[np.int64],
    gene_cells: NDArray[np.int64],
    starts: NDArray[np.int64],
    bins: NDArray[np.int16],
    n_values: NDArray[np.int64],
) -> bool:  # pragma: no cover - compiled
    """Whether a gene's tally is that of the sketch; where it is, the tally is 0 again."""
    left = gene_cells[gene]
    for place in range(starts[gene], starts[gene + 1]):
        slot = bins[place] - LOWEST_BIN
        if slot < 0 or slot >= N_BINS or tally[slot] != n_values[place]:
            return False
        tally[slot] = 0
        left -= n_values[place]
    return left == 0


@numba.njit(cache=True, nogil=True)
def _add_genes(
    genes: NDArray[np.int64],
    codes: NDArray[np.int32],
    rows: NDArray[np.uint32],
    counts: NDArray[np.uint32],
    small_bins: NDArray[np.int16],
    large_bins: NDArray[np.int16],
    words: NDArray[np.uint64],
    sums: NDArray[np.uint64],
    gene_cells: NDArray[np.int64],
    gene_totals: NDArray[np.int64],
    tally: NDArray[np.int64],
    state: NDArray[np.int64],
    sketch_starts: NDArray[np.int64],
    sketch_bins: NDArray[np.int16],
    sketch_n_values: NDArray[np.int64],
) -> int:  # pragma: no cover - compiled
    """Add places in their order; a gene that is through is held against its sketch."""
    mixed = np.empty((TABLE, 2), dtype=np.uint64)
    place, n_large = 0, 0
    while place < len(codes):
        code = codes[place]
        if code < 0 or code >= len(genes):
            return _ORDER
        gene = genes[code]
        if gene != state[0]:
            if gene < state[0]:
                return _ORDER
            if state[0] >= 0 and not _is_sketched(
                state[0], tally, gene_cells, sketch_starts, sketch_bins, sketch_n_values
            ):
                return _SKETCH
            state[0], state[1] = gene, -1
        for small in range(1, TABLE):  # a gene's small counts mix the same in every cell
            mixed[small, 0] = mix_first(words[0, gene], np.uint64(small))
            mixed[small, 1] = mix_second(words[1, gene], np.uint64(small))
        previous, total, begin = state[1], np.int64(0), place
        while place < len(codes) and codes[place] == code:
            row, count = np.int64(rows[place]), counts[place]
            if row <= previous:
                return _ORDER
            if count == 0:
                return _ZERO
            previous = row
            total += np.int64(count)
            sums[row, 2] += np.uint64(count)
            if count < TABLE:
                sums[row, 0] += mixed[count, 0]
                sums[row, 1] += mixed[count, 1]
                tally[small_bins[row, count] - LOWEST_BIN] += 1
            else:
                sums[row, 0] += mix_first(words[0, gene], np.uint64(count))
                sums[row, 1] += mix_second(words[1, gene], np.uint64(count))
                tally[large_bins[n_large] - LOWEST_BIN] += 1
                n_large += 1
            place += 1
        state[1] = previous
        gene_cells[gene] += place - begin
        gene_totals[gene] += total
    return 0
