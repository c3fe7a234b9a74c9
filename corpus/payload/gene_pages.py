"""Some rows of a gene-major Parquet file, from the pages that hold them. Knows no gene, no SQL.

A Parquet reader opens a file as a whole: its schema, every row group's statistics, its columns. Of
hundreds of files, for a few rows of each, that takes many times as long as the rows. Here a file's
pages are found once, and rows then cost one read, two decompressions and their own decoding. What
`payload.expression` does not write is not read: such a file has no pages here. Encodings: the
Parquet format, DELTA_BINARY_PACKED and BYTE_STREAM_SPLIT (https://parquet.apache.org/docs).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...platform.errors import DamageError

_ENCODINGS = {"row": "DELTA_BINARY_PACKED", "count": "BYTE_STREAM_SPLIT"}
_CODES = {"DELTA_BINARY_PACKED": 5, "BYTE_STREAM_SPLIT": 9}  # as page headers say it

_UNREADABLE = (OSError, pa.ArrowException, ValueError, IndexError, KeyError, TypeError)


@dataclass(frozen=True, kw_only=True, slots=True)
class GenePages:
    """Where the pages of a gene-major file lie.

    Attributes:
        path: the file.
        starts: the first row of each row group, and the end. Shape (n_groups + 1,).
        spans: of each row group the offset and bytes of `row`, then those of `count`.
            Shape (n_groups, 4).
        genes: the first and the last gene of each row group. n_groups pairs.
    """

    path: Path
    starts: NDArray[np.int64]
    spans: NDArray[np.int64]
    genes: list[tuple[str, str]]

    @classmethod
    def load(cls, path: Path) -> "GenePages | None":
        """Read a file's footer; None where the file is of another make than ours.

        Raises:
            DamageError: it has no footer.
        """
        try:
            footer = pq.read_metadata(path)
        except (pa.ArrowException, OSError) as error:
            raise DamageError(f"{path} cannot be read: {error}") from error
        names = [footer.schema.column(place).name for place in range(footer.num_columns)]
        if names != ["gene", "row", "count"]:
            return None
        sizes: list[int] = []
        spans: list[tuple[int, ...]] = []
        genes: list[tuple[str, str]] = []
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            span: tuple[int, ...] = ()
            for place, name in ((1, "row"), (2, "count")):
                chunk = group.column(place)
                plain = chunk.compression == "ZSTD" and chunk.physical_type == "INT32"
                if (
                    not plain
                    or chunk.has_dictionary_page
                    or _ENCODINGS[name] not in chunk.encodings
                ):
                    return None
                span += (chunk.data_page_offset, chunk.total_compressed_size)
            told = group.column(0).statistics
            if told is None or not told.has_min_max:
                return None
            sizes.append(group.num_rows)
            spans.append(span)
            genes.append((told.min, told.max))
        return cls(
            path=path,
            starts=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            spans=np.array(spans, dtype=np.int64).reshape(-1, 4),
            genes=genes,
        )

    def read(
        self, first: int, stop: int, rows: NDArray[np.uint32], counts: NDArray[np.uint32]
    ) -> None:
        """Rows `first` to `stop` of the columns `row` and `count`.

        Args:
            first: the first row.
            stop: the row after the last, at most the file's rows.
            rows: where the one goes. Shape (stop - first,).
            counts: where the other goes. Shape (stop - first,).

        Raises:
            DamageError: the file is gone, or its pages are not what the footer says.
        """
        begin = int(np.searchsorted(self.starts, first, side="right")) - 1
        end = int(np.searchsorted(self.starts, stop, side="left"))
        try:
            file = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise DamageError(f"{self.path} cannot be read: {error}") from error
        try:
            for group in range(begin, end):
                row_at, row_bytes, count_at, count_bytes = self.spans[group].tolist()
                data = os.pread(file, count_at + count_bytes - row_at, row_at)
                start = int(self.starts[group])
                lower = max(first - start, 0)
                upper = min(stop, int(self.starts[group + 1])) - start
                out = slice(start + lower - first, start + upper - first)
                self._decode(data[:row_bytes], "row", lower, upper, rows[out])
                self._decode(data[count_at - row_at :], "count", lower, upper, counts[out])
        except _UNREADABLE as error:
            raise DamageError(f"{self.path} cannot be read: {error!r}") from error
        finally:
            os.close(file)

    def _decode(
        self, chunk: bytes, name: str, lower: int, upper: int, out: NDArray[np.uint32]
    ) -> None:
        """Values `lower` to `upper` of a column chunk."""
        codec = pa.Codec("zstd")
        at = before = 0
        while before < upper:
            if at >= len(chunk):
                raise ValueError("a column ends before its values do")
            header, at = _page_header(chunk, at)
            n_values, encoding = header[5][1], header[5][2]
            if header[1] != 0 or encoding != _CODES[_ENCODINGS[name]]:
                raise ValueError(f"page of type {header[1]}, encoding {encoding}")
            if n_values < 1 or header[3] < 1 or not 0 < header[2] <= 8 * n_values + 1024:
                raise ValueError(f"page of {n_values} values in {header[3]} and {header[2]} bytes")
            page_stop = at + header[3]
            first, stop = max(lower - before, 0), min(upper - before, n_values)
            if first < stop:
                size = header[2]
                page = codec.decompress(memoryview(chunk)[at:page_stop], size)
                values = np.frombuffer(page, dtype=np.uint8)
                place = before + first - lower
                kernel = _undelta if name == "row" else _unsplit
                if not kernel(values, n_values, first, stop, out[place : place + stop - first]):
                    raise ValueError(f"a page of {name} is not as long as it says")
            before, at = before + n_values, page_stop


def _page_header(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """A page's header (Thrift's compact protocol) and where it ends: field number -> value."""
    fields: dict[int, Any] = {}
    number = 0
    while data[at]:
        kind, step = data[at] & 15, data[at] >> 4
        at += 1
        if step:
            number += step
        else:
            coded, at = _varint(data, at)
            number = (coded >> 1) ^ -(coded & 1)
        if kind in (1, 2):
            fields[number] = kind == 1
        elif kind in (4, 5, 6):
            coded, at = _varint(data, at)
            fields[number] = (coded >> 1) ^ -(coded & 1)
        elif kind == 8:
            size, at = _varint(data, at)
            at += size
        elif kind == 12:
            fields[number], at = _page_header(data, at)
        else:
            raise ValueError(f"a page's header has a field of kind {kind}")
    return fields, at + 1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


@numba.njit(cache=True, nogil=True)
def _unsplit(page: NDArray[Any], n_values: int, first: int, stop: int, out: NDArray[Any]) -> bool:
    """BYTE_STREAM_SPLIT: all first bytes, then all second ones. False where the page is short."""
    if len(page) < 4 * n_values:
        return False
    for i in range(first, stop):
        out[i - first] = (
            np.uint32(page[i])
            | np.uint32(page[n_values + i]) << np.uint32(8)
            | np.uint32(page[2 * n_values + i]) << np.uint32(16)
            | np.uint32(page[3 * n_values + i]) << np.uint32(24)
        )
    return True


@numba.njit(cache=True, nogil=True)
def _number(page: NDArray[Any], at: int) -> tuple[np.uint64, int]:
    """A number of seven bits a byte, and where it ends; -1 where the page does before."""
    value = np.uint64(0)
    shift = np.uint64(0)
    while at < len(page):
        byte = np.uint64(page[at])
        at += 1
        value |= (byte & np.uint64(127)) << shift
        shift += np.uint64(7)
        if byte < 128:
            return value, at
    return value, -1


@numba.njit(cache=True, nogil=True)
def _undelta(page: NDArray[Any], n_values: int, first: int, stop: int, out: NDArray[Any]) -> bool:
    """DELTA_BINARY_PACKED, as far as `stop`. False where the page is short or of other sizes."""
    at = 0
    head = np.zeros(4, dtype=np.uint64)  # block size, miniblocks, values, first value
    for field in range(4):
        head[field], at = _number(page, at)
        if at < 0:
            return False
    if head[0] > 65536 or head[1] > 8192 or head[2] != n_values:
        return False
    block, n_mini = int(head[0]), int(head[1])
    if n_mini == 0 or block % (8 * n_mini):
        return False
    mini = block // n_mini
    value = np.uint32((head[3] >> np.uint64(1)) ^ (np.uint64(0) - (head[3] & np.uint64(1))))
    if first == 0:
        out[0] = value
    done = 1
    while done < stop:
        low, at = _number(page, at)
        if at < 0:
            return False
        least = np.uint32((low >> np.uint64(1)) ^ (np.uint64(0) - (low & np.uint64(1))))
        widths = at
        at += n_mini
        if at > len(page):
            return False
        for m in range(n_mini):
            if done >= stop:
                break
            width = int(page[widths + m])
            if width > 32 or at + width * mini // 8 > len(page):
                return False
            mask = (np.uint64(1) << np.uint64(width)) - np.uint64(1)
            held = np.uint64(0)
            n_held = 0
            byte_at = at
            for _ in range(min(mini, stop - done)):
                while n_held < width:
                    held |= np.uint64(page[byte_at]) << np.uint64(n_held)
                    byte_at += 1
                    n_held += 8
                value = np.uint32(value + least + np.uint32(held & mask))
                held >>= np.uint64(width)
                n_held -= width
                if done >= first:
                    out[done - first] = value
                done += 1
            at += width * mini // 8
    return True
