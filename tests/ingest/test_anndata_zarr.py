import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import zarr
from cytolake.ingest.proof import choose_layer
from cytolake.ingest.sources.anndata_zarr import ZarrSource
from cytolake.ingest.sources.formats import open_source
from cytolake.platform.errors import NotRawCountsError, SourceError
from scipy import sparse
from zarr.storage import ZipStore

from .test_h5ad import whole

BOTH = pytest.mark.parametrize("zarr_format", [2, 3])
ZIP = "pbmc68k_reduced_zarr/10x_pbmc68k_reduced.zarr.zip"


def write(adata: Any, path: Path, zarr_format: Any, *, shards: bool = False) -> Path:
    """As AnnData writes."""
    with ad.settings.override(zarr_write_format=zarr_format, auto_shard_zarr_v3=shards):
        ad.io.write_elem(zarr.open_group(path, mode="w", zarr_format=zarr_format), "/", adata)
    return path


def rechunk(path: Path, zarr_format: Any, name: str, chunks: tuple[int, ...]) -> None:
    """Write one array anew, in other chunks; those of zeros only are left out."""
    group: Any = zarr.open_group(path, mode="r+", zarr_format=zarr_format, use_consolidated=False)
    values = group[name][:]
    attributes = dict(group[name].attrs)
    group.create_array(
        name, shape=values.shape, dtype=values.dtype, chunks=chunks, overwrite=True,
        attributes=attributes, config={"write_empty_chunks": False},
    )[:] = values  # fmt: skip


def zipped(folder: Path, lead: str = "") -> Path:
    path = folder.with_name(folder.name + ".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, lead + str(file.relative_to(folder)))
    return path


@pytest.mark.parametrize(("zarr_format", "shards"), [(2, False), (3, False), (3, True)],
                         ids=["2", "3", "3 in shards"])  # fmt: skip
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix],
                         ids=["dense", "csr", "csc"])  # fmt: skip
def test_every_storage_gives_the_same_values(
    adata: Any, tmp_path: Path, kind: Any, zarr_format: int, shards: bool
):
    dense = adata.X.toarray()
    adata.X = kind(dense)
    adata.raw = adata.copy()
    adata.layers["counts"] = kind(dense[:, ::-1])
    write(adata, tmp_path / "a.zarr", zarr_format, shards=shards)
    for path in (tmp_path / "a.zarr", zipped(tmp_path / "a.zarr")):
        source = open_source(path, recognise=len)
        assert source.format == "zarr"
        assert [layer.name for layer in source.layers()] == ["raw/X", "layers/counts", "X"]
        assert (whole(source, "raw/X") == dense).all()
        assert (whole(source, "layers/counts") == dense[:, ::-1]).all()
        assert source.barcodes().tolist() == adata.obs_names.tolist()
        assert source.genes("X")["index"].tolist() == adata.var_names.tolist()
        assert source.genes("raw/X")["symbol"].tolist() == adata.var["symbol"].tolist()


@BOTH
def test_a_range_of_cells_over_many_chunks_is_that_range(
    adata: Any, tmp_path: Path, zarr_format: int
):
    adata.layers["dense"] = adata.X.toarray()
    path = write(adata, tmp_path / "a.zarr", zarr_format)
    rechunk(path, zarr_format, "layers/dense", (7, 11))
    for part in ("data", "indices", "indptr"):
        rechunk(path, zarr_format, f"X/{part}", (13,))
    source = ZarrSource(path=path)
    for layer in ("X", "layers/dense"):
        assert (whole(source, layer, 5, 23) == adata.X.toarray()[5:23]).all()
    assert source.obs(5, 23).column("donor").to_pylist() == adata.obs["donor"].tolist()[5:23]


@BOTH
def test_columns_of_every_kind_come_back(tmp_path: Path, zarr_format: int):
    obs = pd.DataFrame(
        {
            "text": ["a", "é", ""],
            "kind": pd.Categorical(["x", None, "y"]),
            "one": pd.Categorical(["z", "z", "z"]),
            "grade": pd.Categorical([3, 1, 3]),
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "flag": pd.array([True, None, False], dtype="boolean"),
            "number": [0.5, 1.5, np.nan],
            "half": np.array([0.5, 1, 2], dtype=np.float16),
            "odd name (%)": [1, 2, 3],
            "Kind": ["other", "case", "only"],
        },
        index=pd.Index(["c1", "c2", "c3"]),
    )
    adata = ad.AnnData(sparse.csr_matrix(np.ones((3, 2), dtype=np.float32)), obs=obs)
    source = ZarrSource(path=write(adata, tmp_path / "a.zarr", zarr_format))
    table = source.obs(0, 3)
    assert table.column_names == [*obs.columns]
    for name in ("text", "number", "half", "odd name (%)", "Kind", "grade", "one"):
        values = pd.Series(table.column(name).to_pylist())
        assert values.equals(pd.Series(obs[name].tolist())), name
    assert table.column("kind").to_pylist() == ["x", None, "y"]
    assert table.column("whole").to_pylist() == [1, None, 3]
    assert table.column("flag").to_pylist() == [True, None, False]
    assert source.obs(1, 2).column("kind").to_pylist() == [None]


def test_categories_of_anndata_0_7_are_looked_up(adata: Any, tmp_path: Path):
    group: Any = zarr.open_group(write(adata, tmp_path / "a.zarr", 2), mode="r+")
    del group["obs/cell_type"]
    group["obs"].create_array("cell_type", data=np.array([1, 0] * 19 + [-1, 0], dtype=np.int8))
    group["obs/cell_type"].attrs["categories"] = "__categories/cell_type"
    group["obs"].create_group("__categories").create_array(
        "cell_type", data=np.array(["B", "T"], dtype=np.dtypes.StringDType())
    )
    source = ZarrSource(path=tmp_path / "a.zarr")
    assert source.obs_columns() == ["cell_type", "donor", "score"]
    assert source.obs(0, 40).column("cell_type").to_pylist() == ["T", "B"] * 19 + [None, "B"]


def test_tables_of_anndata_0_6_are_records(tmp_path: Path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    obs = np.array([(b"c1", 1, 0.5), (b"c2", 0, 1.5)],
                   dtype=[("index", "S2"), ("cell_type", "i1"), ("score", "f8")])  # fmt: skip
    group.create_array("obs", data=obs)
    group.create_array("var", data=np.array([(b"G1",), (b"G2",)], dtype=[("index", "S2")]))
    group.create_array("uns/cell_type_categories", data=np.array([b"B", b"T"]))
    group.create_array("X", data=np.array([[1, 0], [0, 2]], dtype=np.float32))
    source = ZarrSource(path=tmp_path / "a.zarr")
    assert source.barcodes().tolist() == ["c1", "c2"]
    assert source.obs(0, 2).to_pydict() == {"cell_type": ["T", "B"], "score": [0.5, 1.5]}
    assert source.genes("X")["index"].tolist() == ["G1", "G2"]
    assert (whole(source, "X") == [[1, 0], [0, 2]]).all()


def test_what_zarr_refuses_in_uns_does_not_matter(adata: Any, tmp_path: Path):
    path = write(adata, tmp_path / "a.zarr", 3)
    (path / "uns" / "names").mkdir()
    odd = {"zarr_format": 3, "node_type": "array", "shape": [1], "data_type": {"name": "struct"}}
    (path / "uns" / "names" / "zarr.json").write_text(json.dumps(odd))
    assert (whole(ZarrSource(path=path), "X") == adata.X.toarray()).all()


@BOTH
@pytest.mark.parametrize("part", ["X/data", "X/indices", "X/indptr", "obs/_index", "var/_index"])
def test_a_missing_chunk_where_none_can_be_left_out_is_an_error(
    adata: Any, tmp_path: Path, part: str, zarr_format: int
):
    path = write(adata, tmp_path / "a.zarr", zarr_format)
    if zarr_format == 3:
        shutil.rmtree(path / part / "c")
    else:
        (path / part / "0").unlink()
    source = ZarrSource(path=path)
    with pytest.raises(SourceError, match=rf"{part}: chunk \S+ is missing"):
        source.barcodes()
        source.genes("X")
        whole(source, "X")


@BOTH
def test_a_chunk_of_zeros_may_be_left_out_and_is_told(adata: Any, tmp_path: Path, zarr_format: Any):
    dense = adata.X.toarray()
    dense[:10] = 0
    adata.X = dense
    path = write(adata, tmp_path / "a.zarr", zarr_format)
    rechunk(path, zarr_format, "X", (10, 30))
    source = ZarrSource(path=path)
    assert (whole(source, "X") == dense).all()
    assert any("X (1 of 4)" in note for note in source.notes)


def test_an_empty_matrix_has_no_chunks_and_is_read(adata: Any, tmp_path: Path):
    adata.layers["counts"] = sparse.csr_matrix(adata.shape, dtype=np.float32)
    path = write(adata, tmp_path / "a.zarr", 3)
    shutil.rmtree(path / "layers" / "counts" / "indptr" / "c", ignore_errors=True)
    source = ZarrSource(path=path)
    assert whole(source, "layers/counts").sum() == 0
    assert choose_layer(source).layer.name == "X"


def test_a_zip_of_a_folder_is_read_and_a_cut_or_flipped_one_refused(adata: Any, tmp_path: Path):
    path = zipped(write(adata, tmp_path / "a.zarr", 3), lead="a.zarr/")
    data = path.read_bytes()
    assert (whole(ZarrSource(path=path), "X") == adata.X.toarray()).all()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match=r"a\.zarr\.zip"):
        open_source(path, recognise=len)
    with zipfile.ZipFile(zipped(tmp_path / "a.zarr")) as archive:
        info = archive.getinfo("X/data/c/0")
    flipped = bytearray(path.read_bytes())
    place = info.header_offset + 30 + len(info.filename) + info.file_size // 2
    flipped[place] ^= 0xFF
    path.write_bytes(bytes(flipped))
    with pytest.raises(SourceError, match="Bad CRC-32"):
        whole(ZarrSource(path=path), "X")


def test_a_zip_without_a_store_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("matrix.mtx", "x")
    with pytest.raises(SourceError, match="a zip without a zarr store"):
        open_source(tmp_path / "a.zip", recognise=len)


def test_a_store_that_is_no_anndata_is_refused_by_what_it_lacks(tmp_path: Path):
    zarr.open_group(tmp_path / "a.zarr", mode="w").create_array("x", data=np.arange(3))
    with pytest.raises(SourceError, match="has no matrix"):
        open_source(tmp_path / "a.zarr", recognise=len).layers()


@pytest.mark.filterwarnings("ignore")  # the oracle reads old and odd metadata with warnings
def test_the_real_store_gives_counts_and_its_scaled_x_is_refused(resources: Path):
    source = ZarrSource(path=resources / ZIP)
    choice = choose_layer(source)
    assert choice.layer.name == "layers/counts"
    with ZipStore(resources / ZIP, mode="r") as store:
        group: Any = zarr.open_group(store, mode="r", use_consolidated=False)
        obs: Any = ad.io.read_elem(group["obs"])
        counts: Any = ad.io.read_elem(group["layers/counts"])
    assert (whole(source, "layers/counts") == counts.toarray()).all()
    table = source.obs(0, 700)
    assert table.column("bulk_labels").to_pylist() == obs["bulk_labels"].tolist()
    assert source.barcodes().tolist() == obs.index.tolist()
    with pytest.raises(NotRawCountsError, match=r"X: -0\.32"):
        choose_layer(source, named="X")
