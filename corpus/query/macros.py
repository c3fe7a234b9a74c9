"""Questions people ask of genes and groups, as table macros inside SQL. Knows views; knows no file.

A group is whatever expression over `cells` one types: `cell_type`, `(donor_id, cell_type)`,
`n_counts > 2000`; `chosen := ...` leaves cells out. In all of them a cell whose segment did not
measure a gene counts for nothing, one that measured it and stored no count is 0, and a gene's name
is a symbol or an Ensembl id. Where several genes bear a symbol, each has rows of its own.

    SELECT * FROM normalised('CD3D')
    SELECT * FROM mean_by('CD3D', cell_type, chosen := tissue = 'blood')
    SELECT * FROM pseudobulk((donor_id, cell_type), genes := ['CD3D', 'MS4A1'])
    SELECT * FROM coexpression('CD4', 'CD8A', groups := cell_type)
    SELECT * FROM markers(cell_type = 'B cell', chosen := tissue = 'blood')

`per_10k` is count / n_counts x 10,000, `log1p` the natural logarithm of 1 + that; `n_counts` is the
cell's total before genes were mapped (as in the corpus's medians).
"""

# What begins with _lake_ no WITH of a user may be called: it would be taken for ours.
_VALUE = "e.count / greatest(p.n_counts, 1) * 1e4"

# A name that no gene bears is an error: an empty answer would read as "not expressed".
_WANTED = """
{name} AS MATERIALIZED (
    SELECT gene_id, symbol FROM main.genes WHERE symbol = {gene} OR gene_id = {gene}
    UNION ALL
    SELECT error('no gene of the corpus is called ' || {gene} || ': look in the view genes'), NULL
    WHERE NOT EXISTS (FROM main.genes WHERE symbol = {gene} OR gene_id = {gene})
)"""

_LISTED = """
_lake_wanted AS MATERIALIZED (
    SELECT gene_id, symbol FROM main.genes
    WHERE genes IS NULL OR list_contains(genes::VARCHAR[], symbol)
        OR list_contains(genes::VARCHAR[], gene_id)
    UNION ALL
    SELECT error('no gene of the corpus is called ' || name || ': look in the view genes'), NULL
    FROM (SELECT unnest(genes::VARCHAR[]) AS name)
    WHERE name NOT IN (SELECT symbol FROM main.genes WHERE symbol IS NOT NULL)
        AND name NOT IN (SELECT gene_id FROM main.genes)
)"""

_PICKED = """
_lake_picked AS (
    SELECT cell_id, segment, n_counts, ({label}) AS label FROM main.cells WHERE (chosen)
)"""

# How many cells of each group there are, and how many of them measured each gene.
_ABLE = """
_lake_sizes AS (SELECT label, segment, count(*) AS n FROM _lake_picked GROUP BY ALL),
_lake_wholes AS (SELECT label, sum(n)::BIGINT AS n_cells FROM _lake_sizes GROUP BY ALL),
_lake_measuring AS (
    SELECT s.label, m.gene_id, sum(s.n)::BIGINT AS n_measured
    FROM _lake_sizes s JOIN main.measured m USING (segment)
    SEMI JOIN _lake_wanted USING (gene_id) GROUP BY ALL
)"""

_NORMALISED = f"""
CREATE MACRO normalised(gene, chosen := true) AS TABLE
WITH {_WANTED.format(name="_lake_wanted", gene="gene")},
_lake_picked AS (SELECT cell_id, segment, n_counts FROM main.cells WHERE (chosen)),
_lake_stored AS MATERIALIZED (
    SELECT e.cell_id, e.gene_id, e.count FROM main.expression e JOIN _lake_wanted USING (gene_id)
),
_lake_able AS (SELECT segment, gene_id FROM main.measured SEMI JOIN _lake_wanted USING (gene_id)),
_lake_counted AS (
    SELECT p.cell_id, w.gene_id, w.symbol, p.n_counts,
        CASE WHEN _lake_able.gene_id IS NOT NULL THEN coalesce(s.count, 0) END AS count
    FROM _lake_picked p CROSS JOIN _lake_wanted w
    LEFT JOIN _lake_able ON _lake_able.segment = p.segment AND _lake_able.gene_id = w.gene_id
    LEFT JOIN _lake_stored s ON s.cell_id = p.cell_id AND s.gene_id = w.gene_id
)
SELECT cell_id, gene_id, symbol, count, count / greatest(n_counts, 1) * 1e4 AS per_10k,
    ln(1 + count / greatest(n_counts, 1) * 1e4) AS log1p
FROM _lake_counted
"""

_MEAN_BY = f"""
CREATE MACRO mean_by(gene, groups, chosen := true) AS TABLE
WITH {_WANTED.format(name="_lake_wanted", gene="gene")}, {_PICKED.format(label="groups")}, {_ABLE},
_lake_stored AS MATERIALIZED (
    SELECT e.cell_id, e.gene_id, e.count FROM main.expression e JOIN _lake_wanted USING (gene_id)
),
_lake_seen AS (
    SELECT p.label, e.gene_id, count(*) AS n, sum({_VALUE}) AS total,
        sum(ln(1 + {_VALUE})) AS total_log
    FROM _lake_stored e JOIN _lake_picked p USING (cell_id) GROUP BY ALL
)
SELECT a.label, w.gene_id, w.symbol, a.n_cells, coalesce(m.n_measured, 0) AS n_measured,
    coalesce(s.n, 0) AS n_expressing, coalesce(s.total, 0) / m.n_measured AS mean,
    coalesce(s.total_log, 0) / m.n_measured AS mean_log1p,
    coalesce(s.n, 0) / m.n_measured AS fraction
FROM _lake_wholes a CROSS JOIN _lake_wanted w
LEFT JOIN _lake_measuring m ON m.label IS NOT DISTINCT FROM a.label AND m.gene_id = w.gene_id
LEFT JOIN _lake_seen s ON s.label IS NOT DISTINCT FROM a.label AND s.gene_id = w.gene_id
ORDER BY ALL
"""

_PSEUDOBULK = f"""
CREATE MACRO pseudobulk(groups, genes := NULL, chosen := true) AS TABLE
WITH {_LISTED}, {_PICKED.format(label="groups")}, {_ABLE},
_lake_seen AS (
    SELECT p.label, e.gene_id, count(*) AS n, sum(e.count)::BIGINT AS total
    FROM main.expression e SEMI JOIN _lake_wanted USING (gene_id)
    JOIN _lake_picked p USING (cell_id) GROUP BY ALL
)
SELECT m.label, m.gene_id, w.symbol, a.n_cells, m.n_measured, coalesce(s.n, 0) AS n_expressing,
    coalesce(s.total, 0) AS total
FROM _lake_measuring m JOIN _lake_wanted w USING (gene_id)
JOIN _lake_wholes a ON a.label IS NOT DISTINCT FROM m.label
LEFT JOIN _lake_seen s ON s.label IS NOT DISTINCT FROM m.label AND s.gene_id = m.gene_id
ORDER BY m.label, m.gene_id
"""

_COEXPRESSION = f"""
CREATE MACRO coexpression(one, other, groups := NULL, chosen := true) AS TABLE
WITH {_WANTED.format(name="_lake_wanted", gene="one")},
{_WANTED.format(name="_lake_others", gene="other")}, {_PICKED.format(label="groups")},
_lake_stored AS MATERIALIZED (
    SELECT e.cell_id, e.gene_id, e.count FROM main.expression e
    SEMI JOIN (SELECT gene_id FROM _lake_wanted UNION SELECT gene_id FROM _lake_others)
    USING (gene_id)
),
_lake_valued AS (
    SELECT p.label, a.gene_id AS gene_id, a.symbol AS symbol, b.gene_id AS other_id,
        b.symbol AS other_symbol,
        ln(1 + coalesce(s.count, 0) / greatest(p.n_counts, 1) * 1e4) AS x,
        ln(1 + coalesce(t.count, 0) / greatest(p.n_counts, 1) * 1e4) AS y
    FROM _lake_picked p CROSS JOIN _lake_wanted a CROSS JOIN _lake_others b
    SEMI JOIN main.measured m ON m.segment = p.segment AND m.gene_id = a.gene_id
    SEMI JOIN main.measured k ON k.segment = p.segment AND k.gene_id = b.gene_id
    LEFT JOIN _lake_stored s ON s.cell_id = p.cell_id AND s.gene_id = a.gene_id
    LEFT JOIN _lake_stored t ON t.cell_id = p.cell_id AND t.gene_id = b.gene_id
)
SELECT label, gene_id, symbol, other_id, other_symbol, count(*) AS n_measured,
    count_if(x > 0 AND y > 0)::BIGINT AS n_both, count_if(x > 0 AND y = 0)::BIGINT AS n_only_one,
    count_if(x = 0 AND y > 0)::BIGINT AS n_only_other,
    count_if(x = 0 AND y = 0)::BIGINT AS n_neither,
    CASE WHEN min(x) < max(x) AND min(y) < max(y) THEN corr(x, y) END AS correlation
FROM _lake_valued GROUP BY ALL ORDER BY ALL
"""

# Welch's t of log1p values, zeros among them. The squares are added around the mean of the stored
# values, and the zeros' part then: sums of squares of all values would cancel.
_MARKERS = f"""
CREATE MACRO markers(target, genes := NULL, chosen := true) AS TABLE
WITH {_LISTED},
_lake_picked AS (
    SELECT * FROM (
        SELECT cell_id, segment, n_counts, (target)::BOOLEAN AS label
        FROM main.cells WHERE (chosen)
    ) WHERE label IS NOT NULL
), {_ABLE},
_lake_seen AS (
    SELECT label, gene_id, count(*) AS k, avg(y) AS y, var_pop(y) AS spread, sum(x) AS x
    FROM (
        SELECT p.label, e.gene_id, {_VALUE} AS x, ln(1 + {_VALUE}) AS y
        FROM main.expression e SEMI JOIN _lake_wanted USING (gene_id)
        JOIN _lake_picked p USING (cell_id)
    ) GROUP BY ALL
),
_lake_told AS (
    SELECT m.gene_id, m.label, m.n_measured AS n, coalesce(s.k, 0) / n AS fraction,
        coalesce(s.x, 0) / n AS mean, coalesce(s.y * s.k, 0) / n AS mean_log,
        coalesce(s.k * s.spread + s.k * (n - s.k) / n * s.y * s.y, 0) / nullif(n - 1, 0) AS variance
    FROM _lake_measuring m LEFT JOIN _lake_seen s ON s.label = m.label AND s.gene_id = m.gene_id
)
SELECT w.gene_id, w.symbol, a.n AS n_target, b.n AS n_rest, a.mean AS mean_target,
    b.mean AS mean_rest, a.fraction AS fraction_target, b.fraction AS fraction_rest,
    log2((exp(a.mean_log) - 1 + 1e-9) / (exp(b.mean_log) - 1 + 1e-9)) AS log2_fold_change,
    CASE WHEN a.variance + b.variance > 0 THEN
        (a.mean_log - b.mean_log) / sqrt(a.variance / a.n + b.variance / b.n) END AS score
FROM _lake_told a JOIN _lake_told b ON b.gene_id = a.gene_id AND NOT b.label
JOIN _lake_wanted w ON w.gene_id = a.gene_id WHERE a.label
ORDER BY score DESC NULLS LAST, gene_id
"""

MACROS = {
    "normalised": _NORMALISED,
    "mean_by": _MEAN_BY,
    "pseudobulk": _PSEUDOBULK,
    "coexpression": _COEXPRESSION,
    "markers": _MARKERS,
}
"""Name -> what makes it, in a DuckDB with the views `cells, genes, measured, expression`."""
