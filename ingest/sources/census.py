"""CELLxGENE Census by query: the counts and columns of the cells that a query selected.

Knows TileDB-SOMA's tables and arrays; which cells and genes they are is known by `census_store`,
where it is also said what was tested.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from ...platform.errors import SourceError
from .census_store import (
    JOINID,
    Selection,
    kept_organism,
    load_selection,
    places,
    plain_column,
    reading,
    texts,
)
from .compressed import widened
from .protocol import INDEX, Layer, Names, RawBlock, Triplets, sample_rows

LAYER = "raw"
_ROWS = 2048
"""Cells read at once: the tiles of Census's X hold so many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CensusSource:
    """The selected cells of a Census; `path` is the folder that `select_cells` wrote."""

    path: Path
    format: str = "census"

    @property
    def notes(self) -> tuple[str, ...]:
        """Which release; and which genes read as 0 though a data set did not measure them."""
        said = self._selected().description
        release = (
            ", ".join(f"{k} {v}" for k, v in said["release"].items()) or "of no stated release"
        )
        organism = said["query"]["organism"]
        lines = [
            f"CELLxGENE Census ({release}), {organism}: {said['n_cells']:,} cells of "
            f"{said['n_datasets']:,} data sets"
        ]
        if said["n_not_by_all"]:
            lines.append(
                f"{said['n_not_by_all']:,} of {said['n_genes']:,} genes are not measured by all of "
                "these data sets, and read as 0 where they are not: a source for each data set "
                "(dataset_id == '...') keeps the two apart"
            )
        return tuple(lines)

    def layers(self) -> list[Layer]:
        """The raw counts, the only layer that is read."""
        chosen = self._selected()
        return [
            Layer(name=LAYER, n_genes=len(chosen.genes), order="rows",
                  n_stored=chosen.description["n_stored"])
        ]  # fmt: skip

    def genes(self, layer: str) -> dict[str, Names]:
        """Ensembl ids (`feature_id`) as the index, and the symbols."""
        chosen = self._selected()
        with self._store() as experiment:
            var = experiment.ms["RNA"]["var"]
            names = [name for name in ("feature_id", "feature_name") if name in var.schema.names]
            table = var.read(coords=(chosen.genes,), column_names=[JOINID, *names]).concat()
        table = table.sort_by(JOINID)
        found = {name: texts(table.column(name)) for name in names}
        return {INDEX: found.pop("feature_id"), **found}

    def barcodes(self) -> Names:
        """The cells' ids in the release, as text: unique, and the same for whoever asks."""
        return np.array([str(joinid) for joinid in self._selected().joinids], dtype=object)

    def obs_columns(self) -> list[str]:
        """Census's columns, which have CELLxGENE's names; and the organism, which is a folder's."""
        names = [name for name in self._stored_columns() if name != JOINID]
        return names if "organism" in names else [*names, "organism"]

    def obs(self, start: int, stop: int) -> pa.Table:
        """The columns of cells `start` to `stop`; codes are looked up."""
        chosen, names = self._selected(), self.obs_columns()
        joinids = chosen.joinids[start:stop]
        own = [name for name in names if name in self._stored_columns()]
        with self._store() as experiment:
            schema = experiment.obs.schema
            if len(joinids):
                table = experiment.obs.read(coords=(joinids,), column_names=[JOINID, *own]).concat()
            else:
                table = pa.table({name: pa.array([], schema.field(name).type) for name in own})
        if len(joinids) and not np.array_equal(np.sort(table.column(JOINID).to_numpy()), joinids):
            raise self._changed()
        table = table.sort_by(JOINID) if len(joinids) else table
        columns = {name: plain_column(table.column(name)) for name in own}
        if "organism" not in columns:
            label = chosen.description["query"]["organism"].replace("_", " ").capitalize()
            columns["organism"] = pa.array([label] * len(joinids), pa.string())
        return pa.table({name: columns[name] for name in names})

    def _stored_columns(self) -> list[str]:
        return [name for name, _ in self._selected().description["schema"]["obs"]]

    def sample(self, layer: str) -> Triplets:
        """Some rows."""
        return sample_rows(self, layer, len(self._selected().joinids))

    def blocks(self, layer: str, start: int, stop: int) -> Iterator[RawBlock]:
        """Cells `start` to `stop`, so many at once as lie in a tile."""
        chosen = self._selected()
        with self._store() as experiment:
            stored = experiment.ms["RNA"].X[LAYER]
            for first in range(start, stop, _ROWS):
                joinids = chosen.joinids[first : min(stop, first + _ROWS)]
                tables = list(stored.read((joinids, slice(None))).tables())
                yield RawBlock(start=first, matrix=self._matrix(tables, joinids, chosen.genes))

    def triplets(self, layer: str) -> Iterator[Triplets]:
        """Not needed: Census is read by rows."""
        raise SourceError(f"{self.path}: {layer} is read by rows, not spooled")

    def _matrix(
        self, tables: list[pa.Table], joinids: NDArray[np.int64], genes: NDArray[np.int64]
    ) -> sparse.csr_matrix:
        """What was read of some cells, as CSR in their order; every value has its place."""
        rows, columns, values = (
            np.concatenate([table.column(name).to_numpy() for table in tables] or [np.zeros(0)])
            for name in ("soma_dim_0", "soma_dim_1", "soma_data")
        )
        row, known = places(rows.astype(np.int64), joinids)
        column, measured = places(columns.astype(np.int64), genes)
        if not known or not measured:
            raise self._changed()
        data = widened(values, f"{self.path}: {LAYER}")
        shape = (len(joinids), len(genes))
        matrix = sparse.csr_matrix(sparse.coo_matrix((data, (row, column)), shape=shape))
        matrix.sum_duplicates()
        return matrix

    def _changed(self) -> SourceError:
        return SourceError(
            f"{self.path}: the store has other cells or genes than its own tables say, or changed "
            "since the query was run: run it again, on a release that nobody writes to"
        )

    @contextmanager
    def _store(self) -> Generator[Any]:
        query = self._selected().query
        with reading(query):
            yield kept_organism(query)

    def _selected(self) -> Selection:
        return load_selection(self.path)
