"""Cells as Ray Data sees them: a snapshot as a Datasource, a Dataset as a source of the corpus.

Knows Ray Data's interfaces and the corpus's door; knows no source format. Imports Ray at the top:
whoever imports this file has a Dataset already.

    import ray
    from cytolake.corpus.job import CellsDatasink, CellsDatasource

    cells = CellsDatasource("corpus/", where="tissue = 'blood'", columns=["cell_type"])
    dataset = ray.data.read_datasource(cells)      # cell_id, cell_type, n_counts, indices, counts
    dataset = corpus.to_ray("tissue = 'blood'")    # the same, of an open corpus
    dataset.write_datasink(CellsDatasink("other/", "blood", cells.genes))
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from ray.data import Dataset, Datasource, ReadTask, read_datasource
from ray.data.block import Block, BlockAccessor
from ray.data.datasource import Datasink, WriteResult

from ..platform.errors import CorpusError
from ..platform.places import absolute_uri, place_of
from ..platform.tasks import read_task
from .cell_rows import COUNTS, ROW_COLUMNS, cells_to_rows, in_tables, rows_to_cells
from .log.commits import Commit, commit_source
from .log.leases import lease
from .log.receipts import Receipt
from .log.snapshots import check_format
from .payload.records import SegmentRecord
from .payload.writing import write_segment
from .schema import DROPPED_COLUMNS, GIVEN_COLUMNS, VAR_COLUMNS
from .store import Corpus
from .stream import Selection

CELLS_PER_BLOCK = 4096
CELLS_PER_SEGMENT = 8192
_BYTES_A_COUNT = 8
_ROW = 40  # room for a task's number above that of a row in it


def to_ray(
    corpus: Corpus,
    where: str | None = None,
    *,
    genes: Sequence[str] | None = None,
    columns: Sequence[str] = (),
    primary_only: bool = True,
) -> Dataset:
    """Cells of an open snapshot as a Dataset of rows; arguments as of `CellsDatasource`.

    `indices` point into `genes` in ascending order of their ids, each once; where None, into all
    that the snapshot measured.
    """
    source = CellsDatasource(
        corpus.uri,
        snapshot=corpus.snapshot,
        where=where,
        genes=genes,
        columns=columns,
        primary_only=primary_only,
    )
    return read_datasource(source)


class CellsDatasource(Datasource):
    """Cells of one snapshot as rows: the columns asked for, and their counts.

    A row has `cell_id`, the `columns`, `n_counts` (the denominator, before gene mapping),
    `indices` (places in `genes`, ascending) and `counts` (raw, > 0). Rows come in the corpus's
    order, a block of one segment or of several; the same snapshot and condition give the same rows.

    Attributes:
        genes: Ensembl ids that `indices` point into, ascending.
        snapshot: the number of the snapshot, pinned when the source is made.
    """

    def __init__(
        self,
        uri: str | Path,
        *,
        snapshot: int | str | None = None,
        where: str | None = None,
        genes: Sequence[str] | None = None,
        columns: Sequence[str] = (),
        primary_only: bool = True,
        cells_per_block: int = CELLS_PER_BLOCK,
    ) -> None:
        """Choose cells; nothing of their counts is read yet.

        Args:
            uri: the corpus; every node must reach it.
            snapshot: number or tag; the newest where None.
            where: a bare condition over `cells`; None for all.
            genes: Ensembl ids; counts of others are left out. All measured ones where None. That
                a gene is not among a cell's counts says 0 only if the cell's segment measured it.
            columns: of the view `cells`; `cell_id` and `n_counts` are in every row anyway.
            primary_only: each content once.
            cells_per_block: the most cells of a block.

        Raises:
            QueryError: the condition is refused, or there is no such column.
            CorpusError: a column of the corpus has the name of a row's own counts.
            NoCellsError: no cell is chosen.
        """
        super().__init__()
        if taken := sorted({"indices", "counts"} & set(columns)):
            raise CorpusError(
                f"columns: {', '.join(taken)}: a row's own counts have that name; "
                "annotate the corpus with the column under another one"
            )
        corpus = Corpus.open(uri, snapshot)
        self.uri, self.snapshot = absolute_uri(str(uri)), corpus.snapshot
        every = corpus.sql("SELECT DISTINCT gene_id FROM genes").column("gene_id").to_pylist()
        self.genes: tuple[str, ...] = tuple(sorted(set(every if genes is None else genes)))
        self._selection = corpus.select(where, primary_only=primary_only)
        self._obs = pa.table(
            {
                name: corpus.column(self._selection, name)
                for name in columns
                if name not in ROW_COLUMNS
            }
        )
        self._n_cells_at_once = cells_per_block

    def estimate_inmemory_data_size(self) -> int | None:
        """Bytes of all rows: some 8 a count, of which a cell has no more than its total."""
        return int(self._selection.n_counts.sum()) * _BYTES_A_COUNT

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: Any = None,
    ) -> list[ReadTask]:
        """One task a block; `parallelism` is taken for the least number of them."""
        n_cells = self._selection.n_cells
        step = max(1, min(self._n_cells_at_once, -(-n_cells // max(1, parallelism))))
        return [
            self._task(start, min(start + step, n_cells), per_task_row_limit)
            for start in range(0, n_cells, step)
        ]

    def _task(self, start: int, stop: int, per_task_row_limit: int | None) -> ReadTask:
        here = np.zeros(self._selection.n_cells, dtype=bool)
        here[start:stop] = True
        part = self._selection.only(here, f"{start}:{stop}")
        obs = self._obs.slice(start, stop - start)
        uri, snapshot, genes = self.uri, self.snapshot, self.genes  # not all cells go to each task

        def read() -> list[Block]:
            return [_rows_of(uri, snapshot, part, obs, genes)]

        n_bytes = int(part.n_counts.sum()) * _BYTES_A_COUNT
        return read_task(read, n_rows=stop - start, n_bytes=n_bytes, row_limit=per_task_row_limit)


@lru_cache(maxsize=2)
def _opened(uri: str, snapshot: int) -> Corpus:
    """A worker's handle, kept for its next block."""
    return Corpus.open(uri, snapshot)


def _rows_of(
    uri: str, snapshot: int, part: Selection, obs: pa.Table, genes: tuple[str, ...]
) -> pa.Table:
    batches = _opened(uri, snapshot).read(part)
    found = pa.concat_tables([cells_to_rows(batch, genes) for batch in batches])
    for name in obs.column_names:
        found = found.append_column(name, obs.column(name))
    return found


class CellsDatasink(Datasink[list[str]]):
    """A Dataset of cells as one source of a corpus: all of it in one commit, or nothing.

    A row needs `barcode` (or `cell_id`, which then names it), `indices` (places in `genes`) and
    `counts` (raw, whole, > 0); `n_counts` where the denominator is not their sum. Columns that
    have a name of the view `cells` go there, all others to `source_obs`. No quality rule is
    applied: what is given is kept. Workers write segments; the driver commits once all are whole.
    A job that dies leaves segments that nothing names: `cytolake corpus vacuum` takes them away.

    Attributes:
        commit: what was committed; None before.
    """

    def __init__(
        self,
        uri: str | Path,
        source_id: str,
        genes: Sequence[str],
        *,
        var: pa.Table | None = None,
        version: str | None = None,
        replace: bool = False,
    ) -> None:
        """Prepare; a corpus that is not there is made.

        Args:
            uri: the corpus; every node must reach it.
            source_id: the source's name in it.
            genes: Ensembl ids (or `unmapped:<name>`) that `indices` point into, each once.
            var: columns of `schema.VAR_COLUMNS` for these genes, `gene_id` among them.
            version: what the content is called: with the same name, version and genes nothing is
                added twice. A name of its own for each job where None.
            replace: a source of that name that is there already goes in the same commit.

        Raises:
            CorpusError: a gene stands twice, or `var` lacks one.
        """
        self.uri, self.source_id = absolute_uri(str(uri)), source_id
        self.genes = tuple(str(gene) for gene in genes)
        if len(set(self.genes)) < len(self.genes):
            raise CorpusError(f"source {source_id}: a gene appears twice: sum duplicates before")
        self._var = _var_of(self.genes, var)
        version = secrets.token_hex(16) if version is None else version
        words = json.dumps([source_id, version, self.genes])
        self._sha256 = hashlib.sha256(words.encode()).hexdigest()
        self._replace = replace
        self.commit: Commit | None = None
        self._held = ExitStack()
        Corpus.open_or_create(self.uri)

    def __getstate__(self) -> dict[str, Any]:
        """What workers get: the lease stays with the driver."""
        return {**self.__dict__, "_held": ExitStack()}

    def on_write_start(self, schema: pa.Schema | None = None) -> None:
        """Hold a lease: a vacuum spares what is staged."""
        check_format(place_of(self.uri))
        self._held.enter_context(lease(place_of(self.uri)))

    def write(self, blocks: Iterable[Block], ctx: Any) -> list[str]:
        """Write some blocks as segments; their names."""
        names: list[str] = []
        n_rows = 0
        for table in in_tables(
            (BlockAccessor.for_block(block).to_arrow() for block in blocks), CELLS_PER_SEGMENT
        ):
            first_row = (ctx.task_idx << _ROW) + n_rows
            names.append(self._segment(table, first_row).segment_id)
            n_rows += table.num_rows
        return names

    def on_write_complete(self, write_result: WriteResult[list[str]]) -> None:
        """Commit the source.

        Raises:
            CorpusError: two cells have one barcode.
            ConflictError: another source of this name is there.
        """
        try:
            folder = place_of(self.uri) / "segments"
            names = [name for some in write_result.write_returns for name in some]
            records = [SegmentRecord.load(folder / name) for name in names]
            records.sort(key=lambda record: int(record.provenance["first_row"]))
            self._check_barcodes(records)
            n_cells = sum(record.n_cells for record in records)
            receipt = Receipt(
                source_id=self.source_id,
                uri=f"ray:{self.source_id}",
                sha256=self._sha256,
                n_bytes=int(write_result.size_bytes),
                reader="ray",
                layer="counts",
                n_read=n_cells,
                n_kept=n_cells,
                genes={"names": len(self.genes)},
                units=tuple(record.segment_id for record in records),
            )
            self.commit = commit_source(place_of(self.uri), receipt, records, replace=self._replace)
        finally:
            self._held.close()

    def on_write_failed(self, error: Exception) -> None:
        """Give the lease back: a vacuum may take what was written."""
        self._held.close()

    def _segment(self, table: pa.Table, first_row: int) -> SegmentRecord:
        words = f"{self._sha256}\n{first_row}\n{table.num_rows}"
        segment_id = hashlib.sha256(words.encode()).hexdigest()[:32]
        cells = rows_to_cells(table, self.genes, where=f"source {self.source_id}")
        own = [name for name in table.column_names if name not in (*COUNTS, *GIVEN_COLUMNS.names)]
        source_obs = table.select(own) if own else cells.obs.select(["barcode"])
        return write_segment(
            place_of(self.uri) / "segments" / segment_id,
            segment_id,
            cells,
            self._var,
            source_obs,
            DROPPED_COLUMNS.empty_table(),
            {
                "corpus_uuid": Corpus.open(self.uri).uuid,
                "source_id": self.source_id,
                "source_sha256": self._sha256,
                "first_row": first_row,
                "stop_row": first_row + table.num_rows,
            },
        )

    def _check_barcodes(self, records: Sequence[SegmentRecord]) -> None:
        seen: set[str] = set()
        for record in records:
            for barcode in record.cells().column("barcode").to_pylist():
                if barcode in seen:
                    raise CorpusError(
                        f"source {self.source_id}: two cells are called {barcode!r}: make barcodes "
                        "unique before; nothing was committed"
                    )
                seen.add(barcode)


def _var_of(genes: Sequence[str], var: pa.Table | None) -> pa.Table:
    if var is None:
        return pa.table({"gene_id": list(genes), "source_name": list(genes)})
    row_of = {str(gene): row for row, gene in enumerate(var.column("gene_id").to_pylist())}
    lacking = [gene for gene in genes if gene not in row_of]
    if lacking:
        raise CorpusError(f"var lacks {len(lacking)} of the genes, {lacking[0]!r} the first")
    known = [name for name in var.column_names if name in VAR_COLUMNS.names]
    return var.select(known).take(pa.array([row_of[gene] for gene in genes]))
