"""What a corpus holds, and what became of a cell. Knows no terminal."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from ...platform.errors import NoCellsError
from ..log.tags import tags

if TYPE_CHECKING:
    from ..store import Corpus

_FACETS = ("source_id", "tissue", "assay", "cell_type")


def show(corpus: "Corpus") -> dict[str, Any]:
    """What the snapshot holds.

    Returns:
        `uri`, `uuid`, `snapshot`, `tags` (of this snapshot), `n_cells` (living), `n_written` (in
        its segments), `n_primary`, `n_genes`; `cells_by`: for source_id, tissue, assay and
        cell_type the cells of each value, most first (None: not said);
        `bytes`: by part of the segments, and of the table `cells`; `funnel`: cells read, dropped
        by reason, kept, over all accepted sources; `sources`: one entry a source, refused too.
    """
    totals = corpus.sql(
        "SELECT count(*) AS n_cells, count(*) FILTER (WHERE is_primary) AS n_primary FROM cells"
    ).to_pylist()[0]
    genes = corpus.sql("SELECT count(*) AS n_genes FROM genes").to_pylist()[0]
    accepted, number = corpus.state.accepted, corpus.snapshot
    dropped: Counter[str] = Counter()
    n_bytes: Counter[str] = Counter()
    for source in accepted:
        dropped.update(source.receipt.dropped)
    for entry in corpus.state.segments.values():
        n_bytes.update(entry.n_bytes)
    n_bytes["cells"] = sum(corpus.state.files.values())
    return {
        "uri": corpus.uri,
        "uuid": corpus.uuid,
        "snapshot": corpus.snapshot,
        "tags": [tag.name for tag in tags(corpus.folder).values() if tag.snapshot == number],
        "n_written": sum(entry.n_cells for entry in corpus.state.segments.values()),
        **totals,
        **genes,
        "cells_by": {facet: _cells_by(corpus, facet) for facet in _FACETS},
        "bytes": dict(n_bytes.most_common()),
        "funnel": {
            "read": sum(source.receipt.n_read for source in accepted),
            "dropped": dict(dropped.most_common()),
            "kept": sum(source.receipt.n_kept for source in accepted),
        },
        "sources": [
            {
                "source_id": source.receipt.source_id,
                "status": "accepted" if source.refused is None else "refused",
                "reason": source.refused,
                "snapshot": source.snapshot,
                "n_read": source.receipt.n_read,
                "n_kept": source.receipt.n_kept,
                "dropped": dict(source.receipt.dropped),
                "skipped_rules": dict(source.receipt.skipped_rules),
                "panel": source.receipt.panel,
                "panel_use": source.receipt.panel_use,
                "warnings": list(source.receipt.warnings),
            }
            for source in corpus.state.sources
        ],
    }


def _cells_by(corpus: "Corpus", facet: str) -> dict[str | None, int]:
    rows = corpus.sql(
        f"SELECT {facet} AS value, count(*) AS n FROM cells GROUP BY 1 ORDER BY n DESC, value"
    )
    return {row["value"]: row["n"] for row in rows.to_pylist()}


def why(corpus: "Corpus", barcode: str) -> list[dict[str, Any]]:
    """What became of a barcode in each source that read it.

    Returns:
        One entry a source: `source_id`, `uri`, `layer`, `recover`, `status` (kept | dropped),
        `reason`, `cell_id` (None where dropped), `is_primary`, `values` (QC value -> what the
        cell has), `thresholds` (QC value -> the bound it was held against), `skipped_rules`.

    Raises:
        NoCellsError: no source of the snapshot has read such a cell.
    """
    literal = "'" + barcode.replace("'", "''") + "'"
    values = "n_counts, n_genes, mito_fraction"
    rows = corpus.sql(
        f"SELECT source_id, cell_id, is_primary, NULL AS reason, {values} FROM cells "
        f"WHERE barcode = {literal} UNION ALL BY NAME SELECT source_id, reason, {values} "
        f"FROM dropped WHERE barcode = {literal} ORDER BY source_id, cell_id"
    ).to_pylist()
    if not rows:
        raise NoCellsError(
            f"{corpus.uri}, snapshot {corpus.snapshot}: no source has read a cell {barcode!r}"
        )
    receipts = {source.receipt.source_id: source.receipt for source in corpus.state.accepted}
    found: list[dict[str, Any]] = []
    for row in rows:
        receipt = receipts[row["source_id"]]
        found.append(
            {
                "barcode": barcode,
                "source_id": row["source_id"],
                "uri": receipt.uri,
                "layer": receipt.layer,
                "recover": receipt.recover,
                "status": "kept" if row["reason"] is None else "dropped",
                "reason": row["reason"],
                "cell_id": row["cell_id"],
                "is_primary": row["is_primary"],
                "values": {name: row[name] for name in values.split(", ")},
                "thresholds": dict(receipt.thresholds),
                "skipped_rules": dict(receipt.skipped_rules),
            }
        )
    return found
