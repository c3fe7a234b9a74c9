"""What a corpus tells of itself, for the terminal. Knows the answers' shape; asks nothing."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from ..platform.screen import table

_BOUNDS = {
    "n_counts": ("total_counts_low", "total_counts_high"),
    "mito_fraction": ("mitochondrial_low", "mitochondrial_high"),
}
"""QC value of a cell -> the two thresholds that it is held against."""


def show_corpus(shown: Mapping[str, Any], screen: Console) -> None:
    """Print `Corpus.show()`: totals, sources, cells by facet, the funnel, bytes by part."""
    totals = ("uri", "snapshot", "n_cells", "n_primary", "n_genes")
    screen.print(table([{name: shown[name] for name in totals}]))
    sources = ("source_id", "status", "n_read", "n_kept", "dropped", "panel", "reason")
    screen.print(table(shown["sources"], sources, title="sources"))
    for facet, counts in shown["cells_by"].items():
        rows = [{facet: value, "n_cells": n_cells} for value, n_cells in counts.items()]
        if facet != "source_id" and any(value is not None for value in counts):
            screen.print(table(rows, title=f"cells by {facet}"))
    funnel = shown["funnel"]
    steps = [("read", funnel["read"])]
    steps += [(f"dropped: {reason}", -n) for reason, n in funnel["dropped"].items()]
    steps += [("kept", funnel["kept"])]
    rows = [{"step": step, "cells": n} for step, n in steps]
    screen.print(table(rows, title="quality control"))
    parts = [{"part": part, "bytes": n} for part, n in shown["bytes"].items()]
    if parts:
        screen.print(table(parts, title="bytes on disk"))


def show_log(entries: Sequence[Mapping[str, Any]], screen: Console) -> None:
    """Print `Corpus.log()`: the commits, newest first."""
    columns = ("snapshot", "at", "what", "n_read", "n_kept", "dropped", "n_segments")
    screen.print(table([{**entry, "at": _moment(entry["at"])} for entry in entries], columns))


def show_why(answers: Sequence[Mapping[str, Any]], screen: Console) -> None:
    """Print `Corpus.why()`: what became of the cell in each source, and by which thresholds."""
    for answer in answers:
        reason = f" ({answer['reason']})" if answer["reason"] else ""
        twice = "" if answer["is_primary"] in (True, None) else "; equal to a cell kept before"
        screen.print(
            f"{answer['barcode']} of {answer['source_id']}: {answer['status']}{reason}{twice}",
            markup=False,
            soft_wrap=True,
        )
        recovered = f", counts recovered from {answer['recover']}" if answer["recover"] else ""
        screen.print(f"{answer['uri']}, layer {answer['layer']}{recovered}", soft_wrap=True)
        thresholds = answer["thresholds"]
        rows = [
            {
                "value": name,
                "cell": value,
                "at least": thresholds.get(_BOUNDS.get(name, ("", ""))[0]),
                "at most": thresholds.get(_BOUNDS.get(name, ("", ""))[1]),
            }
            for name, value in answer["values"].items()
        ]
        screen.print(table(rows))
        if "min_genes" in thresholds:
            least = thresholds["min_genes"]
            screen.print(f"at least {least:.0f} coding or miRNA genes must be detected")
        for rule, why in answer["skipped_rules"].items():
            screen.print(f"- {rule} was skipped: {why}", markup=False, soft_wrap=True)


def _moment(milliseconds: int) -> str:
    """A commit's time as ISO 8601, in UTC."""
    moment = datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
    return moment.isoformat(sep=" ", timespec="seconds")
