"""The modalities beside RNA in a segment: written, read, verified. Knows no snapshot.

    <modality>.zarr            counts, cell-major: a valid AnnData group; rows as in rna.zarr
    <modality>/*.parquet       the same counts feature-major: feature, row, count; sorted
    <modality>.parquet         the features: names, cells that have them, totals of counts

Real values (`features.VALUES`) lie in the same way, their zeros stored, in a column `value`: in
none of the three forms does anything stand for what was not measured.

Whether a segment has a modality is told by its files. Both forms are summed into content hashes,
two numbers a cell that do not depend on order, so verification holds neither form whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from ...platform.errors import CorpusError, CytolakeError, DamageError
from ..content import gene_words, sum_lanes
from ..features import FEATURE_COLUMNS, MODALITIES, FeatureBatch, Kind
from ..sparse_counts import by_column, row_sums
from .arrays import CountsReader, write_counts
from .expression import write_gene_major
from .integrity import WAY_OUT
from .records import SegmentRecord, bring_parts, write_table

_ROWS_AT_ONCE = 1024


_PARTS = {"rna.zarr", "expression", "statistics.parquet"} | {
    f"{name}.parquet" for name in ("cells", "obs", "dropped")
}


def check_parts(record: SegmentRecord) -> None:
    """Refuse a segment that a newer cytolake gave more parts than are known here.

    Raises:
        CorpusError: written anew by this cytolake, the segment would lose them.
    """
    known = _PARTS | {f"{name}{end}" for name in MODALITIES for end in ("", ".zarr", ".parquet")}
    others = sorted({name.split("/")[0] for name in record.files} - known)
    if others:
        raise CorpusError(
            f"{record.folder} holds {', '.join(others)}, which this cytolake does not know: "
            "written anew it would be lost; use the newer cytolake that wrote it"
        )


def modalities_of(record: SegmentRecord) -> tuple[str, ...]:
    """The modalities that a segment holds beside RNA."""
    return tuple(name for name in MODALITIES if f"{name}.parquet" in record.files)


def write_companion(
    folder: Path, modality: str, segment_id: str, batch: FeatureBatch, barcodes: list[str]
) -> None:
    """Write one modality's parts into a segment that is being written.

    Args:
        folder: the segment's unfinished folder.
        modality: one of `MODALITIES`.
        segment_id: goes into every array's attributes.
        batch: the numbers; its features are brought into ascending order.
        barcodes: of the cells, as in `rna.zarr`.

    Raises:
        CorpusError: there is no such modality, its numbers are of another kind, or the numbers
            are not of these cells.
    """
    if modality not in MODALITIES:
        raise CorpusError(f"a modality is one of {', '.join(MODALITIES)}, not {modality!r}")
    if batch.n_cells != len(barcodes):
        raise CorpusError(f"{modality} has {batch.n_cells} rows for {len(barcodes)} cells")
    kind = MODALITIES[modality]
    if batch.values.dtype != kind.dtype:
        raise CorpusError(f"{modality} holds {batch.values.dtype}, expected {np.dtype(kind.dtype)}")
    batch = batch.canonical()
    columns = {
        name: ["" if value is None else value for value in batch.var.column(name).to_pylist()]
        for name in FEATURE_COLUMNS.names
    }
    write_counts(
        folder / f"{modality}.zarr",
        segment_id=segment_id,
        indptr=batch.indptr,
        indices=batch.indices,
        counts=batch.values,
        n_genes=batch.n_features,
        obs={"barcode": barcodes},
        var=columns,
    )
    turned = by_column((batch.indptr, batch.indices, batch.values), batch.n_features)
    names = pa.array(batch.feature_ids, pa.string())
    write_gene_major(folder / modality, names, turned, column="feature", number=kind.column)
    table = batch.var.append_column("n_cells", pa.array(np.diff(turned.starts)))
    if not kind.real:  # a sum of real values depends on its order, and says nothing
        totals = row_sums(turned.starts, turned.values)
        table = table.append_column("total", pa.array(totals))
    write_table(folder / f"{modality}.parquet", table)


@dataclass(frozen=True)
class Companion:
    """One modality of a segment, open."""

    record: SegmentRecord
    modality: str

    @property
    def kind(self) -> Kind:
        """What its numbers are."""
        return MODALITIES[self.modality]

    @cached_property
    def features(self) -> pa.Table:
        """The features, their `n_cells` and, of counts, `total`.

        Raises:
            DamageError: the table has other bytes than were written.
        """
        return self.record.table(f"{self.modality}.parquet")

    @cached_property
    def counts(self) -> CountsReader:
        """The counts, or values, as they are stored.

        Raises:
            DamageError: the arrays are not what was written, or of other cells.
        """
        group = f"{self.modality}.zarr"
        bring_parts([self.record], group)
        for name in self.record.files:
            if name.startswith(f"{group}/X/") and (
                name.endswith("zarr.json") or "/indptr/c/" in name
            ):
                self.record.check(name)
        folder, segment_id = self.record.folder / group, self.record.segment_id
        reader = CountsReader(folder, segment_id, self.features.num_rows, real=self.kind.real)
        if reader.n_cells != self.record.n_cells:
            raise DamageError(
                f"{folder} has {reader.n_cells} rows, {self.record.n_cells} were written: {WAY_OUT}"
            )
        return reader

    def read(self, rows: NDArray[np.int64]) -> FeatureBatch:
        """Some rows, in the order asked for.

        Args:
            rows: row numbers of the segment; any order, repeats allowed. Shape (n_rows,).

        Raises:
            DamageError: a chunk does not decode to what was written.
        """
        indptr, indices, values = self.counts.read(rows)
        var = self.features.select(FEATURE_COLUMNS.names)
        return FeatureBatch(var=var, indptr=indptr, indices=indices, values=values)

    def fingerprints(self) -> NDArray[np.uint64]:
        """A hash of each cell's features and counts. Shape (n_cells, 2)."""
        n_cells = self.record.n_cells
        found = np.zeros((n_cells, 2), dtype=np.uint64)
        words = gene_words(self.features.column("feature_id").to_pylist())
        for start in range(0, n_cells, _ROWS_AT_ONCE):
            rows = np.arange(start, min(start + _ROWS_AT_ONCE, n_cells))
            indptr, indices, values = self.counts.read(rows)
            found[rows] = sum_lanes(words, indptr, indices, _bits(values))
        return found


def _bits(values: NDArray[Any]) -> NDArray[np.uint32]:
    """Numbers as they are hashed: counts as they are, real values by their bits."""
    return values.view(np.uint32) if values.dtype.kind == "f" else values


def problems_of_companions(record: SegmentRecord) -> list[str]:
    """What is wrong with the modalities of a segment whose bytes are those written."""
    problems: list[str] = []
    for modality in modalities_of(record):
        try:
            problems += _problems(Companion(record, modality))
        except (CytolakeError, OSError, pa.ArrowException) as error:
            problems.append(str(error))
    return problems


def _problems(companion: Companion) -> Iterator[str]:
    record, modality = companion.record, companion.modality
    features = companion.features
    ids = features.column("feature_id").to_pylist()
    if None in ids or sorted(set(ids)) != ids:
        yield f"{record.folder / modality}.parquet: the features do not ascend, each once"
        return
    group = record.folder / f"{modality}.zarr"
    for name in FEATURE_COLUMNS.names:
        found: Any = zarr.open_array(group / "var" / name, mode="r")[:]
        if found.tolist() != features.column(name).fill_null("").to_pylist():
            yield f"{group}/var/{name} says otherwise than {modality}.parquet"
    index = _Index(companion, ids)
    yield from index.problems()
    wrong = np.flatnonzero((index.sums != companion.fingerprints()).any(axis=1))
    if wrong.size:
        yield (
            f"{group} and {modality}/ hold other counts in row {wrong[0]} ({wrong.size} rows "
            "differ)"
        )
    said = {"n_cells": index.n_cells} | ({} if companion.kind.real else {"total": index.totals})
    for name, sums in said.items():
        if (features.column(name).to_numpy() != sums).any():
            yield f"{record.folder / modality}.parquet: {name} is not that of the counts"


class _Index:
    """The feature-major form, added up row group by row group."""

    def __init__(self, companion: Companion, ids: list[str]) -> None:
        self._record, self._modality = companion.record, companion.modality
        self._kind = companion.kind
        self._place_of = {feature_id: place for place, feature_id in enumerate(ids)}
        self._words = gene_words(ids)
        self.sums = np.zeros((companion.record.n_cells, 2), dtype=np.uint64)
        self.n_cells = np.zeros(len(ids), dtype=np.int64)
        self.totals = np.zeros(len(ids), dtype=np.int64)

    def problems(self) -> Iterator[str]:
        last = -1
        for name in sorted(n for n in self._record.files if n.startswith(f"{self._modality}/")):
            path = self._record.folder / name
            with pq.ParquetFile(path) as file:
                for number in range(file.num_row_groups):
                    table = file.read_row_group(number)
                    names = table.column("feature").cast(pa.string()).to_pylist()
                    if any(feature not in self._place_of for feature in set(names)):
                        yield f"{path} names a feature that {self._modality}.parquet lacks"
                        return
                    places = np.array([self._place_of[n] for n in names], dtype=np.int64)
                    rows = table.column("row").to_numpy().astype(np.int64)
                    counts = table.column(self._kind.column).to_numpy()
                    order = places * (len(self.sums) + 1) + rows
                    if rows.size and int(rows.max()) >= len(self.sums):
                        yield f"{path}: row {rows.max()}, expected below {len(self.sums)}"
                        return
                    if rows.size and (order[0] <= last or (np.diff(order) <= 0).any()):
                        yield f"{path}: the places do not ascend strictly"
                        return
                    if counts.dtype != self._kind.dtype:
                        yield f"{path} holds {counts.dtype}, expected {self._kind.sql}"
                        return
                    if not (np.isfinite(counts) if self._kind.real else counts).all():
                        yield f"{path}: a stored {self._kind.column} is 0 or not finite"
                        return
                    last = int(order[-1]) if rows.size else last
                    self._add(places, rows, counts)

    def _add(
        self, places: NDArray[np.int64], rows: NDArray[np.int64], counts: NDArray[Any]
    ) -> None:
        each = np.arange(len(rows) + 1)
        lanes = sum_lanes(self._words, each, places.astype(np.int32), _bits(counts))
        for lane in range(2):
            np.add.at(self.sums[:, lane], rows, lanes[:, lane])
        self.n_cells += np.bincount(places, minlength=len(self.n_cells))
        if not self._kind.real:
            np.add.at(self.totals, places, counts.astype(np.int64))
