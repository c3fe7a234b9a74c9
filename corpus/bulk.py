"""Bulk samples beside cells: who learns from cells does not meet them by accident.

Knows receipts; knows no matrix. A sample is thousands of cells at once: among cells it would pull
every median and fill a model's batches with what no cell looks like.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .log.receipts import BULK
from .log.snapshots import Snapshot

BULK_ALONE = "source_id IN (SELECT source_id FROM sources WHERE kind = 'bulk')"
"""The condition that chooses bulk samples and nothing else."""


def not_apart(snapshot: Snapshot, segments: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which rows are bulk samples among cells; none where all rows are of one kind.

    Args:
        snapshot: that the rows are of.
        segments: the segment of each row; a compaction mixes bulk samples with their like alone.

    Returns:
        Shape (n_rows,).
    """
    of_bulk = {s.receipt.source_id for s in snapshot.accepted if s.receipt.kind == BULK}
    held = segments.combine_chunks().dictionary_encode()
    bulk = np.array(
        [
            not of_bulk.isdisjoint(snapshot.segments[str(name)].sources)
            for name in held.dictionary.to_pylist()
        ],
        dtype=np.bool_,
    )
    found = bulk[held.indices.to_numpy()] if len(bulk) else np.zeros(len(segments), dtype=np.bool_)
    return np.zeros_like(found) if found.all() else found
