"""A segment made of the living cells of others: prepared or adopted, and proven equal to them.

Knows segments and the rows of `cells`; knows no plan and no commit. The cells keep their ids; rows
that are not living are left out, and so are dropped cells whose use is no longer allowed. Their
order is a permutation keyed by the inputs' names: neighbours come from all of them. Memory: some
45 bytes a stored count of the living cells (see `corpus.compaction` for the bound).
"""

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...platform.errors import CorpusError, DamageError
from ...platform.places import is_there
from ...platform.storage import remove_durably
from ..cells import CellBatch
from ..content import content_keys, from_binary
from ..features import FEATURE_COLUMNS, FeatureBatch
from ..log import history
from ..log.history import SegmentEntry
from ..log.rows import list_of, open_engine, select_rows
from ..log.snapshots import Snapshot
from ..log.tombstones import is_withdrawn, read_tombstones
from ..payload.companions import Companion, check_parts
from ..payload.own_columns import in_columns, join, plain, same
from ..payload.records import SegmentRecord
from ..payload.segments import Segment
from ..payload.verification import verify_segment
from ..payload.writing import MIXED_DROPPED_COLUMNS, write_segment
from ..sparse_counts import Rows
from .mixing import joined_genes, mixed_order, mixed_rows

_PROVEN = ("cell_id", "source_id", "barcode", "n_counts", "n_counts_stored", "content_hash")
"""Columns in which a new segment must agree with the table `cells`, cell by cell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A segment that is ready to take the place of others.

    Attributes:
        inputs: segment_id -> sha256 of its `segment.json`, of the segments that it replaces.
        segment: name of the new one; None where nothing of them is left.
        sources: whose cells, living or dropped, it holds.
        n_cells: living cells.
        adopted: it was there already, from a run that was ended.
    """

    inputs: Mapping[str, str]
    segment: str | None
    sources: tuple[str, ...]
    n_cells: int
    adopted: bool

    def to_values(self) -> dict[str, Any]:
        """For a task's answer."""
        return asdict(self)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Prepared":
        """Read what `to_values` gave."""
        given: dict[str, Any] = {**values, "sources": tuple(values["sources"])}
        return cls(**given)


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """What a new segment is made of.

    Attributes:
        entries: the segments, in canonical order.
        segments: the same, open.
        cells: the living rows of `cells`, by segment and row; all columns.
        place: each cell's segment, as a place in `segments`. Shape (n_cells,).
        rows: each cell's row in it. Shape (n_cells,).
        obs: each segment's own columns of its living cells, in the order of `cells`.
        dropped: dropped cells, with `source_id` and `source_sha256`.
    """

    entries: Sequence[SegmentEntry]
    segments: Sequence[Segment]
    cells: pa.Table
    place: NDArray[np.int64]
    rows: NDArray[np.int64]
    obs: Sequence[pa.Table]
    dropped: pa.Table

    def name(self, attempt: int) -> str:
        """The new segment's name: the same for the same inputs and living rows."""
        digest = hashlib.sha256(f"made of others {attempt}\n".encode())
        for place, entry in enumerate(self.entries):
            digest.update(f"{entry.segment_id}\n".encode())
            digest.update(self.rows[self.place == place].astype("<i8").tobytes())
        digest.update(repr(self.dropped.to_pydict()).encode())
        return digest.hexdigest()[:32]


def prepare(folder: Path, names: Sequence[str]) -> Prepared | None:
    """Write the segment that shall replace some of the newest snapshot's, or adopt it.

    Args:
        folder: the corpus.
        names: the segments to be replaced; all list the same genes.

    Returns:
        The segment, proven equal to its inputs; None where one of them is no longer there.

    Raises:
        CorpusError: the inputs do not fit each other.
        DamageError: an input is damaged, or what was written is not equal to it.
    """
    snapshot = Snapshot.load(folder)
    if any(name not in snapshot.segments for name in names):
        return None
    inputs = _read_inputs(snapshot, names)
    replaced = {entry.segment_id: entry.sha256 for entry in inputs.entries}
    whose = {*inputs.cells.column("source_id").to_pylist()}
    whose |= {*inputs.dropped.column("source_id").to_pylist()}
    given: dict[str, Any] = {
        "inputs": replaced,
        "sources": tuple(sorted(whose)),
        "n_cells": inputs.cells.num_rows,
    }
    if not whose:
        return Prepared(segment=None, adopted=False, **given)
    known = history.every_entry(snapshot.records)
    gone = history.removing(snapshot.records)
    attempt = 0
    while True:
        target = folder / "segments" / inputs.name(attempt)
        if not is_there(target / "segment.json"):
            break
        if _is_named(target, gone):  # by a vacuum, which has died since or is about to remove it
            remove_durably(target, "segment")
            break
        if not problems_of(target, inputs):
            return Prepared(segment=target.name, adopted=True, **given)
        if target.name not in known:  # never committed: of no one
            remove_durably(target, "segment")
            break
        attempt += 1  # an older snapshot has a segment of this name, of cells that came again
    _write(target, snapshot, inputs)
    problems = problems_of(target, inputs)
    if problems:
        remove_durably(target, "segment")
        raise DamageError(
            f"{target}: what was written is not equal to the segments it was made of "
            f"({problems[0]}); nothing is changed: run `cytolake corpus verify --deep`"
        )
    return Prepared(segment=target.name, adopted=False, **given)


def problems_of(folder: Path, inputs: _Inputs) -> list[str]:
    """In what a new segment differs from what it was made of: every byte of it is read."""
    problems = verify_segment(folder, deep=True)
    if problems:
        return problems
    record = SegmentRecord.load(folder)
    written, expected = record.cells(), inputs.cells
    order = np.argsort(written.column("cell_id").to_numpy())
    wanted = np.argsort(expected.column("cell_id").to_numpy())
    for name in _PROVEN:
        found = written.column(name).take(pa.array(order))
        if found.to_pylist() != expected.column(name).take(pa.array(wanted)).to_pylist():
            return [f"{folder}: {name} of a cell is not what the table cells says"]
    place_of = np.empty(len(order), dtype=np.int64)
    place_of[wanted] = order  # where each expected cell stands in what was written
    obs = record.table("obs.parquet")
    for place, own in enumerate(inputs.obs):
        mine = obs.take(pa.array(place_of[inputs.place == place]))
        if not same(mine, in_columns(own, obs.schema)):
            name = inputs.entries[place].segment_id
            return [f"{folder}: the sources' own columns are not those of segment {name}"]
        for name, one in inputs.segments[place].companions.items():
            mine = Companion(record, name).fingerprints()[place_of[inputs.place == place]]
            if (mine != one.fingerprints()[inputs.rows[inputs.place == place]]).any():
                return [f"{folder}: the counts of {name} are not those of its inputs"]
    if not same(record.table("dropped.parquet"), inputs.dropped):
        return [f"{folder}: the dropped cells are not those of its inputs"]
    return []


def _is_named(folder: Path, gone: Collection[tuple[str, int]]) -> bool:
    try:
        return (folder.name, SegmentRecord.load(folder).block) in gone
    except DamageError:
        return False


def living_rows(snapshot: Snapshot, names: Sequence[str]) -> pa.Table:
    """The rows of `cells` of some segments, in no order."""
    rows = select_rows(snapshot.files, snapshot.columns)
    with open_engine() as connection:
        return (
            connection.sql(
                f"SELECT * EXCLUDE (filename) FROM ({rows}) WHERE segment IN "
                f"(SELECT unnest({list_of(names)}))"
            )
            .to_arrow_table()
            .cast(snapshot.columns)
        )


def dropped_rows(record: SegmentRecord) -> pa.Table:
    """A segment's dropped cells, and whose they are."""
    table = record.table("dropped.parquet")
    if not record.is_mixed:
        for name in ("source_id", "source_sha256"):
            value = str(record.provenance[name])
            table = table.append_column(name, pa.array([value] * table.num_rows, pa.string()))
    return table.select(MIXED_DROPPED_COLUMNS.names).cast(MIXED_DROPPED_COLUMNS)


def bears_withdrawn_name(dropped: pa.Table, tombstones: pa.Table, uuid: str) -> NDArray[np.bool_]:
    """Which dropped cells bear source and barcode of a withdrawn one. Shape (n_dropped,)."""
    no_content = pa.array([b""] * dropped.num_rows, pa.binary())
    return is_withdrawn(dropped.append_column("content_hash", no_content), tombstones, uuid)


def _still_wanted(snapshot: Snapshot, dropped: pa.Table) -> pa.Table:
    """Dropped cells, less those of sources that are gone or replaced, and of withdrawn names."""
    tombstones = read_tombstones(snapshot.folder, history.withdrawals(snapshot.records))
    gone = bears_withdrawn_name(dropped, tombstones, snapshot.uuid)
    accepted = {(s.receipt.source_id, s.receipt.sha256) for s in snapshot.accepted}
    columns = (dropped.column(name).to_pylist() for name in ("source_id", "source_sha256"))
    ours = np.array([owner in accepted for owner in zip(*columns, strict=True)], dtype=np.bool_)
    return dropped.filter(pa.array(ours & ~gone)).combine_chunks()


def _read_inputs(snapshot: Snapshot, names: Sequence[str]) -> _Inputs:
    entries = sorted((snapshot.segments[name] for name in names), key=lambda entry: entry.order)
    segments = [
        Segment.open(snapshot.folder / "segments" / entry.segment_id, entry.sha256)
        for entry in entries
    ]
    genes = segments[0].genes.column("gene_id")
    for segment in segments:
        check_parts(segment.record)
    for segment in segments[1:]:
        if not segment.genes.column("gene_id").equals(genes):
            raise CorpusError(
                f"segments {segments[0].record.segment_id} and {segment.record.segment_id} list "
                "different genes: mixed, 'not measured' would turn into 0"
            )
        if _features(segment) != _features(segments[0]):
            raise CorpusError(
                f"segments {segments[0].record.segment_id} and {segment.record.segment_id} have "
                "other modalities or features: mixed, 'not measured' would turn into 0"
            )
    cells = living_rows(snapshot, names)
    number_of = {entry.segment_id: number for number, entry in enumerate(entries)}
    held = cells.column("segment").combine_chunks().dictionary_encode()
    numbers = np.array([number_of[name] for name in held.dictionary.to_pylist()], dtype=np.int64)
    place = numbers[held.indices.to_numpy()] if len(numbers) else np.zeros(0, dtype=np.int64)
    rows = cells.column("row").to_numpy().astype(np.int64)
    order = np.lexsort((rows, place))
    place, rows, cells = place[order], rows[order], cells.take(pa.array(order))
    dropped = pa.concat_tables([dropped_rows(segment.record) for segment in segments])
    return _Inputs(
        entries=entries,
        segments=segments,
        cells=cells,
        place=place,
        rows=rows,
        obs=[
            plain(segment.record.table("obs.parquet")).take(pa.array(rows[place == number]))
            for number, segment in enumerate(segments)
        ],
        dropped=_still_wanted(snapshot, dropped),
    )


def _features(segment: Segment) -> dict[str, list[str]]:
    """Modality -> its features."""
    return {
        name: one.features.column("feature_id").to_pylist()
        for name, one in segment.companions.items()
    }


def _write(target: Path, snapshot: Snapshot, inputs: _Inputs) -> None:
    order = mixed_order(inputs.cells.num_rows, [entry.segment_id for entry in inputs.entries])
    keys = content_keys(from_binary(inputs.cells.column("content_hash")))

    def read(number: int, rows: NDArray[np.int64], cells: NDArray[np.int64]) -> Rows:
        return inputs.segments[number].read(rows, keys[cells])

    starts = [segment.counts.indptr for segment in inputs.segments]
    indptr, indices, counts = mixed_rows(inputs.place, inputs.rows, order, starts, read)
    cells = inputs.cells.take(pa.array(order))
    write_segment(
        target,
        target.name,
        CellBatch(
            gene_ids=inputs.segments[0].gene_ids,
            indptr=indptr,
            indices=indices,
            counts=counts,
            n_counts=cells.column("n_counts").to_numpy(),
            content_keys=content_keys(from_binary(cells.column("content_hash"))),
            obs=cells,
        ),
        joined_genes([segment.genes for segment in inputs.segments]),
        join(inputs.obs).take(pa.array(order)),
        inputs.dropped,
        {
            "corpus_uuid": snapshot.uuid,
            "source_id": ", ".join(sorted({s for entry in inputs.entries for s in entry.sources})),
            "source_sha256": hashlib.sha256(
                "\n".join(f"{e.source_sha256} {e.segment_id}" for e in inputs.entries).encode()
            ).hexdigest(),
            "first_row": 0,
            "cell_ids": "kept",
            "inputs": [entry.segment_id for entry in inputs.entries],
            "pid": os.getpid(),
        },
        features={
            name: _mixed_features(inputs, order, [s.companions[name] for s in inputs.segments])
            for name in inputs.segments[0].companions
        },
    )


def _mixed_features(
    inputs: _Inputs, order: NDArray[np.int64], companions: Sequence[Companion]
) -> FeatureBatch:
    """The living cells' numbers of a modality, in their new order."""

    def read(number: int, rows: NDArray[np.int64], _: NDArray[np.int64]) -> Rows:
        return companions[number].counts.read(rows)

    starts = [one.counts.indptr for one in companions]
    dtype = companions[0].kind.dtype
    indptr, indices, values = mixed_rows(inputs.place, inputs.rows, order, starts, read, dtype)
    var = companions[0].features.select(FEATURE_COLUMNS.names)
    return FeatureBatch(var=var, indptr=indptr, indices=indices, values=values)
