"""Cut one labelled file into disjoint, stratified sources of several formats, as a TOML describes.

For demonstrations and tests where only one real file is at hand. Knows no corpus; names no data.
"""

import gzip
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy import sparse

from ..corpus.genes import GeneReference
from ..platform.configuration import Configuration, parse_toml
from ..platform.errors import SourceError
from ..platform.resources import find
from ..platform.settings import Settings
from ..platform.storage import sha256_file, write_durably
from .harmonise import choose_names
from .metadata import as_text
from .proof import Recovery, checked_counts, choose_layer, totals_column
from .sources.h5ad import H5adSource
from .sources.protocol import Names


class Part(Configuration):
    """One of the sources to make.

    Attributes:
        name: of the file or folder, its ending included.
        format: `h5ad` (the values as they are, all columns of cells), `10x_mtx` (a folder, counts)
            or `csv` (gzipped, genes x cells, counts).
        genes: what names the genes in a folder or table.
        cells: name of a table of the cells' columns to write beside it, their only place in a
            folder or table.
    """

    name: str
    format: Literal["h5ad", "10x_mtx", "csv"]
    genes: Literal["ensembl", "symbol"] = "symbol"
    cells: str | None = None


class PartitionFile(Configuration):
    """How to cut.

    Attributes:
        resource: the file, as a resource; or
        path: the file.
        layer: the matrix to take.
        recover: how counts come out of it where it holds none.
        stratify: the column of cells of whose every value each part gets its share.
        seed: of the shuffle within a value.
        part: the parts, of equal size.
    """

    resource: str | None = None
    path: str | None = None
    layer: str | None = None
    recover: Recovery | None = None
    stratify: str
    seed: int = 0
    part: tuple[Part, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.resource is None):
            raise ValueError("a partition needs a `path` or a `resource`, and not both")
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class _Whole:
    """The file that is cut.

    Attributes:
        values: as they are, cells x genes.
        counts: recovered or read, cells x genes, integers.
        barcodes: names of the cells.
        symbols: names of the genes in the file.
        gene_ids: their Ensembl ids; the symbol where there is none.
        obs: columns of the cells.
    """

    values: sparse.csr_matrix
    counts: sparse.csr_matrix
    barcodes: Names
    symbols: Names
    gene_ids: Names
    obs: pa.Table


def load_partition(path: Path) -> PartitionFile:
    """Read the description of a partition.

    Raises:
        RecipeError: it is no TOML, or a key or value is not understood.
    """
    return parse_toml(path.read_text(encoding="utf-8"), PartitionFile, origin=str(path))


def partition(
    plan: PartitionFile, folder: Path, reference: GeneReference, settings: Settings
) -> list[Path]:
    """Write the parts; what an earlier call wrote from the same file and plan is left as it is.

    Args:
        plan: how to cut.
        folder: where to write; made if missing.
        reference: the genes, for parts named by Ensembl ids.
        settings: where resources are.

    Returns:
        The parts, in the plan's order.

    Raises:
        ResourceError: the file is not to be had.
        SourceError: the file has no such layer or column, or no counts.
    """
    path = find(plan.resource, settings) if plan.resource else Path(plan.path or "")
    places = [folder / part.name for part in plan.part]
    done = {"plan": plan.model_dump(mode="json"), "sha256": sha256_file(path)}
    mark = folder / "partition.json"
    if mark.exists() and json.loads(mark.read_text()) == done and all(p.exists() for p in places):
        return places
    whole = _read(path, plan, reference)
    folder.mkdir(parents=True, exist_ok=True)
    if plan.stratify not in whole.obs.column_names:
        raise SourceError(
            f"{path}: has no column {plan.stratify!r} of cells to stratify by; it has "
            f"{', '.join(whole.obs.column_names)}"
        )
    labels = np.array(as_text(whole.obs.column(plan.stratify)).to_pylist(), dtype=str)
    shares = deal(labels, len(plan.part), plan.seed)
    for part, rows in zip(plan.part, shares, strict=True):
        _write(part, folder, whole, rows)
    write_durably(mark, json.dumps(done).encode())
    return places


def deal(labels: NDArray[np.str_], n_parts: int, seed: int) -> list[NDArray[np.int64]]:
    """Rows of each part: disjoint, together all, of every label an equal share or one more.

    Args:
        labels: one a row. Shape (n_rows,).
        n_parts: number of parts.
        seed: of the shuffle within a label.

    Returns:
        Ascending rows, one array a part.
    """
    random = np.random.default_rng(seed)
    shuffled = [random.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    order = np.concatenate([np.zeros(0, dtype=np.int64), *shuffled])
    return [np.sort(order[part::n_parts]) for part in range(n_parts)]


def _read(path: Path, plan: PartitionFile, reference: GeneReference) -> _Whole:
    source = H5adSource(path=path)
    choice = choose_layer(source, named=plan.layer, recover=plan.recover)
    total = totals_column(source, None) if plan.recover else None
    layer, barcodes = choice.layer.name, source.barcodes()
    blocks = list(source.blocks(layer, 0, len(barcodes)))
    counts = [checked_counts(source, layer, block, total) for block in blocks]
    _, symbols = choose_names(source.genes(layer), reference, named=None, where=str(path))
    mapping = reference.map_names(symbols)
    known = np.isin(mapping.kinds.astype(str), ("unmapped", "ambiguous"), invert=True)
    return _Whole(
        values=sparse.csr_matrix(sparse.vstack([block.matrix for block in blocks])),
        counts=sparse.csr_matrix(sparse.vstack(counts)),
        barcodes=barcodes,
        symbols=symbols,
        gene_ids=np.where(known, mapping.gene_ids, symbols),
        obs=source.obs(0, len(barcodes)),
    )


def _write(part: Part, folder: Path, whole: _Whole, rows: NDArray[np.int64]) -> None:
    place = folder / part.name
    match part.format:
        case "h5ad":
            _write_h5ad(place, whole, rows)
        case "10x_mtx":
            _write_mtx(place, whole, rows, part)
        case "csv":
            _write_csv(place, whole, rows, part)
    if part.cells is not None:
        frame = _frame(whole, rows)
        write_durably(folder / part.cells, frame.to_csv(lineterminator="\n").encode())


def _write_h5ad(place: Path, whole: _Whole, rows: NDArray[np.int64]) -> None:
    from anndata import AnnData

    var = pd.DataFrame(index=pd.Index([str(name) for name in whole.symbols]))
    values = sparse.csr_matrix(whole.values[rows])
    AnnData(X=values, obs=_frame(whole, rows), var=var).write_h5ad(place, compression="gzip")


def _write_mtx(place: Path, whole: _Whole, rows: NDArray[np.int64], part: Part) -> None:
    place.mkdir(exist_ok=True)
    counts = sparse.coo_matrix(whole.counts[rows])
    ids = whole.gene_ids if part.genes == "ensembl" else whole.symbols
    text = io.StringIO()
    text.write("%%MatrixMarket matrix coordinate integer general\n")
    text.write(f"{len(ids)} {len(rows)} {counts.nnz}\n")
    entries = zip(counts.col, counts.row, counts.data, strict=True)
    text.writelines(f"{gene + 1} {cell + 1} {count}\n" for gene, cell, count in entries)
    features = zip(ids, whole.symbols, strict=True)
    lines = "".join(f"{id_}\t{symbol}\tGene Expression\n" for id_, symbol in features)
    _write_gzip(place / "matrix.mtx.gz", text.getvalue())
    _write_gzip(place / "features.tsv.gz", lines)
    _write_gzip(place / "barcodes.tsv.gz", "".join(f"{b}\n" for b in whole.barcodes[rows]))


def _write_csv(place: Path, whole: _Whole, rows: NDArray[np.int64], part: Part) -> None:
    ids = whole.gene_ids if part.genes == "ensembl" else whole.symbols
    counts = whole.counts[rows].toarray().T
    header = ",".join(["", *(str(name) for name in whole.barcodes[rows])])
    lines = (
        ",".join([str(name), *map(str, values)])
        for name, values in zip(ids, counts.tolist(), strict=True)
    )
    _write_gzip(place, "\n".join([header, *lines]) + "\n")


def _frame(whole: _Whole, rows: NDArray[np.int64]) -> pd.DataFrame:
    frame: pd.DataFrame = whole.obs.take(pa.array(rows)).to_pandas()
    frame.index = pd.Index([str(name) for name in whole.barcodes[rows]], name="barcode")
    return frame


def _write_gzip(path: Path, text: str) -> None:
    write_durably(path, gzip.compress(text.encode(), mtime=0))
