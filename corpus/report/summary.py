"""What a corpus tells of itself, for the terminal. Knows the answers' shape; asks nothing."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from ...platform.screen import table
from ..log.tags import Tag
from ..upkeep.vacuum import Vacuumed
from .comparison import Difference

_BOUNDS = {
    "n_counts": ("total_counts_low", "total_counts_high"),
    "mito_fraction": ("mitochondrial_low", "mitochondrial_high"),
}
"""QC value of a cell -> the two thresholds that it is held against."""

_NAMES = ("kind", "cell_id", "barcode", "source_id", "snapshot")
"""What a lineage is of."""


def show_corpus(shown: Mapping[str, Any], screen: Console) -> None:
    """Print `Corpus.show()`: totals, sources, cells by facet, the funnel, bytes by part."""
    totals = ("uri", "snapshot", "tags", "n_cells", "n_written", "n_primary", "n_genes")
    row = {name: shown[name] for name in totals} | {"tags": ", ".join(shown["tags"])}
    screen.print(table([row]))
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
    columns = ["snapshot", "at", "by", "what", "n_read", "n_kept", "dropped", "n_segments"]
    columns += ["n_cells", "tags", "ended"]
    rows = [
        {**dict.fromkeys(columns, ""), **entry}
        | {"at": _moment(entry["at"]), "tags": ", ".join(entry["tags"])}
        | {"ended": "ended" if entry["ended"] else ""}
        for entry in entries
    ]
    said = [name for name in columns if any(row[name] != "" for row in rows)]
    screen.print(table(rows, said))


def show_tags(tags: Iterable[Tag], screen: Console) -> None:
    """Print tags, one a line."""
    rows = [
        {"tag": tag.name, "snapshot": tag.snapshot, "at": _moment(tag.at), "by": tag.by}
        for tag in tags
    ]
    screen.print(table(rows, ("tag", "snapshot", "at", "by")))


def show_difference(found: Difference, screen: Console) -> None:
    """Print `Corpus.compare(...)`: sources, cells by source, columns, segments."""
    numbers = f"snapshot {found.before} to {found.after}"
    figures = ("n_added", "n_removed", "n_changed", "n_moved")
    totals = {name: found.total(name) for name in figures}
    segments = {"segments": f"+{len(found.segments_added)} -{len(found.segments_removed)}"}
    screen.print(table([totals | segments], title=numbers))
    if found.sources:
        rows = [{"source_id": name, "was": verb} for name, verb in found.sources.items()]
        screen.print(table(rows, title="sources"))
    if found.by_source:
        screen.print(table(found.by_source, ("source_id", *figures), title="cells by source"))
    if found.by_column:
        rows = [{"column": name, "n_cells": n} for name, n in found.by_column.items()]
        screen.print(table(rows, title="cells that have another value"))
    if found.columns:
        screen.print(f"new columns: {', '.join(found.columns)}", markup=False)


def show_lineage(found: Sequence[Mapping[str, Any]], screen: Console) -> None:
    """Print `Corpus.lineage(...)`: what is known of each thing found."""
    for entry in found:
        title = " ".join(str(entry[name]) for name in _NAMES if entry.get(name) is not None)
        plain = {
            name: value
            for name, value in entry.items()
            if name not in _NAMES and not isinstance(value, Mapping | list)
        }
        for name in ("unit", "commit"):
            plain |= {f"{name} {key}": value for key, value in entry.get(name, {}).items()}
        screen.print(table([plain], title=title))
        sources = [entry["source"]] if entry.get("source") else entry.get("sources", ())
        for name, rows in {
            "from": [{k: v for k, v in source.items() if k != "versions"} for source in sources],
            "segments": entry.get("segments", ()),
            "commits": entry.get("commits", ()),
            "read by": [_reader(use) for use in entry["uses"]],
        }.items():
            if rows:
                screen.print(table(rows, title=name))


def show_vacuumed(done: Vacuumed, screen: Console) -> None:
    """Print what a vacuum did, or would do; with its holders where it was for a consent."""
    screen.print(
        table(
            [
                {
                    "snapshots ended": len(done.ended),
                    "segments written anew": done.n_rewritten,
                    "dead cells in them": done.n_dead,
                    "segments removed": done.removed.n_segments,
                    "files removed": done.removed.n_files,
                    "leftovers removed": done.removed.n_staged,
                    "bytes": done.removed.n_bytes,
                    "spared, for they are young": done.removed.n_young,
                }
            ],
            title="would do" if done.dry_run else "done",
        )
    )
    if done.kept:
        rows = [{"snapshot": n, "kept for": ", ".join(why)} for n, why in done.kept.items()]
        screen.print(table(rows, title="older snapshots that stay"))
    if done.holders:
        columns = ("kind", "name", "snapshot", "n_cells", "whole_snapshot", "uri")
        rows = [{name: getattr(holder, name) for name in columns} for holder in done.holders]
        screen.print(table(rows, columns, title="who held withdrawn cells"))


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


def _reader(use: Mapping[str, Any]) -> dict[str, Any]:
    names = ("kind", "name", "snapshot", "where", "part", "uri", "at", "by")
    certain = "yes" if use["certain"] else "maybe"
    return {name: use[name] or "" for name in names} | {"certain": certain}


def _moment(milliseconds: int) -> str:
    """A commit's time as ISO 8601, in UTC."""
    moment = datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
    return moment.isoformat(sep=" ", timespec="seconds")
