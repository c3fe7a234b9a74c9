"""Corpus: the one door to cells, their counts, SQL and streams. Knows no torch and no model."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..platform.errors import CorpusError, QueryError, did_you_mean
from ..platform.places import place_of
from .cells import CellBatch
from .changes import Changes
from .log.snapshots import Snapshot, check_format, create_tables, holds_corpus
from .log.tags import snapshot_of
from .payload.segments import Segment
from .query.sql import SqlEngine
from .selecting import select
from .sparse_counts import Rows
from .splits import Split
from .stream import Selection

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from .job import Dataset


class Corpus(Changes):
    """One snapshot of a corpus. What is committed later is seen by opening it again.

    What changes a corpus is in `Changes`. A corpus is not sent to other processes: send `uri` and
    `snapshot`, and open it there.
    """

    def __init__(self, uri: str, state: Snapshot) -> None:
        """Use `open`, `create` or `open_or_create`."""
        self.uri = uri
        self.state = state
        self._engine = SqlEngine(state)
        self._segments: dict[str, Segment] = {}
        self._columns: dict[tuple[str, str], pa.ChunkedArray] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, uri: str | Path, snapshot: int | str | None = None) -> "Corpus":
        """Open the newest snapshot, or the one of a number or a tag. Writes nothing.

        Raises:
            NotACorpusError: the URI holds no corpus.
            NewerFormatError: a newer cytolake wrote it.
            OlderFormatError: an older one did; it can be lifted.
            CorpusError: there is no such snapshot or tag, or a vacuum ended the snapshot.
            WithdrawnError: the snapshot holds cells that were withdrawn since.
        """
        folder = place_of(uri)
        check_format(folder)
        number = None if snapshot is None else snapshot_of(folder, snapshot)
        return cls(str(uri), Snapshot.load(folder, number))

    @classmethod
    def create(cls, uri: str | Path) -> "Corpus":
        """Make an empty corpus in a folder that is empty or not there.

        Raises:
            CorpusError: the folder holds something.
        """
        create_tables(place_of(uri))
        return cls.open(uri)

    @classmethod
    def open_or_create(cls, uri: str | Path) -> "Corpus":
        """Open the corpus, or make an empty one where there is none."""
        if holds_corpus(place_of(uri)):
            return cls.open(uri)
        try:
            return cls.create(uri)
        except CorpusError:
            if holds_corpus(place_of(uri)):  # another writer was first
                return cls.open(uri)
            raise

    @property
    def folder(self) -> Path:
        """Where the corpus lies."""
        return self.state.folder

    @property
    def uuid(self) -> str:
        """The corpus's own id, the same for all its snapshots."""
        return self.state.uuid

    @property
    def snapshot(self) -> int:
        """The number of the open snapshot."""
        return self.state.version

    @property
    def segments_folder(self) -> Path:
        """Where segments are prepared, each in a folder of its own name."""
        return self.folder / "segments"

    @property
    def staging(self) -> Path:
        """A folder for whatever ingest keeps between tries; never read by the corpus."""
        return self.folder / "staging"

    # ------------------------------------------------------------------ questions

    def sql(self, query: str) -> pa.Table:
        """Answer one SELECT over the views of this snapshot (`corpus.sql` lists them).

        Raises:
            QueryError: it is refused, or does not run.
        """
        return self._engine.query(query)

    def expression(
        self, cells: str | None = None, genes: Sequence[str] | None = None
    ) -> pa.RecordBatchReader:
        """The stored counts of some cells and genes as a stream; see `query.count_stream`.

        Raises:
            QueryError: the cells' condition or SELECT is refused, or no gene has such a name.
        """
        from .query.count_stream import stream_counts

        return stream_counts(self._engine, cells, genes)

    def log(self) -> list[dict[str, Any]]:
        """One entry a snapshot up to this one, newest first: who, when, what, counters, tags."""
        named = list(self.tags().values())
        return [
            {**entry, "tags": [tag.name for tag in named if tag.snapshot == entry["snapshot"]]}
            for entry in self.state.log()
        ]

    def show(self) -> dict[str, Any]:
        """What is in the corpus: cells by source, tissue, assay, type; bytes; the funnel."""
        from .report.overview import show

        return show(self)

    def why(self, barcode: str) -> list[dict[str, Any]]:
        """What became of a cell in each source that has the barcode, and why."""
        from .report.overview import why

        return why(self, barcode)

    def verify(
        self, deep: bool = False, advance: Callable[[float], None] = lambda _: None
    ) -> list[str]:
        """What is wrong with the corpus; an empty list where nothing is. See `soundness.verify`."""
        from .report.soundness import verify

        return verify(self, deep=deep, advance=advance)

    def to_anndata(
        self,
        where: str | None = None,
        genes: Sequence[str] | None = None,
        *,
        lazy: bool = False,
    ) -> "AnnData":
        """The cells that a condition chooses as an AnnData object; see `corpus.export`.

        With `lazy` counts are read when they are needed: X is a dask array.
        """
        from .export import to_anndata

        return to_anndata(self, where=where, genes=genes, lazy=lazy)

    def to_mudata(
        self, where: str | None = None, modalities: Sequence[str] | None = None
    ) -> "MuData":
        """The cells that a condition chooses with all they were measured in; see `multimodal`."""
        from .multimodal import to_mudata

        return to_mudata(self, where=where, modalities=modalities)

    def to_ray(
        self,
        where: str | None = None,
        *,
        genes: Sequence[str] | None = None,
        columns: Sequence[str] = (),
    ) -> "Dataset":
        """The cells that a condition chooses as a Dataset of Ray Data; see `corpus.job`."""
        from .job import to_ray

        return to_ray(self, where, genes=genes, columns=columns)

    # ------------------------------------------------------------------ cells

    def select(
        self,
        where: str | None = None,
        *,
        split: Split | None = None,
        part: str | None = None,
        primary_only: bool = True,
    ) -> Selection:
        """Choose cells by a bare condition over the view `cells`.

        A split is made over ALL primary cells of the snapshot, whatever `where` says, so that a
        cell lies in the same part for every query; an equal content follows its primary cell.

        Args:
            where: for example `"tissue = 'blood' AND n_counts > 500"`; None for all cells.
            split: how the snapshot is cut into parts.
            part: the part wanted.
            primary_only: what one learns from: each content once, and where cells are chosen no
                bulk sample among them (`bulk.BULK_ALONE` is a condition that chooses these).

        Raises:
            QueryError: the condition is refused or does not run.
            RecipeError: the split has no such part, or its parts overlap.
            NoCellsError: nothing is chosen.
        """
        return select(
            self.uri,
            self.state,
            self._engine,
            where=where,
            split=split,
            part=part,
            primary_only=primary_only,
        )

    def read(
        self,
        selection: Selection,
        positions: NDArray[np.int64] | None = None,
        *,
        columns: Sequence[str] = (),
    ) -> list[CellBatch]:
        """Read cells of a selection: one batch a segment, segments ascending.

        Inside a batch the cells keep the order of `positions`; what is read is a function of
        `positions` alone.

        Args:
            selection: of this snapshot.
            positions: positions in the selection; None for all of them.
            columns: columns of `cells` to put into `obs`, beside `cell_id`.
        """
        self.check_selection(selection)
        if positions is None:
            positions = np.arange(selection.n_cells)
        segment_of = selection.segment[positions]
        batches: list[CellBatch] = []
        for number in np.unique(segment_of):
            chosen = positions[segment_of == number]
            segment = self.segment(selection.segment_ids[number])
            rows, keys = selection.row[chosen].astype(np.int64), selection.content_key[chosen]
            with self.state.telling_of_its_end():
                counts = segment.read(rows, keys)
            batches.append(self.batch_of(selection, chosen, segment.gene_ids, counts, columns))
        return batches

    def batch_of(
        self,
        selection: Selection,
        positions: NDArray[np.int64],
        gene_ids: NDArray[np.object_],
        rows: Rows,
        columns: Sequence[str] = (),
    ) -> CellBatch:
        """Counts that were read, with what the selection and `cells` say of their cells.

        Args:
            selection: of this snapshot.
            positions: which of its cells. Shape (n_cells,).
            gene_ids: what `rows` points into. Shape (n_genes,).
            rows: the cells' counts.
            columns: columns of `cells` to put into `obs`, beside `cell_id`.
        """
        obs: dict[str, Any] = {"cell_id": selection.cell_id[positions]}
        for name in columns:
            if name != "cell_id":
                obs[name] = self.column(selection, name).take(pa.array(positions))
        indptr, indices, counts = rows
        return CellBatch(
            gene_ids=gene_ids,
            indptr=indptr,
            indices=indices,
            counts=counts,
            n_counts=selection.n_counts[positions],
            content_keys=selection.content_key[positions],
            obs=pa.table(obs),
        )

    def check_selection(self, selection: Selection) -> None:
        """Refuse cells that were chosen in another snapshot.

        Raises:
            CorpusError: they were.
        """
        if selection.snapshot != self.snapshot:
            raise CorpusError(
                f"the selection is of snapshot {selection.snapshot}, this is {self.snapshot}"
            )

    def column(self, selection: Selection, name: str) -> pa.ChunkedArray:
        """A column of `cells` (or a lifted one) for a whole selection, in its order.

        Raises:
            QueryError: there is no such column.
        """
        key = (f"{selection.digest}/{selection.where}/{selection.primary_only}", name)
        with self._lock:
            if key in self._columns:
                return self._columns[key]
        known = self._engine.columns("cells")
        if name not in known:
            raise QueryError(f"cells has no column {name!r}{did_you_mean(name, known)}")
        table = self._engine.inner(f'SELECT cell_id, "{name}" AS wanted FROM cells', {"cells"})
        ids = table.column("cell_id").to_numpy()
        order = np.argsort(ids)
        places = order[np.searchsorted(ids, selection.cell_id, sorter=order)]
        found = table.column("wanted").take(pa.array(places))
        with self._lock:
            self._columns[key] = found
        return found

    def segment(self, segment_id: str) -> Segment:
        """An open segment, kept open by this handle.

        Raises:
            DamageError: one of its files is missing or has another size.
        """
        with self._lock, self.state.telling_of_its_end():
            if segment_id not in self._segments:
                entry = self.state.segments[segment_id]
                folder = self.segments_folder / segment_id
                self._segments[segment_id] = Segment.open(folder, entry.sha256)
            return self._segments[segment_id]
