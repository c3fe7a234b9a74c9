"""The table of commands that are killed: how each one's corpus is made, and what is then run.

Knows no fault. A command runs in a process of its own without Ray; run again after a death, it
finishes what is left, and run once more it changes nothing.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from cytolake.corpus.cells import CellBatch
from cytolake.corpus.change.annotation import annotate
from cytolake.corpus.change.deletion import delete, withdraw
from cytolake.corpus.change.restoring import restore
from cytolake.corpus.content import content_hashes, content_keys
from cytolake.corpus.log.commits import commit_source
from cytolake.corpus.log.receipts import Receipt
from cytolake.corpus.payload.records import SegmentRecord
from cytolake.corpus.payload.verification import verify_segment
from cytolake.corpus.payload.writing import write_segment
from cytolake.corpus.store import Corpus
from cytolake.corpus.upkeep.compaction import compact
from cytolake.corpus.upkeep.vacuum import vacuum
from numpy.typing import NDArray

N_CELLS = 24  # of a segment
N_GENES = 40
GENE_IDS = [f"ENSG{number:011}" for number in range(1, N_GENES + 1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """What is killed.

    Attributes:
        prepare: makes the starting corpus in a folder that is not there yet.
        run: the command itself, on a corpus that `prepare` made or that a death has left.
    """

    prepare: Callable[[Path], None]
    run: Callable[[Path], None]


def ingest_source(
    corpus: Corpus,
    name: str,
    *,
    lifted: str | None = None,
    replaced: str | None = None,
    like: str | None = None,
) -> None:
    """Prepare or adopt a source's two segments and commit them, as ingest does.

    Args:
        corpus: any handle of the corpus.
        name: what decides the cells; the source's name, unless it takes another's place.
        lifted: a column of the source's own to lift into `cells`.
        replaced: the source in whose place it comes.
        like: a source whose cells come once more, with three quarters of their genes.
    """
    records = [
        prepare_part(corpus, name, part, lifted, replaced or name, like) for part in range(2)
    ]
    receipt = Receipt(
        source_id=replaced or name,
        uri=f"/data/{name}.h5ad",
        sha256=_sha256(name),
        n_bytes=1000,
        reader="h5ad",
        layer="X",
        n_read=sum(record.n_cells + record.n_dropped for record in records),
        n_kept=sum(record.n_cells for record in records),
        dropped={"total_counts": sum(record.n_dropped for record in records)},
        units=tuple(record.segment_id for record in records),
    )
    commit_source(corpus.folder, receipt, records, replace=replaced is not None)


def prepare_part(
    corpus: Corpus,
    name: str,
    part: int,
    lifted: str | None = None,
    source_id: str = "",
    like: str | None = None,
) -> SegmentRecord:
    """Prepare or adopt one of a source's segments; see `ingest_source`."""
    folder = corpus.segments_folder / f"{name}-{part}"
    if folder.exists() and not verify_segment(folder):
        return SegmentRecord.load(folder)
    provenance = {
        "corpus_uuid": corpus.uuid,
        "source_id": source_id or name,
        "source_sha256": _sha256(name),
        "first_row": part * (N_CELLS + 1),
    }
    barcodes = [f"{like or name}-{part}-{number}" for number in range(N_CELLS + 1)]
    cells = _cells(like or name, barcodes[:-1], part, lifted)
    if like is not None:
        cells = with_fewer_genes(cells, N_GENES * 3 // 4)
    dropped = pa.table(
        {
            "barcode": barcodes[-1:],
            "reason": ["total_counts"],
            "n_counts": pa.array([1], pa.int64()),
            "n_genes": pa.array([1], pa.int32()),
            "mito_fraction": pa.nulls(1, pa.float64()),
        }
    )
    var = pa.table(
        {
            "gene_id": list(cells.gene_ids),
            "symbol": [f"GENE{number}" for number in range(cells.n_genes)],
            "biotype": ["protein_coding"] * cells.n_genes,
            "mapping": ["ensembl"] * cells.n_genes,
            "source_name": list(cells.gene_ids),
        }
    )
    own = pa.table({"cluster": [number % 3 for number in range(N_CELLS)]})
    return write_segment(folder, folder.name, cells, var, own, dropped, provenance)


def _cells(name: str, barcodes: list[str], part: int, lifted: str | None) -> CellBatch:
    """Cells that the source's name and the part decide, to the last count."""
    draw = np.random.default_rng([zlib.crc32(name.encode()), part])
    counts_cg = draw.poisson(0.7, size=(N_CELLS, N_GENES)).astype(np.uint32)
    return batch_of(counts_cg, GENE_IDS, name, barcodes, lifted)


def batch_of(
    counts_cg: NDArray[np.uint32],
    gene_ids: Sequence[str],
    name: str,
    barcodes: Sequence[str],
    lifted: str | None = None,
) -> CellBatch:
    """Counts as cells of a source: tissue, types and donors go by their places.

    Args:
        counts_cg: shape (n_cells, n_genes).
        gene_ids: of the genes.
        name: of the source, which is the tissue, too.
        barcodes: of the cells.
        lifted: a column of the source's own to lift into `cells`.
    """
    n_cells = len(counts_cg)
    rows, indices = np.nonzero(counts_cg)
    indptr = np.searchsorted(rows, np.arange(n_cells + 1)).astype(np.int64)
    counts, indices = counts_cg[rows, indices], indices.astype(np.int32)
    n_counts = counts_cg.sum(axis=1).astype(np.int64)
    columns = {
        "barcode": list(barcodes),
        "organism": ["Homo sapiens"] * n_cells,
        "tissue": [name] * n_cells,
        "cell_type": [("T cell", "B cell", None)[number % 3] for number in range(n_cells)],
        "donor_id": [f"{name}-d{number % 4}" for number in range(n_cells)],
        "n_counts": n_counts,
        "n_genes": (counts_cg > 0).sum(axis=1).astype(np.int32),
        "mito_fraction": pa.nulls(n_cells, pa.float64()),
    }
    if lifted is not None:
        columns[lifted] = [f"{name}-{number % 5}" for number in range(n_cells)]
    return CellBatch(
        gene_ids=np.array(gene_ids, dtype=object),
        indptr=indptr,
        indices=indices,
        counts=counts,
        n_counts=n_counts,
        content_keys=content_keys(content_hashes(gene_ids, indptr, indices, counts)),
        obs=pa.table(columns),
    )


def with_fewer_genes(cells: CellBatch, n_genes: int) -> CellBatch:
    """The same cells as someone else measured them: the first genes only."""
    dense = cells.to_csr().toarray()[:, :n_genes].astype(np.uint32)
    names = [str(gene_id) for gene_id in cells.gene_ids[:n_genes]]
    fewer = batch_of(dense, names, "", cells.obs.column("barcode").to_pylist())
    return replace(fewer, n_counts=cells.n_counts, obs=cells.obs)


def _sha256(name: str) -> str:
    return f"{zlib.crc32(name.encode()):08x}" * 8


def _link(folder: Path) -> None:
    ingest_source(Corpus.open(folder), "biopsy", like="lung")


def _replace(folder: Path) -> None:
    ingest_source(Corpus.open(folder), "corrected", replaced="lung")


def _with_a_deletion(folder: Path) -> None:
    _two_sources(folder)
    _delete(folder)


def _restore(folder: Path) -> None:
    restore(folder, 2)


def _one_source(folder: Path) -> None:
    ingest_source(Corpus.create(folder), "blood")


def _ingest(folder: Path) -> None:
    corpus = Corpus.open(folder)
    ingest_source(corpus, "lung")
    ingest_source(corpus, "skin", lifted="region")


def _two_sources(folder: Path) -> None:
    _one_source(folder)
    ingest_source(Corpus.open(folder), "lung")


def _with_dead_cells(folder: Path) -> None:
    _two_sources(folder)
    delete(folder, "donor_id = 'blood-d1'")
    ingest_source(Corpus.open(folder), "skin")


def _compact(folder: Path) -> None:
    compact(folder, cells_per_segment=50)


def _vacuum(folder: Path) -> None:
    vacuum(folder, older_than_ms=0, grace_ms=0)


def _annotate(folder: Path) -> None:
    table = pa.table(
        {
            "source_id": ["blood"] * N_CELLS + ["lung"],
            "barcode": [*(f"blood-0-{number}" for number in range(N_CELLS)), "lung-1-3"],
            "cell_type": ["NK cell"] * (N_CELLS + 1),
            "age": list(range(N_CELLS + 1)),
        }
    )
    annotate(folder, table, origin="labels.csv")


def _delete(folder: Path) -> None:
    delete(folder, "cell_type = 'B cell'")


def _withdraw(folder: Path) -> None:
    withdraw(folder, "cell_type = 'B cell' AND n_counts > 20", "consent ended")


COMMANDS = {
    "annotate": Command(prepare=_two_sources, run=_annotate),
    "delete": Command(prepare=_two_sources, run=_delete),
    "withdraw": Command(prepare=_two_sources, run=_withdraw),
    "ingest": Command(prepare=_one_source, run=_ingest),
    "link": Command(prepare=_two_sources, run=_link),
    "replace": Command(prepare=_two_sources, run=_replace),
    "restore": Command(prepare=_with_a_deletion, run=_restore),
    "compact": Command(prepare=_two_sources, run=_compact),
    "vacuum": Command(prepare=_with_dead_cells, run=_vacuum),
}
