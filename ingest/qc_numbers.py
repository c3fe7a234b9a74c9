"""What the quality report tells, counted in SQL over a snapshot. Knows no plot and no page.

A source may have millions of cells, dropped ones with them, so no list of cells leaves the engine:
only tallies of distinct values, which are exact, and grids as fine as a screen. Array suffixes:
v distinct value, p place of a grid.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..corpus.log.history import CommittedSource
from ..corpus.log.receipts import Receipt
from ..corpus.log.rows import literal
from ..corpus.store import Corpus

MITO_STEPS = 2000
"""Mitochondrial fractions are told to 1 / 2000: a hundred steps up to a threshold of 5 %."""

SCORE_STEPS = 200
"""Doublet scores are told to 1 / 200."""

COUNT_STEPS = 100
"""The scatter tells total counts to 1 / 100 of a decade, 2 %: narrower than a dot."""

_SCORES = ("scrublet_doublet_score", "doublet_score")
"""Columns of scores; the first is ours where a source has the second itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """How often each value occurs among some cells. Arrays have shape (n_values,), int64.

    Attributes:
        value_v: the distinct values, ascending, in steps.
        kept_v: kept cells with the value.
        dropped_v: dropped cells with the value.
        steps: how many steps are 1: a value means `value / steps` up to the next step.
        n_unknown: cells without a value, kept and dropped.
    """

    value_v: NDArray[np.int64]
    kept_v: NDArray[np.int64]
    dropped_v: NDArray[np.int64]
    steps: int = 1
    n_unknown: tuple[int, int] = (0, 0)

    @property
    def total(self) -> int:
        """Cells with a value."""
        return int(self.kept_v.sum() + self.dropped_v.sum())


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Total counts against mitochondrial fraction; places that hold cells. Shape (n_places,).

    Attributes:
        counts_p: total counts at the middle of the place.
        mito_p: mitochondrial fraction at the middle of the place.
        kept_p: kept cells there.
        dropped_p: dropped cells there.
    """

    counts_p: NDArray[np.float64]
    mito_p: NDArray[np.float64]
    kept_p: NDArray[np.int64]
    dropped_p: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceTallies:
    """The cells of one source, those in the snapshot and those that were dropped.

    Attributes:
        counts: total counts.
        genes: detected genes.
        mito: mitochondrial fractions.
        scatter: total counts against mitochondrial fraction, of cells that have counts.
    """

    counts: Tally
    genes: Tally
    mito: Tally
    scatter: Grid


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceAccount:
    """An accepted source in the snapshot.

    Attributes:
        source: its commit and receipt.
        n_living: its cells in the snapshot; fewer than were kept once some are deleted.
        n_not_primary: how many of them are the same as a cell that counts instead.
        n_withdrawn: cells left out at the commit, for their use is no longer allowed.
        medians: of `n_counts`, `n_genes`, `mito_fraction`; absent where no cell has a value.
        linked: source that was there before -> cells found to be the same at ingest: same
            barcodes, equal counts on the genes that both measure.
        linked_by: source that came later -> the same, found when it came.
        equal: other source -> cells of this one whose stored counts are equal to one of its.
        n_equal_within: cells whose stored counts are equal to another cell's of this source.
    """

    source: CommittedSource
    n_living: int = 0
    n_not_primary: int = 0
    n_withdrawn: int = 0
    medians: Mapping[str, float] = field(default_factory=dict[str, float])
    linked: Mapping[str, int] = field(default_factory=dict[str, int])
    linked_by: Mapping[str, int] = field(default_factory=dict[str, int])
    equal: Mapping[str, int] = field(default_factory=dict[str, int])
    n_equal_within: int = 0

    @property
    def receipt(self) -> Receipt:
        """The source's receipt."""
        return self.source.receipt

    @property
    def source_id(self) -> str:
        """The source's name."""
        return self.receipt.source_id

    @property
    def dropped_share(self) -> float:
        """Dropped cells of those read; 0 where none was read."""
        return self.receipt.n_dropped / max(self.receipt.n_read, 1)

    @property
    def mapped_share(self) -> float:
        """Gene names that have an Ensembl id, of those read; NaN where the receipt has none."""
        n_read = self.receipt.genes.get("n_read", 0)
        return self.receipt.genes.get("n_mapped", 0) / n_read if n_read else math.nan


def account_for(corpus: Corpus) -> list[SourceAccount]:
    """Every accepted source of the snapshot, by name."""
    cells = corpus.sql(
        "SELECT source_id, count(*) AS n_living, count(*) FILTER (WHERE NOT is_primary) AS others, "
        "median(n_counts) AS n_counts, median(n_genes) AS n_genes, median(mito_fraction) AS "
        "mito_fraction FROM cells GROUP BY source_id"
    ).to_pylist()
    living = {row["source_id"]: row for row in cells}
    bodies = {record.version: record.body for record in corpus.state.records[: corpus.snapshot + 1]}
    sources = sorted(corpus.state.accepted, key=lambda source: source.receipt.source_id)
    linked = {
        source.receipt.source_id: dict(bodies[source.snapshot].get("linked") or {})
        for source in sources
    }
    equal, within = _equal_contents(corpus)
    accounts: list[SourceAccount] = []
    for source in sources:
        name = source.receipt.source_id
        row = living.get(name, {})
        medians = {k: row.get(k) for k in ("n_counts", "n_genes", "mito_fraction")}
        accounts.append(
            SourceAccount(
                source=source,
                n_living=row.get("n_living", 0),
                n_not_primary=row.get("others", 0),
                n_withdrawn=int(bodies[source.snapshot].get("n_withdrawn") or 0),
                medians={k: float(value) for k, value in medians.items() if value is not None},
                linked={other: n for other, n in linked[name].items() if other in linked},
                linked_by={o: links[name] for o, links in linked.items() if name in links},
                equal=equal.get(name, {}),
                n_equal_within=within.get(name, 0),
            )
        )
    return accounts


def tally_sources(corpus: Corpus, source_ids: Sequence[str]) -> dict[str, SourceTallies]:
    """Count the cells of some sources, kept and dropped, by value.

    Args:
        corpus: the snapshot.
        source_ids: the sources; few at a time, for the tallies of all are held at once, and not
            one by one, for each query looks into every file of the snapshot.
    """
    mito = f"floor(mito_fraction * {MITO_STEPS})"
    counts = _tally(corpus, source_ids, "n_counts")
    genes = _tally(corpus, source_ids, "n_genes")
    fractions = _tally(corpus, source_ids, mito, MITO_STEPS)
    scatter = _scatter(corpus, source_ids)
    return {
        name: SourceTallies(
            counts=counts[name], genes=genes[name], mito=fractions[name], scatter=scatter[name]
        )
        for name in source_ids
    }


def tally_doublet_scores(corpus: Corpus) -> dict[str, Tally]:
    """The doublet scores of each source that has them; only kept cells have one on record."""
    described = corpus.sql("SELECT column_name FROM (DESCRIBE source_obs)")
    known = {str(name).lower() for name in described.column(0).to_pylist()}
    found: dict[str, Tally] = {}
    for column in _SCORES:
        if column not in known:
            continue
        table = corpus.sql(
            "WITH scored AS (SELECT c.source_id, TRY_CAST(CAST(o."
            f"{column} AS VARCHAR) AS DOUBLE) AS score "
            "FROM source_obs o JOIN cells c ON c.cell_id = o.cell_id) SELECT source_id, "
            f"CAST(floor(score * {SCORE_STEPS}) AS BIGINT) AS value, count(*) AS kept, "
            "0::BIGINT AS dropped "
            "FROM scored WHERE score BETWEEN 0 AND 1 GROUP BY ALL ORDER BY ALL"
        )
        for source_id in table.column("source_id").unique().to_pylist():
            found.setdefault(source_id, _tally_of(_of(table, source_id), SCORE_STEPS))
    return found


def _judged(source_ids: Sequence[str], *columns: str) -> str:
    """A SELECT of expressions over all cells that sources brought, and whether each is kept."""
    named = ", ".join(("source_id", *columns))
    where = f"WHERE source_id IN ({', '.join(map(literal, source_ids))})"
    return (
        f"SELECT {named}, true AS is_kept FROM cells {where} "
        f"UNION ALL SELECT {named}, false AS is_kept FROM dropped {where}"
    )


_TALLY = (
    "count(*) FILTER (WHERE is_kept) AS kept, count(*) FILTER (WHERE NOT is_kept) AS dropped "
    "FROM judged GROUP BY ALL ORDER BY ALL"
)


def _of(table: pa.Table, source_id: str) -> pa.Table:
    return table.filter(pc.field("source_id") == source_id)


def _tally(
    corpus: Corpus, source_ids: Sequence[str], value: str, steps: int = 1
) -> dict[str, Tally]:
    judged = _judged(source_ids, f"CAST({value} AS BIGINT) AS value")
    table = corpus.sql(f"WITH judged AS ({judged}) SELECT source_id, value, {_TALLY}")
    return {name: _tally_of(_of(table, name), steps) for name in source_ids}


def _tally_of(table: pa.Table, steps: int) -> Tally:
    unknown = table.filter(table.column("value").is_null())
    known = table.filter(table.column("value").is_valid())
    n_unknown = [sum(unknown.column(name).to_pylist()) for name in ("kept", "dropped")]
    return Tally(
        value_v=known.column("value").to_numpy(),
        kept_v=known.column("kept").to_numpy(),
        dropped_v=known.column("dropped").to_numpy(),
        steps=steps,
        n_unknown=(n_unknown[0], n_unknown[1]),
    )


def _scatter(corpus: Corpus, source_ids: Sequence[str]) -> dict[str, Grid]:
    judged = _judged(source_ids, "n_counts", "mito_fraction")
    table = corpus.sql(
        f"WITH cells_of AS ({judged}), judged AS (SELECT source_id, is_kept, "
        f"CAST(floor(log10(n_counts) * {COUNT_STEPS}) AS BIGINT) AS x, "
        f"CAST(floor(mito_fraction * {MITO_STEPS}) AS BIGINT) AS y "
        "FROM cells_of WHERE n_counts > 0 AND mito_fraction IS NOT NULL) "
        f"SELECT source_id, x, y, {_TALLY}"
    )
    return {name: _grid_of(_of(table, name)) for name in source_ids}


def _grid_of(table: pa.Table) -> Grid:
    return Grid(
        counts_p=10.0 ** ((table.column("x").to_numpy() + 0.5) / COUNT_STEPS),
        mito_p=(table.column("y").to_numpy() + 0.5) / MITO_STEPS,
        kept_p=table.column("kept").to_numpy(),
        dropped_p=table.column("dropped").to_numpy(),
    )


def _equal_contents(corpus: Corpus) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Cells of equal stored counts: of each source in each other one, and inside each."""
    # By content and source first: many cells of one content must not be paired cell by cell.
    table = corpus.sql(
        "WITH held AS (SELECT content_hash, source_id, count(*) AS n FROM cells GROUP BY ALL) "
        "SELECT a.source_id AS mine, b.source_id AS other, sum(a.n)::BIGINT AS n FROM held a "
        "JOIN held b ON a.content_hash = b.content_hash AND (a.source_id <> b.source_id OR a.n > 1)"
        " GROUP BY ALL ORDER BY ALL"
    )
    equal: dict[str, dict[str, int]] = {}
    within: dict[str, int] = {}
    for row in table.to_pylist():
        if row["mine"] == row["other"]:
            within[row["mine"]] = row["n"]
        else:
            equal.setdefault(row["mine"], {})[row["other"]] = row["n"]
    return equal, within
