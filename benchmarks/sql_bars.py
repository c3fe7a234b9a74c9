"""The bars of SQL: milliseconds of the questions people ask, warm, through the public views.

    python -m benchmarks.sql_bars [FOLDER]

Makes three corpora (60,000 cells x 2,000 genes seen in 20 segments and in 400, a million shallow
cells in 400), deletes 1 % of the cells of each, asks each question until it is warm and then nine
times more, and writes the dated note. A FOLDER keeps the corpora for the next time. No answer is
kept between the runs of a query; only what the engine keeps anyway: footers, genes, places.
"""

import platform
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from cytolake import __version__
from cytolake.corpus.store import Corpus
from cytolake.platform.settings import load_settings

from benchmarks.source_statistics import default_statistics
from benchmarks.synthetic_corpus import build_corpus

HERE = Path(__file__).parent
RUNS = 9
GENES = ("CD3D", "MS4A1", "NKG7", "LYZ")

PLAIN_MEAN = """
WITH able AS (
    SELECT c.cell_type, count(*) AS n FROM cells c JOIN measured m ON m.segment = c.segment
    JOIN genes g ON g.gene_id = m.gene_id AND g.symbol = '{gene}' GROUP BY 1
), seen AS (
    SELECT c.cell_type, sum(e.count / c.n_counts * 1e4) AS total
    FROM expression e JOIN cells c USING (cell_id) WHERE e.symbol = '{gene}' GROUP BY 1
)
SELECT able.cell_type, coalesce(seen.total, 0) / able.n AS mean
FROM able LEFT JOIN seen ON able.cell_type IS NOT DISTINCT FROM seen.cell_type
"""
MEAN_BY = "FROM mean_by('{gene}', cell_type)"
FILTER = "SELECT count(*) FROM cells WHERE cell_type = 'B' AND n_counts > 1000"


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """A corpus to ask."""

    name: str
    n_cells: int
    n_segments: int
    n_sources: int
    depth: float
    n_genes: int | None = None


STORES = (
    Store(name="60k-20", n_cells=60_000, n_segments=20, n_sources=4, depth=2019.0),
    Store(name="60k-400", n_cells=60_000, n_segments=400, n_sources=4, depth=2019.0),
    Store(name="1m", n_cells=1_000_000, n_segments=400, n_sources=20, depth=30.0, n_genes=4000),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A line of the note: a question, its bar, and what was measured, in milliseconds."""

    title: str
    store: str
    bar: str
    median: float
    least: float


def opened(folder: Path, store: Store) -> Corpus:
    """The store, made if it is not there; its first snapshot after the deletion."""
    path = folder / store.name
    if not path.exists():
        source = default_statistics(load_settings())
        if store.n_genes is not None:
            source = source.keep_genes(store.n_genes)
        corpus = build_corpus(
            path, source, store.n_cells, store.n_segments, store.n_sources, 0, depth=store.depth
        )
        corpus.delete("cell_id % 100 = 3")
    return Corpus.open(path)


def timed(corpus: Corpus, query: str) -> tuple[float, float]:
    """Median and least milliseconds, over genes in turn, after each was asked once."""
    for gene in GENES:
        corpus.sql(query.format(gene=gene))
    spent: list[float] = []
    for run in range(RUNS):
        began = time.perf_counter()
        corpus.sql(query.format(gene=GENES[run % len(GENES)]))
        spent.append((time.perf_counter() - began) * 1e3)
    return statistics.median(spent), min(spent)


def measure(corpus: Corpus, store: Store) -> list[Row]:
    """Every question that has a bar at this store, and some that have none."""
    deep = store.name != "1m"
    few = {"60k-20": "40 must, 20 good", "60k-400": "150 must, 60 good"}.get(store.name, "none")
    asked = [
        ("count by filter on cells", "9 must, 5 good" if deep else "15 must, 5 good", FILTER),
        ("a gene's mean by type, by symbol, in plain SQL", few, PLAIN_MEAN),
        ("the same by mean_by(), with fractions", few, MEAN_BY),
    ]
    rows: list[Row] = []
    for title, bar, query in asked:
        median, least = timed(corpus, query)
        rows.append(Row(title=title, store=store.name, bar=bar, median=median, least=least))
    if store.name == "60k-20":
        whole = {
            "pseudobulk(cell_type), all genes": "SELECT count(*) FROM pseudobulk(cell_type)",
            "markers() of B cells, all genes": "SELECT count(*) FROM markers(cell_type = 'B')",
        }
        for title, query in whole.items():
            began = time.perf_counter()
            corpus.sql(query)
            spent = (time.perf_counter() - began) * 1e3
            rows.append(Row(title=title, store=store.name, bar="none", median=spent, least=spent))
    return rows


def note(rows: list[Row], firsts: dict[str, float], n_counts: dict[str, int]) -> str:
    """The note, in Markdown."""
    lines = [
        f"# {date.today()}: questions in SQL",
        "",
        f"Command: `python -m benchmarks.sql_bars`; cytolake {__version__}, Python "
        f"{platform.python_version()}, 2 cores. Median (least) of {RUNS} warm runs over "
        f"{len(GENES)} genes in turn, through `Corpus.sql`; 1 % of the cells deleted.",
        "",
        "| store | question | median ms | least ms | bar ms |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.store} | {row.title} | {row.median:.1f} | {row.least:.1f} | {row.bar} |"
        for row in rows
    ]
    lines += [""]
    lines += [
        f"- {store.name}: {store.n_cells:,} cells, {n_counts[store.name]:,} stored counts, "
        f"{store.n_segments} segments; the first question of a process, which hashes the files and "
        f"counts the genes, took {firsts[store.name]:.1f} s."
        for store in STORES
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Make the stores, ask, write the note."""
    given = sys.argv[1] if len(sys.argv) > 1 else None
    rows: list[Row] = []
    firsts: dict[str, float] = {}
    n_counts: dict[str, int] = {}
    with nullcontext(given) if given else tempfile.TemporaryDirectory() as folder:
        for store in STORES:
            corpus = opened(Path(folder), store)
            n_counts[store.name] = sum(entry.n_nonzero for entry in corpus.state.segments.values())
            began = time.perf_counter()
            corpus.sql(MEAN_BY.format(gene=GENES[0]))
            firsts[store.name] = time.perf_counter() - began
            rows += measure(corpus, store)
            for row in rows[-5:]:
                print(row, flush=True)
    (HERE / f"{date.today()}-sql.md").write_text(note(rows, firsts, n_counts))


if __name__ == "__main__":
    main()
