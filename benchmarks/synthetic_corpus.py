"""A corpus of synthetic cells, written by the corpus's own writers without an ingest.

Knows segments and commits; knows no file format and no quality rule (only cells without a single
count are dropped).
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from cytolake import __version__
from cytolake.corpus.cells import CellBatch
from cytolake.corpus.content import content_hashes, content_keys
from cytolake.corpus.log.receipts import Receipt
from cytolake.corpus.payload.records import SegmentRecord
from cytolake.corpus.payload.writing import write_segment
from cytolake.corpus.schema import DROPPED_COLUMNS
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import SourceError
from cytolake.platform.progress import progress
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.source_statistics import Statistics
from benchmarks.synthetic import Block, Prepared, generate_prepared, prepare
from benchmarks.synthetic_h5ad import donor, sample

SHALLOW = 30.0
FEWEST_MITOCHONDRIAL = 5


def var_table(statistics: Statistics) -> pa.Table:
    """The genes as a segment's gene table."""
    return pa.table(
        {
            "gene_id": list(statistics.gene_ids),
            "symbol": list(statistics.symbols),
            "biotype": list(statistics.biotypes),
            # The reference gives a biotype to every gene that it knows.
            "mapping": ["ensembl" if biotype else "retired" for biotype in statistics.biotypes],
            "source_name": list(statistics.gene_ids),
        }
    )


def cell_batches(
    statistics: Statistics,
    sizes: Sequence[int],
    seed: int,
    *,
    depth: float | None = None,
    source: int = 0,
) -> Iterator[CellBatch]:
    """The cells of one source as batches of the corpus, with genes as in `var_table`.

    Args:
        statistics: of a real source.
        sizes: how many cells each batch is to hold; the cells do not depend on the cut.
        seed: see `synthetic.generate`.
        depth: mean genes seen a cell; that of the statistics where None.
        source: number of the source.
    """
    yield from _batches(statistics, prepare(statistics, depth), sizes, seed, source)


def _batches(
    statistics: Statistics, prepared: Prepared, sizes: Sequence[int], seed: int, source: int
) -> Iterator[CellBatch]:
    waiting: list[CellBatch] = []
    blocks = generate_prepared(prepared, sum(sizes), seed, source=source)
    for size in sizes:
        while sum(batch.n_cells for batch in waiting) < size:
            waiting.append(_batch(statistics, next(blocks), source))
        joined = _joined(waiting, statistics)
        yield joined.take(np.arange(size))
        waiting = [joined.take(np.arange(size, joined.n_cells))]


def _batch(statistics: Statistics, block: Block, source: int) -> CellBatch:
    hashes = content_hashes(statistics.gene_ids, block.indptr, block.indices, block.counts)
    mitochondrial_g = np.array([name.startswith("MT-") for name in statistics.symbols])
    n_counts = block.n_counts
    measured = mitochondrial_g.sum() >= FEWEST_MITOCHONDRIAL
    share = block.totals_of(mitochondrial_g) / np.maximum(n_counts, 1)
    obs = {
        "barcode": pa.array(block.barcodes.tolist(), pa.string()),
        "cell_type": pa.array([statistics.cell_types[k] for k in block.type_c], pa.string()),
        "donor_id": pa.array([donor(source, s) for s in block.sample_c], pa.string()),
        "technical_batch": pa.array([sample(source, s) for s in block.sample_c], pa.string()),
        "n_counts": n_counts,
        "n_genes": np.diff(block.indptr).astype(np.int32),
        "mito_fraction": share if measured else pa.nulls(block.n_cells, pa.float64()),
    }
    obs |= {name: [value] * block.n_cells for name, value in statistics.facts.items()}
    return CellBatch(
        gene_ids=np.array(statistics.gene_ids, dtype=object),
        indptr=block.indptr,
        indices=block.indices,
        counts=block.counts,
        n_counts=n_counts,
        content_keys=content_keys(hashes),
        obs=pa.table(obs),
    )


def _joined(batches: Sequence[CellBatch], statistics: Statistics) -> CellBatch:
    lengths = [np.diff(batch.indptr) for batch in batches]
    indptr = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return CellBatch(
        gene_ids=np.array(statistics.gene_ids, dtype=object),
        indptr=indptr,
        indices=np.concatenate([batch.indices for batch in batches]),
        counts=np.concatenate([batch.counts for batch in batches]),
        n_counts=np.concatenate([batch.n_counts for batch in batches]),
        content_keys=np.concatenate([batch.content_keys for batch in batches]),
        obs=pa.concat_tables([batch.obs for batch in batches]).combine_chunks(),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticSource:
    """A source that is to be made.

    Attributes:
        number: another number, other cells.
        sizes: cells generated for each of its segments.
    """

    number: int
    sizes: tuple[int, ...]

    @property
    def name(self) -> str:
        """Its name in a corpus."""
        return f"synthetic-{self.number:04d}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cells:
    """The law that the cells of some sources follow.

    Attributes:
        statistics: of a real source; `keep_genes` makes segments cheaper to write.
        seed: see `synthetic.generate`.
        depth: mean genes seen a cell; that of the statistics where None.
    """

    statistics: Statistics
    seed: int
    depth: float | None = SHALLOW

    def sha256(self, source: SyntheticSource) -> str:
        """What stands for the hash of the source's file."""
        origin = sorted(self.statistics.origin.items())
        told = f"{source.name} seed {self.seed} depth {self.depth} cells {list(source.sizes)}"
        words = f"{told} of {origin}".encode()
        return hashlib.sha256(words + self.statistics.totals_kg.tobytes()).hexdigest()


def equal_sources(n_cells: int, n_segments: int, n_sources: int) -> list[SyntheticSource]:
    """Equal sources of equal segments, as even as the numbers allow.

    Raises:
        SourceError: fewer cells than segments or segments than sources.
    """
    if not n_cells >= n_segments >= n_sources >= 1:
        raise SourceError(
            f"{n_cells} cells in {n_segments} segments of {n_sources} sources: expected at least "
            "one cell a segment and one segment a source"
        )
    first_segment, first_cell = _cuts(n_segments, n_sources), _cuts(n_cells, n_segments)
    sizes = [stop - start for start, stop in pairwise(first_cell)]
    return [
        SyntheticSource(number=number, sizes=tuple(sizes[start:stop]))
        for number, (start, stop) in enumerate(pairwise(first_segment))
    ]


def write_sources(
    corpus: Corpus,
    cells: Cells,
    sources: Sequence[SyntheticSource],
    *,
    around: Callable[[int], AbstractContextManager[object]] = lambda _: nullcontext(),
) -> Iterator[tuple[Receipt, list[SegmentRecord]]]:
    """Write the segments of sources, one source after the other; nothing is committed.

    Args:
        corpus: whose segments they become.
        cells: what the cells are like.
        sources: which ones to write.
        around: entered around each segment's writing, with its number of cells; the making of its
            cells is outside.

    Yields:
        A source's receipt and its segments.
    """
    var, prepared = var_table(cells.statistics), prepare(cells.statistics, cells.depth)
    for source in sources:
        records: list[SegmentRecord] = []
        provenance: dict[str, str | int] = {
            "corpus_uuid": corpus.uuid,
            "source_id": source.name,
            "source_sha256": cells.sha256(source),
            "first_row": 0,
        }
        batches = _batches(cells.statistics, prepared, source.sizes, cells.seed, source.number)
        for number, batch in enumerate(batches):
            with around(batch.n_cells):
                segment_id = f"{source.name}-{number:05d}"
                records.append(_write(corpus, segment_id, batch, var, provenance))
            provenance = {**provenance, "first_row": sum(source.sizes[: number + 1])}
        yield receipt_of(source, cells, records), records


def build_corpus(
    folder: Path,
    statistics: Statistics,
    n_cells: int,
    n_segments: int,
    n_sources: int,
    seed: int,
    *,
    depth: float | None = SHALLOW,
    console: Console | None = None,
) -> Corpus:
    """Make a corpus of `equal_sources`.

    A source is committed as soon as its segments stand. Cells without a count (there are some in
    shallow corpora) are dropped for `total_counts`, and the receipts say so. No source is called a
    panel, however few its genes: medians take them all.

    Args:
        folder: empty, or not there.
        statistics: see `Cells`.
        n_cells: cells generated.
        n_segments: over all sources.
        n_sources: each with a hash of its own.
        seed: see `synthetic.generate`.
        depth: see `Cells`.
        console: where to show progress; standard error where None.

    Returns:
        The corpus at its newest snapshot.

    Raises:
        SourceError: fewer cells than segments or segments than sources.
        CorpusError: the folder holds something.
    """
    sources = equal_sources(n_cells, n_segments, n_sources)
    corpus, cells = Corpus.create(folder), Cells(statistics=statistics, seed=seed, depth=depth)
    with progress("building a corpus", n_cells, "cells", console=console) as bar:

        @contextmanager
        def advancing(n_written: int) -> Generator[None]:
            yield
            bar.advance(n_written)

        for receipt, records in write_sources(corpus, cells, sources, around=advancing):
            corpus.commit_source(receipt, records)
    return Corpus.open(folder)


def _cuts(n_things: int, n_parts: int) -> list[int]:
    """Where each of some even parts begins, and the end."""
    return [n_things * part // n_parts for part in range(n_parts + 1)]


def _write(
    corpus: Corpus,
    segment_id: str,
    cells: CellBatch,
    var: pa.Table,
    provenance: dict[str, str | int],
) -> SegmentRecord:
    kept: NDArray[np.int64] = np.flatnonzero(np.diff(cells.indptr))
    empty = cells.obs.take(pa.array(np.flatnonzero(np.diff(cells.indptr) == 0)))
    dropped = empty.select(["barcode", "n_counts", "n_genes", "mito_fraction"])
    reasons = pa.array(["total_counts"] * dropped.num_rows, pa.string())
    chosen = cells.take(kept)
    return write_segment(
        corpus.segments_folder / segment_id,
        segment_id,
        chosen,
        var,
        chosen.obs.select(["cell_type", "donor_id"]).append_column(
            "sample", chosen.obs.column("technical_batch")
        ),
        dropped.append_column("reason", reasons).select(DROPPED_COLUMNS.names),
        provenance,
    )


def receipt_of(source: SyntheticSource, cells: Cells, records: Sequence[SegmentRecord]) -> Receipt:
    """The account of a source whose segments are written."""
    n_dropped = sum(record.n_dropped for record in records)
    n_genes = cells.statistics.n_genes
    mapping = var_table(cells.statistics).column("mapping").to_pylist()
    return Receipt(
        source_id=source.name,
        uri=f"synthetic:{source.name}",
        sha256=cells.sha256(source),
        n_bytes=sum(size for record in records for size, _ in record.files.values()),
        reader="synthetic",
        layer="X",
        n_read=sum(source.sizes),
        n_kept=sum(record.n_cells for record in records),
        dropped={"total_counts": n_dropped} if n_dropped else {},
        thresholds={"total_counts_low": 1.0},
        genes={"n_read": n_genes, "n_mapped": n_genes, "n_summed": 0, **Counter(mapping)},
        recipe_hash=hashlib.sha256(b"synthetic").hexdigest(),
        versions={"cytolake": __version__},
        units=tuple(record.segment_id for record in records),
    )
