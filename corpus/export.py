"""Cells of a corpus as an AnnData object. Knows no file: what is written is the caller's matter."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from scipy import sparse

from ..platform.errors import QueryError, did_you_mean

if TYPE_CHECKING:
    from anndata import AnnData

    from .store import Corpus
    from .stream import Selection

_NOT_GIVEN = ("content_hash", "segment", "row")


def to_anndata(
    corpus: "Corpus", *, where: str | None = None, genes: Sequence[str] | None = None
) -> "AnnData":
    """The cells that a condition chooses, duplicates too (`obs["is_primary"]` tells them).

    A gene that a cell's source did not measure is 0 in the matrix, for AnnData knows no other:
    `var["n_cells_measured"]` tells how many of the cells measured it.

    Args:
        corpus: where from.
        where: a bare condition over `cells`; None for all.
        genes: Ensembl ids or symbols to keep, in this order; None for all genes measured.

    Returns:
        X: raw counts as float32 CSR (float64 where one exceeds 2**24). obs: index unique, column
        `barcode`, the columns of `cells` that say something, then the source's own (under
        `source_<name>` where the name is taken). var: index Ensembl ids; symbol, biotype.

    Raises:
        QueryError: the condition is refused, or no gene of that name was measured.
        NoCellsError: no cell is chosen.
    """
    return anndata_of(corpus, corpus.select(where, primary_only=False), where=where, genes=genes)


def anndata_of(
    corpus: "Corpus",
    selection: "Selection",
    *,
    where: str | None = None,
    genes: Sequence[str] | None = None,
) -> "AnnData":
    """The cells of a selection, as `to_anndata` gives them.

    Raises:
        QueryError: no gene of that name was measured.
    """
    import anndata
    import pandas as pd

    batches = corpus.read(selection)
    names = _gene_names(corpus)
    measured = sorted({str(gene_id) for batch in batches for gene_id in batch.gene_ids})
    chosen = measured if genes is None else _find_genes(genes, names, measured)
    place = {gene_id: i for i, gene_id in enumerate(chosen)}
    blocks: list[Any] = []
    n_cells_measured = np.zeros(len(chosen), dtype=np.int64)
    for batch in batches:
        columns = np.array([place.get(gene_id, -1) for gene_id in batch.gene_ids], dtype=np.int64)
        n_cells_measured[columns[columns >= 0]] += batch.n_cells
        entries = batch.to_csr().tocoo()
        kept = columns[entries.col] >= 0
        block = (entries.data[kept], (entries.row[kept], columns[entries.col[kept]]))
        blocks.append(sparse.csr_matrix(block, shape=(batch.n_cells, len(chosen))))
    counts = sparse.vstack(blocks, format="csr")
    var = pd.DataFrame(
        {
            "symbol": [names[gene_id][0] for gene_id in chosen],
            "biotype": [names[gene_id][1] for gene_id in chosen],
            "n_cells_measured": n_cells_measured,
        },
        index=pd.Index(chosen, name="gene_id"),
    )
    origin = {"corpus": corpus.uri, "corpus_uuid": corpus.uuid, "snapshot": corpus.snapshot}
    obs = _obs(corpus, selection)
    return anndata.AnnData(
        X=counts, obs=obs, var=var, uns={"cytolake": {**origin, "where": where or ""}}
    )


def _gene_names(corpus: "Corpus") -> dict[str, tuple[str, str]]:
    rows = corpus.sql("SELECT gene_id, symbol, biotype FROM genes").to_pylist()
    return {row["gene_id"]: (row["symbol"], row["biotype"]) for row in rows}


def _find_genes(
    wanted: Sequence[str], names: dict[str, tuple[str, str]], measured: Sequence[str]
) -> list[str]:
    by_symbol: dict[str, list[str]] = {}
    for gene_id in measured:
        by_symbol.setdefault(names[gene_id][0], []).append(gene_id)
    found: list[str] = []
    for name in wanted:
        ids = [name] if name in set(measured) else by_symbol.get(name, [])
        if not ids:
            near = did_you_mean(name, [*by_symbol, *measured])
            raise QueryError(f"no cell chosen has measured a gene {name!r}{near}")
        found += [gene_id for gene_id in ids if gene_id not in found]
    return found


def _obs(corpus: "Corpus", selection: "Selection") -> Any:
    """The cells' metadata as a pandas frame, text as categories."""
    import pandas as pd

    cells = _rows_of(corpus.sql("SELECT * FROM cells"), selection)
    own = _rows_of(corpus.sql("SELECT * FROM source_obs"), selection)
    columns: dict[str, Any] = {}
    for name in cells.column_names:
        column = cells.column(name)
        if name not in _NOT_GIVEN and column.null_count < len(column):
            columns[name] = _series(column)
    taken = {name.lower() for name in cells.column_names}
    for name in own.column_names:
        if name != "cell_id":
            columns[f"source_{name}" if name.lower() in taken else name] = _series(own.column(name))
    barcodes = cells.column("barcode").to_pylist()
    sources = cells.column("source_id").to_pylist()
    index = [f"{source}:{barcode}" for source, barcode in zip(sources, barcodes, strict=True)]
    if len(set(index)) < len(index):
        ids = cells.column("cell_id").to_pylist()
        index = [f"{name}:{cell_id}" for name, cell_id in zip(index, ids, strict=True)]
    frame = pd.DataFrame(columns, index=pd.Index(index))
    frame["barcode"] = barcodes
    return frame


def _rows_of(table: pa.Table, selection: "Selection") -> pa.Table:
    ids = table.column("cell_id").to_numpy()
    order = np.argsort(ids)
    places = order[np.searchsorted(ids, selection.cell_id, sorter=order)]
    return table.take(pa.array(places))


def _series(column: pa.ChunkedArray) -> Any:
    """A column as pandas that AnnData can write: text as categories, true/false with NULLs too."""
    import pandas as pd

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_boolean(kind) and column.null_count:
        return pd.array(column.to_pylist(), dtype="boolean")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return column.to_numpy()
    values = [None if value is None else str(value) for value in column.to_pylist()]
    return pd.Categorical(values)
