"""Whether a segment is what was written. Knows no snapshot and no query."""

from pathlib import Path

from ..platform.errors import DamageError
from ..platform.storage import sha256_file
from . import content
from .records import SegmentRecord, read_table
from .segments import Segment


def verify_segment(folder: Path, deep: bool = False) -> list[str]:
    """What is wrong with a segment; an empty list where nothing is.

    Args:
        folder: the segment's folder.
        deep: hash every file and hold the counts against the totals, not only the sizes.
    """
    try:
        record = SegmentRecord.load(folder)
    except DamageError as error:
        return [str(error)]
    problems = list(record.problems_of_sizes())
    if problems or not deep:
        return problems
    for name, (_, sha256) in record.files.items():
        if sha256_file(folder / name) != sha256:
            problems.append(f"{folder / name} has other bytes than were written")
    if problems:
        return problems
    segment = Segment.open(folder)
    n_counts, hashes = segment.totals_and_hashes()
    cells = record.cells()
    if n_counts.tolist() != cells.column("n_counts_stored").to_pylist():
        problems.append(f"{folder / 'rna.zarr'}: totals of cells are not those in cells.parquet")
    if hashes.tolist() != content.from_binary(cells.column("content_hash")).tolist():
        problems.append(f"{folder / 'rna.zarr'}: contents are not those hashed in cells.parquet")
    by_gene = sum(read_table(folder / "statistics.parquet").column("total").to_pylist())
    if by_gene != record.total or int(n_counts.sum()) != record.total:
        problems.append(f"{folder}: totals by gene and by cell are not {record.total}")
    return problems
