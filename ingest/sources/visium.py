"""Space Ranger's folders: the counts as 10x's readers give them, and where each spot lies.

Knows the layouts of Space Ranger 1, 2 and 3 (Visium HD's bins too); knows no image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from ...platform.errors import SourceError
from .protocol import Layer, Names, RawBlock, Source, Triplets
from .tenx_h5 import TenxH5Source
from .tenx_mtx import TenxMtxSource

POSITIONS = ("array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres", "in_tissue")
"""Columns of obs: a spot's place on the array, its pixel in the image, whether tissue is there."""

_STORED = ("barcode", "in_tissue", *POSITIONS[:4])
_FILES = ("tissue_positions.csv", "tissue_positions.parquet", "tissue_positions_list.csv")
_COUNTS = ("filtered_feature_bc_matrix", "raw_feature_bc_matrix")


@dataclass(frozen=True, kw_only=True, slots=True)
class VisiumSource:
    """A Space Ranger output folder.

    Attributes:
        path: the folder.
        counts: the matrix in it, as a source.
        positions: the table of spots.
    """

    path: Path
    counts: Source
    positions: Path
    format: str = "visium"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the counts' reader notes, spots without a place, a matrix that is not filtered."""
        n_missing = int((self._rows() < 0).sum())
        notes = list(self.counts.notes)
        if n_missing:
            notes.append(f"{n_missing} spots have no place in {self.positions.name}")
        if "raw_feature" in self.counts.path.name:
            notes.append("no filtered matrix: read from the raw one, spots without tissue included")
        return tuple(notes)

    def layers(self) -> list[Layer]:
        """The matrix."""
        return self.counts.layers()

    def genes(self, layer: str) -> dict[str, Names]:
        """Ids first, then names."""
        return self.counts.genes(layer)

    def barcodes(self) -> Names:
        """The barcodes of the spots."""
        return self.counts.barcodes()

    def obs_columns(self) -> list[str]:
        """Where a spot lies, and whether in the tissue."""
        return list(POSITIONS)

    def obs(self, start: int, stop: int) -> pa.Table:
        """The places of some spots; null where a spot has none."""
        rows = self._rows()[start:stop]
        return _table(*_stamp(self.positions)).take(pa.array(rows, mask=rows < 0))

    def sample(self, layer: str) -> Triplets:
        """Some values."""
        return self.counts.sample(layer)

    def blocks(self, layer: str, start: int, stop: int) -> Iterator[RawBlock]:
        """Spots `start` to `stop`."""
        return self.counts.blocks(layer, start, stop)

    def triplets(self, layer: str) -> Iterator[Triplets]:
        """All values, where the matrix is text."""
        return self.counts.triplets(layer)

    def _rows(self) -> np.ndarray:
        """For each spot of the matrix its row in the table of spots, -1 where it has none."""
        places = _places(*_stamp(self.positions))
        rows = np.array([places.get(str(name), -1) for name in self.barcodes()], dtype=np.int64)
        if len(rows) and (rows < 0).all():
            raise SourceError(
                f"{self.path}: {self.positions.name} places none of the {len(rows)} spots of "
                f"{self.counts.path.name}: they are not of one sample"
            )
        return rows


def is_visium(path: Path) -> bool:
    """Whether a folder is Space Ranger's: counts, and a table of spots."""
    return path.is_dir() and _positions(path) is not None and _counts(path) is not None


def visium_files(path: Path) -> list[Path]:
    """The files that are read, in a fixed order: not the images and BAMs beside them."""
    counts, positions = _counts(path), _positions(path)
    inside = sorted(counts.rglob("*")) if counts is not None and counts.is_dir() else [counts]
    return [file for file in [*inside, positions] if file is not None and file.is_file()]


def open_visium(path: Path, layer: str | None) -> VisiumSource:
    """Open a Space Ranger output folder, or the folder around its `outs`.

    Args:
        path: the folder.
        layer: the genome, where the matrix holds several.

    Raises:
        SourceError: it holds no counts or no table of spots.
    """
    counts, positions = _counts(path), _positions(path)
    if counts is None or positions is None:
        raise SourceError(
            f"{path}: expected {_COUNTS[0]}(.h5) and spatial/{_FILES[0]}, "
            "as Space Ranger writes them"
        )
    if counts.is_dir():
        source: Source = TenxMtxSource(path=counts)
    else:
        source = TenxH5Source(path=counts, genome=None if layer == "matrix" else layer)
    return VisiumSource(path=path, counts=source, positions=positions)


def _positions(path: Path) -> Path | None:
    folders = [path / "spatial", path / "outs" / "spatial"]
    found = [folder / name for folder in folders for name in _FILES]
    return next((file for file in found if file.is_file()), None)


def _counts(path: Path) -> Path | None:
    """The filtered matrix before the raw one, HDF5 before text; a sample's name may lead it."""
    for name in _COUNTS:
        for folder in (path, path / "outs"):
            found = [*sorted(folder.glob(f"*{name}.h5")), folder / name]
            if len(found) > 2:
                raise SourceError(
                    f"{path}: holds several matrices: {', '.join(file.name for file in found[:-1])}"
                )
            for file in found:
                if file.exists():
                    return file
    return None


def _stamp(path: Path) -> tuple[Path, int, int]:
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=4)
def _places(path: Path, size: int, modified: int) -> dict[str, int]:
    """Barcode -> row of the table of spots."""
    return {str(name): row for row, name in enumerate(_read(path)["barcode"])}


@lru_cache(maxsize=4)
def _table(path: Path, size: int, modified: int) -> pa.Table:
    """The places, as columns of obs."""
    table = _read(path)
    return pa.table({name: pa.array(table[name].to_numpy()) for name in POSITIONS})


def _read(path: Path) -> pd.DataFrame:
    """The table of spots; Space Ranger 1 writes it without a line of names.

    Raises:
        SourceError: it is no such table.
    """
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            with path.open("rb") as file:
                headed = file.readline().startswith(b"barcode")
            names = None if headed else list(_STORED)
            table = pd.read_csv(path, header=0 if headed else None, names=names)
        missing = [name for name in _STORED if name not in table.columns]
        if missing:
            raise ValueError(f"it has no column {', '.join(missing)}")
        table = table.astype({"barcode": str})
        repeated = table.loc[table["barcode"].duplicated(), "barcode"].to_list()
        if repeated:
            raise ValueError(f"{repeated[0]} stands in it twice")
        for name in POSITIONS:
            table[name] = pd.to_numeric(table[name])
    except (ValueError, OSError, pa.ArrowException, pd.errors.ParserError) as error:
        raise SourceError(f"{path}: no table of spots: {error}") from error
    return table
