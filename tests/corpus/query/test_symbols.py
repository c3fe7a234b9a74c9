"""A question by symbol: the same answer as of plain tables, and few row groups read for it."""

import re
from typing import Any

import duckdb
import pytest
from cytolake.corpus.store import Corpus
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = st.sampled_from(["S0", "S1", "S4", "S10", "S150", "S199", "S200", "S599", "s10", "nobody"])
IDS = st.integers(0, 600).map(lambda i: f"ENSG{i:011d}")


def comparisons(prefix: str) -> st.SearchStrategy[str]:
    """Conditions on a symbol or an id, of any shape."""
    listed = st.lists(NAMES, min_size=1, max_size=4).map(lambda n: ", ".join(map(repr, n)))
    return st.one_of(
        NAMES.map(lambda n: f"{prefix}symbol = '{n}'"),
        NAMES.map(lambda n: f"'{n}' = {prefix}symbol"),
        NAMES.map(lambda n: f"lower({prefix}symbol) = lower('{n}')"),
        NAMES.map(lambda n: f"{prefix}symbol <> '{n}'"),
        NAMES.map(lambda n: f"{prefix}symbol LIKE '{n}%'"),
        IDS.map(lambda n: f"{prefix}gene_id = '{n}'"),
        IDS.map(lambda n: f"{prefix}gene_id >= '{n}'"),
        listed.map(lambda n: f"{prefix}symbol IN ({n})"),
        listed.map(lambda n: f"{prefix}symbol NOT IN ({n})"),
        listed.map(
            lambda n: f"{prefix}gene_id IN (SELECT gene_id FROM genes WHERE symbol IN ({n}))"
        ),
        st.integers(0, 5).map(lambda n: f"{prefix}count > {n}"),
    )


def conditions(prefix: str = "") -> st.SearchStrategy[str]:
    """These, joined by AND, OR and NOT."""
    return st.recursive(
        comparisons(prefix),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda two: f"({two[0]} AND {two[1]})"),
            st.tuples(inner, inner).map(lambda two: f"({two[0]} OR {two[1]})"),
            inner.map(lambda one: f"(NOT {one})"),
        ),
        max_leaves=4,
    )


SHAPES = [
    "SELECT gene_id, symbol, count(*), sum(count) FROM expression WHERE {0} GROUP BY ALL",
    "SELECT c.cell_type, sum(e.count) FROM expression e JOIN cells c USING (cell_id) "
    "WHERE {1} GROUP BY ALL",
    "WITH x AS (SELECT * FROM expression WHERE {0}) SELECT segment, row, gene_id, count FROM x "
    "WHERE {0} OR row % 50 = 0",
    "SELECT count(*) FROM cells WHERE cell_id IN (SELECT cell_id FROM expression WHERE {0})",
    "SELECT c.segment, c.row, e.gene_id, e.count FROM cells c LEFT JOIN expression e "
    "ON e.cell_id = c.cell_id AND {1} WHERE c.row < 20",
    "SELECT count(*), count(f.cell_id) FROM (SELECT * FROM expression WHERE {0}) e "
    "FULL JOIN (SELECT * FROM expression WHERE row % 7 = 0 AND {0}) f "
    "ON f.cell_id = e.cell_id AND f.gene_id = e.gene_id",
]


@settings(max_examples=120, deadline=None)
@given(shape=st.sampled_from(SHAPES), data=st.data())
def test_a_generated_question_has_the_answer_of_plain_tables(
    asked: Corpus, plain: duckdb.DuckDBPyConnection, shape: str, data: Any
) -> None:
    both = data.draw(conditions("e.") if "{1}" in shape else conditions())
    query = f"SELECT * FROM ({shape.format(both, both)}) ORDER BY ALL"
    expected = plain.sql(query).to_arrow_table()
    found = asked.sql(query)
    assert found.schema == expected.schema
    assert found.equals(expected), query


def row_groups(corpus: Corpus, query: str) -> tuple[int, int]:
    """Row groups of expression files that a query read, of how many."""
    corpus.sql(query)
    plan = corpus._engine.inner(f"EXPLAIN ANALYZE {query}", set())
    told = re.findall(r"Row Groups Scanned: (\d+) / (\d+)", plan.column("explain_value")[0].as_py())
    # No other table of this corpus has more than two.
    scans = [(int(read), int(whole)) for read, whole in told if int(whole) > 2]
    return sum(read for read, _ in scans), sum(whole for _, whole in scans)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT sum(count) FROM expression WHERE symbol = 'S300'",
        "SELECT sum(count) FROM expression WHERE gene_id = 'ENSG00000000300'",
        "SELECT sum(count) FROM expression WHERE symbol IN ('S300', 'S301')",
        "SELECT c.cell_type, sum(e.count) FROM expression e JOIN cells c USING (cell_id) "
        "WHERE e.symbol = 'S300' GROUP BY 1",
        "WITH x AS (SELECT cell_id, symbol AS named, count FROM expression) "
        "SELECT sum(count) FROM x WHERE named = 'S300'",
        "SELECT count(*) FROM cells WHERE cell_id IN "
        "(SELECT cell_id FROM expression WHERE symbol = 'S300')",
        "SELECT sum(e.count) FROM expression e JOIN genes g USING (gene_id) "
        "WHERE g.symbol = 'S300'",
        "SELECT * FROM mean_by('S300', cell_type)",
    ],
)
def test_a_symbol_is_looked_for_in_its_own_row_groups_only(asked: Corpus, query: str) -> None:
    read, whole = row_groups(asked, query)
    assert whole >= 3
    assert 1 <= read <= 2


def test_every_count_reads_every_row_group(asked: Corpus) -> None:
    read, whole = row_groups(asked, "SELECT sum(count) FROM expression")
    assert read == whole >= 3


def test_the_totals_of_genes_are_those_of_living_cells(
    asked: Corpus, plain: duckdb.DuckDBPyConnection
) -> None:
    counted = plain.sql(
        "SELECT g.gene_id, count(e.count) AS n_cells, coalesce(sum(e.count), 0)::BIGINT AS total "
        "FROM genes g LEFT JOIN expression e USING (gene_id) GROUP BY 1 ORDER BY 1"
    ).to_arrow_table()
    told = asked.sql("SELECT gene_id, n_cells, total FROM genes ORDER BY 1")
    assert told.to_pylist() == counted.to_pylist()
