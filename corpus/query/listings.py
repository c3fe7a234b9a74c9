"""What a snapshot lists of itself, as tables: its sources, its segments. Knows no SQL."""

import pyarrow as pa

from ..log.snapshots import Snapshot


def source_table(snapshot: Snapshot) -> pa.Table:
    """One row a source, the refused ones too: the view `sources`."""
    schema = pa.schema(
        [
            ("source_id", pa.string()),
            ("status", pa.string()),
            ("reason", pa.string()),
            ("snapshot", pa.int64()),
            ("committed_at", pa.timestamp("ms", tz="UTC")),
            ("uri", pa.string()),
            ("sha256", pa.string()),
            ("n_bytes", pa.int64()),
            ("reader", pa.string()),
            ("layer", pa.string()),
            ("n_read", pa.int64()),
            ("n_kept", pa.int64()),
            ("n_dropped", pa.int64()),
            ("panel", pa.bool_()),
            ("panel_use", pa.bool_()),
            ("kind", pa.string()),
            ("receipt", pa.string()),
        ]
    )
    rows = [
        {
            "source_id": source.receipt.source_id,
            "status": "accepted" if source.refused is None else "refused",
            "reason": source.refused,
            "snapshot": source.snapshot,
            "committed_at": source.committed_at,
            **{
                name: getattr(source.receipt, name)
                for name in ("uri", "sha256", "n_bytes", "reader", "layer", "n_read", "n_kept")
            },
            "n_dropped": source.receipt.n_dropped,
            "panel": source.receipt.panel,
            "panel_use": source.receipt.panel_use,
            "kind": source.receipt.kind,
            "receipt": source.receipt.to_json(),
        }
        for source in snapshot.sources
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def segment_table(snapshot: Snapshot) -> pa.Table:
    """One row a segment: the view `segments`."""
    schema = pa.schema(
        [
            ("segment", pa.string()),
            ("source_id", pa.string()),
            ("n_cells", pa.int64()),
            ("n_dropped", pa.int64()),
            ("n_genes", pa.int64()),
            ("n_nonzero", pa.int64()),
            ("first_row", pa.int64()),
            ("n_bytes", pa.int64()),
        ]
    )
    rows = [
        {
            "segment": entry.segment_id,
            "source_id": ", ".join(entry.sources),
            "n_cells": entry.n_cells,
            "n_dropped": entry.n_dropped,
            "n_genes": entry.n_genes,
            "n_nonzero": entry.n_nonzero,
            "first_row": entry.first_row,
            "n_bytes": sum(entry.n_bytes.values()),
        }
        for entry in snapshot.segments.values()
    ]
    return pa.Table.from_pylist(rows, schema=schema)
