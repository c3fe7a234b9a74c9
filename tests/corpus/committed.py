"""Batches of cells, random or real, committed to a corpus as sources; no ingest, no Ray."""

import os
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pyarrow as pa
import pytest
from cytolake.corpus.cells import CellBatch
from cytolake.corpus.content import content_hashes, content_keys
from cytolake.corpus.log.commits import Commit
from cytolake.corpus.log.receipts import Receipt
from cytolake.corpus.payload.writing import write_segment
from cytolake.corpus.schema import DROPPED_COLUMNS
from cytolake.corpus.store import Corpus
from scipy.sparse import csr_matrix

REAL = {
    "pbmc3k": "pbmc3k_10x/pbmc3k_raw_labelled.h5ad",
    "kang": "kang2018_ifnb_pbmc/kang_12261cells_1287genes.h5ad",
}


def resources() -> Path:
    folder = os.environ.get("CYTOLAKE_RESOURCES", "").split(os.pathsep)[0]
    if not folder:
        pytest.skip("CYTOLAKE_RESOURCES is not set: no real data at hand")
    return Path(folder)


def batch_of(counts: Any, gene_ids: Any, barcodes: Any, **columns: Any) -> CellBatch:
    """A batch of a matrix; `columns` are columns of `cells`."""
    matrix = csr_matrix(counts)
    matrix.sort_indices()
    matrix.eliminate_zeros()
    ids = [str(gene_id) for gene_id in gene_ids]
    rows = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)
    stored = matrix.data.astype(np.uint32)
    n_counts = np.asarray(matrix.sum(axis=1)).ravel().astype(np.int64)
    obs = {
        "barcode": [str(barcode) for barcode in barcodes],
        "organism": ["Homo sapiens"] * len(n_counts),
        "n_counts": n_counts,
        "n_genes": np.diff(rows[0]).astype(np.int32),
        "mito_fraction": pa.nulls(len(n_counts), pa.float64()),
        **columns,
    }
    return CellBatch(
        gene_ids=np.array(ids, dtype=object),
        indptr=rows[0],
        indices=rows[1],
        counts=stored,
        n_counts=n_counts,
        content_keys=content_keys(content_hashes(ids, *rows, stored)),
        obs=pa.table(obs),
    )


def commit(corpus: Corpus, name: str, batch: CellBatch, **var: Any) -> Commit:
    """Make a batch a source of one segment."""
    sha256 = name.encode().hex().ljust(64, "0")
    record = write_segment(
        corpus.segments_folder / f"{name}-0",
        f"{name}-0",
        batch,
        pa.table({"gene_id": list(batch.gene_ids), **var}),
        pa.table({"own": [f"{name}-{i % 7}" for i in range(batch.n_cells)]}),
        DROPPED_COLUMNS.empty_table(),
        {
            "corpus_uuid": corpus.uuid,
            "source_id": name,
            "source_sha256": sha256,
            "first_row": 0,
        },
    )
    receipt = Receipt(
        source_id=name,
        uri=name,
        sha256=sha256,
        n_bytes=1,
        reader="h5ad",
        n_read=batch.n_cells,
        n_kept=batch.n_cells,
        units=(f"{name}-0",),
    )
    return corpus.commit_source(receipt, [record])


def real_corpus(folder: Path, *names: str) -> Corpus:
    """Every cell of the real sources named, unfiltered."""
    corpus = Corpus.create(folder)
    for name in names:
        adata = anndata.read_h5ad(resources() / REAL[name])
        label = "cell_type" if "cell_type" in adata.obs else "cluster_id"
        commit(
            corpus,
            name,
            batch_of(
                adata.X,
                adata.var_names,
                adata.obs_names,
                cell_type=[str(value) for value in adata.obs[label]],
            ),
        )
    return Corpus.open(folder)
