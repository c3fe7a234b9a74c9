"""A source that cannot be sliced by cell, spooled to buckets of cells in one pass.

Knows no format. The memory needed is one piece of the source plus, when read, one bucket; the
order of the source's values does not matter.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
from scipy import sparse

from ...platform.errors import SourceError
from ...platform.storage import write_durably
from .protocol import Layer, Names, RawBlock, Source, Triplets, sample_rows

CELLS_PER_BUCKET = 1024
_RECORD = np.dtype([("cell", np.int32), ("gene", np.int32), ("value", np.float64)])


@dataclass(frozen=True, kw_only=True, slots=True)
class SpooledSource:
    """The buckets of a source, offering what the source offers, read by rows.

    Attributes:
        path: the original file or folder.
        folder: where the buckets lie.
    """

    path: Path
    folder: Path
    format: str = "spool"
    notes: tuple[str, ...] = ()

    def layers(self) -> list[Layer]:
        """The one layer that was spooled."""
        about = self._about()
        n_stored = int(about["n_stored"])
        return [
            Layer(
                name=str(about["layer"]), n_genes=int(about["n_genes"]), order="rows",
                n_stored=n_stored,
            )
        ]  # fmt: skip

    def genes(self, layer: str) -> dict[str, Names]:
        """The source's names of genes."""
        table = feather.read_table(self.folder / "genes.arrow")
        return {name: _names(table.column(name)) for name in table.column_names}

    def barcodes(self) -> Names:
        """The source's names of cells."""
        return _names(feather.read_table(self.folder / "barcodes.arrow").column(0))

    def obs_columns(self) -> list[str]:
        """The source's own columns."""
        return feather.read_table(self.folder / "obs.arrow").column_names

    def obs(self, start: int, stop: int) -> pa.Table:
        """The source's own columns for some cells."""
        return feather.read_table(self.folder / "obs.arrow").slice(start, stop - start)

    def sample(self, layer: str) -> Triplets:
        """Some rows."""
        return sample_rows(self, layer, int(self._about()["n_cells"]))

    def blocks(self, layer: str, start: int, stop: int) -> Iterator[RawBlock]:
        """Cells `start` to `stop`, a bucket at a time."""
        about = self._about()
        size, n_genes = int(about["cells_per_bucket"]), int(about["n_genes"])
        for bucket in range(start // size, (stop - 1) // size + 1):
            low, high = bucket * size, min((bucket + 1) * size, int(about["n_cells"]))
            path = _bucket(self.folder, bucket)
            records = np.fromfile(path, dtype=_RECORD) if path.exists() else np.zeros(0, _RECORD)
            matrix = sparse.coo_matrix(
                (records["value"], (records["cell"], records["gene"])), shape=(high - low, n_genes)
            ).tocsr()
            matrix.sum_duplicates()
            first, last = max(start, low), min(stop, high)
            yield RawBlock(start=first, matrix=sparse.csr_matrix(matrix[first - low : last - low]))

    def triplets(self, layer: str) -> Iterator[Triplets]:
        """Not needed: the buckets are read by rows."""
        raise SourceError(f"{self.path}: a spooled {layer} is read by rows")

    def _about(self) -> dict[str, Any]:
        return _about(self.folder)


def spool(source: Source, layer: str, folder: Path) -> SpooledSource:
    """Spool one layer; a folder that holds the finished spool already is taken as it is.

    Args:
        source: the source; its layer's order is `columns`.
        layer: the layer.
        folder: where to put the buckets; made if missing. Needs 16 bytes a non-zero.
    """
    finished = SpooledSource(path=source.path, folder=folder, notes=source.notes)
    if (folder / "spool.json").exists():
        return finished
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():  # an earlier try was killed in the middle
        left.unlink()
    n_stored = 0
    for piece in source.triplets(layer):
        n_stored += len(piece.values)
        _append(folder, piece)
    barcodes, genes = source.barcodes(), source.genes(layer)
    n_cells = len(barcodes)
    obs = source.obs(0, n_cells)
    feather.write_feather(pa.table({"barcode": _text(barcodes)}), folder / "barcodes.arrow")
    feather.write_feather(
        pa.table({name: _text(names) for name, names in genes.items()}), folder / "genes.arrow"
    )
    feather.write_feather(obs, folder / "obs.arrow")
    about = {
        "layer": layer,
        "n_cells": n_cells,
        "n_genes": len(next(iter(genes.values()))),
        "n_stored": n_stored,
        "cells_per_bucket": CELLS_PER_BUCKET,
    }
    write_durably(folder / "spool.json", json.dumps(about).encode())
    return finished


def _append(folder: Path, piece: Triplets) -> None:
    nonzero = piece.values != 0
    if not nonzero.any():
        return
    cells = piece.cells[nonzero]
    buckets = cells // CELLS_PER_BUCKET
    order = np.argsort(buckets, kind="stable")
    records = np.zeros(len(cells), dtype=_RECORD)
    records["cell"] = (cells % CELLS_PER_BUCKET)[order]
    records["gene"] = piece.genes[nonzero][order]
    records["value"] = piece.values[nonzero][order]
    present, starts = np.unique(buckets[order], return_index=True)
    stops = np.append(starts[1:], len(records))
    for bucket, low, high in zip(present, starts, stops, strict=True):
        with _bucket(folder, int(bucket)).open("ab") as file:
            file.write(records[low:high].tobytes())


def _bucket(folder: Path, bucket: int) -> Path:
    return folder / f"{bucket:06d}.bucket"


def _about(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "spool.json").read_text())


def _names(column: pa.ChunkedArray) -> Names:
    return np.array(column.to_pylist(), dtype=object)


def _text(names: Names) -> pa.Array:
    return pa.array([str(name) for name in names], pa.string())
