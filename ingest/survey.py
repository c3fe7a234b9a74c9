"""A source surveyed: which layer, which genes, which barcodes; then opened for its work units.

Knows no corpus. A survey is small and travels between processes as JSON; what is large is read
from the source, or from its spool, by whoever opens it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..corpus.gene_tables import joined_table
from ..corpus.genes import GeneReference
from ..corpus.log.receipts import BULK
from ..platform.configuration import Configuration
from ..platform.errors import SourceError
from ..platform.resources import available, find
from ..platform.settings import Settings
from .abundance import AbundanceTable, read_abundance
from .bulk import check_samples
from .companions import SurveyedCompanion, open_companions, survey_companions
from .expected_counts import RoundedSource, check_expected_counts
from .filters import unseen_values
from .harmonise import Harmonised, harmonise, n_recognised
from .metadata import check_columns, join_columns, read_cell_table
from .orthologs import load_orthologs
from .proof import choose_layer, totals_column
from .sources.companions import Companion
from .sources.formats import open_source
from .sources.hdf5_heaps import Stamp, found_sound, trust
from .sources.protocol import Names, Source
from .sources.spool import SpooledSource, spool
from .sources_toml import SourceEntry

MOST_VALUES_PER_UNIT = 2**24
"""Where cells are deep, units hold fewer of them: so many values need 1.5 GB to prepare."""

_PIECE = 2**16
"""Cells whose own columns are looked at together."""


class Survey(Configuration):
    """What pass 1 and pass 2 need to know of a source.

    Attributes:
        entry: the source's settings.
        source_id: its name in the corpus.
        path: the file or folder.
        metadata: the table of cells beside it.
        orthologs: the table of orthologs that its genes need.
        sha256: of the source's bytes.
        recipe_hash: of all settings that decide which cells it gives.
        reference: the table of genes.
        format: the reader.
        layer: the layer with the counts.
        rejected: for each layer tried before, what spoke against it.
        recover_total: the column with the totals where counts are recovered.
        spool: folder of the buckets, where the source had to be spooled.
        packed: whether its counts are compressed, so that unpacking them twice would cost.
        companions: the modalities beside the genes.
        n_cells: cells (rows) of the source.
        cells_per_unit: cells of a work unit.
        folder: staging folder of this source.
        notes: what the reader left out.
        sound: the stamp of an HDF5 file whose heaps are, so that no other process looks again.
    """

    entry: SourceEntry
    source_id: str
    path: Path
    metadata: Path | None
    orthologs: Path | None = None
    sha256: str
    recipe_hash: str
    reference: Path
    format: str
    layer: str
    rejected: tuple[str, ...]
    recover_total: str | None
    spool: Path | None
    packed: bool = False
    companions: tuple[SurveyedCompanion, ...] = ()
    n_cells: int
    cells_per_unit: int
    folder: Path
    notes: tuple[str, ...]
    sound: Stamp | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicates:
    """Rows whose barcode stands in an earlier row. Both arrays have shape (n_duplicates,).

    Attributes:
        rows: the later rows, ascending.
        into: for each, the first row with its barcode.
    """

    rows: NDArray[np.int64]
    into: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A surveyed source, open for reading units."""

    survey: Survey
    source: Source
    genes: Harmonised
    barcodes: Names
    duplicates: Duplicates
    beside: pa.Table | None
    companions: Mapping[str, Companion]
    abundance: AbundanceTable | None = None

    def own_columns(self, start: int, stop: int) -> pa.Table:
        """The source's own columns for cells `start` to `stop`, those beside it included.

        A source without any has its barcodes as the only one: a table needs a column to have rows.
        """
        beside = None if self.beside is None else self.beside.slice(start, stop - start)
        own = join_columns(self.source.obs(start, stop), beside)
        if own.num_columns:
            return own
        return pa.table({"barcode": pa.array(self.barcodes[start:stop], pa.string())})


def gene_table(settings: Settings) -> Path:
    """The table of human genes: the one with aliases where it is at hand, older names joined to it.

    Raises:
        ResourceError: neither is to be had.
    """
    table = available("genes-human-aliases", settings) or find("genes-human", settings)
    known = (available(name, settings) for name in ("genes-human-renamed", "genes-human-ncbi"))
    others = [other for other in known if other is not None]
    return joined_table(table, others, settings.home / "resources" / "genes-human-joined")


@lru_cache(maxsize=2)
def load_reference(table: Path) -> GeneReference:
    """The gene reference, kept for the next source of this process."""
    return GeneReference.load(table)


def open_entry(entry: SourceEntry, path: Path, reference: GeneReference) -> Source:
    """The source of an entry, opened by the reader it names or needs."""
    return open_source(
        path,
        entry.reader,
        recognise=lambda names: n_recognised(names, reference),
        orientation=entry.orientation,
        layer=entry.layer,
    )


def survey_source(
    entry: SourceEntry,
    *,
    source_id: str,
    path: Path,
    metadata: Path | None,
    orthologs: Path | None = None,
    sha256: str,
    recipe_hash: str,
    reference: Path,
    unit_cells: int,
    folder: Path,
    leave_out: tuple[str, ...] = (),
    rejected: tuple[str, ...] = (),
) -> Survey:
    """Find the counts of a source, spool it if it cannot be sliced, check its genes and columns.

    Args:
        entry: the source's settings.
        source_id: its name in the corpus.
        path: the file or folder.
        metadata: the table of cells beside it.
        orthologs: the table of orthologs that its genes need.
        sha256: of its bytes.
        recipe_hash: see `sources_toml.recipe_hash`.
        reference: the table of genes.
        unit_cells: the most cells of a unit.
        folder: staging folder of this source.
        leave_out: layers that failed when all their values were tested.
        rejected: what spoke against those.

    Raises:
        SourceError: the source cannot be read as cells.
    """
    if entry.doublets is not None:
        _require_scanpy(path)
    genes = load_reference(reference)
    source = first = open_entry(entry, path, genes)
    rounding = entry.expected_counts is not None
    choice = choose_layer(
        RoundedSource(source=source) if rounding else source,
        named=entry.layer,
        recover=entry.recover,
        recover_total=entry.recover_total,
        leave_out=leave_out,
        rejected=rejected,
        bulk=entry.kind == BULK and not rounding,
    )
    _harmonised(source, choice.layer.name, genes, entry, orthologs)
    place = None
    format_ = source.format
    if choice.layer.order == "columns":
        place = folder / f"spool-{choice.layer.name.replace('/', '-')}"
        source = spool(source, choice.layer.name, place)
    barcodes = source.barcodes()
    notes = list(source.notes)
    beside: pa.Table | None = None
    if metadata is not None:
        table = read_cell_table(metadata, barcodes)
        beside = table.columns
        if table.n_missing:
            notes.append(f"{table.n_missing} cells are not in the metadata {metadata.name}")
    besides = [] if beside is None else beside.column_names
    check_columns(entry, [*source.obs_columns(), *besides], str(path))
    n_cells = len(barcodes)
    if n_cells == 0:
        raise SourceError(f"{path}: holds no cell")
    if entry.kind == BULK:
        twice = find_duplicates(barcodes, keep=entry.duplicate_barcodes == "keep")
        notes.append(check_samples(entry, barcodes, twice.rows, path))
    if rounding:
        notes.append(check_expected_counts(source, choice.layer.name))
    if entry.proteins is not None:
        notes.append(read_abundance(Path(entry.proteins), barcodes).note)
    if entry.filters.columns:
        pieces = _pieces(source, beside, n_cells)
        notes += unseen_values(entry.filters, pieces)
    companions, why_not = survey_companions(first, entry, barcodes, folder)
    notes += why_not
    layer = source.layers()[0] if place else choice.layer
    stored = layer.n_stored or n_cells
    deepest = max(1, MOST_VALUES_PER_UNIT * n_cells // max(1, stored))
    total = None
    if entry.recover is not None:
        total = totals_column(source, entry.recover_total)
    return Survey(
        entry=entry,
        source_id=source_id,
        path=path,
        metadata=metadata,
        orthologs=orthologs,
        sha256=sha256,
        recipe_hash=recipe_hash,
        reference=reference,
        format=format_,
        layer=choice.layer.name,
        rejected=choice.rejected,
        recover_total=total,
        spool=place,
        packed=place is None and choice.layer.packed,
        companions=companions,
        n_cells=n_cells,
        cells_per_unit=min(unit_cells, deepest),
        folder=folder,
        notes=tuple(notes),
        sound=found_sound(path),
    )


def _require_scanpy(path: Path) -> None:
    """Refuse before anything is read what would fail after all of it was."""
    if find_spec("scanpy") is None:
        raise SourceError(
            f"{path}: [source.doublets] needs scanpy, which is not installed: "
            "pip install 'cytolake[train]', or leave the table out"
        )


def _pieces(source: Source, beside: pa.Table | None, n_cells: int) -> Iterator[pa.Table]:
    """All of a source's own columns, a bounded number of cells at a time."""
    for start in range(0, n_cells, _PIECE):
        stop = min(start + _PIECE, n_cells)
        near = None if beside is None else beside.slice(start, stop - start)
        yield join_columns(source.obs(start, stop), near)


def _harmonised(
    source: Source,
    layer: str,
    reference: GeneReference,
    entry: SourceEntry,
    orthologs: Path | None,
) -> Harmonised:
    pairs = None if orthologs is None else load_orthologs(orthologs, reference)
    columns, where = source.genes(layer), str(source.path)
    return harmonise(columns, reference, where=where, named=entry.genes, orthologs=pairs)


@lru_cache(maxsize=4)
def open_survey(text: str) -> Opened:
    """Open a surveyed source in this process; kept for its next unit.

    Args:
        text: the survey as JSON.
    """
    survey = Survey.model_validate_json(text)
    genes = load_reference(survey.reference)
    if survey.sound is not None:
        trust(survey.path, survey.sound)
    source: Source = (
        SpooledSource(path=survey.path, folder=survey.spool)
        if survey.spool is not None
        else open_entry(survey.entry, survey.path, genes)
    )
    barcodes = source.barcodes()
    companions: dict[str, Companion] = {}
    if survey.companions:
        companions = open_companions(
            open_entry(survey.entry, survey.path, genes), survey.companions, barcodes
        )
    if survey.entry.expected_counts is not None:
        source = RoundedSource(source=source)
    beside = None
    if survey.metadata is not None:
        beside = read_cell_table(survey.metadata, barcodes).columns
    abundance = None
    if survey.entry.proteins is not None:
        abundance = read_abundance(Path(survey.entry.proteins), barcodes)
    return Opened(
        survey=survey,
        source=source,
        genes=_harmonised(source, survey.layer, genes, survey.entry, survey.orthologs),
        barcodes=barcodes,
        duplicates=find_duplicates(barcodes, keep=survey.entry.duplicate_barcodes == "keep"),
        beside=beside,
        companions=companions,
        abundance=abundance,
    )


def find_duplicates(barcodes: Names, *, keep: bool = False) -> Duplicates:
    """Rows whose barcode stands in an earlier row; none where such rows are to be kept apart."""
    if keep:
        return Duplicates(rows=np.zeros(0, dtype=np.int64), into=np.zeros(0, dtype=np.int64))
    _, first, inverse = np.unique(barcodes.astype(str), return_index=True, return_inverse=True)
    into = first[inverse]
    rows = np.flatnonzero(into != np.arange(len(barcodes)))
    return Duplicates(rows=rows.astype(np.int64), into=into[rows].astype(np.int64))
