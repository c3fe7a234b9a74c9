"""The note of `scale_bars`: what was measured, the bars, and what a straight line makes of it.

Knows figures; measures nothing. What is extrapolated stands in a table of its own, marked so: the
line through both sizes, drawn on to a hundred million cells and to a thousand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from benchmarks.scale_stages import DEPTH, STAGES

Answer = dict[str, Any]
LARGE = (100_000_000, 1_000_000_000)
ONE_PROCESS, SPREAD = "one process", "spread"
_OF_FIXED_SIZE = ("write", "compact")
"""Stages that do the same work whatever the corpus holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What one size gave.

    Attributes:
        n_cells: cells of the corpus before it was changed.
        building: what making it took.
        stages: by name; see `scale_stages`.
        stored: bytes of each part, segments, non-zeros.
    """

    n_cells: int
    building: Answer
    stages: dict[str, Answer]
    stored: Answer


def line_through(found: Sequence[Figures], stage: str, key: str) -> tuple[float, float]:
    """What a figure has at no cell, and more with each cell: from the first size to the last."""
    low, high = found[0], found[-1]
    ends = low.stages[stage][key], high.stages[stage][key]
    slope = (ends[1] - ends[0]) / (high.n_cells - low.n_cells)
    return ends[0] - slope * low.n_cells, slope


def note(found: Sequence[Figures], grown: Sequence[Answer], said: Sequence[str]) -> str:
    """The note, in Markdown."""
    sizes = " and ".join(f"{one.n_cells:,}" for one in found)
    segments = " and ".join(str(one.stored["n_segments"]) for one in found)
    lines = [
        f"# {date.today()}: a corpus of {sizes} cells",
        "",
        "Command: `python -m benchmarks.scale_bars --folder FOLDER`. Synthetic cells of",
        f"{DEPTH:,.0f} genes seen, in {segments} segments. {'; '.join(said)}.",
        "",
        "Each stage in a process of its own, which opens the corpus first; imports are in the peak",
        "(290 MB of it), not in the time. Processor time stands beside the clock's: other work",
        "sways that far more.",
        "",
        *_table(_stage_rows(found)),
        "",
        "## Bars",
        "",
        *_table(_bar_rows(found)),
        "",
        "## Bytes",
        "",
        *_table(_byte_rows(found)),
        "",
        "## A long log",
        "",
        *_table(grown),
        "",
        "## EXTRAPOLATED",
        "",
        "The straight line through both sizes, processor time; nothing here was measured.",
        "",
        *_table(_far_rows(found)),
        "",
    ]
    return "\n".join(lines)


def _stage_rows(found: Sequence[Figures]) -> list[Answer]:
    rows: list[Answer] = []
    for name in found[0].stages:
        row: Answer = {"stage": STAGES[name][0]}
        for one in found:
            stage = one.stages[name]
            size = f"{one.n_cells / 1e6:g}M"
            row[f"{size}: s"] = round(stage["seconds"], 2)
            row[f"{size}: CPU s"] = round(stage["cpu_seconds"], 2)
            row[f"{size}: peak MB"] = round(stage["peak_mb"])
        _, seconds = line_through(found, name, "cpu_seconds")
        _, megabytes = line_through(found, name, "peak_mb")
        row["us a cell more"] = "" if name in _OF_FIXED_SIZE else round(seconds * 1e6, 2)
        row["bytes a cell more"] = "" if name in _OF_FIXED_SIZE else round(megabytes * 2**20)
        rows.append(row)
        if "warm_ms" in found[0].stages[name]:
            warm: Answer = dict.fromkeys(row, "")
            warm["stage"] = "... warm, median (least) of 9, ms"
            for one in found:
                told = one.stages[name]
                size = f"{one.n_cells / 1e6:g}M"
                warm[f"{size}: s"] = f"{told['warm_ms']:.1f} ({told['least_ms']:.1f}) ms"
            rows.append(warm)
    return rows


def _bar_rows(found: Sequence[Figures]) -> list[Answer]:
    large = found[-1]
    writing = large.stages["write"]
    verify = writing["verify"]
    n = writing["n_cells"]
    parts, n_nonzero = large.stored["parts"], large.stored["n_nonzero"]
    building = large.building
    whole = large.n_cells / building["writing_cpu_seconds"]
    both = writing["cpu_seconds"] + verify["cpu_seconds"]
    peaks = " and ".join(f"{one.stages['stream']['peak_mb']:.0f}" for one in found)
    chosen = " and ".join(f"{one.stages['stream']['selected_mb']:.0f}" for one in found)
    rows = [
        (
            "write a core: arrays, expression, sketch, read back whole",
            "6,000 cells/s",
            "12,000",
            f"{n / both:,.0f} by processor time",
        ),
        (
            "... without reading back",
            "",
            "",
            f"{n / writing['cpu_seconds']:,.0f}; {whole:,.0f} as one of {building['workers']}",
        ),
        ("bytes a non-zero, arrays", "1.7", "1.5", f"{parts['rna.zarr'] / n_nonzero:.3f}"),
        ("bytes a non-zero, expression", "0.9", "0.8", f"{parts['expression'] / n_nonzero:.3f}"),
        (
            "peak memory of the stream",
            "flat",
            "below 1,000 MB",
            f"{peaks} MB, of which {chosen} before its first cell",
        ),
        (
            "count by filter on cells, at the largest",
            "15 ms",
            "5 ms",
            f"{large.stages['filter']['warm_ms']:.1f} ms "
            f"({large.stages['filter']['least_ms']:.1f} at the least)",
        ),
    ]
    return [dict(zip(("what", "must", "good", "measured"), row, strict=True)) for row in rows]


def _byte_rows(found: Sequence[Figures]) -> list[Answer]:
    rows: list[Answer] = []
    for name in [*found[-1].stored["parts"], "rows of `cells`"]:
        row: Answer = {"part": name}
        for one in found:
            size = one.stored["parts"].get(name, one.stored["rows"])
            row[f"{one.n_cells / 1e6:g}M: MB"] = round(size / 1e6, 1)
        row["bytes a cell"] = round(size / found[-1].n_cells, 1)
        row["bytes a non-zero"] = round(size / found[-1].stored["n_nonzero"], 3)
        rows.append(row)
    return rows


_FAR = (
    ("write", "write segments", SPREAD),
    ("commit", "commit ONE source of 31,250 cells", ONE_PROCESS),
    ("open", "open", ONE_PROCESS),
    ("sql", "first question of a process", ONE_PROCESS),
    ("macro", "first question about a gene (hashes the index)", ONE_PROCESS),
    ("select", "select all", ONE_PROCESS),
    ("medians", "medians of all", ONE_PROCESS),
    ("stream", "an epoch of raw batches", SPREAD),
    ("delete", "delete 1 %", ONE_PROCESS),
    ("compact", "compaction", SPREAD),
    ("deep", "verify --deep", ONE_PROCESS),
)


def _far_rows(found: Sequence[Figures]) -> list[Answer]:
    rows: list[Answer] = []
    for stage, title, how in _FAR:
        start, slope = line_through(found, stage, "cpu_seconds")
        if stage in _OF_FIXED_SIZE:
            told = found[-1].stages[stage]
            start, slope = 0.0, told["cpu_seconds"] / told["n_cells"]
        base, grows = line_through(found, stage, "peak_mb")
        row: Answer = {"what": title, "how": how}
        for n_cells in LARGE:
            name = f"{n_cells // 1_000_000:,}M cells"
            row[f"{name}: core hours"] = f"{(start + slope * n_cells) / 3600:,.2f}"
            grown = base + max(grows, 0.0) * n_cells
            large = stage not in _OF_FIXED_SIZE and grows > 0
            row[f"{name}: peak GB"] = f"{grown / 1024:,.0f}" if large else "as measured"
        rows.append(row)
    stored = found[-1].stored
    per_cell = (sum(stored["parts"].values()) + stored["rows"]) / found[-1].n_cells
    disk: Answer = {"what": "disk, TB", "how": ""}
    for n_cells in LARGE:
        disk[f"{n_cells // 1_000_000:,}M cells: core hours"] = (
            f"{per_cell * n_cells / 1e12:,.2f} TB"
        )
        disk[f"{n_cells // 1_000_000:,}M cells: peak GB"] = ""
    return [*rows, disk]


def _table(rows: Sequence[Answer]) -> list[str]:
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return lines + [f"| {' | '.join(str(row[name]) for name in names)} |" for row in rows]
