"""Which genes a query names, and that rows of others cannot be in its answer."""

import pytest
from cytolake.corpus.query.genes_named import GenesNamed, genes_named
from cytolake.corpus.query.sandbox import check_tree, parse


def named(query: str) -> GenesNamed | None:
    tree = parse(query)
    check_tree(tree)
    return genes_named(tree)


def symbols(*names: str) -> GenesNamed:
    return GenesNamed(symbols=frozenset(names))


def gene_ids(*names: str) -> GenesNamed:
    return GenesNamed(gene_ids=frozenset(names))


def either(*names: str) -> GenesNamed:
    return GenesNamed(either=frozenset(names))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT sum(count) FROM expression WHERE symbol = 'A'", symbols("A")),
        ("SELECT sum(count) FROM Expression X WHERE 'A' = x.SYMBOL AND count > 1", symbols("A")),
        ("SELECT * FROM expression WHERE gene_id IN ('i', 'j') AND row < 3", gene_ids("i", "j")),
        ("SELECT * FROM expression WHERE (count > 1 AND (symbol = 'A')) AND row < 3", symbols("A")),
        ("FROM expression e JOIN cells c USING (cell_id) WHERE e.symbol = 'A'", symbols("A")),
        ("FROM cells, genes, expression e WHERE e.symbol = 'A'", symbols("A")),
        ("WITH x AS (FROM expression WHERE symbol = 'A') FROM x WHERE count > 1", symbols("A")),
        ("FROM expression WHERE symbol = 'A' OR symbol = 'B'", None),
        (
            "FROM (FROM expression WHERE symbol = 'A') a JOIN (FROM expression WHERE gene_id = 'j')"
            " b USING (cell_id)",
            symbols("A") | gene_ids("j"),
        ),
        (
            "FROM expression a JOIN expression b USING (cell_id) WHERE a.symbol = 'A' "
            "AND b.symbol = 'B'",
            symbols("A", "B"),
        ),
        (
            "SELECT (SELECT sum(count) FROM expression e WHERE symbol = 'A' "
            "AND e.cell_id = c.cell_id) FROM cells c",
            symbols("A"),
        ),
        ("FROM mean_by('A', cell_type)", either("A")),
        ("FROM Mean_By(groups := cell_type, gene := 'A')", either("A")),
        ("FROM coexpression('A', 'B', groups := cell_type)", either("A", "B")),
        ("FROM coexpression('A', other := 'B')", either("A", "B")),
        ("FROM pseudobulk(cell_type, genes := ['A', 'B'])", either("A", "B")),
        ("FROM normalised('A') JOIN cells USING (cell_id)", either("A")),
        (
            "FROM normalised('A', chosen := cell_id IN "
            "(SELECT cell_id FROM expression WHERE symbol = 'B'))",
            either("A") | symbols("B"),
        ),
        ("SELECT 1", GenesNamed()),
    ],
)
def test_a_gene_that_is_demanded_in_so_many_words_is_understood(
    query: str, expected: GenesNamed | None
) -> None:
    assert named(query) == expected


@pytest.mark.parametrize(
    "query",
    [
        "SELECT sum(count) FROM expression",
        "FROM expression WHERE symbol <> 'A'",
        "FROM expression WHERE NOT symbol = 'A'",
        "FROM expression WHERE symbol NOT IN ('A')",
        "FROM expression WHERE symbol = 'A' COLLATE NOCASE",
        "FROM expression WHERE lower(symbol) = 'a'",
        "FROM expression WHERE symbol = 1",
        "FROM expression WHERE symbol = gene_id",
        "FROM expression WHERE symbol IN ('A', upper('b'))",
        "FROM expression WHERE symbol LIKE 'A'",
        "FROM expression HAVING symbol = 'A'",
        "FROM expression QUALIFY symbol = 'A'",
        "FROM expression e WHERE other.symbol = 'A'",
        "FROM expression e JOIN genes g USING (gene_id) WHERE g.symbol = 'A'",
        "FROM expression AS e(a, b, c, symbol, d, f) WHERE symbol = 'A'",
        "FROM expression TABLESAMPLE 10% WHERE symbol = 'A'",
        "FROM cells c LEFT JOIN expression e ON e.cell_id = c.cell_id AND e.symbol = 'A'",
        "FROM cells c LEFT JOIN expression e USING (cell_id) WHERE e.symbol = 'A'",
        "FROM expression e ANTI JOIN cells USING (cell_id) WHERE symbol = 'A'",
        "FROM expression POSITIONAL JOIN cells WHERE symbol = 'A'",
        "FROM expression NATURAL JOIN genes WHERE symbol = 'A'",
        "FROM (FROM expression) WHERE symbol = 'A'",
        "FROM expression a JOIN expression b USING (cell_id) WHERE a.symbol = 'A'",
        "FROM expression WHERE symbol = 'A' UNION ALL FROM expression",
        "FROM mean_by('A', cell_type), expression",
        "FROM (VALUES ('A')) g(name), mean_by(g.name, cell_type)",
        "FROM mean_by('A' || 'B', cell_type)",
        "FROM mean_by(1, cell_type)",
        "FROM mean_by(groups := cell_type)",
        "FROM pseudobulk(cell_type)",
        "FROM pseudobulk(cell_type, genes := NULL)",
        "FROM pseudobulk(cell_type, genes := ['A', NULL])",
        "FROM markers(cell_type = 'B')",
        "DESCRIBE expression",
        "SHOW TABLES",
    ],
)
def test_of_any_other_query_all_genes_are_needed(query: str) -> None:
    assert named(query) is None
