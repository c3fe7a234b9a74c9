from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cytolake.ingest.proof import choose_layer
from cytolake.ingest.sources import loom
from cytolake.ingest.sources.formats import open_source
from cytolake.ingest.sources.loom import LoomSource
from cytolake.ingest.sources.spool import spool
from cytolake.platform.errors import SourceError

from .test_h5ad import whole

COUNTS = np.random.default_rng(5).poisson(0.7, size=(23, 17))  # cells x genes


def write(path: Path, counts: Any = COUNTS, **options: Any) -> Path:
    """As loompy lays a file out; `options` are of the matrix's data set."""
    with h5py.File(path, "w") as file:
        file.create_dataset("matrix", data=counts.T.astype(np.float32), **options)
        file.create_group("layers")
        rows, columns = file.create_group("row_attrs"), file.create_group("col_attrs")
        rows["Gene"] = np.array([f"G{i}" for i in range(counts.shape[1])], dtype="S5")
        rows["Accession"] = [f"ENSG{i:011d}" for i in range(counts.shape[1])]
        rows["Chromosome"] = np.arange(counts.shape[1])
        columns["CellID"] = np.array([f"c{i}" for i in range(len(counts))], dtype="S5")
        columns["Age"] = np.arange(len(counts))
        columns["Tissue"] = ["foie gr&#225;s"] * len(counts)
        columns["Embedding"] = np.zeros((len(counts), 2))
    return path


@pytest.mark.parametrize("chunks", [None, (4, 5), (17, 23), (1, 23), (17, 1)], ids=str)
@pytest.mark.parametrize("widest", [0, 10**6], ids=["spooled", "by cells"])
def test_every_order_of_chunks_gives_the_same_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: Any, widest: int
):
    monkeypatch.setattr(loom, "_WIDEST", widest)
    monkeypatch.setattr(loom, "MOST_VALUES", 60)
    path = write(tmp_path / "a.loom", chunks=chunks, compression="gzip" if chunks else None)
    source = LoomSource(path=path)
    order = source.layers()[0].order
    assert order == ("rows" if widest else "columns")
    if order == "rows":
        assert (whole(source, "matrix", 3, 20) == COUNTS[3:20]).all()
    else:
        assert len(source.sample("matrix").values) <= max(60, np.prod(chunks or 0))
        source = spool(source, "matrix", tmp_path / "spool")
    assert (whole(source, "matrix") == COUNTS).all()
    assert source.barcodes().tolist() == [f"c{i}" for i in range(23)]


def test_attributes_are_columns_and_those_that_are_none_are_told(tmp_path: Path):
    source = open_source(write(tmp_path / "a.loom"), recognise=len)
    assert source.format == "loom"
    assert source.obs_columns() == ["Age", "Tissue"]
    assert source.obs(2, 4).to_pydict() == {"Age": [2, 3], "Tissue": ["foie grás"] * 2}
    assert source.notes == ("columns that are no list of values: Embedding",)
    genes = source.genes("matrix")
    assert list(genes) == ["index", "Gene"]
    assert genes["index"][0] == "ENSG00000000000" and genes["Gene"][16] == "G16"


def test_layers_come_after_the_matrix_and_one_of_another_shape_is_refused(tmp_path: Path):
    path = write(tmp_path / "a.loom", np.log1p(COUNTS))
    with h5py.File(path, "r+") as file:
        file["layers/spliced"] = COUNTS.T
    source = LoomSource(path=path)
    assert [layer.name for layer in source.layers()] == ["matrix", "layers/spliced"]
    assert choose_layer(source).layer.name == "layers/spliced"
    assert (whole(source, "layers/spliced") == COUNTS).all()
    with h5py.File(path, "r+") as file:
        file["layers/odd"] = COUNTS
    with pytest.raises(SourceError, match=r"layers/odd is \(23, 17\), the matrix \(17, 23\)"):
        source.layers()


def test_cells_without_names_are_numbered_and_it_is_told(tmp_path: Path):
    path = write(tmp_path / "a.loom")
    with h5py.File(path, "r+") as file:
        del file["col_attrs/CellID"]
    source = LoomSource(path=path)
    assert source.barcodes().tolist()[:2] == ["0", "1"]
    assert source.notes[0] == "no column names the cells (CellID): they are numbered"


@pytest.mark.parametrize("missing", ["row_attrs", "col_attrs", "matrix"])
def test_what_lacks_a_part_is_refused_by_it(tmp_path: Path, missing: str):
    path = write(tmp_path / "a.loom")
    with h5py.File(path, "r+") as file:
        del file[missing]
    with pytest.raises(SourceError, match=missing):
        LoomSource(path=path).layers()


def test_genes_without_names_are_refused(tmp_path: Path):
    path = write(tmp_path / "a.loom")
    with h5py.File(path, "r+") as file:
        del file["row_attrs/Gene"], file["row_attrs/Accession"]
    with pytest.raises(SourceError, match="no row attribute names the genes"):
        LoomSource(path=path).genes("matrix")


def test_the_real_file_is_100_cells_of_counts(resources: Path):
    source = open_source(resources / "pbmc_loom_scenicprotocol/expr_mat.loom", recognise=len)
    assert choose_layer(source).layer.name == "matrix"
    counts = whole(source, "matrix")
    assert counts.shape == (100, 8146)
    obs = source.obs(0, 100)
    assert counts.sum(axis=1).tolist() == obs.column("nUMI").to_pylist()
    assert (counts > 0).sum(axis=1).tolist() == obs.column("nGene").to_pylist()
