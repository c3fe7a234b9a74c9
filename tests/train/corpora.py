"""A small real corpus of random cells, made by the real writers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from cytolake.corpus.cells import CellBatch
from cytolake.corpus.content import content_hashes, content_keys
from cytolake.corpus.log.receipts import Receipt
from cytolake.corpus.payload.writing import write_segment
from cytolake.corpus.store import Corpus

from .conftest import random_cells


def small_corpus(
    folder: Path, n_cells: int = 120, *, gene_ids: Sequence[str] | None = None
) -> Corpus:
    """Random cells of 60 genes, which may be given other ids."""
    corpus = Corpus.create(folder)
    batch = random_cells(n_cells, seed=1)
    names = list(gene_ids or map(str, batch.gene_ids))
    hashes = content_hashes(names, batch.indptr, batch.indices, batch.counts)
    obs = pa.table(
        {
            "barcode": [f"C{i}" for i in range(n_cells)],
            "organism": ["Homo sapiens"] * n_cells,
            "donor_id": [f"d{i % 4}" for i in range(n_cells)],
            "n_counts": batch.n_counts,
            "n_genes": np.diff(batch.indptr).astype(np.int32),
            "mito_fraction": pa.nulls(n_cells, pa.float64()),
        }
    )
    cells = CellBatch(
        gene_ids=np.array(names, dtype=object),
        indptr=batch.indptr,
        indices=batch.indices,
        counts=batch.counts,
        n_counts=batch.n_counts,
        content_keys=content_keys(hashes),
        obs=obs,
    )
    var = pa.table(
        {
            "gene_id": names,
            "symbol": [f"G{i}" for i in range(len(names))],
            "biotype": ["protein_coding"] * (len(names) - 10) + ["lncRNA"] * 10,
            "mapping": ["ensembl"] * len(names),
            "source_name": names,
        }
    )
    schema = pa.schema(
        [
            ("barcode", pa.string()),
            ("reason", pa.string()),
            ("n_counts", pa.int64()),
            ("n_genes", pa.int32()),
            ("mito_fraction", pa.float64()),
        ]
    )
    record = write_segment(
        corpus.segments_folder / "random-0",
        "random-0",
        cells,
        var,
        pa.table({"number": list(range(n_cells))}),
        schema.empty_table(),
        {
            "corpus_uuid": corpus.uuid,
            "source_id": "random",
            "source_sha256": "c" * 64,
            "first_row": 0,
        },
    )
    receipt = Receipt(
        source_id="random",
        uri="/data/random.h5ad",
        sha256="c" * 64,
        n_bytes=1,
        reader="h5ad",
        layer="X",
        n_read=n_cells,
        n_kept=n_cells,
        dropped={},
        thresholds={},
        panel=False,
        units=("random-0",),
    )
    corpus.commit_source(receipt, [record])
    return Corpus.open(folder)
