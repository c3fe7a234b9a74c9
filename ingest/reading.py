"""A file or an AnnData straight to CellBatches: no corpus, no quality rule, every cell in order.

For those who want cell states of their own cells. Knows no model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..corpus.cells import CellBatch
from ..corpus.genes import GeneReference
from .harmonise import Harmonised, harmonise
from .metadata import annotations
from .proof import Recovery, checked_counts, choose_layer, totals_column
from .sources.memory import MemorySource
from .sources.protocol import Source
from .sources.spool import spool
from .sources_toml import SourceEntry
from .survey import open_entry
from .units import cell_batch

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadableCells:
    """Cells of a file, ready to be read.

    Attributes:
        source: the file or object.
        layer: the matrix with the raw counts.
        recover_total: the column of obs with the totals where counts are recovered.
        genes: its genes as genes of the corpus.
        barcodes: the cells' names in their order. Shape (n_cells,).
    """

    source: Source
    layer: str
    recover_total: str | None
    genes: Harmonised
    barcodes: NDArray[np.object_]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.barcodes)

    def batches(self, cells_per_batch: int = 1024) -> Iterator[CellBatch]:
        """All cells in the file's order, in batches of at most `cells_per_batch`.

        Raises:
            NotRawCountsError: a value is no count.
        """
        entry = SourceEntry(path=str(self.source.path))
        for start in range(0, self.n_cells, cells_per_batch):
            stop = min(start + cells_per_batch, self.n_cells)
            for block in self.source.blocks(self.layer, start, stop):
                counts = checked_counts(self.source, self.layer, block, self.recover_total)
                end = block.start + block.n_cells
                names = [str(name) for name in self.barcodes[block.start : end]]
                lifted = annotations(entry, self.source.obs(block.start, end), block.n_cells)
                totals = np.asarray(counts.sum(axis=1)).ravel().astype(np.int64)
                obs = pa.table(
                    {"barcode": pa.array(names, pa.string()), "n_counts": totals, **lifted}
                )
                rows = self.genes.sum_genes([(counts, np.arange(block.n_cells))])
                yield cell_batch(self.genes.gene_ids, rows, obs)


def open_cells(
    cells: "Path | AnnData",
    reference: GeneReference,
    *,
    layer: str | None = None,
    recover: Recovery | None = None,
    genes: str | None = None,
    spool_folder: Path | None = None,
) -> ReadableCells:
    """Find the raw counts and the genes of a file or an AnnData.

    Args:
        cells: a file or folder that ingest reads, or an AnnData object.
        reference: the genes.
        layer: the matrix with the raw counts; looked for where None.
        recover: undo a normalisation to get the counts.
        genes: the column that names the genes; found out where None.
        spool_folder: where to put buckets of a format that cannot be sliced by cell (a text
            matrix); such a format needs one.

    Raises:
        SourceError: the cells cannot be read, hold no raw counts or no known genes.
    """
    source: Source
    if isinstance(cells, Path):
        source = open_entry(SourceEntry(path=str(cells), layer=layer), cells, reference)
    else:
        source = MemorySource(adata=cells)
    choice = choose_layer(source, named=layer, recover=recover)
    total = totals_column(source, None) if recover else None
    if choice.layer.order == "columns":
        folder = spool_folder or Path(f"{source.path}.spool")
        source = spool(source, choice.layer.name, folder)
    found = harmonise(source.genes(choice.layer.name), reference, where=str(source.path),
                      named=genes)  # fmt: skip
    return ReadableCells(
        source=source,
        layer=choice.layer.name,
        recover_total=total,
        genes=found,
        barcodes=source.barcodes(),
    )


def read_cells(
    cells: "Path | AnnData",
    reference: GeneReference,
    *,
    layer: str | None = None,
    recover: Recovery | None = None,
    genes: str | None = None,
    spool_folder: Path | None = None,
    cells_per_batch: int = 1024,
) -> Iterator[CellBatch]:
    """The cells of a file or an AnnData, in order, every one; see `open_cells`."""
    opened = open_cells(
        cells, reference, layer=layer, recover=recover, genes=genes, spool_folder=spool_folder
    )
    return opened.batches(cells_per_batch)
