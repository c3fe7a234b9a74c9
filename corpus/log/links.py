"""Cells of two sources that are one cell: found when the second source comes, kept as ids.

Knows rows and counts; knows no query. Equal gene lists need none of this: there the content hashes
are equal. Where the lists differ, two cells are one if they bear the same barcode and have equal
counts on all genes that both sources measured, at least `FEWEST_DETECTED` of them above 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..content import gene_words, sum_lanes
from ..payload.integrity import check_file
from ..payload.records import SegmentRecord, read_table
from ..payload.segments import Segment
from .chain import TableState
from .history import SegmentEntry
from .ledger import NewFile, write_rows
from .rows import literal, open_engine, select_rows

COLUMNS = pa.schema([pa.field("cell_id", pa.int64()), pa.field("primary_id", pa.int64())])

FEWEST_DETECTED = 10
"""With fewer detected genes in common, equal counts say little."""

LEAST_SHARE = 0.02
"""Two sources are compared if they share this part of the smaller one's barcodes: kits have
hundreds of thousands, so two samples of thousands of cells share under 1 % by chance."""

_SAMPLE = 256
"""So many cells are compared first; if none of them is equal, the sources are not the same."""

_PAIRS = pa.schema(
    [
        pa.field("cell_id", pa.int64()),
        pa.field("segment", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("primary_id", pa.int64()),
        pa.field("primary_segment", pa.string()),
        pa.field("primary_row", pa.int64()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Links:
    """What a new source has in common with those that are there.

    Attributes:
        rows: `cell_id` of the new cell, `primary_id` of the one that was there.
        by_source: source that was there -> cells in common.
    """

    rows: pa.Table
    by_source: Mapping[str, int]


def write_links(folder: Path, links: Links) -> NewFile:
    """Write links into a corpus; a commit makes them count."""
    return write_rows(folder / "links", links.rows)


@lru_cache(maxsize=256)
def read_links(folder: Path, name: str, n_bytes: int) -> pa.Table:
    """The links of one commit.

    Raises:
        DamageError: the file is missing or damaged.
    """
    path = folder / "links" / name
    check_file(path, n_bytes, path.stem)
    return read_table(path).cast(COLUMNS)


class Linker:
    """Compares a new source with those of one version after the other, each once."""

    def __init__(self, folder: Path, source_id: str, segments: Sequence[SegmentRecord]) -> None:
        """Prepare.

        Args:
            folder: the corpus.
            source_id: the new source.
            segments: its prepared segments.
        """
        self._folder, self._source_id = folder, source_id
        self._segments = {record.segment_id: record for record in segments}
        self._found: dict[tuple[str, str], pa.Table] = {}
        self._open: dict[str, Segment] = {}

    def links(
        self, state: TableState, entries: Mapping[str, SegmentEntry], sources: Mapping[str, str]
    ) -> Links:
        """What the new source has in common with a version's.

        Args:
            state: the version.
            entries: its segments.
            sources: source_id -> sha256 of its sources.

        Raises:
            DamageError: a segment that has to be read is not what was committed.
        """
        others = {name: sha for name, sha in sources.items() if name != self._source_id}
        missing = [name for name, sha in others.items() if (name, sha) not in self._found]
        if missing:
            pairs = self._pairs(state, missing)
            for name in missing:
                same = self._equal(pairs[name], entries) if name in pairs else _PAIRS.empty_table()
                self._found[name, others[name]] = same
        found = {name: self._found[name, sha] for name, sha in others.items()}
        rows = pa.concat_tables([_PAIRS.empty_table(), *found.values()]).select(COLUMNS.names)
        # A cell that is in several sources already is linked to each; the view takes the first.
        by_source = {name: table.num_rows for name, table in found.items() if table.num_rows}
        return Links(rows=rows, by_source=by_source)

    def _pairs(self, state: TableState, names: Sequence[str]) -> dict[str, pa.Table]:
        """Cells with the same barcode, of the sources that share enough of them."""
        wanted = ("cell_id", "segment", "row", "source_id", "barcode")
        columns = pa.schema([state.columns.field(name) for name in wanted])
        files = {state.folder / name: size for name, size in state.files.items()}
        new = pa.concat_tables(
            [
                record.cells().select(["cell_id", "segment", "row", "barcode"])
                for record in self._segments.values()
            ]
        )
        old = f"({select_rows(files, columns)})"
        with open_engine() as connection:
            connection.register("new", new)
            # The whole table is asked for two columns only; the rest is read of few sources.
            shared = connection.execute(
                f"SELECT source_id, count(*), count(*) FILTER (WHERE barcode IN (SELECT barcode "
                f"FROM new)) FROM {old} GROUP BY 1"
            ).fetchall()
            return {
                name: connection.sql(
                    "SELECT n.cell_id, n.segment, n.row::BIGINT AS row, o.cell_id AS primary_id, "
                    "o.segment AS primary_segment, o.row::BIGINT AS primary_row FROM new n JOIN "
                    f"{old} o USING (barcode) WHERE o.source_id = {literal(name)} ORDER BY "
                    "o.segment, n.segment, o.row, n.row"
                )
                .to_arrow_table()
                .cast(_PAIRS)
                for name, n_cells, n_shared in shared
                if name in set(names) and n_shared > LEAST_SHARE * min(n_cells, new.num_rows)
            }

    def _equal(self, pairs: pa.Table, entries: Mapping[str, SegmentEntry]) -> pa.Table:
        """Those of some pairs whose counts are equal on the genes that both measured."""
        step = max(1, pairs.num_rows // _SAMPLE)
        sample = pairs.take(pa.array(np.arange(0, pairs.num_rows, step)))
        if not self._are_equal(sample, entries).any():
            return _PAIRS.empty_table()
        return pairs.filter(pa.array(self._are_equal(pairs, entries)))

    def _are_equal(self, pairs: pa.Table, entries: Mapping[str, SegmentEntry]) -> NDArray[np.bool_]:
        equal = np.zeros(pairs.num_rows, dtype=np.bool_)
        names = list(
            zip(
                pairs.column("segment").to_pylist(),
                pairs.column("primary_segment").to_pylist(),
                strict=True,
            )
        )
        for both in dict.fromkeys(names):
            places = np.array([place for place, name in enumerate(names) if name == both])
            new, old = self._segment(both[0], None), self._segment(both[1], entries[both[1]])
            shared = np.intersect1d(new.gene_ids.astype(str), old.gene_ids.astype(str))
            words = gene_words(shared.tolist())
            lanes: list[NDArray[np.uint64]] = []
            for segment, name in ((new, "row"), (old, "primary_row")):
                rows = pairs.column(name).to_numpy()[places]
                lanes.append(_lanes(segment, rows, shared, words))
            same = (lanes[0] == lanes[1]).all(axis=1)
            equal[places] = same & (lanes[0][:, 2] >= FEWEST_DETECTED)
        return equal

    def _segment(self, segment_id: str, entry: SegmentEntry | None) -> Segment:
        if segment_id not in self._open:
            sha256 = None if entry is None else entry.sha256
            self._open[segment_id] = Segment.open(self._folder / "segments" / segment_id, sha256)
        return self._open[segment_id]


def _lanes(
    segment: Segment,
    rows: NDArray[np.int64],
    shared: NDArray[np.str_],
    words: NDArray[np.uint64],
) -> NDArray[np.uint64]:
    """Of each row a hash of its counts on some genes, and how many are above 0. Shape (n, 3)."""
    place = np.full(len(segment.gene_ids), -1, dtype=np.int32)
    place[np.searchsorted(segment.gene_ids.astype(str), shared)] = np.arange(len(shared))
    found = np.zeros((len(rows), 3), dtype=np.uint64)
    for start in range(0, len(rows), 1024):
        some = slice(start, start + 1024)
        indptr, indices, counts = segment.read(rows[some])
        kept = place[indices] >= 0
        running = np.concatenate([[0], np.cumsum(kept)])
        ends = running[indptr]
        found[some, :2] = sum_lanes(words, ends, place[indices][kept], counts[kept])
        found[some, 2] = np.diff(ends).astype(np.uint64)
    return found
