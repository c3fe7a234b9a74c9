"""Small corpora for the quality report: sources of which every cell is known by hand or by seed."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from cytolake.corpus.cells import CellBatch
from cytolake.corpus.content import content_hashes, content_keys
from cytolake.corpus.log.receipts import Receipt
from cytolake.corpus.payload.writing import write_segment
from cytolake.corpus.schema import DROPPED_COLUMNS
from cytolake.corpus.store import Corpus

GENE_IDS = np.array([f"ENSG{i:011d}" for i in range(1, 17)], dtype=object)


def counts_of(seed: int, n_cells: int) -> np.ndarray:
    """Counts of which no two cells, and no two seeds, have the same."""
    counts = np.random.default_rng(seed).integers(1, 9, (n_cells, len(GENE_IDS)))
    counts[:, 0] = 1 + np.arange(n_cells)
    counts[:, 1] = 1 + seed
    return counts.astype(np.uint32)


def some_rows(seed: int, n_cells: int, *, mito: bool = True) -> list[dict[str, Any]]:
    """Quality values, drawn so that some repeat; one cell has no counts, some no fraction."""
    random = np.random.default_rng(seed + 1000)
    totals = np.round(np.exp(random.normal(6, 1.5, n_cells)))
    totals[:1] = 0
    fractions = np.round(random.beta(2, 40, n_cells), 3)
    return [
        {
            "n_counts": int(total),
            "n_genes": int(random.integers(0, 400)),
            "mito_fraction": float(fraction) if mito and total else None,
        }
        for total, fraction in zip(totals, fractions, strict=True)
    ]


def bring(
    corpus: Corpus,
    name: str,
    *,
    kept: list[dict[str, Any]],
    dropped: list[dict[str, Any]] = [],  # noqa: B006 - it is only read
    seed: int = 0,
    prefix: str | None = None,
    n_genes: int = len(GENE_IDS),
    cells: Sequence[int] | None = None,
    own: dict[str, Any] | None = None,
    **receipt: Any,
) -> None:
    """Commit a source.

    Args:
        corpus: where.
        name: of the source.
        kept: quality values of its kept cells.
        dropped: quality values and reasons of its dropped cells.
        seed: of the counts; sources of one seed have cells of equal contents.
        prefix: of the barcodes; the name where left out.
        n_genes: how many genes it measures, the first ones.
        cells: which cells of the seed they are; the first ones where left out.
        own: the source's own columns.
        receipt: fields of the receipt.
    """
    n_cells = len(kept)
    prefix = name if prefix is None else prefix
    chosen = list(range(n_cells)) if cells is None else list(cells)
    counts, gene_ids = counts_of(seed, n_cells)[chosen, :n_genes], GENE_IDS[:n_genes]
    rows, columns = np.nonzero(counts)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_cells))])
    indices, stored = columns.astype(np.int32), counts[rows, columns]
    totals = np.array([row["n_counts"] for row in kept], dtype=np.int64)
    hashes = content_hashes(list(gene_ids), indptr, indices, stored)
    batch = CellBatch(
        gene_ids=gene_ids,
        indptr=indptr.astype(np.int64),
        indices=indices,
        counts=stored,
        n_counts=totals,
        content_keys=content_keys(hashes),
        obs=pa.table(
            {
                "barcode": pa.array([f"{prefix}-{i}" for i in range(n_cells)], pa.string()),
                "n_counts": totals,
                "n_genes": pa.array([row["n_genes"] for row in kept], pa.int32()),
                "mito_fraction": pa.array([row["mito_fraction"] for row in kept], pa.float64()),
            }
        ),
    )
    lost = [{"barcode": f"{prefix}-lost-{i}", **row} for i, row in enumerate(dropped)]
    sha256 = hashlib.sha256(f"{name} {seed}".encode()).hexdigest()
    record = write_segment(
        corpus.segments_folder / f"segment-{sha256[-12:]}",
        f"segment-{sha256[-12:]}",
        batch,
        pa.table({"gene_id": list(gene_ids)}),
        pa.table(own or {"k": pa.array([0] * n_cells, pa.int64())}),
        pa.Table.from_pylist(lost, schema=DROPPED_COLUMNS),
        {
            "corpus_uuid": corpus.uuid,
            "source_id": name,
            "source_sha256": sha256,
            "first_row": 0,
        },
    )
    reasons: dict[str, int] = {}
    for row in dropped:
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
    account = Receipt(
        source_id=name,
        uri=f"file:///data/{name}",
        sha256=sha256,
        n_bytes=1000,
        reader="h5ad",
        layer="X",
        n_read=n_cells + len(dropped),
        n_kept=n_cells,
        dropped=reasons,
        units=("one",),
    )
    Corpus.open(corpus.uri).commit_source(replace(account, **receipt), [record])
