"""A source's cells as plain readers of its format give them: h5py, zarr, scipy, pandas, tarfile.

Shares no code with the readers of ingest, knows no rule and no corpus: a second witness of what a
file says. It reads whole files into memory and believes what they say of themselves.
"""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from scipy import sparse
from scipy.io import mmread


@dataclass(frozen=True, kw_only=True, slots=True)
class Plain:
    """What a source says.

    Attributes:
        barcodes: names of the cells.
        names: names of the genes, as the asked column has them.
        matrix: values, cells x names, float64.
        obs: own columns by name, those that can be read.
    """

    barcodes: list[str]
    names: list[str]
    matrix: sparse.csr_matrix
    obs: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])


def read_plainly(path: Path, kind: str, layer: str, column: str) -> Plain:
    """Read a source.

    Args:
        path: the file or folder.
        kind: its format, as `real_sources.gather` calls it.
        layer: the matrix.
        column: the column of genes with the names; `index` for the first one.

    Raises:
        Exception: whatever a library raises of a file that it cannot read.
    """
    return _READERS[kind](path, layer, column)


def _read_h5ad(path: Path, layer: str, column: str) -> Plain:
    with h5py.File(path) as file:
        return _read_anndata(file, layer, column)


def _read_h5mu(path: Path, layer: str, column: str) -> Plain:
    with h5py.File(path) as file:
        mod: Any = file["mod"]
        genes = [name for name in mod if name in ("rna", "gex")]
        return _read_anndata(mod[genes[0]], layer, column)


def _read_zarr(path: Path, layer: str, column: str) -> Plain:
    # Consolidated metadata are left aside: of `uns` they hold types that zarr refuses.
    group = zarr.open_group(path, mode="r", use_consolidated=False)
    return _read_anndata(group, layer, column)


def _read_zarr_zip(path: Path, layer: str, column: str) -> Plain:
    folder = Path(mkdtemp(dir=path.parent))
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    roots = [path.parent for name in ("zarr.json", ".zgroup") for path in folder.rglob(name)]
    return _read_zarr(min(roots, key=lambda root: len(root.parts)), layer, column)


def _read_anndata(root: Any, layer: str, column: str) -> Plain:
    item = root[layer]
    obs, var = root["obs"], root["raw/var" if layer == "raw/X" else "var"]
    if hasattr(item, "shape"):
        matrix = sparse.csr_matrix(np.asarray(item[:], dtype=np.float64))
    else:
        kind = _word(item.attrs["encoding-type"])
        n_cells, n_genes = (int(n) for n in item.attrs["shape"])
        matrix = _compressed(item, (n_cells, n_genes), by_row="csr" in kind)
    columns: dict[str, list[Any]] = {}
    index = _word(obs.attrs["_index"])
    for name in obs:
        if name != index and name != "__categories":
            try:
                values: Any = ad.io.read_elem(obs[name])
                columns[str(name)] = list(values)
            except Exception:  # a column that its own library cannot read witnesses nothing
                continue
    place = _word(var.attrs["_index"]) if column == "index" else column
    return Plain(
        barcodes=_texts(obs[index]),
        names=_texts(var[place]),
        matrix=matrix,
        obs=columns,
    )


def _read_10x_h5(path: Path, layer: str, column: str) -> Plain:
    with h5py.File(path) as file:
        group: Any = next(iter(file.values()))
        n_features, n_cells = (int(n) for n in group["shape"][:])
        matrix = _compressed(group, (n_cells, n_features), by_row=True)
        if "features" not in group:
            place = "genes" if column == "index" else "gene_names"
            return Plain(
                barcodes=_texts(group["barcodes"]), names=_texts(group[place]), matrix=matrix
            )
        features = group["features"]
        types = np.array(_texts(features["feature_type"]))
        kept = np.flatnonzero(types == "Gene Expression")
        names = np.array(_texts(features["id" if column == "index" else "name"]), dtype=object)
        return Plain(
            barcodes=_texts(group["barcodes"]),
            names=names[kept].tolist(),
            matrix=sparse.csr_matrix(matrix[:, kept]),
        )


def _read_mtx(path: Path, layer: str, column: str) -> Plain:
    parts = {file.name.removesuffix(".gz"): file for file in path.iterdir()}
    data = {
        name: gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        for name, file in parts.items()
    }
    return _mtx_of(data, column)


def _read_tar(path: Path, layer: str, column: str) -> Plain:
    data: dict[str, bytes] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                data[Path(member.name).name] = file.read()
    return _mtx_of(data, column)


def _mtx_of(data: dict[str, bytes], column: str) -> Plain:
    values: Any = mmread(io.BytesIO(data["matrix.mtx"]))
    matrix: Any = sparse.csr_matrix(values.T.astype(np.float64))
    genes = data["features.tsv"] if "features.tsv" in data else data["genes.tsv"]
    rows = [line.split("\t") for line in _decoded(genes).split("\n") if line.strip()]
    names = [row[0 if column == "index" else 1].removesuffix("\r") for row in rows]
    kept = [i for i, row in enumerate(rows) if len(row) < 3 or row[2] == "Gene Expression"]
    barcodes = [line for line in _decoded(data["barcodes.tsv"]).split("\n") if line.strip()]
    if matrix.shape != (len(barcodes), len(names)):
        raise ValueError(f"{matrix.shape} for {len(barcodes)} barcodes, {len(names)} genes")
    return Plain(
        barcodes=[name.removesuffix("\r").split("\t")[0] for name in barcodes],
        names=[names[i] for i in kept],
        matrix=sparse.csr_matrix(matrix[:, kept]),
    )


def _read_loom(path: Path, layer: str, column: str) -> Plain:
    with h5py.File(path) as file:
        cells: Any = file["col_attrs"]
        genes: Any = file["row_attrs"]
        values: Any = file["matrix"]
        return Plain(
            barcodes=_texts(cells["CellID"]),
            names=_texts(genes["Gene" if column == "index" else column]),
            matrix=sparse.csr_matrix(np.asarray(values[:].T, dtype=np.float64)),
            obs={str(name): list(cells[name][:]) for name in cells if name != "CellID"},
        )


def _read_table(path: Path, layer: str, column: str) -> Plain:
    data = path.read_bytes()
    text = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode()
    head, _, body = text.partition("\n")
    delimiter = "\t" if body.split("\n", 1)[0].count("\t") else ","
    words = [word.strip().strip('"') for word in head.rstrip("\r").split(delimiter)]
    # dtype: pandas would call a row that is named 1 by the number.
    frame = pd.read_csv(
        io.StringIO(body), sep=delimiter, header=None, index_col=0, dtype={0: str},
        skipinitialspace=True, keep_default_na=False,
    )  # fmt: skip
    side = [str(name).strip() for name in frame.index]
    top = words if len(words) == frame.shape[1] else words[1:]
    values = frame.to_numpy(dtype=np.float64)
    if len(top) != values.shape[1]:
        raise ValueError(f"{len(top)} names for {values.shape[1]} columns")
    # Genes down where the side begins as the real tables' do: the csv has its cells there.
    if path.name == "table.csv":
        return Plain(barcodes=side, names=top, matrix=sparse.csr_matrix(values))
    return Plain(barcodes=top, names=side, matrix=sparse.csr_matrix(values.T))


def _compressed(group: Any, shape: tuple[int, int], *, by_row: bool) -> sparse.csr_matrix:
    parts = tuple(np.asarray(group[name][:]) for name in ("data", "indices", "indptr"))
    parts = (parts[0].astype(np.float64), *parts[1:])
    if by_row:
        made: Any = sparse.csr_matrix(parts, shape=shape)
    else:
        made = sparse.csc_matrix(parts, shape=shape)
    made.check_format(full_check=True)
    matrix = sparse.csr_matrix(made)
    matrix.sum_duplicates()
    return matrix


def _texts(item: Any) -> list[str]:
    """Text of an array; bytes that are no UTF-8 as backslash and hex, as Python shows them."""
    if hasattr(item, "shape"):
        values: NDArray[Any] = np.asarray(item[:])
    else:  # a categorical
        values = np.asarray(item["categories"][:])[np.asarray(item["codes"][:])]
    return [_decoded(value) if isinstance(value, bytes) else str(value) for value in values]


def _word(attribute: Any) -> str:
    return _decoded(attribute) if isinstance(attribute, bytes) else str(attribute)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", errors="backslashreplace")


_READERS: dict[str, Callable[[Path, str, str], Plain]] = {
    "h5ad": _read_h5ad, "h5mu": _read_h5mu, "zarr": _read_zarr, "zarr zip": _read_zarr_zip,
    "10x h5": _read_10x_h5, "10x mtx": _read_mtx, "10x tar": _read_tar, "loom": _read_loom,
    "csv": _read_table, "tsv": _read_table, "csv.gz": _read_table,
}  # fmt: skip
