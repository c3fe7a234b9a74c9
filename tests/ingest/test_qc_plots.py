"""The figures of the quality report show the numbers they are given, and say what they lack."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from cytolake.corpus.log.history import CommittedSource
from cytolake.corpus.log.receipts import Receipt
from cytolake.ingest import qc_plots
from cytolake.ingest.qc_numbers import Grid, SourceAccount, SourceTallies, Tally
from cytolake.ingest.qc_plots import source_figure, total_figure
from matplotlib import pyplot

DROPPED = {"total_counts": 3, "filter:$x^$\u2603": 2}


def an_account(name: str = "a", **changes: Any) -> SourceAccount:
    given: dict[str, Any] = {
        "source_id": name,
        "uri": "file:///a",
        "sha256": "a" * 64,
        "n_bytes": 1,
        "reader": "h5ad",
        "n_read": 10,
        "n_kept": 5,
        "dropped": DROPPED,
        "thresholds": {"total_counts_low": -7.0, "total_counts_high": 250.5, "min_genes": 7.0},
        "genes": {
            "n_read": 100,
            "n_mapped": 90,
            "n_ensembl": 80,
            "n_retired": 10,
            "n_unmapped": 10,
        },
        "skipped_rules": {"mitochondrial": "no such genes"},
    }
    n_living = changes.pop("n_living", 5)
    source = CommittedSource(snapshot=1, committed_at=0, receipt=Receipt(**(given | changes)))
    return SourceAccount(source=source, n_living=n_living, medians={"n_counts": 100.0})


def a_tally(values: Mapping[int, tuple[int, int]], steps: int = 1) -> Tally:
    kept, dropped = zip(*values.values(), strict=True) if values else ((), ())
    return Tally(
        value_v=np.array(list(values), dtype=np.int64),
        kept_v=np.array(kept, dtype=np.int64),
        dropped_v=np.array(dropped, dtype=np.int64),
        steps=steps,
    )


def tallies(n_places: int = 0, **changes: Tally) -> SourceTallies:
    grid = Grid(
        counts_p=np.linspace(10, 300, n_places),
        mito_p=np.linspace(0, 0.2, n_places),
        kept_p=np.ones(n_places, dtype=np.int64),
        dropped_p=np.zeros(n_places, dtype=np.int64),
    )
    given = {
        "counts": a_tally({0: (0, 1), 100: (3, 0), 400: (2, 4)}),
        "genes": a_tally({5: (5, 5)}),
        "mito": a_tally({}),
    }
    return SourceTallies(scatter=grid, **(given | changes))


def titled(figure: Any, words: str) -> Any:
    return next(axis for axis in figure.axes if axis.get_title(loc="left").startswith(words))


def words_in(axis: Any) -> list[str]:
    return [text.get_text() for text in axis.texts]


def test_the_funnel_leads_from_cells_read_to_cells_kept() -> None:
    axis = titled(source_figure(an_account(), tallies(), None), "from read")
    assert [bar.get_width() for bar in axis.patches] == [10, 3, 2, 5]
    assert [bar.get_x() for bar in axis.patches] == [0, 7, 5, 0]
    assert words_in(axis) == ["10", "3 (30 %)", "2 (20 %)", "5 (50 %)"]


def test_cells_that_are_gone_since_are_told_from_cells_dropped() -> None:
    axis = titled(source_figure(an_account(n_living=4), tallies(), None), "from read")
    assert words_in(axis)[-2:] == ["5 (50 %)", "4 (40 %)"]
    assert axis.get_yticklabels()[-1].get_text() == "now in snapshot"


def test_rare_reasons_are_one_bar() -> None:
    many = {f"filter:{i}": i for i in range(1, 9)}
    account = an_account(n_read=41, dropped=many)
    axis = titled(source_figure(account, tallies(), None), "from read")
    shown = [label.get_text() for label in axis.get_yticklabels()]
    assert shown[1] == "filter:8" and shown[-2] == "other reasons"
    assert [bar.get_width() for bar in axis.patches] == [41, 8, 7, 6, 5, 4, 3, 1 + 2, 5]


def test_a_reason_with_odd_letters_is_no_formula_and_needs_no_other_font() -> None:
    figure = source_figure(an_account(), tallies(), None)
    figure.canvas.draw()  # a missing letter would warn, and warnings are errors
    label = titled(figure, "from read").get_yticklabels()[2]
    assert label.get_text() == "filter:$x^$?" and not label.get_parse_math()


def test_thresholds_are_drawn_only_where_a_value_can_meet_them() -> None:
    axis = titled(source_figure(an_account(), tallies(), None), "total counts a cell")
    assert words_in(axis) == ["to 250"]  # -7 is no bound of a count
    assert [line.get_xdata()[0] for line in axis.lines] == [250.5]
    assert axis.get_xlabel() == "not drawn: 1 without counts"


def test_what_is_not_measured_is_said_with_its_reason() -> None:
    figure = source_figure(an_account(), tallies(), None)
    assert words_in(titled(figure, "mitochondrial fraction")) == ["no such genes"]
    assert words_in(titled(figure, "mitochondrial %")) == ["no such genes"]


def test_a_source_without_cells_has_a_figure_all_the_same() -> None:
    nothing = a_tally({})
    account = an_account(n_read=0, n_kept=0, dropped={}, n_living=0, genes={}, skipped_rules={})
    figure = source_figure(account, tallies(counts=nothing, genes=nothing), None)
    assert words_in(titled(figure, "total counts a cell")) == ["no cell has counts"]
    assert words_in(titled(figure, "total counts by rank")) == ["no cell has counts"]
    assert words_in(titled(figure, "gene names")) == ["the receipt tells nothing of genes"]
    figure.canvas.draw()


def test_gene_names_are_told_by_kind_with_their_share() -> None:
    axis = titled(source_figure(an_account(), tallies(), None), "gene names, 100")
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "ensembl", "retired", "unmapped",
    ]  # fmt: skip
    assert words_in(axis) == ["80 (80 %)", "10 (10 %)", "10 (10 %)"]


def test_doublet_scores_have_a_plot_where_there_are_any() -> None:
    without = source_figure(an_account(), tallies(), None)
    scores = a_tally({3: (4, 0), 90: (1, 0)}, steps=200)
    thresholds = {"doublet_score_least": 0.2, "doublet_score_greatest": 0.3}
    account = an_account(thresholds=thresholds)
    figure = source_figure(account, tallies(), scores)
    assert len(figure.axes) == len(without.axes) + 1
    axis = titled(figure, "doublet scores")
    assert [line.get_xdata()[0] for line in axis.lines] == [0.2, 0.3]


@pytest.mark.parametrize("n_places", [100, qc_plots.RASTER_ABOVE + 1], ids=["few", "many"])
def test_many_dots_are_a_picture(n_places: int) -> None:
    figure = source_figure(an_account(), tallies(n_places), None)
    axis = titled(figure, "mitochondrial %, by")
    many = n_places > qc_plots.RASTER_ABOVE
    assert all(bool(dots.get_rasterized()) == many for dots in axis.collections)
    assert sum(len(dots.get_offsets()) for dots in axis.collections) == n_places


def test_the_total_funnel_adds_up_all_sources() -> None:
    accounts = [an_account("a"), an_account("b", n_read=7, dropped={"total_counts": 2})]
    figure = total_figure(accounts)
    assert words_in(titled(figure, "from read"))[0] == "17"
    assert [bar.get_width() for bar in titled(figure, "from read").patches] == [17, 5, 2, 10]


def test_sources_are_named_beside_their_dots_where_there_is_room() -> None:
    accounts = [an_account("worst"), an_account("close", n_read=100, dropped={"x": 49})]
    accounts.append(an_account("best", n_read=5, dropped={}))
    assert words_in(titled(total_figure(accounts), "cells dropped")) == ["worst", "best"]


def test_no_figure_is_left_open() -> None:
    source_figure(an_account(), tallies(), None)
    total_figure([an_account()])
    assert pyplot.get_fignums() == []
