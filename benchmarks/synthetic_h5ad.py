"""Synthetic cells as an h5ad file, streamed: AnnData's layout, as a laboratory would send it.

Knows blocks of cells and HDF5; knows no law that counts follow.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pandas as pd
from cytolake.platform.errors import SourceError

from benchmarks.source_statistics import Statistics
from benchmarks.synthetic import (
    N_DONORS,
    SAMPLES_PER_DONOR,
    Block,
    generate_prepared,
    prepare,
)

Compression = Literal["gzip"]
_CHUNK = 1 << 16
_GROUPS = ("layers", "obsm", "obsp", "uns", "varm", "varp")


def write_h5ad(
    path: Path,
    statistics: Statistics,
    n_cells: int,
    seed: int,
    *,
    compression: Compression | None = None,
    depth: float | None = None,
    source: int = 0,
    watch: Callable[[Block], object] | None = None,
) -> None:
    """Write cells block by block; the file appears under its name when it is whole.

    X is CSR of raw counts as float32; obs has barcodes as index, `cell_type`, `donor_id`, `sample`,
    `n_counts`, `n_genes` and the statistics' facts; var has Ensembl ids as index and
    `gene_symbols`.

    Args:
        path: the file; its folder must be there.
        statistics: of a real source.
        n_cells: how many cells.
        seed: see `synthetic.generate`.
        compression: of all arrays that grow with the cells.
        depth: mean genes seen a cell; that of the statistics where None.
        source: number of the source; its donors have names of their own.
        watch: called with each block once it is written.

    Raises:
        SourceError: an unknown compression, or numbers that `generate` refuses.
    """
    if compression not in (None, "gzip"):
        raise SourceError(f"compression {compression!r}: expected None or 'gzip'")
    prepared = prepare(statistics, depth)
    unfinished = path.with_name(path.name + ".part")
    try:
        with h5py.File(unfinished, "w") as file:
            frame = _Frame(file, statistics, source, compression)
            for block in generate_prepared(prepared, n_cells, seed, source=source):
                frame.append(block)
                if watch is not None:
                    watch(block)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


class _Frame:
    """The open file: what of it stands from the start, and the arrays that grow."""

    def __init__(
        self, file: h5py.File, statistics: Statistics, source: int, compression: str | None
    ) -> None:
        """Write everything that does not depend on the cells."""
        from anndata.io import write_elem

        self._compression = compression
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name in _GROUPS:
            write_elem(file, name, {})
        symbols = pd.DataFrame({"gene_symbols": list(statistics.symbols)})
        symbols.index = pd.Index(list(statistics.gene_ids), name="gene_ids")
        write_elem(file, "var", symbols)
        self._matrix = file.create_group("X")
        self._n_genes = statistics.n_genes
        self._matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        self._data = self._array(self._matrix, "data", np.float32)
        self._indices = self._array(self._matrix, "indices", np.int32)
        self._indptr = self._array(self._matrix, "indptr", np.int64)
        _append(self._indptr, np.zeros(1, dtype=np.int64))
        self._obs = file.create_group("obs")
        text = h5py.string_dtype()
        self._barcode = self._array(self._obs, "barcode", text)
        self._barcode.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
        samples = range(N_DONORS * SAMPLES_PER_DONOR)
        self._codes = {
            "cell_type": self._categorical("cell_type", statistics.cell_types),
            "donor_id": self._categorical("donor_id", [donor(source, s) for s in samples[::2]]),
            "sample": self._categorical("sample", [sample(source, s) for s in samples]),
        }
        self._codes |= {
            name: self._categorical(name, [value]) for name, value in statistics.facts.items()
        }
        self._numbers = {
            name: self._array(self._obs, name, np.int64) for name in ("n_counts", "n_genes")
        }
        for array in self._numbers.values():
            array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        order = np.array([*self._codes, *self._numbers], dtype=object)
        self._obs.attrs.update(
            {"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "barcode"}
        )
        self._obs.attrs.create("column-order", order, dtype=text)
        self._n_cells = 0
        self._matrix.attrs["shape"] = np.array([0, self._n_genes], dtype=np.int64)

    def append(self, block: Block) -> None:
        """Write a block behind what is there."""
        before = len(self._data)
        _append(self._data, block.counts.astype(np.float32))
        _append(self._indices, block.indices)
        _append(self._indptr, block.indptr[1:] + before)
        _append(self._barcode, block.barcodes.astype(object))
        codes = {
            "cell_type": block.type_c,
            "donor_id": block.sample_c // SAMPLES_PER_DONOR,
            "sample": block.sample_c,
        }
        for name, array in self._codes.items():
            _append(array, codes.get(name, np.zeros(block.n_cells)).astype(np.int8))
        _append(self._numbers["n_counts"], block.n_counts)
        _append(self._numbers["n_genes"], np.diff(block.indptr))
        self._n_cells += block.n_cells
        self._matrix.attrs["shape"] = np.array([self._n_cells, self._n_genes], dtype=np.int64)

    def _array(self, group: h5py.Group, name: str, kind: Any) -> h5py.Dataset:
        return group.create_dataset(
            name,
            shape=(0,),
            maxshape=(None,),
            chunks=(_CHUNK,),
            dtype=kind,
            compression=self._compression,
        )

    def _categorical(self, name: str, categories: Sequence[str]) -> h5py.Dataset:
        from anndata.io import write_elem

        group = self._obs.create_group(name)
        group.attrs.update(
            {"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False}
        )
        write_elem(group, "categories", np.array(categories, dtype=object))
        codes = self._array(group, "codes", np.int8)
        codes.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        return codes


def donor(source: int, sample_number: int) -> str:
    """The name of a sample's donor."""
    return f"donor-{source}-{sample_number // SAMPLES_PER_DONOR}"


def sample(source: int, sample_number: int) -> str:
    """The name of a sample."""
    return f"sample-{source}-{sample_number}"


def _append(array: h5py.Dataset, values: Any) -> None:
    before = len(array)
    array.resize((before + len(values),))
    array[before:] = values
