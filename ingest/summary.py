"""What an ingest did or would do, as tables for terminal and report. Knows receipts and plans."""

from pathlib import Path

import pyarrow as pa
from rich.console import Console

from ..platform.screen import table
from ..platform.settings import Settings
from ..platform.storage import write_durably
from .plan_toml import plan_toml
from .planning import plan_report
from .report import IngestedSource, IngestReport
from .rule_accounts import rules_of
from .sources_toml import SourcesFile


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


def show_plan(
    given: SourcesFile, settings: Settings, write_toml: Path | None, screen: Console
) -> int:
    """Say what an ingest would do, and write a sources.toml to edit where one is wanted.

    Returns:
        The exit status: 1 where a source would be refused.
    """
    report = plan_report(given, settings)
    for shown in report.tables():
        screen.print(shown)
    if write_toml is not None:
        write_durably(write_toml, plan_toml(report).encode())
        screen.print(f"written: {write_toml}", markup=False)
    return report.exit_status


def remarks_on(report: IngestReport) -> list[str]:
    """What a receipt warns of and why a source was refused, a line each."""
    lines: list[str] = []
    for source in report.sources:
        if source.error:
            lines.append(f"{source.source_id}: refused: {source.error}")
        if source.receipt is not None:
            lines += [f"{source.source_id}: {warning}" for warning in source.receipt.warnings]
            lines += [
                f"{source.source_id}: {n_cells:,} of its cells are in {other} already: kept, and "
                "not primary"
                for other, n_cells in source.linked.items()
            ]
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
    if source.receipt is None or source.status == "refused":
        return []
    return [{"source": source.source_id, **row} for row in rules_of(source.receipt)]
