"""Extract: chosen cells over one list of genes, handed out block by block. Knows no file.

Metadata of the cells is held whole (some hundred bytes a cell); counts are read as they are asked
for, so that an extract may be larger than memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from ...platform.errors import QueryError, did_you_mean

if TYPE_CHECKING:
    from ..store import Corpus
    from ..stream import Selection

BLOCK = 2048
"""Cells that are read at once: of 2,000 non-zeros each they are about 100 MB."""

_NOT_GIVEN = ("content_hash", "segment", "row")
_EXACT = 2**24
"""float32 holds every integer up to here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extract:
    """Chosen cells, in canonical order, over genes in a given order.

    Attributes:
        corpus: where from.
        selection: the cells.
        gene_ids: the columns.
        dtype: of the counts: float32, or float64 where one exceeds 2**24.
    """

    corpus: "Corpus"
    selection: "Selection"
    gene_ids: tuple[str, ...]
    dtype: type[np.floating[Any]]
    _names: dict[str, tuple[str | None, str | None]] = field(repr=False)
    _columns: dict[int, NDArray[np.int32]] = field(repr=False)

    @classmethod
    def of(
        cls, corpus: "Corpus", selection: "Selection", genes: Sequence[str] | None = None
    ) -> "Extract":
        """Prepare; no count is read, but for samples whose totals exceed 2**24.

        Args:
            corpus: where from.
            selection: the cells.
            genes: Ensembl ids or symbols to keep, in this order; None for all genes that a
                segment of the cells measured, by id.

        Raises:
            QueryError: no gene of that name was measured.
        """
        lists = {
            int(number): corpus.segment(selection.segment_ids[number]).gene_ids
            for number in np.unique(selection.segment)
        }
        rows = corpus.sql("SELECT gene_id, symbol, biotype FROM genes").to_pylist()
        names = {row["gene_id"]: (row["symbol"], row["biotype"]) for row in rows}
        measured = sorted({str(gene_id) for gene_ids in lists.values() for gene_id in gene_ids})
        chosen = measured if genes is None else _find_genes(genes, names, measured)
        place = {gene_id: i for i, gene_id in enumerate(chosen)}
        columns = {
            number: np.array([place.get(gene_id, -1) for gene_id in gene_ids], dtype=np.int32)
            for number, gene_ids in lists.items()
        }
        return cls(
            corpus=corpus,
            selection=selection,
            gene_ids=tuple(chosen),
            dtype=_dtype(corpus, selection),
            _names=names,
            _columns=columns,
        )

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.selection.n_cells

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, genes."""
        return self.n_cells, len(self.gene_ids)

    @property
    def uns(self) -> dict[str, Any]:
        """Where the cells come from, as AnnData's `uns` has it."""
        where = self.selection.where or ""
        uri, uuid, snapshot = self.corpus.uri, self.corpus.uuid, self.corpus.snapshot
        return {
            "cytolake": {"corpus": uri, "corpus_uuid": uuid, "snapshot": snapshot, "where": where}
        }

    def counts(self, start: int, stop: int) -> Any:
        """The raw counts of some neighbouring cells: a CSR matrix of scipy, indices ascending.

        Shape (stop - start, n_genes).
        """
        positions = np.arange(start, stop)
        blocks: list[Any] = []
        numbers = np.unique(self.selection.segment[positions])
        batches = self.corpus.read(self.selection, positions)
        for number, batch in zip(numbers, batches, strict=True):
            columns = self._columns[int(number)][batch.indices]
            values, indptr = batch.counts.astype(self.dtype), batch.indptr
            kept = columns >= 0
            if not kept.all():
                indptr = np.concatenate([[0], np.cumsum(kept)])[indptr]
                values, columns = values[kept], columns[kept]
            block = sparse.csr_matrix(
                (values, columns, indptr), shape=(batch.n_cells, len(self.gene_ids))
            )
            block.sort_indices()  # the genes may have been asked for in another order
            blocks.append(block)
        if len(blocks) > 1:
            blocks = [sparse.vstack(blocks, format="csr", dtype=self.dtype)]
        return blocks[0]

    def blocks(self, cells_per_block: int = BLOCK) -> Iterator[Any]:
        """The counts of all cells, some at a time."""
        for start in range(0, self.n_cells, cells_per_block):
            yield self.counts(start, min(start + cells_per_block, self.n_cells))

    def var(self) -> Any:
        """The genes as a pandas frame: index ids; symbol, biotype ("": none), n_cells_measured."""
        import pandas as pd

        n_measured = np.zeros(len(self.gene_ids), dtype=np.int64)
        for number, columns in self._columns.items():
            n_measured[columns[columns >= 0]] += int((self.selection.segment == number).sum())
        return pd.DataFrame(
            {
                "symbol": [self._names[gene_id][0] or "" for gene_id in self.gene_ids],
                "biotype": [self._names[gene_id][1] or "" for gene_id in self.gene_ids],
                "n_cells_measured": n_measured,
            },
            index=pd.Index(list(self.gene_ids), name="gene_id"),
        )

    def obs(self) -> Any:
        """The cells' metadata as a pandas frame, text as categories."""
        import pandas as pd

        cells, own = self.metadata()
        columns: dict[str, Any] = {}
        for name in cells.column_names:
            column = cells.column(name)
            if name not in _NOT_GIVEN and column.null_count < len(column):
                columns[name] = _series(column)
        taken = {name.lower() for name in cells.column_names}
        for name in own.column_names:
            if name != "cell_id":
                known_as = f"source_{name}" if name.lower() in taken else name
                columns[known_as] = _series(own.column(name))
        barcodes = cells.column("barcode").to_pylist()
        sources = cells.column("source_id").to_pylist()
        index = [f"{source}:{barcode}" for source, barcode in zip(sources, barcodes, strict=True)]
        if len(set(index)) < len(index):
            ids = cells.column("cell_id").to_pylist()
            index = [f"{name}:{cell_id}" for name, cell_id in zip(index, ids, strict=True)]
        frame = pd.DataFrame(columns, index=pd.Index(index))
        frame["barcode"] = barcodes
        return frame

    def metadata(self) -> tuple[pa.Table, pa.Table]:
        """The rows of the views `cells` and `source_obs`, one a cell, in the cells' order."""
        where = self.selection.where
        chosen = "" if where is None else f" WHERE (\n{where}\n)"
        of_own = f" WHERE cell_id IN (SELECT cell_id FROM cells{chosen})" if chosen else ""
        cells = self.corpus.sql(f"SELECT * FROM cells{chosen}")
        own = self.corpus.sql(f"SELECT * FROM source_obs{of_own}")
        return _rows_of(cells, self.selection), _rows_of(own, self.selection)


def _find_genes(
    wanted: Sequence[str], names: dict[str, tuple[str | None, str | None]], measured: Sequence[str]
) -> list[str]:
    by_symbol: dict[str, list[str]] = {}
    for gene_id in measured:
        by_symbol.setdefault(names[gene_id][0] or "", []).append(gene_id)
    known = set(measured)
    found: dict[str, None] = {}
    for name in wanted:
        ids = [name] if name in known else by_symbol.get(name, [])
        if not ids:
            near = did_you_mean(name, [*by_symbol, *measured])
            raise QueryError(f"no cell chosen has measured a gene {name!r}{near}")
        found.update(dict.fromkeys(ids))
    return list(found)


def _dtype(corpus: "Corpus", selection: "Selection") -> type[np.floating[Any]]:
    """What holds every count: only a cell whose total exceeds 2**24 can have one that does."""
    totals = corpus.column(selection, "n_counts_stored").to_numpy()
    large = np.flatnonzero(totals > _EXACT)
    for start in range(0, len(large), BLOCK):
        for batch in corpus.read(selection, large[start : start + BLOCK]):
            if batch.counts.size and int(batch.counts.max()) > _EXACT:
                return np.float64
    return np.float32


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
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        texts = [None if value is None else str(value) for value in column.to_pylist()]
        column = pa.chunked_array([pa.array(texts, pa.string())])
    held = column.combine_chunks().dictionary_encode()
    words = np.array(held.dictionary.to_pylist(), dtype=object)
    order = np.argsort(words) if len(words) else np.empty(0, dtype=np.int64)
    rank = np.empty(len(words) + 1, dtype=np.int64)
    rank[order], rank[-1] = np.arange(len(words)), -1
    codes = held.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)
    return pd.Categorical.from_codes(rank[codes], categories=list(words[order]))
