"""What a segment says of itself, and its Parquet tables. Knows no counts and no commit."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...platform.errors import DamageError, NewerFormatError
from ...platform.places import bring, bring_anew, is_mirrored, named, sizes_in_bucket
from ..schema import FORMAT
from .integrity import WAY_OUT, check_file

_UNIQUE = ("cell_id", "barcode", "content_hash", "barcode_hash")


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
            source) and whatever else the writer said. `cell_ids` is "kept" where the ids of the
            cells are those of other segments (a compaction); else they are block << 24 | row.
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
    def load(cls, folder: Path, sha256: str | None = None) -> "SegmentRecord":
        """Read `segment.json`.

        Args:
            folder: the segment's folder.
            sha256: the hash of the `segment.json` that was committed; None where it is not known,
                as of a segment that is prepared and not committed.

        Raises:
            DamageError: there is none, it is no record of this segment, or not the one committed.
            NewerFormatError: a newer cytolake wrote it.
        """
        path = folder / "segment.json"
        try:
            if sha256 is not None or not bring_anew(path):  # a copy may be of what is gone
                bring([path])
            data = path.read_bytes()
            found = hashlib.sha256(data).hexdigest()
            if sha256 not in (None, found) and bring_anew(path):  # it was of what is gone
                data = path.read_bytes()
                found = hashlib.sha256(data).hexdigest()
            if sha256 is not None and sha256 != found:
                raise DamageError(
                    f"{path} has other bytes than were committed (sha256 {found:.12}, "
                    f"expected {sha256:.12}): {WAY_OUT}"
                )
            values = json.loads(data)
            format_ = values.pop("format")
            if format_ > FORMAT:
                raise NewerFormatError(
                    f"{path} has format {format_}, this cytolake reads up to {FORMAT}: upgrade it"
                )
            files = {name: (size, sha) for name, (size, sha) in values.pop("files").items()}
            record = cls(folder=folder, files=files, **values)
            record.check_types()
        except FileNotFoundError as error:
            raise DamageError(f"{path} is missing: the segment is not whole: {WAY_OUT}") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamageError(f"{path} is no record of a segment ({error!r}): {WAY_OUT}") from error
        if record.segment_id != folder.name:
            raise DamageError(f"{path} is of segment {record.segment_id!r}, not {folder.name!r}")
        return record

    def check_types(self) -> None:
        """Refuse what no writer writes; the values themselves are `corpus.verification`'s matter.

        Raises:
            ValueError: a number is none or negative, or a file lies outside the folder.
        """
        sizes = {name: size for name, (size, _) in self.files.items()}
        for name in ("block", "n_cells", "n_dropped", "n_genes", "n_nonzero", "total"):
            sizes[name] = getattr(self, name)
        for name, size in sizes.items():
            if type(size) is not int or size < 0:
                raise ValueError(f"{name} is {size!r}, expected a whole number from 0 up")
        for name, (_, sha256) in self.files.items():
            if type(sha256) is not str or len(sha256) != 64:
                raise ValueError(f"{name} has the sha256 {sha256!r}, expected 64 hex digits")
            if name.startswith("/") or ".." in name.split("/"):
                raise ValueError(f"{name!r} lies outside the segment's folder")
        if type(self.segment_id) is not str or type(self.provenance) is not dict:
            raise ValueError("segment_id or provenance is of another type")

    @property
    def is_mixed(self) -> bool:
        """Whether it was made of other segments: cells kept their ids, sources may be several."""
        return self.provenance.get("cell_ids") == "kept"

    def cells(self) -> pa.Table:
        """The rows that a commit of this segment adds to `cells`."""
        return self.table("cells.parquet")

    def table(self, name: str) -> pa.Table:
        """One of the segment's Parquet tables, its bytes checked.

        Raises:
            DamageError: it is missing or damaged.
        """
        self.check(name)
        return read_table(self.folder / name)

    def bring_anew(self) -> None:
        """Fetch every file once more from a bucket, if the segment is in one.

        Raises:
            DamageError: one is not there.
        """
        for name in self.files if is_mirrored(self.folder) else ():
            try:
                bring_anew(self.folder / name)
            except FileNotFoundError as error:
                raise DamageError(f"{named(self.folder / name)} is missing: {WAY_OUT}") from error

    def check(self, name: str) -> None:
        """Hold a file's bytes against the record, once in this process.

        Raises:
            DamageError: the record knows no such file, or its bytes are others.
        """
        if name not in self.files:
            raise DamageError(f"{self.folder / 'segment.json'} knows no file {name!r}: {WAY_OUT}")
        check_file(self.folder / name, *self.files[name])

    def bytes_by_part(self) -> dict[str, int]:
        """Bytes of each part: rna.zarr, expression, obs.parquet, ..."""
        parts: dict[str, int] = {}
        for name, (size, _) in self.files.items():
            part = name.split("/")[0]
            parts[part] = parts.get(part, 0) + size
        return parts

    def problems_of_sizes(self, *, in_bucket: bool = True) -> Iterator[str]:
        """A line for each file that is missing or has another size than was written.

        Args:
            in_bucket: of a segment in a bucket, ask the bucket; else only what is here is looked
                at, for what is fetched later is held against its hash then.
        """
        sizes = sizes_in_bucket(self.folder) if in_bucket else None
        for name, (size, _) in self.files.items():
            path = self.folder / name
            try:
                found = path.stat().st_size if sizes is None else sizes[name]
            except KeyError:
                yield f"{named(path)} is missing ({size} bytes were written)"
                continue
            except FileNotFoundError:
                if in_bucket or not is_mirrored(path):
                    yield f"{path} is missing ({size} bytes were written)"
                continue
            except OSError as error:
                yield f"{path} cannot be read: {error}"
                continue
            if found != size:
                yield f"{path} has {found} bytes, {size} were written"


def bring_parts(records: Iterable[SegmentRecord], part: str) -> None:
    """Fetch a part of many segments, several files at a time, where they are in a bucket still.

    Raises:
        DamageError: a file is not there either.
    """
    wanted = {
        record.folder / name: size
        for record in records
        for name, (size, _) in record.files.items()
        if name == part or name.startswith(part + "/")
    }
    try:
        bring(wanted)
        for path, size in wanted.items():
            if is_mirrored(path) and path.stat().st_size != size:  # a copy that was cut short
                bring_anew(path)
    except FileNotFoundError as error:
        raise DamageError(f"{error} is missing: {WAY_OUT}") from None


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file with page checksums."""
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=1,
        write_page_checksum=True,
        # Values that do not repeat need none: the file is smaller, and sooner written.
        use_dictionary=[name for name in table.column_names if name not in _UNIQUE],  # pyright: ignore[reportArgumentType] - a list is taken
    )


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file or some of its columns, page checksums verified.

    Raises:
        DamageError: it is missing or damaged.
    """
    try:
        return pq.read_table(
            path, columns=columns, page_checksum_verification=True, memory_map=False
        )
    except (pa.ArrowException, OSError) as error:
        raise DamageError(f"{path} cannot be read: {error}") from error
