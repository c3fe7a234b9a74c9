"""Where the counts of a gene lie in each segment, and those counts. Knows files; knows no SQL.

A segment's statistics say of each gene how many counts it has, and the counts are stored gene by
gene: so the row at which a gene begins is a sum. DuckDB finds the row groups by itself, but opens
every file and looks at all its row groups for each question: of 400 segments that took 110 ms of
processor time for a gene that none of them has. The price is 4 bytes a segment and gene.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...platform.errors import DamageError
from ..payload.gene_pages import GenePages
from ..payload.records import SegmentRecord

_NUMBERS_IN_MEMORY = 1 << 26
"""Segments times genes that are kept in memory."""

COLUMNS = pa.schema(
    [
        ("cell_id", pa.int64()),
        ("segment", pa.dictionary(pa.int32(), pa.string())),
        ("row", pa.int32()),
        ("gene_id", pa.dictionary(pa.int32(), pa.string())),
        ("symbol", pa.dictionary(pa.int32(), pa.string())),
        ("count", pa.uint32()),
    ]
)
"""What is told of a count: the columns of the view `expression`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _List:
    """The segments that measured one list of genes.

    Attributes:
        genes: gene_id -> its place in the list.
        segments: which segments, as numbers. Shape (n_segments,).
        starts: where each gene begins in each segment, and the end. Shape
            (n_segments, n_genes + 1).
    """

    genes: Mapping[str, int]
    segments: NDArray[np.int64]
    starts: NDArray[np.uint32]


class GeneIndex:
    """The genes of a snapshot's segments. `build` says whether there can be one."""

    def __init__(
        self, names: Sequence[str], pages: Mapping[int, GenePages], lists: Sequence[_List]
    ) -> None:
        """Prepare; see `build`."""
        self._names, self._pages, self._lists = pa.array(names, pa.string()), pages, lists

    @classmethod
    def build(cls, records: Collection[SegmentRecord]) -> "GeneIndex | None":
        """Read the statistics and the footers of segments.

        Returns:
            None where the counts are of another make than ours, the genes too many to be kept in
            memory, or statistics and counts do not agree about where genes begin.

        Raises:
            DamageError: a file is not what was committed.
        """
        if sum(record.n_genes for record in records) > _NUMBERS_IN_MEMORY:
            return None
        lists: list[tuple[pa.ChunkedArray, list[int], list[NDArray[np.uint32]]]] = []
        pages: dict[int, GenePages] = {}
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for number, segment in enumerate(pool.map(_read_segment, records)):
                if segment is None:
                    pool.shutdown(cancel_futures=True)
                    return None
                genes, starts, pages[number] = segment
                known = next((known for known in lists if known[0].equals(genes)), None)
                if known is None:
                    known = (genes, [], [])
                    lists.append(known)
                known[1].append(number)
                known[2].append(starts)
        return cls(
            [record.segment_id for record in records],
            pages,
            [
                _List(
                    genes={gene: place for place, gene in enumerate(genes.to_pylist())},
                    segments=np.array(numbers, dtype=np.int64),
                    starts=np.stack(starts),
                )
                for genes, numbers, starts in lists
            ],
        )

    def n_counts(self, genes: Collection[str]) -> int:
        """How many counts are stored of some genes, those of cells that are gone among them."""
        return sum(
            int(starts[:, 1].sum()) - int(starts[:, 0].sum())
            for gene in genes
            for _, starts in self._places_of(gene)
        )

    def counts(
        self, genes: Mapping[str, str | None], cell_ids: NDArray[np.int64], first: NDArray[np.int64]
    ) -> pa.Table:
        """The counts of some genes in living cells, as `COLUMNS`.

        Args:
            genes: gene_id -> its symbol.
            cell_ids: of every row of every segment, segment after segment; -1 for one that is gone.
            first: where each segment's rows begin in `cell_ids`, and the end. Shape
                (n_segments + 1,).

        Raises:
            DamageError: a file is gone, or not what it was.
        """
        spans = [
            (place, numbers, starts)
            for place, gene in enumerate(genes)
            for numbers, starts in self._places_of(gene)
        ]
        numbers = np.concatenate([[], *(of_gene for _, of_gene, _ in spans)]).astype(np.int64)
        ends = np.concatenate([np.empty((0, 2), np.int64), *(starts for _, _, starts in spans)])
        lengths = ends[:, 1] - ends[:, 0]
        rows, counts = self._read(numbers, ends, lengths)
        of_row = np.repeat(numbers, lengths)
        of_cell = first[of_row] + rows
        if (of_cell >= first[of_row + 1]).any():
            number = int(of_row[(of_cell >= first[of_row + 1]).argmax()])
            raise DamageError(f"{self._pages[number].path}: a count of a row that is not there")
        ids = cell_ids[of_cell]
        places = np.repeat(
            np.repeat(
                np.array([place for place, _, _ in spans], dtype=np.int32),
                [len(of_gene) for _, of_gene, _ in spans],
            ),
            lengths,
        )
        told = pa.table(
            {
                "cell_id": ids,
                "segment": pa.DictionaryArray.from_arrays(of_row.astype(np.int32), self._names),
                "row": rows.view(np.int32),
                "gene_id": pa.DictionaryArray.from_arrays(places, pa.array(genes, pa.string())),
                "symbol": pa.DictionaryArray.from_arrays(
                    places, pa.array(genes.values(), pa.string())
                ),
                "count": counts,
            },
            schema=COLUMNS,
        )
        living = ids >= 0
        return told if living.all() else told.filter(pa.array(living))

    def _places_of(self, gene: str) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """The segments that measured a gene, and where it begins and ends in each: (n, 2)."""
        return [
            (known.segments, known.starts[:, place : place + 2].astype(np.int64))
            for known in self._lists
            if (place := known.genes.get(gene)) is not None
        ]

    def _read(
        self, numbers: NDArray[np.int64], ends: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """The columns `row` and `count` of spans of segments, one after the other."""
        stops = np.cumsum(lengths)
        n_rows = int(stops[-1]) if len(stops) else 0
        rows, counts = np.empty(n_rows, dtype=np.uint32), np.empty(n_rows, dtype=np.uint32)
        wanted = [
            (self._pages[number], start, stop, slice(at - stop + start, at))
            for number, (start, stop), at in zip(
                numbers.tolist(), ends.tolist(), stops.tolist(), strict=True
            )
            if start < stop
        ]

        def read(share: Sequence[tuple[GenePages, int, int, slice]]) -> None:
            for pages, start, stop, out in share:
                pages.read(start, stop, rows[out], counts[out])

        n_workers = min(os.cpu_count() or 1, len(wanted) // 8)
        if n_workers < 2:
            read(wanted)
        else:
            with ThreadPoolExecutor(max_workers=n_workers) as pool:
                list(pool.map(read, [wanted[worker::n_workers] for worker in range(n_workers)]))
        return rows, counts


def _read_segment(
    record: SegmentRecord,
) -> tuple[pa.ChunkedArray, NDArray[np.uint32], GenePages] | None:
    """A segment's genes, where they begin, and its pages; None where it is not as we write it."""
    files = [name for name in record.files if name.startswith("expression/")]
    if len(files) != 1:
        return None
    for name in (files[0], "statistics.parquet"):
        record.check(name)
    pages = GenePages.load(record.folder / files[0])
    if pages is None:
        return None
    try:
        table = pq.read_table(
            record.folder / "statistics.parquet", columns=["gene_id", "n_cells"], memory_map=False
        )
    except (pa.ArrowException, OSError) as error:
        raise DamageError(f"{record.folder}/statistics.parquet cannot be read: {error}") from error
    genes = table.column("gene_id")
    starts = np.concatenate([[0], np.cumsum(table.column("n_cells").to_numpy(), dtype=np.int64)])
    if starts[-1] != pages.starts[-1] or starts[-1] >= 1 << 32:
        return None
    # Where the sums are right, every row group begins and ends with the gene that it names.
    ends = [*pages.starts[:-1], *(pages.starts[1:] - 1)]
    told = [low for low, _ in pages.genes] + [high for _, high in pages.genes]
    if genes.take(np.searchsorted(starts, ends, side="right") - 1).to_pylist() != told:
        return None
    return genes, starts.astype(np.uint32), pages
