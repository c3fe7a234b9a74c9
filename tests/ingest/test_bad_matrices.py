"""The same bad matrix through every reader that can hold it: refused by its place, or summed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from cytolake.ingest.proof import checked_counts, choose_layer
from cytolake.ingest.sources.formats import open_source
from cytolake.ingest.sources.memory import MemorySource
from cytolake.ingest.sources.protocol import RawBlock
from cytolake.ingest.sources.spool import spool
from cytolake.platform.errors import NotRawCountsError, SourceError
from scipy import sparse

from .test_h5ad import whole
from .test_tenx import write_h5, write_mtx

GENES = ["G1", "G2", "G3"]


def table_of(values: Any) -> Any:
    n_cells = values.shape[0]
    return ad.AnnData(
        values,
        obs=pd.DataFrame(index=pd.Index([f"b{i}" for i in range(n_cells)])),
        var=pd.DataFrame(index=pd.Index(GENES)),
    )


def as_h5ad(folder: Path, values: Any) -> Any:
    table_of(sparse.csr_matrix(values)).write_h5ad(folder / "a.h5ad")
    return opened(folder / "a.h5ad")


def as_dense_h5ad(folder: Path, values: Any) -> Any:
    table_of(values).write_h5ad(folder / "d.h5ad")
    return opened(folder / "d.h5ad")


def as_zarr(folder: Path, values: Any) -> Any:
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=2)
    ad.io.write_elem(group, "/", table_of(sparse.csr_matrix(values)))
    return opened(folder / "a.zarr")


def as_10x(folder: Path, values: Any) -> Any:
    write_h5(folder / "a.h5", values, GENES, GENES, version=3)
    return opened(folder / "a.h5")


def as_mtx(folder: Path, values: Any) -> Any:
    write_mtx(folder / "m", values, GENES, GENES, zipped=False)
    path = folder / "m" / "matrix.mtx"
    path.write_text(path.read_text().replace("integer", "real"))
    return opened(folder / "m")


def as_csv(folder: Path, values: Any) -> Any:
    pd.DataFrame(values, columns=pd.Index(GENES)).to_csv(folder / "a.csv", na_rep="nan")
    return opened(folder / "a.csv")


def as_loom(folder: Path, values: Any) -> Any:
    with h5py.File(folder / "a.loom", "w") as file:
        file["matrix"] = values.T
        file["row_attrs/Gene"] = GENES
        file["col_attrs/CellID"] = [f"b{i}" for i in range(len(values))]
    return opened(folder / "a.loom")


def as_memory(folder: Path, values: Any) -> Any:
    return MemorySource(adata=table_of(sparse.csr_matrix(values)))


def opened(path: Path) -> Any:
    return open_source(path, recognise=lambda names: int(np.isin(names.astype(str), GENES).sum()))


WRITERS: dict[str, Callable[[Path, Any], Any]] = {
    "h5ad": as_h5ad, "dense h5ad": as_dense_h5ad, "zarr": as_zarr, "10x h5": as_10x,
    "10x mtx": as_mtx, "csv": as_csv, "loom": as_loom, "memory": as_memory,
}  # fmt: skip
EVERY_READER = pytest.mark.parametrize("write", WRITERS.values(), ids=list(WRITERS))


@EVERY_READER
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1.0, 0.5, 3.0000002, 2.0**32], ids=str)
def test_a_value_that_is_no_count_is_refused_by_its_place(tmp_path: Path, write: Any, bad: float):
    values = np.array([[1, 0, 2], [0, bad, 3]], dtype=np.float64)
    with pytest.raises(NotRawCountsError, match=r"at row 1, gene G2"):
        choose_layer(write(tmp_path, values))


@EVERY_READER
def test_floats_that_are_integers_and_large_ones_are_counts(tmp_path: Path, write: Any):
    values = np.array([[1, 0, 65535], [0, 65536, 0], [0, 0, 0], [2**32 - 1, 0, 7]], dtype=float)
    source = write(tmp_path, values)
    layer = choose_layer(source).layer
    if layer.order == "columns":
        source = spool(source, layer.name, tmp_path / "spool")
    blocks: list[RawBlock] = list(source.blocks(layer.name, 0, 4))
    counts = [checked_counts(source, layer.name, block, None).toarray() for block in blocks]
    assert (np.vstack(counts) == values).all()


def broken(write: Any, folder: Path, **parts: Any) -> Any:
    """A CSR of 2 cells x 3 genes, some of whose parts are others."""
    parts = {
        "data": np.array([1, 2, 3], dtype=np.uint8), "indices": np.array([0, 2, 1]),
        "indptr": np.array([0, 2, 3]), **parts,
    }  # fmt: skip
    source = write(folder, np.array([[1, 0, 2], [0, 3, 0]], dtype=np.float32))
    if source.format == "memory":
        source.adata.X = sparse.csr_matrix(
            (parts["data"], parts["indices"], parts["indptr"]), shape=(2, 3)
        )
    elif source.format == "zarr":
        group: Any = zarr.open_group(source.path, mode="r+")["X"]
        for name, values in parts.items():
            group.create_array(name, data=values, overwrite=True)
    else:
        with h5py.File(source.path, "r+") as file:
            place: Any = file["X" if source.format == "h5ad" else "matrix"]
            for name, values in parts.items():
                del place[name]
                place[name] = values
    return source


CSR = pytest.mark.parametrize(
    "write", [as_h5ad, as_zarr, as_10x], ids=["h5ad", "zarr", "10x h5"]
)  # fmt: skip


@pytest.mark.parametrize(
    "write", [as_h5ad, as_zarr, as_10x, as_memory], ids=["h5ad", "zarr", "10x h5", "memory"]
)
def test_unsorted_indices_are_sorted_and_repeated_ones_summed_and_told(tmp_path: Path, write: Any):
    source = broken(
        write, tmp_path, indices=np.array([2, 0, 2]), indptr=np.array([0, 3, 3]),
        data=np.array([200, 1, 100], dtype=np.uint8),
    )  # fmt: skip
    name = source.layers()[0].name
    assert whole(source, name).tolist() == [[1, 0, 300], [0, 0, 0]]
    block = next(iter(source.blocks(name, 0, 2))).matrix
    assert block.indices.tolist() == [0, 2]
    if source.format == "memory":
        assert source.adata.X.data.tolist() == [200, 1, 100]  # the caller's own is left alone
    else:
        assert "cells with a gene more than once: its values are summed" in source.notes[-1]


def test_entries_that_repeat_in_a_text_matrix_are_summed(tmp_path: Path):
    source = as_mtx(tmp_path, np.array([[1, 0, 2]]))
    path = tmp_path / "m" / "matrix.mtx"
    path.write_text(path.read_text().replace("\n3 1 2\n", "\n3 1 3\n", 1) + "3 1 2\n")
    spooled = spool(source, "matrix", tmp_path / "spool")
    assert whole(spooled, "matrix").tolist() == [[1, 0, 4]]


def test_a_text_matrix_with_more_values_than_announced_is_refused(tmp_path: Path):
    source = as_mtx(tmp_path, np.array([[1, 0, 2]]))
    path = tmp_path / "m" / "matrix.mtx"
    path.write_text(path.read_text() + "3 1 2\n")
    with pytest.raises(SourceError, match="announces 2 values and holds 3: the file is damaged"):
        list(source.triplets("matrix"))


@CSR
@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"indices": np.array([0, 3, 1])}, "index of 3 lies outside"),
        ({"indices": np.array([0, -1, 1])}, "lies outside"),
        ({"indices": np.array([0, 1])}, "2 indices for 3 values"),
        ({"indptr": np.array([0, 3, 2])}, "indptr does not fit"),
        ({"indptr": np.array([1, 2, 3])}, "indptr does not fit"),
        ({"indptr": np.array([0, 2, 9])}, "indptr does not fit"),
        ({"indptr": np.array([0, 3])}, "indptr has 2 values, expected 3"),
        ({"data": np.array([b"a", b"b", b"c"])}, "expected numbers"),
    ],
    ids=["too far", "negative", "too few", "descends", "begins late", "beyond", "short", "text"],
)
def test_a_matrix_whose_parts_do_not_fit_is_refused(
    tmp_path: Path, write: Any, parts: Any, message: str
):
    source = broken(write, tmp_path, **parts)
    with pytest.raises(SourceError, match=message) as caught:
        whole(source, source.layers()[0].name)
    assert str(source.path) in str(caught.value)


def test_halves_are_not_cut_to_integers(tmp_path: Path):
    source = broken(as_h5ad, tmp_path, data=np.array([1, 2.5, 3], dtype=np.float16))
    with pytest.raises(NotRawCountsError, match=r"X: 2\.5 at row 0, gene G3"):
        choose_layer(source)


def test_columns_of_mixed_type_are_text_and_odd_names_are_kept():
    adata = table_of(np.ones((3, 3)))
    adata.obs["mixed"] = [1, "b", None]
    adata.obs["Mixed"] = [True, False, True]
    adata.obs["a b/c\n'\"é"] = ["x", "y", "z"]
    table = MemorySource(adata=adata).obs(0, 3)
    assert table.column_names == ["mixed", "Mixed", "a b/c\n'\"é"]
    assert table.column("mixed").to_pylist() == ["1", "b", None]


def test_a_column_that_is_there_twice_is_refused():
    adata: Any = table_of(np.ones((3, 3)))
    adata.obs = pd.DataFrame([[1, 2]] * 3, index=adata.obs_names, columns=pd.Index(["x", "x"]))
    with pytest.raises(SourceError, match="obs has the column 'x' more than once"):
        MemorySource(adata=adata).obs(0, 3)


def test_text_of_no_utf_8_keeps_its_bytes_in_columns_and_is_refused_in_tables(tmp_path: Path):
    source = as_h5ad(tmp_path, np.ones((2, 3)))
    with h5py.File(source.path, "r+") as file:
        file["obs/city"] = np.array([b"Gen\xe8ve", "Genève".encode()])
    assert source.obs(0, 2).column("city").to_pylist() == ["Gen\\xe8ve", "Genève"]
    (tmp_path / "a.csv").write_bytes(b"x,G1,G2\nGen\xe8ve,1,2\n")
    with pytest.raises(SourceError, match=r"not text in UTF-8: .* iconv -f latin1 -t utf8"):
        opened(tmp_path / "a.csv").barcodes()
