"""Bins hold every value once, whatever the values; a knee plot's dots are true."""

from itertools import pairwise

import numpy as np
import pytest
from cytolake.ingest.qc_axes import (
    N_BINS,
    binned,
    bins_between,
    histogram,
    knee_points,
    lines,
    log_ticks,
    plain,
    reach,
    short,
)
from cytolake.ingest.qc_numbers import Tally
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

CELLS = st.lists(st.tuples(st.integers(0, 300_000), st.booleans()), min_size=1, max_size=200)


def tally_of(cells: list[tuple[int, bool]]) -> Tally:
    values = sorted({value for value, _ in cells})
    return Tally(
        value_v=np.array(values, dtype=np.int64),
        kept_v=np.array([cells.count((v, True)) for v in values], dtype=np.int64),
        dropped_v=np.array([cells.count((v, False)) for v in values], dtype=np.int64),
    )


@given(cells=CELLS, log=st.booleans())
def test_each_cell_is_in_the_one_bin_that_holds_its_value(
    cells: list[tuple[int, bool]], log: bool
) -> None:
    cells = [(max(value, int(log)), is_kept) for value, is_kept in cells]
    values = [value for value, _ in cells]
    edges = bins_between(min(values), max(values), log=log)
    assert len(edges) <= N_BINS + 1
    for is_kept, found in zip((True, False), binned(tally_of(cells), edges), strict=True):
        mine = [value for value, kind in cells if kind == is_kept]
        assert found.tolist() == [
            sum(low < v < high for v in mine) for low, high in pairwise(edges)
        ]
        assert found.sum() == len(mine)


@given(low=st.integers(0, 1000), reach=st.integers(0, 10**6))
def test_bins_of_a_linear_scale_are_equally_wide(low: int, reach: int) -> None:
    widths = np.diff(bins_between(low, low + reach))
    assert (widths == widths[0]).all()
    assert widths[0] == int(widths[0])


@given(cells=CELLS)
def test_a_dot_of_the_knee_plot_says_how_many_cells_have_as_much_or_more(
    cells: list[tuple[int, bool]],
) -> None:
    rank, value, is_kept = knee_points(tally_of(cells))
    for r, v, kind in zip(rank.tolist(), value.tolist(), is_kept.tolist(), strict=True):
        assert r == sum(other >= v for other, _ in cells)
        assert (v, kind) in cells
    positive = [cell for cell in cells if cell[0] > 0]
    for kind in {kind for _, kind in positive}:  # the cell of most counts is never left out
        assert max(v for v, k in positive if k == kind) in value[is_kept == kind]


def test_an_axis_reaches_to_cells_and_thresholds() -> None:
    assert reach(np.array([5, 9]), {"low": 2.5, "high": 11.2}) == (2, 12)
    assert reach(np.array([5, 9]), {}) == (5, 9)


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("mitochondrial", "mitochondrial"),
        ("$x^2$ \n\u2603", "$x^2$ ??"),
        ("a" * 30, "a" * 17 + "..."),
    ],
    ids=["plain", "odd letters", "long"],
)
def test_words_of_a_source_are_drawn_as_letters_that_the_font_has(text: str, drawn: str) -> None:
    assert plain(text) == drawn


@pytest.mark.parametrize(
    ("value", "said"), [(1, "1"), (500, "500"), (2000, "2k"), (1.5e6, "1.5M"), (3e9, "3G")]
)
def test_a_tick_is_short(value: float, said: str) -> None:
    assert short(value) == said


def test_a_threshold_is_drawn_where_it_lies_and_says_its_value() -> None:
    axis = Figure().add_subplot()
    tally = tally_of([(3, True), (90, False)])
    histogram(axis, tally, bins_between(3, 100))
    n_lines = len(axis.lines)
    lines(axis, {"low": 4.0, "high": 88.5}, "{:.1f}")
    drawn = [np.asarray(line.get_xdata()).tolist() for line in axis.lines[n_lines:]]
    assert drawn == [[4.0, 4.0], [88.5, 88.5]]
    assert [text.get_text() for text in axis.texts] == ["from 4.0", "to 88.5"]


@pytest.mark.parametrize("ends", [(330, 330), (300, 800), (1, 9e5)], ids=["one", "short", "long"])
def test_a_log_scale_has_ticks_however_short_it_is(ends: tuple[float, float]) -> None:
    axis = Figure().add_subplot()
    axis.scatter(ends, [1, 1])
    axis.set_xscale("log")
    log_ticks(axis.xaxis)
    low, high = axis.get_xlim()
    seen = [tick for tick in axis.get_xticks() if low <= tick <= high]
    assert 2 <= len(seen) <= 8
    assert len({short(tick) for tick in seen}) == len(seen)
    assert low <= ends[0] and ends[1] <= high
