"""What a segment says of itself, and its Parquet tables. Knows no counts and no commit."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..platform.errors import DamageError, NewerFormatError
from .schema import FORMAT


@dataclass(frozen=True, kw_only=True)
class SegmentRecord:
    """What `segment.json` says.

    Attributes:
        segment_id: the segment's name, that of its folder.
        folder: where it lies.
        block: the random number that its cells' ids begin with.
        n_cells: cells kept.
        n_dropped: cells of the unit that were dropped.
        n_genes: genes measured.
        n_nonzero: stored counts.
        total: sum of the stored counts.
        files: relative path -> (bytes, sha256).
        provenance: `corpus_uuid`, `source_id`, `source_sha256`, `first_row` (of the unit in its
            source) and whatever else the writer said.
    """

    segment_id: str
    folder: Path
    block: int
    n_cells: int
    n_dropped: int
    n_genes: int
    n_nonzero: int
    total: int
    files: Mapping[str, tuple[int, str]]
    provenance: Mapping[str, Any]

    @classmethod
    def load(cls, folder: Path) -> "SegmentRecord":
        """Read `segment.json`.

        Raises:
            DamageError: there is none, or it is no record of this segment.
            NewerFormatError: a newer cytolake wrote it.
        """
        path = folder / "segment.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            format_ = values.pop("format")
            if format_ > FORMAT:
                raise NewerFormatError(
                    f"{path} has format {format_}, this cytolake reads up to {FORMAT}: upgrade it"
                )
            files = {name: (size, sha) for name, (size, sha) in values.pop("files").items()}
            record = cls(folder=folder, files=files, **values)
        except FileNotFoundError as error:
            raise DamageError(f"{path} is missing: the segment is not whole") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamageError(f"{path} is no record of a segment: {error!r}") from error
        if record.segment_id != folder.name:
            raise DamageError(f"{path} is of segment {record.segment_id!r}, not {folder.name!r}")
        return record

    def cells(self) -> pa.Table:
        """The rows that a commit of this segment adds to `cells`."""
        return read_table(self.folder / "cells.parquet")

    def bytes_by_part(self) -> dict[str, int]:
        """Bytes of each part: rna.zarr, expression, obs.parquet, ..."""
        parts: dict[str, int] = {}
        for name, (size, _) in self.files.items():
            part = name.split("/")[0]
            parts[part] = parts.get(part, 0) + size
        return parts

    def problems_of_sizes(self) -> Iterator[str]:
        """A line for each file that is missing or has another size than was written."""
        for name, (size, _) in self.files.items():
            path = self.folder / name
            try:
                found = path.stat().st_size
            except FileNotFoundError:
                yield f"{path} is missing ({size} bytes were written)"
                continue
            if found != size:
                yield f"{path} has {found} bytes, {size} were written"


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file with page checksums."""
    pq.write_table(table, path, compression="zstd", compression_level=1, write_page_checksum=True)


def read_table(path: Path) -> pa.Table:
    """Read a Parquet file, its page checksums verified.

    Raises:
        DamageError: it is missing or damaged.
    """
    try:
        return pq.read_table(path, page_checksum_verification=True, memory_map=False)
    except (pa.ArrowException, OSError) as error:
        raise DamageError(f"{path} cannot be read: {error}") from error
