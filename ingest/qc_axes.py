"""What the quality report's plots share: bins, thresholds, ticks, words. Knows no rule and no SQL.

Words that come from a source are drawn as plain ASCII: the font has no others, and `$` would start
a formula.
"""

import math
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .qc_numbers import Tally

KEPT, DROPPED, INK, SOFT = "#0072B2", "#D55E00", "#1c2430", "#6b7683"
"""Blue and vermilion are two colours of Okabe and Ito's palette, which colour-blind readers tell
apart."""

LABEL, TICK = 9, 8
"""Sizes of letters, in points."""

N_BINS = 60

_SHORTEST = 8
"""Of a log scale: on a shorter one there may be no tick of 1, 2 or 5."""

DASHES = (0, (4, 2))


def plain(text: str, most: int = 20) -> str:
    """A source's word as the font can draw it: printable ASCII, cut where it is long."""
    shown = "".join(letter if " " <= letter <= "~" else "?" for letter in text)
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def bins_between(low: int, high: int, *, log: bool = False) -> NDArray[np.float64]:
    """Edges of at most `N_BINS` bins that hold the whole numbers from `low` to `high`.

    No edge is a whole number, so that no value lies on one; all bins of a linear scale are
    equally many whole numbers wide, so that none is fuller for being broader.

    Args:
        low: the least value; 1 or more on a log scale.
        high: the greatest value.
        log: whether bins are equally broad on a log scale, as far as whole numbers allow.

    Returns:
        Edges, ascending. Shape (n_bins + 1,).
    """
    if log:
        places = np.rint(np.geomspace(low, high + 1, N_BINS + 1))
        return np.unique(places) - 0.5
    width = max(1, math.ceil((high - low + 1) / N_BINS))
    n_bins = math.ceil((high - low + 1) / width)
    return low - 0.5 + width * np.arange(n_bins + 1, dtype=np.float64)


def binned(tally: Tally, edges: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Kept and dropped cells in each bin; both of shape (n_bins,), int64."""
    kept, _ = np.histogram(tally.value_v, edges, weights=tally.kept_v)
    dropped, _ = np.histogram(tally.value_v, edges, weights=tally.dropped_v)
    return kept.astype(np.int64), dropped.astype(np.int64)


def knee_points(tally: Tally) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """What a knee plot draws: for each total, how many cells have as much or more.

    Returns:
        Rank, total counts and whether it is one of kept cells, as many as a screen can show: of
        dots that would lie on each other the first one. All of shape (n_points,).
    """
    n_above_v = np.cumsum((tally.kept_v + tally.dropped_v)[::-1])[::-1]
    ranks: list[NDArray[np.int64]] = []
    values: list[NDArray[np.int64]] = []
    kinds: list[NDArray[np.bool_]] = []
    for is_kept, n_v in ((True, tally.kept_v), (False, tally.dropped_v)):
        chosen = np.flatnonzero((n_v > 0) & (tally.value_v > 0))[::-1]
        rank, value = n_above_v[chosen], tally.value_v[chosen]
        places = np.stack([np.floor(np.log10(rank) * 60), np.floor(np.log10(value) * 60)])
        _, first = np.unique(places, axis=1, return_index=True)
        first = np.sort(first)
        ranks.append(rank[first])
        values.append(value[first])
        kinds.append(np.full(len(first), is_kept))
    return np.concatenate(ranks), np.concatenate(values), np.concatenate(kinds)


def histogram(
    axis: Any,
    tally: Tally,
    edges: NDArray[np.float64],
    to_shown: Callable[[NDArray[Any]], NDArray[Any]] = lambda values: values,
) -> None:
    """Kept and dropped cells on a log scale: a single cell is seen beside a hundred thousand."""
    for n_b, color, alpha in zip(binned(tally, edges), (KEPT, DROPPED), (0.75, 0.25), strict=True):
        # 0.5 is the floor of the axis: an empty bin shows nothing, a single cell a bar.
        heights = np.maximum(n_b, 0.5)
        axis.stairs(heights, to_shown(edges), baseline=0.5, fill=True, color=color, alpha=alpha)
        if color == DROPPED and n_b.any():  # an outline: seen before and behind the other colour
            axis.stairs(heights, to_shown(edges), baseline=0.5, color=color, lw=1.1)
    axis.set_yscale("log")
    most = max(int(n_b.max()) for n_b in binned(tally, edges))
    axis.set_ylim(0.5, max(most, 1) * 6)
    log_ticks(axis.yaxis, only_tens=True)


def lines(axis: Any, bounds: Mapping[str, float], words: str) -> None:
    """Thresholds, each with its value at the head of its line, inside the plot."""
    low, high = axis.get_xlim()
    scale = math.log if axis.get_xscale() == "log" else float
    for name, bound in bounds.items():
        axis.axvline(bound, color=INK, lw=1, ls=DASHES)
        place = (scale(bound) - scale(low)) / (scale(high) - scale(low))
        axis.annotate(
            ("from " if name == "low" else "to ") + words.format(bound),
            (bound, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if place > 0.5 else 3, -2),
            textcoords="offset points",
            ha="right" if place > 0.5 else "left",
            va="top",
            fontsize=TICK,
            color=INK,
        )


def reach(values: NDArray[np.int64], bounds: Mapping[str, float]) -> tuple[int, int]:
    """The least and greatest whole number that an axis must show: cells and thresholds."""
    ends = [float(values.min()), float(values.max()), *bounds.values()]
    return math.floor(min(ends)), math.ceil(max(ends))


def say(axis: Any, words: str) -> None:
    """Words instead of a plot that has nothing to show."""
    text = "\n".join(textwrap.wrap(plain(words, 160), 34))
    axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=LABEL, color=SOFT,
              transform=axis.transAxes, parse_math=False)  # fmt: skip
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def title(axis: Any, words: str) -> None:
    """A plot's heading, and the frame that all of them have."""
    axis.set_title(words, fontsize=LABEL, loc="left", color=INK)
    axis.tick_params(labelsize=TICK, colors=INK)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def log_ticks(axis: Any, *, only_tens: bool = False) -> None:
    """Ticks of a log scale that never stand too closely or are missing on a short one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    low, high = sorted(axis.get_view_interval())
    if high < _SHORTEST * low:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(_SHORTEST), middle * math.sqrt(_SHORTEST)
        (axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim)(low, high)
    narrow = high / max(low, 1e-9) < 300 and not only_tens
    axis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=12 if narrow else 6)
    )
    axis.set_major_formatter(FuncFormatter(short))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def short(value: float, _: object = None) -> str:
    """A tick's value: 500, 2k, 1.5M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"
