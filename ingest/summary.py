"""What an ingest did, as tables for terminal and report. Knows receipts; knows no file."""

import pyarrow as pa
from rich.console import Console

from ..platform.screen import table
from .report import IngestedSource, IngestReport

_BOUNDS = {
    "total_counts": ("total_counts_low", "total_counts_high"),
    "mitochondrial": ("mitochondrial_low", "mitochondrial_high"),
    "min_genes": ("min_genes",),
}
"""Rule -> the thresholds of a receipt that belong to it."""


def show_ingest(report: IngestReport, screen: Console) -> None:
    """Print what an ingest did, by source; of the rules those that dropped or were skipped."""
    sources = sources_table(report)
    screen.print(table(sources.to_pylist(), sources.column_names))
    rules = rules_table(report)
    told = [row for row in rules.to_pylist() if row["dropped"] or row["skipped because"]]
    if told:
        screen.print(table(told, rules.column_names))
    for line in remarks_on(report):
        screen.print(f"- {line}", markup=False, soft_wrap=True)


def sources_table(report: IngestReport) -> pa.Table:
    """One row a source: what became of it, its cells and its genes."""
    return pa.Table.from_pylist([_source_row(source) for source in report.sources])


def rules_table(report: IngestReport) -> pa.Table:
    """One row a source and quality rule: cells dropped, threshold, or why the rule was skipped."""
    rows = [row for source in report.sources for row in _rule_rows(source)]
    schema = pa.schema(
        [("source", pa.string()), ("rule", pa.string()), ("dropped", pa.int64()),
         ("keeps", pa.string()), ("skipped because", pa.string())]
    )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=schema)


def remarks_on(report: IngestReport) -> list[str]:
    """What a receipt warns of and why a source was refused, a line each."""
    lines: list[str] = []
    for source in report.sources:
        if source.error:
            lines.append(f"{source.source_id}: refused: {source.error}")
        if source.receipt is not None:
            lines += [f"{source.source_id}: {warning}" for warning in source.receipt.warnings]
    return lines


def _source_row(source: IngestedSource) -> dict[str, object]:
    receipt = source.receipt
    row: dict[str, object] = {"source": source.source_id, "status": source.status}
    if receipt is None or source.status == "refused":
        return row | dict.fromkeys(
            ("cells read", "kept", "dropped", "genes read", "mapped", "retired ids", "units")
        )
    genes = receipt.genes
    return row | {
        "cells read": receipt.n_read,
        "kept": receipt.n_kept,
        "dropped": receipt.n_read - receipt.n_kept,
        "genes read": genes.get("n_read"),
        "mapped": genes.get("n_mapped"),
        "retired ids": genes.get("n_retired", 0),
        "units": len(receipt.units),
    }


def _rule_rows(source: IngestedSource) -> list[dict[str, object]]:
    receipt = source.receipt
    if receipt is None or source.status == "refused":
        return []
    rules = dict.fromkeys([*_BOUNDS, *receipt.dropped, *receipt.skipped_rules])
    rows: list[dict[str, object]] = []
    for rule in rules:
        bounds = [receipt.thresholds.get(name) for name in _BOUNDS.get(rule, ())]
        if rule not in receipt.dropped and rule not in receipt.skipped_rules and None in bounds:
            continue
        rows.append(
            {
                "source": source.source_id,
                "rule": rule,
                "dropped": receipt.dropped.get(rule, 0),
                "keeps": _range([bound for bound in bounds if bound is not None]),
                "skipped because": receipt.skipped_rules.get(rule),
            }
        )
    return rows


def _range(bounds: list[float]) -> str | None:
    if not bounds:
        return None
    if len(bounds) == 1:
        return f">= {bounds[0]:.4g}"
    return f"{max(bounds[0], 0):.4g} to {bounds[1]:.4g}"  # a count below 0 cannot be
