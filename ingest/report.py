"""What an ingest did, source by source: added, there already, or refused and why.

Knows receipts; knows no Ray and no file.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Literal

from rich.table import Table

from ..corpus.log.receipts import Receipt
from ..platform.screen import table
from .places import uri_on_record
from .quality import DUPLICATE, Thresholds
from .survey import Opened
from .units import PreparedUnit, segment_id_of

Status = Literal["added", "replaced", "present", "refused"]
_LIBRARIES = ("cytolake", "anndata", "h5py", "numpy", "pyarrow", "ray", "zarr")


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestedSource:
    """One source's outcome.

    Attributes:
        source_id: its name in the corpus.
        place: the path or resource as it was given.
        status: `added` now, `replaced` now (another file of its name went), `present` before
            (nothing was done), or `refused`.
        receipt: what was read, kept and dropped; None where a source was refused unread.
        error: why it was refused.
        units: its work units.
        snapshot: the snapshot that holds it.
        n_withdrawn: cells that were kept by all rules and left out all the same, for their use is
            no longer allowed.
        linked: source that was there before -> cells of this one that are the same: they are
            kept, and not primary.
    """

    source_id: str
    place: str
    status: Status
    receipt: Receipt | None = None
    error: str | None = None
    units: tuple[PreparedUnit, ...] = ()
    snapshot: int | None = None
    n_withdrawn: int = 0
    linked: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestReport:
    """The outcome of one call.

    Attributes:
        corpus_uri: the corpus.
        sources: in the order in which they were given.
        seconds: how long it took.
    """

    corpus_uri: str
    sources: tuple[IngestedSource, ...]
    seconds: float

    @property
    def exit_status(self) -> int:
        """0 where no source was refused, else 1."""
        return int(any(source.status == "refused" for source in self.sources))

    @property
    def n_added(self) -> int:
        """Cells added by this call."""
        return sum(
            source.receipt.n_kept - source.n_withdrawn
            for source in self.sources
            if source.status in ("added", "replaced") and source.receipt is not None
        )

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """The processes that prepared units."""
        pids = {unit.pid for source in self.sources for unit in source.units if not unit.adopted}
        return tuple(sorted(pids))

    def tables(self) -> list[Table]:
        """What a screen shows: each source's account; why cells went; what should be known."""
        drawn = [table([_account(source) for source in self.sources])]
        rows = [
            {"source": source.source_id, "what": what, "cells or reason": said}
            for source in self.sources
            if source.receipt is not None and source.status != "refused"
            for what, said in _particulars(source, source.receipt)
        ]
        if rows:
            drawn.append(table(rows, title="Dropped, skipped and noted"))
        errors = [
            {"source": source.source_id, "refused because": source.error}
            for source in self.sources
            if source.status == "refused"
        ]
        if errors:
            drawn.append(table(errors, title="Refused"))
        return drawn

    def to_json(self) -> str:
        """The report as JSON text."""
        sources = [
            {
                "source_id": source.source_id,
                "place": source.place,
                "status": source.status,
                "error": source.error,
                "snapshot": source.snapshot,
                "n_withdrawn": source.n_withdrawn,
                "linked": dict(source.linked),
                "receipt": None if source.receipt is None else asdict(source.receipt),
            }
            for source in self.sources
        ]
        values = {"corpus": self.corpus_uri, "seconds": self.seconds, "sources": sources}
        return json.dumps(values, indent=1)


def receipt_of(
    opened: Opened,
    *,
    n_bytes: int,
    thresholds: Thresholds,
    units: list[PreparedUnit],
) -> Receipt:
    """The account of a source whose units are all prepared.

    Args:
        opened: the source.
        n_bytes: its size.
        thresholds: frozen in pass 1.
        units: in the source's order.
    """
    survey, genes = opened.survey, opened.genes
    dropped: dict[str, int] = {}
    for unit in units:
        for reason, n_cells in unit.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + n_cells
    kinds = {f"n_{kind}": n_names for kind, n_names in genes.kinds.items()}
    return Receipt(
        source_id=survey.source_id,
        uri=uri_on_record(survey.entry, survey.path),
        sha256=survey.sha256,
        n_bytes=n_bytes,
        reader=survey.format,
        n_read=survey.n_cells,
        n_kept=sum(unit.n_kept for unit in units),
        layer=survey.layer,
        recover=survey.entry.recover,
        dropped=dropped,
        skipped_rules=thresholds.skipped,
        thresholds=thresholds.bounds,
        genes={
            "n_read": genes.n_names,
            "n_mapped": genes.n_mapped,
            "n_summed": genes.n_summed,
            **kinds,
        },
        panel=genes.panel,
        panel_use=genes.panel and survey.entry.panel == "use",
        kind=survey.entry.kind,
        recipe_hash=survey.recipe_hash,
        versions={library: version(library) for library in _LIBRARIES},
        warnings=tuple(_warnings(opened)),
        units=tuple(_unit_line(opened, unit) for unit in units),
    )


def empty_receipt(
    *, source_id: str, uri: str, sha256: str = "", n_bytes: int = 0, recipe_hash: str = ""
) -> Receipt:
    """The account of a source that was refused before its cells were read."""
    return Receipt(
        source_id=source_id,
        uri=uri,
        sha256=sha256,
        n_bytes=n_bytes,
        reader="",
        n_read=0,
        n_kept=0,
        recipe_hash=recipe_hash,
    )


def _account(source: IngestedSource) -> dict[str, object]:
    receipt, status = source.receipt, source.status
    row: dict[str, object] = {"source": source.source_id}
    row["status"] = "nothing added: it is there" if status == "present" else status
    if receipt is None or status == "refused":
        return row | dict.fromkeys(("cells", "kept", "dropped", "genes", "with an id", "panel"), "")
    panel = "used in medians" if receipt.panel_use else "not in medians"
    return row | {
        "cells": receipt.n_read,
        "kept": receipt.n_kept,
        "dropped": receipt.n_dropped,
        "genes": receipt.genes.get("n_read", 0),
        "with an id": receipt.genes.get("n_mapped", 0),
        "panel": panel if receipt.panel else "",
    }


def _particulars(source: IngestedSource, receipt: Receipt) -> list[tuple[str, object]]:
    lines: list[tuple[str, object]] = []
    if source.n_withdrawn:
        lines.append(("left out: withdrawn", source.n_withdrawn))
    lines += [
        (f"the same cells as in {other}, kept and not primary", n_cells)
        for other, n_cells in source.linked.items()
    ]
    lines += [(f"dropped: {rule}", n_cells) for rule, n_cells in receipt.dropped.items()]
    lines += [(f"rule skipped: {rule}", why) for rule, why in receipt.skipped_rules.items()]
    lines += [("note", line) for line in receipt.warnings]
    return lines


def _unit_line(opened: Opened, unit: PreparedUnit) -> str:
    rows = f"rows {unit.unit.start}-{unit.unit.stop}"
    how = f"adopted by pid {unit.pid}" if unit.adopted else f"pid {unit.pid}"
    return f"{segment_id_of(opened.survey, unit.unit)} {rows} {how}"


def _warnings(opened: Opened) -> list[str]:
    survey, genes = opened.survey, opened.genes
    lines = list(survey.notes)
    lines += [f"not taken for counts: {line}" for line in survey.rejected]
    if survey.recover_total is not None:
        lines.append(
            f"counts recovered from log1p CP10k values of {survey.layer} with the totals in "
            f"{survey.recover_total}"
        )
    lines += genes.notes
    if genes.n_summed:
        lines.append(f"{genes.n_summed} gene names met another name's gene: counts were summed")
    if genes.panel:
        use = "medians use it, as asked" if survey.entry.panel == "use" else "medians leave it out"
        lines.append(f"panel: {genes.coding_share:.0%} of the coding genes are measured; {use}")
    n_duplicates = len(opened.duplicates.rows)
    if n_duplicates:
        lines.append(
            f"{n_duplicates} rows repeat a barcode: their counts were added to the first row with "
            f"it, whose other columns are kept, and they are dropped as {DUPLICATE}; "
            'duplicate_barcodes = "keep" keeps such rows apart'
        )
    return lines
