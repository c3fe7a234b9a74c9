"""Counts as a stream: equal to the view, joinable, bounded, and refusing what SQL refuses."""

from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from cytolake.corpus.query import count_stream
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import QueryError


def read(
    corpus: Corpus, cells: str | None = None, genes: Sequence[str] | None = None
) -> list[tuple[object, ...]]:
    rows = corpus.expression(cells=cells, genes=genes).read_all().to_pylist()
    return sorted(tuple(row.values()) for row in rows)


@pytest.mark.parametrize(
    ("cells", "genes", "where"),
    [
        (None, None, "true"),
        ("cell_type = 'T cell'", None, "c.cell_type = 'T cell'"),
        ("donor_id = 'small1' -- a comment", ["S10"], "c.donor_id = 'small1' AND symbol = 'S10'"),
        (None, ["S0", "ENSG00000000300"], "symbol IN ('S0', 'S300')"),
        (None, [], "false"),
        ("SELECT cell_id FROM cells WHERE row < 9;", ["S1"], "c.row < 9 AND symbol = 'S1'"),
        (
            "WITH t AS (FROM normalised('S150')) SELECT cell_id FROM t WHERE count > 1",
            ["S10"],
            "symbol = 'S10' AND cell_id IN "
            "(SELECT cell_id FROM expression WHERE symbol = 'S150' AND count > 1)",
        ),
        ("SELECT cell_id FROM cells WHERE false", None, "false"),
        ("SELECT cell_id FROM expression WHERE symbol = 'S400'", ["S400"], "symbol = 'S400'"),
    ],
)
def test_the_stream_holds_the_stored_counts_of_living_cells(
    asked: Corpus,
    plain: duckdb.DuckDBPyConnection,
    cells: str | None,
    genes: Sequence[str] | None,
    where: str,
) -> None:
    expected = plain.sql(
        "SELECT cell_id, gene_id, symbol, e.count FROM expression e "
        f"JOIN (SELECT * EXCLUDE (segment) FROM cells) c USING (cell_id) WHERE {where}"
    ).fetchall()
    assert read(asked, cells, genes) == sorted(expected)


def test_deleted_cells_and_unmeasured_genes_are_not_in_it(asked: Corpus) -> None:
    dead = asked.sql("SELECT count(*) AS n FROM cells WHERE barcode IN ('C3', 'C7', 'C11')")
    assert dead.column("n").to_pylist() == [0]
    ids = {row[0] for row in read(asked)}
    assert ids <= set(asked.sql("SELECT cell_id FROM cells").column("cell_id").to_pylist())
    assert read(asked, "source_id = 'small'", ["S400"]) == []


def test_duckdb_joins_the_stream(asked: Corpus) -> None:
    counts = asked.expression(genes=["S150", "S151"])
    cells = asked.sql("SELECT cell_id, donor_id FROM cells")
    assert isinstance(counts, pa.RecordBatchReader) and cells.num_rows
    found: Any = duckdb.sql(
        "SELECT donor_id, symbol, sum(count) FROM counts JOIN cells USING (cell_id) "
        "GROUP BY ALL ORDER BY ALL"
    )
    expected = asked.sql("SELECT label, symbol, total FROM pseudobulk(donor_id)").to_pylist()
    assert found.fetchall() == [
        tuple(row.values()) for row in expected if row["symbol"] in ("S150", "S151")
    ]


def test_batches_are_read_when_asked_for_and_other_queries_run_meanwhile(
    asked: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count_stream, "ROWS", 2048)
    stream = asked.expression()
    first = stream.read_next_batch()
    assert 0 < first.num_rows <= 2048
    assert stream.schema.names == ["cell_id", "gene_id", "symbol", "count"]
    n_counts = asked.sql("SELECT count(*) AS n FROM expression").column("n")[0].as_py()
    others = asked.expression(genes=["S10"]).read_all()
    sizes = [first.num_rows, *(batch.num_rows for batch in stream)]
    assert max(sizes) <= 2048 and sum(sizes) == n_counts
    assert others.num_rows


@pytest.mark.parametrize(
    ("cells", "genes", "message"),
    [
        (None, ["S1O"], "no gene of the corpus is called 'S1O'; did you mean 'S1'"),
        ("cell_typ = 'T cell'", None, "there is no column 'cell_typ'; did you mean 'cell_type'"),
        ("true) OR (true", None, "syntax error|bare condition"),
        ("n_counts > random()", None, "must choose the same cells"),
        ("SELECT cell_id FROM cells; SELECT 1", None, "exactly one SELECT"),
        ("SELECT cell_id FROM read_csv('x.csv')", None, "is not allowed"),
        ("SELECT cell_id FROM 'x.parquet'", None, "cannot be a table"),
        ("SELECT barcode FROM cells", None, "no column 'cell_id'"),
        ("WITH x AS (DELETE FROM cells RETURNING *) SELECT cell_id FROM x", None, "DELETE"),
    ],
)
def test_what_sql_refuses_the_stream_refuses(
    asked: Corpus, cells: str | None, genes: Sequence[str] | None, message: str
) -> None:
    with pytest.raises(QueryError, match=message):
        asked.expression(cells=cells, genes=genes)
