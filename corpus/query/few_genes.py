"""The view `expression` over few genes, read by themselves, or over all. Knows no query.

Most questions name a gene. Its counts are read by `corpus.query.gene_index`, and the view is made
over them, so that DuckDB has no file to open; the answer is the same, for rows of other genes would
not be in it. Nothing that was read is kept for the next question.
"""

from collections.abc import Mapping

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..payload.records import SegmentRecord
from .gene_index import GeneIndex
from .genes_named import GenesNamed

PLACES_IN_MEMORY = 1 << 25
"""Living cells whose places are kept in memory, at 28 bytes each; of more, each query reads them
from Parquet."""

_MOST_GENES = 32
_MOST_COUNTS = 1 << 22
"""Of more, DuckDB reads as fast, and holds less at a time."""


class FewGenes:
    """Sets what the view `expression` of a connection shows."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, records: Mapping[str, SegmentRecord]
    ) -> None:
        """Prepare; nothing is read before the first question that names genes.

        Args:
            connection: with the views `genes`, `lake.places` and `lake.every_count`.
            records: segment_id -> its record, in the order of `lake.places`.
        """
        self._connection, self._records = connection, records
        self._index: GeneIndex | None = None
        self._built = self._restricted = False
        self._symbols: dict[str, str | None] = {}
        self._bearers: dict[str, list[str]] = {}
        self._first = np.concatenate(
            [[0], np.cumsum([record.n_cells for record in records.values()])]
        ).astype(np.int64)
        self._cell_ids: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def restrict(self, named: GenesNamed | None) -> None:
        """Let `expression` show the counts of these genes, at least; None for all of them.

        Raises:
            DamageError: a file is not what was committed.
        """
        counts = None if named is None else self._counts(named)
        if counts is not None:
            self._connection.register("_few_counts", counts)
            if not self._restricted:
                self._connection.execute(
                    "CREATE OR REPLACE VIEW expression AS SELECT cell_id, segment::VARCHAR AS "
                    'segment, "row", gene_id::VARCHAR AS gene_id, symbol::VARCHAR AS symbol, '
                    '"count" FROM _few_counts'
                )
        elif self._restricted:
            self._connection.execute("CREATE OR REPLACE VIEW expression AS FROM lake.every_count")
            self._connection.unregister("_few_counts")
        self._restricted = counts is not None

    def _counts(self, named: GenesNamed) -> pa.Table | None:
        """The counts of genes in living cells; None where they are better read by DuckDB."""
        if not self._built:
            self._build()
            self._built = True
        if self._index is None:
            return None
        ids = {gene for gene in named.gene_ids | named.either if gene in self._symbols}
        for symbol in named.symbols | named.either:
            ids.update(self._bearers.get(symbol, ()))
        if len(ids) > _MOST_GENES or self._index.n_counts(ids) > _MOST_COUNTS:
            return None
        genes = {gene: self._symbols[gene] for gene in sorted(ids)}
        return self._index.counts(genes, self._cell_ids, self._first)

    def _build(self) -> None:
        if not self._records or self._first[-1] > PLACES_IN_MEMORY:
            return
        self._index = GeneIndex.build(self._records.values())
        if self._index is None:
            return
        for gene, symbol in self._connection.execute(
            "SELECT gene_id, symbol FROM genes"
        ).fetchall():
            self._symbols[gene] = symbol
            if symbol is not None:
                self._bearers.setdefault(symbol, []).append(gene)
        found = self._connection.sql("SELECT place, cell_id FROM lake.places").fetchnumpy()
        places = np.asarray(found["place"])
        self._cell_ids = np.full(int(self._first[-1]), -1, dtype=np.int64)
        self._cell_ids[self._first[places >> 32] + (places & 0xFFFFFFFF)] = found["cell_id"]
