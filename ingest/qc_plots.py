"""The quality report's figures: one a source, one over all. Knows tallies and receipts; no SQL.

Made without a global figure, so that nothing is left open; what is shown of a cell is its tally.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..corpus.genes import OUTSIDE, RECOGNISED
from ..corpus.log.receipts import Receipt
from .qc_axes import (
    DASHES,
    DROPPED,
    INK,
    KEPT,
    LABEL,
    SOFT,
    TICK,
    bins_between,
    histogram,
    knee_points,
    lines,
    log_ticks,
    plain,
    reach,
    say,
    short,
    title,
)
from .qc_numbers import SourceAccount, SourceTallies, Tally

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAPPED, RETIRED = "#009E73", "#E69F00"  # of the same palette as KEPT and DROPPED

_WIDTH = 12.6  # inches: a screen of 1,280 pixels, less the page's margins
_MARGINS = (0.1, 0.045, 0.045, 0.045)  # a funnel's rows have names

MOST_REASONS = 6
"""Reasons that a funnel shows; the rarer ones are shown as one."""

RASTER_ABOVE = 1_000
"""Dots beyond so many are drawn as a picture inside the SVG: as marks each takes 100 bytes, and a
browser its time."""


def source_figure(
    account: SourceAccount, tallies: SourceTallies, doublets: Tally | None
) -> "Figure":
    """All of one source on half a screen.

    Args:
        account: the source.
        tallies: its cells, by value.
        doublets: scores of its kept cells; None where there are none.
    """
    figure = _figure(_WIDTH, 5.1)
    upper = [
        _place(figure, row=0, slot=slot, margin=m)
        for slot, m in zip(range(4), _MARGINS, strict=True)
    ]
    # Gene names take the room that doublet scores leave.
    lower = [
        _place(figure, row=1, slot=0, margin=_MARGINS[0]),
        _place(figure, row=1, slot=1),
        _place(figure, row=1, slot=2, slots=2 if doublets is None else 1, margin=0.075),
    ]
    receipt = account.receipt
    _funnel(upper[0], receipt.n_read, receipt.dropped, account.n_living)
    _count_histogram(upper[1], tallies.counts, receipt.thresholds)
    _gene_histogram(upper[2], tallies.genes, receipt.thresholds)
    _mito_histogram(upper[3], tallies.mito, receipt)
    _knee(lower[0], tallies.counts, receipt.thresholds)
    _scatter(lower[1], tallies, receipt)
    _mapping(lower[2], receipt.genes)
    if doublets is not None:
        _doublet_histogram(_place(figure, row=1, slot=3), doublets, receipt.thresholds)
    return figure


def total_figure(accounts: Sequence[SourceAccount], *, n_named: int = 8) -> "Figure":
    """The funnel over all sources, and what each source lost against how deep it was measured."""
    figure = _figure(_WIDTH, 2.9)
    left, right = figure.add_axes((0.1, 0.08, 0.3, 0.8)), figure.add_axes((0.48, 0.17, 0.5, 0.71))
    dropped: dict[str, int] = {}
    for account in accounts:
        for reason, n_cells in account.receipt.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + n_cells
    n_read = sum(account.receipt.n_read for account in accounts)
    _funnel(left, n_read, dropped, sum(account.n_living for account in accounts))
    title(right, "cells dropped against the median of total counts, a dot a source")
    shown = [account for account in accounts if account.medians.get("n_counts", 0) > 0]
    if not shown:
        say(right, "no source has cells in this snapshot")
        return figure
    counts = [account.medians["n_counts"] for account in shown]
    shares = [100 * account.dropped_share for account in shown]
    right.scatter(counts, shares, s=22, color=KEPT, alpha=0.7, lw=0)
    right.set_xscale("log")
    right.set_xlim(min(counts) / 1.3, max(counts) * 2.2)
    right.set_ylim(-4, max(*shares, 5) * 1.12)
    log_ticks(right.xaxis)
    right.set_xlabel("median of total counts of the cells kept", fontsize=LABEL)
    right.set_ylabel("dropped, %", fontsize=LABEL)
    for at in _apart(counts, shares, [account.source_id for account in shown])[:n_named]:
        label = right.annotate(
            plain(shown[at].source_id, 24),
            (counts[at], shares[at]),
            xytext=(5, 3),
            textcoords="offset points",
            fontsize=TICK,
            color=INK,
        )
        label.set_parse_math(False)
    return figure


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _place(figure: "Figure", *, row: int, slot: int, slots: int = 1, margin: float = 0.045) -> Any:
    """A plot in one of two rows of four slots; places are fixed, for finding them is slow.

    Args:
        figure: where.
        row: 0 for the upper one.
        slot: the first slot, from the left.
        slots: how many slots it takes.
        margin: room for words at its left, as a share of the figure's width.
    """
    left, width = 0.25 * slot + margin, 0.25 * slots - margin - 0.012
    return figure.add_axes((left, 0.09 if row else 0.6, width, 0.345))


def _apart(counts: Sequence[float], shares: Sequence[float], names: Sequence[str]) -> list[int]:
    """Which sources can be named beside their dots: the most dropped first, none upon another."""
    order = sorted(range(len(names)), key=lambda at: (-shares[at], names[at]))
    broad, tall = math.log(max(counts) / min(counts)) + 1, max(*shares, 5)
    chosen: list[int] = []
    for at in order:
        if all(
            abs(math.log(counts[at] / counts[other])) > broad / 4
            or abs(shares[at] - shares[other]) > tall / 12
            for other in chosen
        ):
            chosen.append(at)
    return chosen


def _funnel(axis: Any, n_read: int, dropped: Mapping[str, int], n_living: int) -> None:
    """Cells read, what each reason took, cells kept, and those of them that are still there."""
    title(axis, "from read to kept, cells")
    rows: list[tuple[str, int, int, str]] = [("read", 0, n_read, SOFT)]
    left = n_read
    reasons = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    others = sum(n_cells for _, n_cells in reasons[MOST_REASONS:])
    shown = reasons[:MOST_REASONS] + ([("other reasons", others)] if others else [])
    for reason, n_cells in shown:
        left -= n_cells
        rows.append((reason, left, n_cells, DROPPED))
    rows.append(("kept", 0, left, KEPT))
    if n_living != left:
        rows.append(("now in snapshot", 0, n_living, KEPT))
    for at, (_, start, n_cells, color) in enumerate(rows):
        axis.barh(at, n_cells, left=start, color=color, height=0.68)
        share = f" ({100 * n_cells / n_read:.3g} %)" if n_read and 0 < at else ""
        end = start + n_cells
        # In a long bar; else where there is room, which a late loss has only before it.
        inside, before = n_cells > 0.8 * n_read, start > 0.45 * n_read
        axis.annotate(
            f"{n_cells:,}{share}",
            (start if before else end, at),
            xytext=(-3 if inside or before else 3, 0),
            textcoords="offset points",
            ha="right" if inside or before else "left",
            va="center",
            fontsize=TICK,
            color="white" if inside else INK,
        )
    axis.set_yticks(range(len(rows)), [plain(name) for name, *_ in rows], fontsize=TICK)
    for label in axis.get_yticklabels():
        label.set_parse_math(False)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(0, max(n_read, 1) * 1.3)
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines["bottom"].set_visible(False)


def _count_histogram(axis: Any, tally: Tally, thresholds: Mapping[str, float]) -> None:
    title(axis, "total counts a cell")
    bounds = _bounds(thresholds, "total_counts")
    positive = tally.value_v[tally.value_v > 0]
    if not len(positive):
        say(axis, "no cell has counts")
        return
    lowest, highest = reach(positive, bounds)
    edges = bins_between(max(1, lowest), highest, log=True)
    n_none = int((tally.kept_v + tally.dropped_v)[tally.value_v == 0].sum())
    n_none += sum(tally.n_unknown)  # rows that were added to another row of their barcode
    axis.set_xscale("log")
    histogram(axis, tally, edges)
    log_ticks(axis.xaxis)
    lines(axis, bounds, "{:,.0f}")
    axis.set_xlabel(f"not drawn: {n_none:,} without counts" if n_none else "", fontsize=TICK)


def _gene_histogram(axis: Any, tally: Tally, thresholds: Mapping[str, float]) -> None:
    from matplotlib.ticker import MaxNLocator

    title(axis, "detected genes a cell")
    bounds = _bounds(thresholds, "genes_detected")
    if not len(tally.value_v):
        say(axis, "no cell has a value")
        return
    edges = bins_between(*reach(tally.value_v, bounds))
    histogram(axis, tally, edges)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    axis.xaxis.set_major_formatter(short)
    lines(axis, bounds, "{:,.0f}")
    if "min_genes" in thresholds:
        least = f"min_genes: at least {thresholds['min_genes']:g} coding or miRNA genes"
        axis.set_xlabel(least, fontsize=TICK)


def _mito_histogram(axis: Any, tally: Tally, receipt: Receipt) -> None:
    title(axis, "mitochondrial fraction, %")
    bounds = _bounds(receipt.thresholds, "mitochondrial")
    if not len(tally.value_v):
        say(axis, _unmeasured(receipt))
        return
    steps = {name: value * tally.steps for name, value in bounds.items()}
    edges = bins_between(0, reach(tally.value_v, steps)[1])
    histogram(axis, tally, edges, to_shown=lambda values: 100 * (values + 0.5) / tally.steps)
    lines(axis, {name: 100 * value for name, value in bounds.items()}, "{:.3g} %")
    if "mitochondrial" in receipt.skipped_rules:
        axis.set_xlabel("the rule is skipped, see below", fontsize=TICK)


def _doublet_histogram(axis: Any, tally: Tally, thresholds: Mapping[str, float]) -> None:
    title(axis, "doublet scores of kept cells")
    names = ("doublet_score", "doublet_score_least", "doublet_score_greatest")
    bounds = {name: thresholds[name] for name in names if name in thresholds}
    steps = {name: value * tally.steps for name, value in bounds.items()}
    edges = bins_between(0, reach(tally.value_v, steps)[1])
    histogram(axis, tally, edges, to_shown=lambda values: (values + 0.5) / tally.steps)
    lines(axis, bounds, "{:.3g}")
    axis.set_xlabel("scores of dropped cells are not stored", fontsize=TICK)


def _knee(axis: Any, tally: Tally, thresholds: Mapping[str, float]) -> None:
    title(axis, "total counts by rank of the cell")
    rank, value, is_kept = knee_points(tally)
    if not len(rank):
        say(axis, "no cell has counts")
        return
    order = np.argsort(rank, kind="stable")
    axis.plot(rank[order], value[order], color=SOFT, lw=0.8, zorder=1)
    for chosen, color, size in ((is_kept, KEPT, 9), (~is_kept, DROPPED, 5)):
        axis.scatter(rank[chosen], value[chosen], s=size, color=color, lw=0, zorder=2)
    axis.set_xscale("log")
    axis.set_yscale("log")
    bounds = _bounds(thresholds, "total_counts")
    for bound in bounds.values():
        axis.axhline(bound, color=INK, lw=1, ls=DASHES)
    log_ticks(axis.xaxis)
    log_ticks(axis.yaxis)
    axis.set_xlabel("rank, most counts first", fontsize=TICK)


def _scatter(axis: Any, tallies: SourceTallies, receipt: Receipt) -> None:
    title(axis, "mitochondrial %, by total counts")
    grid = tallies.scatter
    if not len(grid.counts_p):
        say(axis, _unmeasured(receipt))
        return
    picture = len(grid.counts_p) > RASTER_ABOVE
    for n_p, color, size in ((grid.kept_p, KEPT, 4), (grid.dropped_p, DROPPED, 5)):
        chosen = n_p > 0
        axis.scatter(
            grid.counts_p[chosen],
            100 * grid.mito_p[chosen],
            s=size,
            color=color,
            alpha=0.6,
            lw=0,
            rasterized=picture,
        )
    axis.set_xscale("log")
    for bound in _bounds(receipt.thresholds, "total_counts").values():
        axis.axvline(bound, color=INK, lw=1, ls=DASHES)
    for bound in _bounds(receipt.thresholds, "mitochondrial").values():
        axis.axhline(100 * bound, color=INK, lw=1, ls=DASHES)
    log_ticks(axis.xaxis)
    axis.set_xlabel("total counts", fontsize=TICK)


def _mapping(axis: Any, genes: Mapping[str, int]) -> None:
    """Gene names by how they were understood."""
    n_names = genes.get("n_read", 0)
    title(axis, f"gene names, {n_names:,}")
    colors = {
        **dict.fromkeys(RECOGNISED, MAPPED),
        "retired": RETIRED,
        **dict.fromkeys(OUTSIDE, DROPPED),
    }
    rows = [(kind, genes[f"n_{kind}"]) for kind in colors if genes.get(f"n_{kind}")]
    if not rows:
        say(axis, "the receipt tells nothing of genes")
        return
    for at, (kind, n_of_kind) in enumerate(rows):
        axis.barh(at, n_of_kind, color=colors[kind], height=0.62)
        axis.annotate(
            f"{n_of_kind:,} ({100 * n_of_kind / max(n_names, 1):.3g} %)",
            (n_of_kind, at),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=TICK,
            color=INK,
        )
    axis.set_yticks(range(len(rows)), [kind.replace("_", " ") for kind, _ in rows])
    axis.tick_params(labelsize=TICK, length=0)
    axis.set_ylim(max(len(rows), 3) - 0.4, -0.6)
    axis.set_xlim(0, 1.55 * max(n_of_kind for _, n_of_kind in rows))
    axis.set_xticks([])
    axis.spines["bottom"].set_visible(False)


def _bounds(thresholds: Mapping[str, float], rule: str) -> dict[str, float]:
    """The bounds of a rule that can be met: nothing measured here lies below 0."""
    found = {end: thresholds.get(f"{rule}_{end}") for end in ("low", "high")}
    return {end: value for end, value in found.items() if value is not None and value > 0}


def _unmeasured(receipt: Receipt) -> str:
    return receipt.skipped_rules.get("mitochondrial", "no cell has a value")
