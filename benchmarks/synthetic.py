"""Cells of any number like those of a real source, from its statistics; written as h5ad.

Knows what a source looks like in numbers (`source_statistics`); knows no corpus.

A cell draws a type, a size (the type's quantiles of counts a cell) and, for each gene, a count of
the negative binomial law with that gene's share and dispersion. Genes of one type and size vary
independently; donors and samples are labels without an effect on counts.

Cells come in blocks of 512. A block's Philox generator is keyed by (seed, block) and counts from
the number of the source; each of its cells gets a key of its own for the words that its counts are
drawn from. So a cell depends on seed, source and its number alone: not on how many cells are asked
for, nor on how they are cut. (numpy does not promise the same Poisson draws in every version.)

Array suffixes: c cell, g gene, k cell type, n stored non-zero.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from cytolake.platform.errors import CytolakeError, SourceError
from cytolake.platform.progress import progress
from cytolake.platform.screen import remarks, results, table
from cytolake.platform.settings import load_settings
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.likeness import likeness
from benchmarks.negative_binomial import alias_table, draw_counts
from benchmarks.source_statistics import (
    QUANTILES,
    Statistics,
    default_statistics,
    expected_cells,
    learn,
)

BLOCK_CELLS = 512
N_DONORS = 4
SAMPLES_PER_DONOR = 2
LIKENESS_CELLS = 4096
_OFTEN = 4.0
"""Genes of so many counts a cell (in one type at least) are drawn by gamma and Poisson numbers:
two for each gene and cell, instead of one word for each count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Some cells, in order.

    Attributes:
        first: number of the first cell in its source.
        indptr: where each cell's non-zeros begin and end. Shape (n_cells + 1,), int64.
        indices: places of genes, ascending within a cell. Shape (n_nonzero,), int32.
        counts: raw counts, all > 0. Shape (n_nonzero,), uint32.
        barcodes: sixteen letters and `-1`, unique within a source. Shape (n_cells,), str.
        type_c: places in the statistics' `cell_types`. Shape (n_cells,), int64.
        sample_c: number of the sample; two of a donor. Shape (n_cells,), int64.
    """

    first: int
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    counts: NDArray[np.uint32]
    barcodes: NDArray[np.str_]
    type_c: NDArray[np.int64]
    sample_c: NDArray[np.int64]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.indptr) - 1

    @property
    def n_counts(self) -> NDArray[np.int64]:
        """Each cell's counts. Shape (n_cells,)."""
        return self.totals_of(np.ones(int(self.indices.max(initial=0)) + 1, dtype=bool))

    def totals_of(self, chosen_g: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Each cell's counts of some genes. Shape (n_cells,)."""
        counts = np.where(chosen_g[self.indices], self.counts, 0)
        running = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        return running[self.indptr[1:]] - running[self.indptr[:-1]]

    def to_csr(self, n_genes: int) -> sparse.csr_matrix:
        """The counts as float32 CSR, cells x genes."""
        parts = (self.counts.astype(np.float32), self.indices, self.indptr)
        return sparse.csr_matrix(parts, shape=(self.n_cells, n_genes))


def generate(
    statistics: Statistics,
    n_cells: int,
    seed: int,
    *,
    depth: float | None = None,
    source: int = 0,
) -> Iterator[Block]:
    """Cells like those of the statistics, a block at a time: memory does not grow with `n_cells`.

    Args:
        statistics: of a real source.
        n_cells: how many cells.
        seed: the same seed gives the same cells, >= 0.
        depth: mean genes seen a cell; that of the statistics where None. All sizes are scaled by
            one factor; shares and dispersions of genes stay.
        source: number of the source: other cells under the same seed.

    Yields:
        Blocks of 512 cells; the last may hold fewer.

    Raises:
        SourceError: a negative number, or a depth that these genes cannot reach.
    """
    yield from generate_prepared(prepare(statistics, depth), n_cells, seed, source=source)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What all blocks of a run share.

    Attributes:
        share_k: running share of the types among cells. Shape (n_types,).
        sizes_kq: quantiles of counts a cell, scaled to the depth. Shape (n_types, 101).
        often: places of the genes whose counts are drawn directly. Shape (n_often,).
        profile_ko: their shares of counts. Shape (n_types, n_often).
        dispersion_o: their dispersions, > 0. Shape (n_often,).
        rest_k: share of counts of all other genes. Shape (n_types,).
        alias_kg: the other genes' alias tables. Shape (n_types, n_genes).
        spread_kg: share of counts times dispersion. Shape (n_types, n_genes).
    """

    share_k: NDArray[np.float64]
    sizes_kq: NDArray[np.float64]
    often: NDArray[np.int64]
    profile_ko: NDArray[np.float64]
    dispersion_o: NDArray[np.float64]
    rest_k: NDArray[np.float64]
    alias_kg: NDArray[np.uint64]
    spread_kg: NDArray[np.float32]


def prepare(statistics: Statistics, depth: float | None = None) -> Prepared:
    """Make the tables that cells are drawn from; see `generate` for `depth` and errors."""
    profiles_kg = statistics.profiles()
    scale = 1.0 if depth is None else scale_to_depth(statistics, depth)
    mean_g = statistics.cells_k @ profiles_kg / statistics.n_cells * statistics.mean_counts * scale
    often = np.flatnonzero(mean_g >= _OFTEN)
    rest_kg = profiles_kg.copy()
    rest_kg[:, often] = 0
    rest_k = rest_kg.sum(axis=1)
    tables = [alias_table(rest_g / max(rest_g.sum(), 1e-300)) for rest_g in rest_kg]
    return Prepared(
        share_k=np.cumsum(statistics.cells_k / statistics.n_cells),
        sizes_kq=statistics.sizes_kq * scale,
        often=often,
        profile_ko=profiles_kg[:, often],
        dispersion_o=np.maximum(statistics.dispersion_g[often], 1e-4),
        rest_k=rest_k,
        alias_kg=np.stack(tables),
        spread_kg=(profiles_kg * statistics.dispersion_g).astype(np.float32),
    )


def generate_prepared(
    prepared: Prepared, n_cells: int, seed: int, *, source: int = 0
) -> Iterator[Block]:
    """Cells from tables made before, as `generate` gives them."""
    if n_cells < 0 or seed < 0 or source < 0:
        raise SourceError(f"n_cells {n_cells}, seed {seed}, source {source}: expected none below 0")
    for block, first in enumerate(range(0, n_cells, BLOCK_CELLS)):
        philox = np.random.Philox(
            key=np.array([seed, block], dtype=np.uint64),
            counter=np.array([0, 0, 0, source], dtype=np.uint64),
        )
        draw = np.random.Generator(philox)
        # Every draw below is of a whole block, so that a shorter one begins with the same cells.
        type_c = np.searchsorted(prepared.share_k[:-1], draw.random(BLOCK_CELLS), side="right")
        rank_c = draw.random(BLOCK_CELLS)
        sample_c = draw.integers(0, N_DONORS * SAMPLES_PER_DONOR, BLOCK_CELLS)
        key_c = draw.integers(0, 2**64, BLOCK_CELLS, dtype=np.uint64)
        size_c = np.empty(BLOCK_CELLS)
        for k, sizes_q in enumerate(prepared.sizes_kq):
            of_type = type_c == k
            size_c[of_type] = np.interp(rank_c[of_type], QUANTILES, sizes_q)
        n_proposals_c = draw.poisson(size_c * prepared.rest_k[type_c])
        gamma_co = draw.standard_gamma(
            1 / prepared.dispersion_o, (BLOCK_CELLS, len(prepared.often))
        )
        mean_co = prepared.profile_ko[type_c] * size_c[:, None]
        often_co = draw.poisson(gamma_co * prepared.dispersion_o * mean_co)
        n_wanted = min(BLOCK_CELLS, n_cells - first)
        cells = slice(n_wanted)
        indptr, indices, counts = draw_counts(
            type_c[cells],
            size_c[cells],
            n_proposals_c[cells],
            key_c[cells],
            prepared.often,
            often_co[cells],
            prepared.alias_kg,
            prepared.spread_kg,
        )
        yield Block(
            first=first,
            indptr=indptr,
            indices=indices,
            counts=counts,
            barcodes=barcodes(first, n_wanted, seed, source),
            type_c=type_c[cells],
            sample_c=sample_c[cells],
        )


def scale_to_depth(statistics: Statistics, depth: float) -> float:
    """The factor on all sizes at which cells show `depth` genes in the mean.

    Raises:
        SourceError: a depth that is no positive number, or beyond the genes there are.
    """
    profiles_kg = statistics.profiles()

    def genes_seen(scale: float) -> float:
        sizes_kq, cells_k = statistics.sizes_kq * scale, statistics.cells_k
        cells_g = expected_cells(profiles_kg, sizes_kq, cells_k, statistics.dispersion_g)
        return float(cells_g.sum()) / statistics.n_cells

    low, high = -10.0, 10.0  # natural logarithms of the factor
    if not 0 < depth < genes_seen(float(np.exp(high))):
        raise SourceError(
            f"depth {depth}: expected genes seen a cell, above 0 and well below the "
            f"{statistics.n_genes} genes of the statistics"
        )
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if genes_seen(float(np.exp(middle))) < depth else (low, middle)
    return float(np.exp(low))


def barcodes(first: int, n_cells: int, seed: int, source: int = 0) -> NDArray[np.str_]:
    """Names of cells: a keyed one-to-one map of 32 bits, spelt in sixteen letters of A, C, G, T.

    Unique below 2**32 cells of a source. Shape (n_cells,).
    """
    key = np.random.Philox(key=np.array([seed, source], dtype=np.uint64), counter=1).random_raw(2)
    start, stir = int(key[0]) & 0xFFFFFFFF, int(key[1]) & 0xFFFFFFFF
    number = np.arange(first, first + n_cells, dtype=np.uint64) + np.uint64(start)
    low = np.uint64(0xFFFFFFFF)
    for factor in (0x7FEB352D, 0x846CA68B):  # odd: a product modulo 2**32 can be undone
        number = (number & low) ^ np.uint64(stir)
        number ^= number >> np.uint64(16)
        number = (number * np.uint64(factor)) & low
    number ^= number >> np.uint64(15)
    places = (number[:, None] >> np.arange(0, 32, 2, dtype=np.uint64)) & np.uint64(3)
    letters = np.frombuffer(b"ACGT", dtype="S1")[places.astype(np.int64)]
    words = np.ascontiguousarray(letters).view("S16").ravel().astype(str)
    return np.char.add(words, "-1")


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(
    help="Write synthetic cells like those of a real source, as an h5ad file.",
    epilog="Example: python -m benchmarks.synthetic cells.h5ad --cells 100000 --seed 0 "
    "--compression gzip --depth 2000",
)
def write(
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    cells: Annotated[int, typer.Option(help="How many cells.", min=1)] = 10_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same cells.", min=0)] = 0,
    compression: Annotated[
        Literal["gzip"] | None, typer.Option(help="`gzip`; not compressed where left out.")
    ] = None,
    depth: Annotated[
        float | None,
        typer.Option(help="Mean genes seen a cell; as in the real source where left out."),
    ] = None,
    statistics: Annotated[
        Path | None,
        typer.Option(
            help="Statistics of a source, an .npz; where left out those of pbmc3k if "
            "CYTOLAKE_RESOURCES holds it, else of the 700 cells that scanpy ships."
        ),
    ] = None,
    save_statistics: Annotated[
        Path | None, typer.Option(help="Write the statistics used to this .npz, too.")
    ] = None,
) -> None:
    """Write the file, then tell rate, size and likeness."""
    from benchmarks.synthetic_h5ad import write_h5ad

    try:
        known = Statistics.load(statistics) if statistics else default_statistics(load_settings())
        if save_statistics is not None:
            known.save(save_statistics)
        first: list[Block] = []
        began = time.perf_counter()
        with progress("writing cells", cells, "cells") as bar:

            def watch(block: Block) -> None:
                bar.advance(block.n_cells)
                if block.first < LIKENESS_CELLS:
                    first.append(block)

            write_h5ad(out, known, cells, seed, compression=compression, depth=depth, watch=watch)
        seconds = time.perf_counter() - began
    except (CytolakeError, OSError) as error:
        remarks().print(f"{type(error).__name__}: {error}", markup=False)
        raise typer.Exit(1) from error
    made = learn_blocks(known, first)
    figures = {
        "cells": cells,
        "genes": known.n_genes,
        "genes seen a cell": made.mean_nonzeros,
        "counts a cell": made.mean_counts,
        "cells/s, written": cells / seconds,
        "MB": out.stat().st_size / 1e6,
    }
    results().print(table([figures], title=str(out)))
    title = (
        f"likeness of the first {made.n_cells:,} cells to {known.origin.get('file', 'its source')}"
    )
    results().print(table(likeness(known, made).rows(), title=title))


def learn_blocks(statistics: Statistics, blocks: Sequence[Block]) -> Statistics:
    """What cells made from some statistics look like in turn."""
    type_c = np.concatenate([block.type_c for block in blocks])
    counts = sparse.vstack([block.to_csr(statistics.n_genes) for block in blocks], format="csr")
    return learn(
        sparse.csr_matrix(counts),
        statistics.gene_ids,
        cell_types=[statistics.cell_types[k] for k in type_c],
        symbols=statistics.symbols,
        biotypes=statistics.biotypes,
        facts=statistics.facts,
        origin={"file": "synthetic"},
    )


if __name__ == "__main__":
    app()
