"""Whether a corpus is what was committed: every file, and what its parts say of each other.

Knows files and rows; what is inside a segment is `corpus.verification`'s matter. Cheap: sizes and
the small files. Deep: every byte anew, and each row of `cells` held against its segment. Memory:
that of two segments' verification, one batch of rows, and two bits a cell.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...platform.errors import CytolakeError, StorageError
from ...platform.places import bring, bring_anew, files_in, folders_in
from ...platform.storage import sha256_file
from ..log import history
from ..log.chain import load_table
from ..log.history import SegmentEntry
from ..log.logs import problems_of_log
from ..log.tags import tags
from ..log.tombstones import read_tombstones
from ..log.witness import witness_file
from ..payload.verification import verify_segment
from ..query.uses import uses
from ..schema import POSITION_BITS
from ..upkeep.retention import Held, held_by, open_versions

if TYPE_CHECKING:
    from ..store import Corpus

_SAME = ("cell_id", "source_id", "barcode", "n_counts", "n_counts_stored", "content_hash")
"""Columns of a row that nobody may change: they are those of its segment's `cells.parquet`."""

_BATCH = 1 << 16


def verify(
    corpus: "Corpus", *, deep: bool = False, advance: Callable[[float], None] = lambda _: None
) -> list[str]:
    """What is wrong with the snapshot; an empty list where nothing is.

    Args:
        corpus: an open snapshot; that it opened proves the log's chain already.
        deep: read every byte, and hold the parts against each other.
        advance: told of bytes that have been looked at, of `n_bytes` in all.
    """
    older, problems = _held_by_older(corpus)
    segments = {**older.segments, **corpus.state.segments}

    def look(entry: SegmentEntry) -> list[str]:
        folder = corpus.segments_folder / entry.segment_id
        try:
            found = verify_segment(folder, deep=deep, sha256=entry.sha256)
        except StorageError as error:
            found = [str(error)]
        advance(sum(entry.n_bytes.values()))
        return found

    with ThreadPoolExecutor(2) as pool:
        looked = list(pool.map(look, segments.values()))
    problems += [problem for found in looked for problem in found]
    sound = {name for name, found in zip(segments, looked, strict=True) if not found}
    broken = list(_problems_of_files(corpus.state.files, deep, advance))
    problems += broken
    cells = {corpus.folder / "cells" / name: size for name, size in older.files.items()}
    older_files = {path: size for path, size in cells.items() if path not in corpus.state.files}
    problems += _problems_of_files(older_files, deep)
    problems += _problems_of_logs(corpus) if deep else []
    problems += _problems_of_sources(corpus, deep)
    problems += _problems_of_account(corpus)
    problems += _problems_of_small_files(corpus, deep)
    if deep and not broken:
        problems += _Rows(corpus, sound).problems()
    return problems


def _held_by_older(corpus: "Corpus") -> tuple[Held, list[str]]:
    """What the snapshots hold that no vacuum has ended; and what is wrong with their log."""
    try:
        state = load_table(corpus.folder / "cells")
        return held_by(state, open_versions(state.records)), []
    except CytolakeError as error:
        return Held(files={}, segments={}), [str(error)]


def _problems_of_logs(corpus: "Corpus") -> Iterator[str]:
    for name in ("cells", "sources"):
        try:
            yield from problems_of_log(load_table(corpus.folder / name))
        except CytolakeError as error:
            yield str(error)


def n_bytes(corpus: "Corpus") -> int:
    """How many bytes the snapshot's segments and rows have."""
    segments = (sum(entry.n_bytes.values()) for entry in corpus.state.segments.values())
    return sum(segments) + sum(corpus.state.files.values())


def unknown_files(corpus: "Corpus") -> list[Path]:
    """Files and segments that no commit names: staged ones, or what a kill left. No damage."""
    known = set(history.every_entry(corpus.state.records))
    found = [
        path
        for path in folders_in(corpus.segments_folder)
        if path.name not in known or path.name.startswith(".")
    ]
    for name in ("cells", "sources"):
        state = load_table(corpus.folder / name)
        ever = {str(path) for path in state.files}
        log = (corpus.folder / name / "_delta_log").glob("*.json")
        text = "".join(path.read_text() for path in log)
        found += [
            path
            for path in files_in(corpus.folder / name)
            if path not in (witness_file(state.folder), state.folder / ".turn")
            and path.name not in ever
            and path.name not in text
        ]
    return found


def _problems_of_files(
    files: Mapping[Path, int], deep: bool, advance: Callable[[float], None] = lambda _: None
) -> Iterator[str]:
    """Files that are named by their hash."""
    for path, size in files.items():
        try:
            if not (deep and bring_anew(path)):
                bring([path])
            found = path.stat().st_size
            digest = sha256_file(path) if deep and found == size else path.stem
        except FileNotFoundError:
            yield f"{path} is missing ({size} bytes were written)"
            continue
        except (CytolakeError, OSError) as error:
            yield f"{path} cannot be read: {error}"
            continue
        if found != size:
            yield f"{path} has {found} bytes, {size} were written"
        elif digest != path.stem:
            yield f"{path} has other bytes than were written (sha256 {digest:.12})"
        advance(size)


def _problems_of_sources(corpus: "Corpus", deep: bool) -> Iterator[str]:
    """The table `sources`: its chain, its files, and that what it took from `cells` is there.

    That it lags behind is no damage: the next writer completes it.
    """
    folder = corpus.folder / "sources"
    try:
        state = load_table(folder)
    except CytolakeError as error:
        yield str(error)
        return
    files = {folder / name: size for name, size in state.files.items()}
    broken = list(_problems_of_files(files, deep))
    yield from broken
    came = {record.version for record in corpus.state.records if record.kind == "ingest"}
    projected = {
        int(version)
        for record in state.records
        if record.kind == "accepted"
        for version in record.body["snapshots"]
    }
    newest = corpus.state.newest
    if wrong := {version for version in projected if version <= newest} - came:
        yield f"{folder} has accepted sources of snapshots {sorted(wrong)}, which brought none"
    if not broken:
        rows = [
            row["snapshot"]
            for path in files
            for row in pq.read_table(path, columns=["snapshot", "status"]).to_pylist()
            if row["status"] == "accepted"
        ]
        if sorted(rows) != sorted(projected):
            yield f"{folder}: its rows are of snapshots {sorted(rows)}, not {sorted(projected)}"


def _problems_of_account(corpus: "Corpus") -> Iterator[str]:
    """Receipts against the segments that their commits named."""
    for source in corpus.state.accepted:
        kept = sum(entry.n_cells for entry in source.segments)
        if kept != source.receipt.n_kept:
            yield (
                f"source {source.receipt.source_id}: its segments held {kept} cells, its receipt "
                f"says {source.receipt.n_kept}"
            )


def _problems_of_small_files(corpus: "Corpus", deep: bool) -> Iterator[str]:
    """Tags, uses, and the lists of withdrawn and of linked cells."""
    folder = corpus.folder
    try:
        ended = history.ended(corpus.state.records)
        for tag in tags(folder).values():
            if tag.snapshot in ended:
                yield f"the tag {tag.name!r} names snapshot {tag.snapshot}, which was ended"
    except CytolakeError as error:
        yield str(error)
    try:
        uses(folder)
    except CytolakeError as error:
        yield str(error)
    listed = {
        folder / "withdrawn" / withdrawal.tombstones: withdrawal.n_bytes
        for withdrawal in history.withdrawals(corpus.state.records)
    }
    listed |= {
        folder / "links" / name: size
        for name, size in history.link_files(corpus.state.records).items()
    }
    yield from _problems_of_files(listed, deep)


class _Rows:
    """Holds the rows of `cells` against the segments, batch by batch."""

    def __init__(self, corpus: "Corpus", sound: set[str]) -> None:
        self._corpus, self._sound = corpus, sound
        blocks = history.every_entry(corpus.state.records).values()
        self._rows = {n: _Marks(e.n_cells) for n, e in corpus.state.segments.items()}
        self._size_of_block = {entry.block: entry.n_cells for entry in blocks}
        self._ids: dict[int, _Marks] = {}
        self._cells_of = lru_cache(maxsize=2)(self._read_segment)

    def problems(self) -> Iterator[str]:
        """A line for each batch and segment that do not agree."""
        try:
            withdrawals = history.withdrawals(self._corpus.state.records)
            gone = read_tombstones(self._corpus.folder, withdrawals).column("cell_id").to_numpy()
        except CytolakeError:
            gone = np.array([], dtype=np.int64)  # it is told already
        for path in self._corpus.state.files:
            try:
                reader = pq.ParquetFile(path, memory_map=False, page_checksum_verification=True)
                columns = [*_SAME, "segment", "row"]
                for batch in reader.iter_batches(batch_size=_BATCH, columns=columns):
                    rows = pa.table(batch)
                    yield from (f"{path}: {problem}" for problem in self._of_batch(rows, gone))
            except (pa.ArrowException, OSError) as error:
                yield f"{path} cannot be read: {error}"

    def _of_batch(self, rows: pa.Table, gone: NDArray[np.int64]) -> Iterator[str]:
        ids = rows.column("cell_id").to_numpy()
        if n_gone := int(np.isin(ids, gone).sum()):
            yield f"{n_gone} cells are here that were withdrawn"
        segments = rows.column("segment").combine_chunks().dictionary_encode()
        numbers = segments.indices.to_numpy(zero_copy_only=False)
        for number, name in enumerate(segments.dictionary.to_pylist()):
            if name not in self._rows:
                yield f"rows of a segment {name!r} of no commit"
                continue
            of_segment = rows.take(pa.array(np.flatnonzero(numbers == number)))
            places = of_segment.column("row").to_numpy().astype(np.int64)
            if wrong := self._rows[name].add(places):
                yield f"{wrong} rows of segment {name} are outside it, or there twice"
            elif name in self._sound:
                own = self._cells_of(name).take(pa.array(places))
                for column in _SAME:
                    if not _plain(own.column(column)).equals(_plain(of_segment.column(column))):
                        yield f"{column} is not what segment {name} says"
        blocks = ids >> POSITION_BITS
        for block in np.unique(blocks).tolist():
            if block not in self._ids:
                self._ids[block] = _Marks(self._size_of_block.get(block, 0))
            positions = ids[blocks == block] & ((1 << POSITION_BITS) - 1)
            if wrong := self._ids[block].add(positions):
                yield f"{wrong} cell ids are of no segment, or there twice"

    def _read_segment(self, name: str) -> pa.Table:
        path = self._corpus.segments_folder / name / "cells.parquet"
        return pq.read_table(path, columns=list(_SAME), memory_map=False)


class _Marks:
    """One bit a number, set once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._bits = np.zeros((size + 7) // 8, dtype=np.uint8)

    def add(self, numbers: NDArray[np.int64]) -> int:
        """Set bits; how many numbers are out of range or were set before."""
        inside = np.unique(numbers[(numbers >= 0) & (numbers < self._size)])
        byte, bit = inside >> 3, np.left_shift(1, inside & 7).astype(np.uint8)
        n_new = int(np.count_nonzero(self._bits[byte] & bit == 0))
        np.bitwise_or.at(self._bits, byte, bit)
        return len(numbers) - n_new


def _plain(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()
