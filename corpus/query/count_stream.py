"""Stored counts of chosen cells and genes as an Arrow stream. Knows the view `expression`.

Knows no file: whatever reads Arrow streams, DuckDB among them, may join it.
"""

import re
from collections.abc import Sequence

import pyarrow as pa

from ...platform.errors import QueryError, did_you_mean
from ..log.rows import list_of
from .sandbox import check_condition, check_query
from .sql import SqlEngine

ROWS = 1 << 16
"""The most rows of a batch."""

_SELECT = re.compile(r"\s*(select|with|from|table|values)\b", re.IGNORECASE)


def stream_counts(
    engine: SqlEngine, cells: str | None = None, genes: Sequence[str] | None = None
) -> pa.RecordBatchReader:
    """Each stored count once, in no order: `cell_id, gene_id, symbol, count`.

    A count that is not in the stream is 0 if the cell's segment measured the gene (the view
    `measured`), else it is not known.

        counts = corpus.expression(cells="tissue = 'blood'", genes=["CD3D"])
        duckdb.sql("SELECT label, sum(count) FROM counts JOIN labels USING (cell_id) GROUP BY 1")

    Args:
        engine: of a snapshot.
        cells: a bare condition over `cells`, or a SELECT of `cell_id`; None for all living cells.
        genes: symbols or Ensembl ids; None for all. A symbol means every gene that bears it.

    Returns:
        Batches of at most `ROWS` rows, read when they are asked for; read once.

    Raises:
        QueryError: the condition or the SELECT is refused or does not run, or a gene is not in the
            corpus.
    """
    query = "SELECT e.cell_id, e.gene_id, e.symbol, e.count::UINTEGER AS count FROM expression e"
    views = {"expression"}
    if genes is not None:
        ids = _ids_of(engine, genes)
        query += f" SEMI JOIN (SELECT unnest({list_of(ids)}::VARCHAR[]) AS gene_id) USING (gene_id)"
    if cells is not None:
        chosen = cells if _SELECT.match(cells) else _condition(cells)
        views |= check_query(chosen)
        inner = f"SELECT cell_id FROM ({chosen.strip().rstrip(';')}\n)"
        check_query(inner)
        query = f"WITH chosen AS ({inner}) {query} SEMI JOIN chosen USING (cell_id)"
    return engine.stream(query, views, ROWS)


def _condition(where: str) -> str:
    return f"SELECT cell_id FROM cells WHERE {check_condition(where)}"


def _ids_of(engine: SqlEngine, names: Sequence[str]) -> list[str]:
    found = engine.inner("SELECT gene_id, symbol FROM genes", {"genes"}).to_pylist()
    ids = {row["gene_id"]: [row["gene_id"]] for row in found}
    symbols: dict[str, list[str]] = {}
    for row in found:
        if row["symbol"] is not None:
            symbols.setdefault(row["symbol"], []).append(row["gene_id"])
    wanted: dict[str, None] = {}
    for name in names:
        bearing = ids.get(name) or symbols.get(name)
        if bearing is None:
            raise QueryError(
                f"no gene of the corpus is called {name!r}{did_you_mean(name, [*symbols, *ids])}"
            )
        wanted |= dict.fromkeys(bearing)
    return list(wanted)
