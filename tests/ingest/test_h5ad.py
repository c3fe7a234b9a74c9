from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from cytolake.ingest.sources.h5ad import H5adSource
from cytolake.platform.errors import SourceError
from scipy import sparse


def whole(source: Any, layer: Any, start: Any = 0, stop: Any = None):
    stop = len(source.barcodes()) if stop is None else stop
    if next(x for x in source.layers() if x.name == layer).order == "columns":
        pieces = list(source.triplets(layer))
        shape = (len(source.barcodes()), len(source.genes(layer)["index"]))
        cells = np.concatenate([p.cells for p in pieces])
        genes = np.concatenate([p.genes for p in pieces])
        values = np.concatenate([p.values for p in pieces])
        return sparse.coo_matrix((values, (cells, genes)), shape=shape).toarray()
    return np.vstack([b.matrix.toarray() for b in source.blocks(layer, start, stop)])


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix],
                         ids=["dense", "csr", "csc"])  # fmt: skip
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_every_storage_gives_the_same_values(
    adata: Any, tmp_path: Path, kind: Any, compression: str | None
):
    dense = adata.X.toarray()
    adata.X = kind(dense)
    adata.write_h5ad(tmp_path / "a.h5ad", compression=compression)
    source = H5adSource(path=tmp_path / "a.h5ad")
    assert (whole(source, "X") == dense).all()
    assert source.barcodes().tolist() == adata.obs_names.tolist()
    assert source.genes("X")["index"].tolist() == adata.var_names.tolist()
    assert source.genes("X")["symbol"].tolist() == adata.var["symbol"].tolist()


def test_a_range_of_cells_is_that_range(adata: Any, tmp_path: Path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    source = H5adSource(path=tmp_path / "a.h5ad")
    assert (whole(source, "X", 7, 19) == adata.X.toarray()[7:19]).all()
    assert source.obs(7, 19).column("donor").to_pylist() == adata.obs["donor"].tolist()[7:19]


def test_raw_comes_first_then_counts_then_x_then_the_rest(adata: Any, tmp_path: Path):
    adata.layers["zscore"] = adata.X
    adata.layers["counts"] = adata.X
    adata.layers["raw_umi"] = adata.X
    adata.raw = adata[:, :20].copy()
    adata.write_h5ad(tmp_path / "a.h5ad")
    source = H5adSource(path=tmp_path / "a.h5ad")
    names = [layer.name for layer in source.layers()]
    assert names == ["raw/X", "layers/counts", "layers/raw_umi", "X", "layers/zscore"]
    assert source.layers()[0].n_genes == 20
    assert len(source.genes("raw/X")["index"]) == 20


def test_unsorted_and_repeated_indices_are_sorted_and_summed(adata: Any, tmp_path: Path):
    path = tmp_path / "a.h5ad"
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        for name, values in {
            "data": np.array([200, 100, 100], dtype=np.uint8),
            "indices": np.array([5, 2, 5], dtype=np.int32),
            "indptr": np.array([0, 3] + [3] * 39, dtype=np.int64),
        }.items():
            matrix: Any = file["X"]
            del matrix[name]
            matrix[name] = values
    row = next(iter(H5adSource(path=path).blocks("X", 0, 1))).matrix
    assert row.indices.tolist() == [2, 5]
    assert row.data.tolist() == [100, 300]  # 8 bits would have overflowed


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("indices", np.array([0, 99, 1], dtype=np.int32), "index of 99 lies outside"),
        ("indptr", np.array([0, 9] + [3] * 39), "indptr does not fit"),
        ("indptr", np.array([0, 3]), "indptr has 2 values, expected 41"),
    ],
)
def test_a_damaged_matrix_is_refused(
    adata: Any, tmp_path: Path, name: str, values: Any, message: str
):
    path = tmp_path / "a.h5ad"
    adata.write_h5ad(path)
    good = {"data": np.ones(3), "indices": np.arange(3), "indptr": np.array([0, 3] + [3] * 39)}
    with h5py.File(path, "r+") as file:
        for part, given in {**good, name: values}.items():
            matrix: Any = file["X"]
            del matrix[part]
            matrix[part] = given
    with pytest.raises(SourceError, match=message):
        list(H5adSource(path=path).blocks("X", 0, 40))


def test_a_file_that_is_cut_short_is_refused_by_name(adata: Any, tmp_path: Path):
    path = tmp_path / "a.h5ad"
    adata.write_h5ad(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(SourceError, match=r"a\.h5ad: not a whole HDF5 file"):
        H5adSource(path=path).layers()


def test_columns_of_every_kind_come_back(tmp_path: Path):
    obs = pd.DataFrame(
        {
            "text": ["a", "b", "c"],
            "kind": pd.Categorical(["x", None, "y"]),
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "flag": pd.array([True, None, False], dtype="boolean"),
            "number": [0.5, 1.5, 2.5],
        },
        index=pd.Index(["c1", "c2", "c3"]),
    )
    ad.AnnData(np.ones((3, 2), dtype=np.float32), obs=obs).write_h5ad(tmp_path / "a.h5ad")
    table = H5adSource(path=tmp_path / "a.h5ad").obs(0, 3)
    assert table.column_names == ["text", "kind", "whole", "flag", "number"]
    assert table.column("kind").to_pylist() == ["x", None, "y"]
    assert table.column("whole").to_pylist() == [1, None, 3]
    assert table.column("flag").to_pylist() == [True, None, False]


@pytest.mark.filterwarnings("ignore")  # the oracle, scanpy, warns of the file's age in many ways
def test_anndata_of_the_first_vintage_is_read(resources: Path):
    source = H5adSource(path=resources / "pbmc68k_reduced_zarr/10x_pbmc68k_reduced.h5ad")
    assert [layer.name for layer in source.layers()] == ["raw.X", "X"]
    labels = source.obs(0, 700).column("bulk_labels").to_pylist()
    assert len(set(labels)) == 10 and "CD14+ Monocyte" in labels
    assert len(source.genes("raw.X")["index"]) == 765
    import scanpy as sc

    expected: Any = sc.read_h5ad(source.path)
    assert labels == expected.obs["bulk_labels"].tolist()
    assert (whole(source, "raw.X") == expected.raw.X.toarray()).all()
