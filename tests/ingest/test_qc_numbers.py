"""What the quality report counts, against plain loops over all cells."""

import math
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cytolake.corpus.store import Corpus
from cytolake.ingest.qc_numbers import (
    COUNT_STEPS,
    MITO_STEPS,
    SCORE_STEPS,
    Tally,
    account_for,
    tally_doublet_scores,
    tally_sources,
)

from .qc_corpora import bring, some_rows

KEPT, DROPPED = some_rows(1, 70), some_rows(2, 30)
REASONS = ("total_counts", "mitochondrial", "min_genes")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Three sources: one of everything, one whose cells were all dropped, one without fractions."""
    corpus = Corpus.create(tmp_path_factory.mktemp("qc") / "lake")
    dropped = [row | {"reason": REASONS[i % 3]} for i, row in enumerate(DROPPED)]
    summed = {"reason": "duplicate_barcode", **dict.fromkeys(KEPT[0])}
    scores = [None if i % 7 == 0 else i / 70 for i in range(70)]
    bring(corpus, "whole", kept=KEPT, dropped=[*dropped, summed], own={"doublet_score": scores})
    lost = [row | {"reason": "mutational_burden"} for row in some_rows(3, 12)]
    bring(corpus, "lost", kept=[], dropped=lost, seed=1)
    own = {"doublet_score": ["high", "0.25", "7"], "scrublet_doublet_score": [0.5, 0.5, None]}
    bring(corpus, "bare", kept=some_rows(4, 3, mito=False), seed=2, own=own)
    return Corpus.open(corpus.uri)


def as_counter(tally: Tally) -> Counter[tuple[int, bool]]:
    found: Counter[tuple[int, bool]] = Counter()
    for kind, n_v in ((True, tally.kept_v), (False, tally.dropped_v)):
        found.update({(int(v), kind): int(n) for v, n in zip(tally.value_v, n_v, strict=True) if n})
    return found


def cells_of(corpus: Corpus, source_id: str) -> list[tuple[dict[str, Any], bool]]:
    """All rows of both views, gone through one by one."""
    return [
        (row, view == "cells")
        for view in ("cells", "dropped")
        for row in corpus.sql(f"SELECT * FROM {view}").to_pylist()
        if row["source_id"] == source_id
    ]


@pytest.mark.parametrize("source_id", ["whole", "lost", "bare"])
def test_each_tally_counts_every_cell_once(corpus: Corpus, source_id: str) -> None:
    cells = cells_of(corpus, source_id)
    tallies = tally_sources(corpus, [source_id])[source_id]
    for tally, name, steps in (
        (tallies.counts, "n_counts", 1),
        (tallies.genes, "n_genes", 1),
        (tallies.mito, "mito_fraction", MITO_STEPS),
    ):
        known = [(row[name], is_kept) for row, is_kept in cells if row[name] is not None]
        assert as_counter(tally) == Counter((math.floor(v * steps), kind) for v, kind in known)
        assert tally.total == len(known)
        unknown = [is_kept for row, is_kept in cells if row[name] is None]
        assert tally.n_unknown == (unknown.count(True), unknown.count(False))
        assert (np.diff(tally.value_v) > 0).all()


def test_the_scatter_puts_every_cell_that_has_counts_at_its_place(corpus: Corpus) -> None:
    expected = Counter(
        (
            math.floor(math.log10(row["n_counts"]) * COUNT_STEPS),
            math.floor(row["mito_fraction"] * MITO_STEPS),
            is_kept,
        )
        for row, is_kept in cells_of(corpus, "whole")
        if row["n_counts"] and row["mito_fraction"] is not None
    )
    grid = tally_sources(corpus, ["whole"])["whole"].scatter
    found: Counter[tuple[int, int, bool]] = Counter()
    for at in range(len(grid.counts_p)):
        place = (
            math.floor(math.log10(grid.counts_p[at]) * COUNT_STEPS),
            math.floor(grid.mito_p[at] * MITO_STEPS),
        )
        found[*place, True] += int(grid.kept_p[at])
        found[*place, False] += int(grid.dropped_p[at])
    assert +found == expected


def test_a_source_without_fractions_has_no_scatter(corpus: Corpus) -> None:
    assert len(tally_sources(corpus, ["bare"])["bare"].scatter.counts_p) == 0


def test_scores_are_counted_where_there_are_any(corpus: Corpus) -> None:
    scores = tally_doublet_scores(corpus)
    assert set(scores) == {"whole", "bare"}
    expected = Counter((math.floor(i / 70 * SCORE_STEPS), True) for i in range(70) if i % 7)
    assert as_counter(scores["whole"]) == expected


def test_a_source_with_scores_of_its_own_shows_ours(corpus: Corpus) -> None:
    assert as_counter(tally_doublet_scores(corpus)["bare"]) == {(SCORE_STEPS // 2, True): 2}


def test_a_corpus_without_scores_has_none(fake_corpus: Corpus) -> None:
    assert tally_doublet_scores(fake_corpus) == {}


def test_the_account_of_a_source_is_that_of_its_cells(corpus: Corpus) -> None:
    accounts = {account.source_id: account for account in account_for(corpus)}
    assert list(accounts) == ["bare", "lost", "whole"]
    whole = accounts["whole"]
    assert (whole.n_living, whole.receipt.n_read, whole.receipt.n_dropped) == (70, 101, 31)
    assert whole.dropped_share == 31 / 101
    for name, value in whole.medians.items():
        assert value == median(row[name] for row in KEPT if row[name] is not None)
    assert accounts["lost"].medians == {} and accounts["lost"].n_living == 0
    assert "mito_fraction" not in accounts["bare"].medians
    assert math.isnan(whole.mapped_share)


def test_equal_and_linked_cells_are_told_from_both_sides(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "lake")
    bring(corpus, "first", kept=some_rows(1, 4), prefix="cell")
    bring(corpus, "renamed", kept=some_rows(1, 2), prefix="other")
    bring(corpus, "subset", kept=some_rows(1, 3), prefix="cell", n_genes=12)
    accounts = {a.source_id: a for a in account_for(Corpus.open(corpus.uri))}
    assert accounts["first"].equal == {"renamed": 2}
    assert accounts["renamed"].equal == {"first": 2}
    assert accounts["subset"].equal == {}
    assert accounts["subset"].linked == {"first": 3}
    assert accounts["first"].linked_by == {"subset": 3}
    assert accounts["renamed"].linked == accounts["renamed"].linked_by == {}
    assert {name: a.n_not_primary for name, a in accounts.items()} == {
        "first": 0,
        "renamed": 2,
        "subset": 3,
    }


def test_cells_of_equal_counts_inside_a_source_are_told(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "lake")
    bring(corpus, "twins", kept=some_rows(1, 4), cells=[0, 1, 1, 1])
    [account] = account_for(Corpus.open(corpus.uri))
    assert account.n_equal_within == 3
    assert account.n_not_primary == 2
    assert account.equal == {}


def test_deleted_cells_are_no_longer_counted_and_older_snapshots_keep_them(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "lake")
    bring(corpus, "first", kept=some_rows(1, 6))
    Corpus.open(corpus.uri).delete("barcode = 'first-2'")
    newest = Corpus.open(corpus.uri)
    assert account_for(newest)[0].n_living == 5
    assert tally_sources(newest, ["first"])["first"].counts.total == 5
    assert account_for(Corpus.open(corpus.uri, 1))[0].n_living == 6


def test_a_name_that_would_end_its_quotes_is_only_a_name(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "lake")
    name = "it's \"; DROP TABLE cells; --"
    bring(corpus, name, kept=some_rows(1, 4), own={"doublet_score": pa.array([0.1] * 4)})
    opened = Corpus.open(corpus.uri)
    assert tally_sources(opened, [name])[name].counts.total == 4
    assert tally_doublet_scores(opened)[name].total == 4


def test_sources_are_counted_together_as_they_are_alone(corpus: Corpus) -> None:
    together = tally_sources(corpus, ["whole", "lost", "bare"])
    for name, tallies in together.items():
        alone = tally_sources(corpus, [name])[name]
        for measure in ("counts", "genes", "mito"):
            mine, other = getattr(tallies, measure), getattr(alone, measure)
            assert as_counter(mine) == as_counter(other)
            assert mine.n_unknown == other.n_unknown
        assert tallies.scatter.counts_p.tolist() == alone.scatter.counts_p.tolist()
        assert tallies.scatter.dropped_p.tolist() == alone.scatter.dropped_p.tolist()
