"""A small corpus that has a file of every kind, and what kind a file is of.

Knows no fault. Several sources in many small segments, one segment of several chunks, annotations,
deleted and withdrawn cells, a refused and a replaced source, a source of cells that are there
already, one with proteins, a compaction, tags, uses, and a log long enough to have a checkpoint
before its newest commits.
"""

import re
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from cytolake.corpus.cells import CellBatch
from cytolake.corpus.change.annotation import annotate
from cytolake.corpus.change.deletion import delete, withdraw
from cytolake.corpus.features import FeatureBatch
from cytolake.corpus.log.commits import commit_source
from cytolake.corpus.log.receipts import Receipt
from cytolake.corpus.log.tags import tag
from cytolake.corpus.payload.records import SegmentRecord
from cytolake.corpus.payload.writing import write_segment
from cytolake.corpus.query.uses import Use, record_use
from cytolake.corpus.schema import DROPPED_COLUMNS
from cytolake.corpus.store import Corpus
from cytolake.corpus.upkeep.compaction import compact
from cytolake.tests.faults.commands import batch_of, with_fewer_genes
from deltalake import DeltaTable
from scipy import sparse

OLD, TAGGED = 4, "first-release"
"""A snapshot that stays open, though newer ones took files out of it; and the tag of another."""

_KINDS = (
    ("{table} log: commit", r"(cells|sources)/_delta_log/\d+\.json"),
    ("{table} log: checkpoint", r"(cells|sources)/_delta_log/.*\.checkpoint.*parquet"),
    ("{table} log: last checkpoint", r"(cells|sources)/_delta_log/_last_checkpoint"),
    ("{table}: what is newest", r"(cells|sources)/\.newest\.json"),
    ("{table}: rows", r"(cells|sources)/[0-9a-f]{64}\.parquet"),
    ("withdrawn", r"withdrawn/.*\.parquet"),
    ("links", r"links/.*\.parquet"),
    ("mark", r"(tags|uses)/\..*\.there"),
    ("tag", r"tags/.*\.json"),
    ("use", r"uses/.*\.json"),
    ("segment.json", r"segments/[^/]+/segment\.json"),
    ("cells.parquet", r"segments/[^/]+/cells\.parquet"),
    ("obs.parquet", r"segments/[^/]+/obs\.parquet"),
    ("dropped.parquet", r"segments/[^/]+/dropped\.parquet"),
    ("statistics.parquet", r"segments/[^/]+/statistics\.parquet"),
    ("expression", r"segments/[^/]+/expression/.*\.parquet"),
    ("X: zarr.json", r"segments/[^/]+/rna\.zarr/X/.*zarr\.json"),
    ("X: indptr shard", r"segments/[^/]+/rna\.zarr/X/indptr/c/\d+"),
    ("X: indices shard", r"segments/[^/]+/rna\.zarr/X/indices/c/\d+"),
    ("X: data shard", r"segments/[^/]+/rna\.zarr/X/data/c/\d+"),
    ("obs, var: zarr.json", r"segments/[^/]+/rna\.zarr/(?!X/).*zarr\.json|.*/rna\.zarr/zarr\.json"),
    ("obs, var: array", r"segments/[^/]+/rna\.zarr/(?!X/).*/c/.*"),
    ("protein.parquet", r"segments/[^/]+/protein\.parquet"),
    ("protein: index", r"segments/[^/]+/protein/.*\.parquet"),
    ("protein: X shard", r"segments/[^/]+/protein\.zarr/X/.*/c/\d+"),
    ("protein: zarr.json", r"segments/[^/]+/protein\.zarr/.*zarr\.json"),
    ("protein: obs, var", r"segments/[^/]+/protein\.zarr/(?!X/).*/c/.*"),
)


def kinds_of(folder: Path) -> dict[str, list[str]]:
    """Every file of a corpus by kind; those of rows that only older snapshots hold are a kind.

    Raises:
        ValueError: a file is of no kind that is known here.
    """
    newest = {path.name for path in Corpus.open(folder).state.files}
    found: dict[str, list[str]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        for kind, pattern in _KINDS:
            if re.fullmatch(pattern, name):
                kind = kind.format(table=name.split("/")[0])
                if kind == "cells: rows" and path.name not in newest:
                    kind = "cells: rows of old snapshots"
                found.setdefault(kind, []).append(name)
                break
        else:
            raise ValueError(f"{name} is a file of no kind")
    return found


def build(folder: Path) -> None:
    """Make the corpus in a folder that is not there yet."""
    corpus = Corpus.create(folder)
    _ingest(corpus, "blood", n_segments=3)
    _ingest(corpus, "lung", n_segments=2, lifted="region")
    _ingest(corpus, "marrow", n_segments=1, n_cells=250, n_genes=1500, share=0.72)
    tag(folder, TAGGED, Corpus.open(folder).snapshot)
    delete(folder, "source_id = 'blood' AND cell_type = 'B cell' AND n_genes > 15")
    answers = Corpus.open(folder).sql(
        "SELECT cell_id, length(donor_id) AS age FROM cells WHERE source_id = 'lung'"
    )
    annotate(folder, answers, origin="sql")
    _ingest(corpus, "skin", n_segments=2)
    corpus.refuse_source(_receipt("urine", [], n_read=3), "no raw counts")
    DeltaTable(folder / "cells").create_checkpoint()
    DeltaTable(folder / "sources").create_checkpoint()
    _ingest(corpus, "gut", n_segments=2)
    # Cells that came after the tag, so that the tagged snapshot stays open.
    withdraw(folder, "source_id = 'skin' AND donor_id = 'skin-d1'", "consent ended")
    withdraw(folder, "source_id = 'gut' AND donor_id = 'gut-d2'", "consent ended")
    _ingest(corpus, "gut", n_segments=1, draw=1)
    compact(folder, cells_per_segment=32, small=16)
    corpus.refuse_source(_receipt("tears", [], n_read=2), "two cells")
    _ingest(corpus, "heart", n_segments=2, n_proteins=5)
    _ingest(corpus, "biopsy", n_segments=1, like="lung-0-0", lifted="region")
    newest = Corpus.open(folder)
    tag(folder, "second-release", newest.snapshot)
    for kind, name in (("pretrain", "run-1"), ("evaluate", "run-2"), ("export", "cells.h5ad")):
        record_use(folder, Use(kind=kind, name=name, snapshot=newest.snapshot, where="n_genes > 3"))


def _ingest(
    corpus: Corpus,
    name: str,
    *,
    n_segments: int,
    n_cells: int = 20,
    n_genes: int = 60,
    share: float = 0.3,
    lifted: str | None = None,
    draw: int = 0,
    n_proteins: int = 0,
    like: str | None = None,
) -> None:
    """Commit a source.

    Args:
        corpus: any handle of it.
        name: of the source.
        n_segments: in how many.
        n_cells: of the first segment; the next one has one less.
        n_genes: measured.
        share: of the counts that are above 0.
        lifted: a column of the source's own to lift into `cells`.
        draw: above 0 it is another file of that name, which replaces the first.
        n_proteins: counted beside the genes.
        like: a segment whose cells come once more, with three quarters of their genes.
    """
    records: list[SegmentRecord] = []
    for part in range(n_segments):
        segment_id = f"{name}-{draw}-{part}"
        gene_ids = [f"ENSG{number:011}" for number in range(1, n_genes + 1)]
        cells = _cells(like or segment_id, name, n_cells - part, gene_ids, share, lifted)
        if like is not None:
            cells = with_fewer_genes(cells, n_genes * 3 // 4)
        first_row = part * (n_cells - part + 2)
        features = {"protein": _proteins(segment_id, n_cells - part, n_proteins)}
        given = features if n_proteins else {}
        records.append(_segment(corpus, segment_id, name, draw, cells, first_row, given))
    receipt = _receipt(name, records, draw=draw)
    commit_source(corpus.folder, receipt, records, replace=draw > 0)


def _receipt(
    name: str, records: list[SegmentRecord], *, draw: int = 0, n_read: int | None = None
) -> Receipt:
    kept = sum(record.n_cells for record in records)
    dropped = sum(record.n_dropped for record in records) if n_read is None else n_read
    return Receipt(
        source_id=name,
        uri=f"/data/{name}.h5ad",
        sha256=_sha256(name, draw),
        n_bytes=1000,
        reader="h5ad",
        layer="X",
        n_read=kept + dropped,
        n_kept=kept,
        dropped={"total_counts": dropped},
        units=tuple(record.segment_id for record in records),
    )


def _segment(
    corpus: Corpus,
    segment_id: str,
    name: str,
    draw: int,
    cells: CellBatch,
    first_row: int,
    features: dict[str, FeatureBatch],
) -> SegmentRecord:
    dropped = {
        "barcode": [f"{segment_id}-x{number}" for number in range(2)],
        "reason": ["total_counts"] * 2,
        "n_counts": [1, 2],
        "n_genes": [1, 1],
        "mito_fraction": [None, None],
    }
    var = {
        "gene_id": list(cells.gene_ids),
        "symbol": [f"GENE{number}" for number in range(cells.n_genes)],
        "biotype": ["protein_coding"] * cells.n_genes,
        "mapping": ["ensembl"] * cells.n_genes,
        "source_name": list(cells.gene_ids),
    }
    return write_segment(
        corpus.segments_folder / segment_id,
        segment_id,
        cells,
        pa.table(var),
        pa.table({"cluster": [number % 3 for number in range(cells.n_cells)]}),
        pa.table(dropped, schema=DROPPED_COLUMNS),
        {
            "corpus_uuid": corpus.uuid,
            "source_id": name,
            "source_sha256": _sha256(name, draw),
            "first_row": first_row,
        },
        features=features,
    )


def _proteins(segment_id: str, n_cells: int, n_proteins: int) -> FeatureBatch:
    """Counts of proteins that the segment's name decides."""
    draw = np.random.default_rng(zlib.crc32(f"{segment_id} proteins".encode()))
    matrix = sparse.csr_matrix(draw.poisson(2.0, (n_cells, n_proteins)).astype(np.uint32))
    return FeatureBatch(
        var=pa.table({"feature_id": [f"CD{number}" for number in range(n_proteins)]}),
        indptr=matrix.indptr.astype(np.int64),
        indices=matrix.indices.astype(np.int32),
        values=matrix.data.astype(np.uint32),
    )


def _cells(
    segment_id: str,
    name: str,
    n_cells: int,
    gene_ids: list[str],
    share: float,
    lifted: str | None,
) -> CellBatch:
    """Cells that the segment's name decides, to the last count."""
    draw = np.random.default_rng(zlib.crc32(segment_id.encode()))
    counts_cg = draw.geometric(0.4, size=(n_cells, len(gene_ids))).astype(np.uint32)
    counts_cg[draw.random(counts_cg.shape) > share] = 0
    barcodes = [f"{segment_id}-{number}" for number in range(n_cells)]
    return batch_of(counts_cg, gene_ids, name, barcodes, lifted)


def _sha256(name: str, draw: int) -> str:
    return f"{zlib.crc32(f'{name}-{draw}'.encode()):08x}" * 8
