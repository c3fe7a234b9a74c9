import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cytolake.corpus.genes import GeneReference
from cytolake.ingest.harmonise import n_recognised
from cytolake.ingest.sources.formats import open_source, source_files, stamp_of
from cytolake.platform.errors import SourceError

from .test_tenx import write_h5, write_mtx


@pytest.fixture
def opened(reference: GeneReference):
    return lambda path, reader=None: open_source(
        path, reader, recognise=lambda names: n_recognised(names, reference)
    )


def test_the_content_decides_not_the_name(adata: Any, tmp_path: Path, opened: Any):
    adata.write_h5ad(tmp_path / "a.h5ad")
    (tmp_path / "a.h5ad").rename(tmp_path / "a.h5")
    assert opened(tmp_path / "a.h5").format == "h5ad"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no such file or folder"),
        (lambda p: p.mkdir(), "the folder is empty"),
        (lambda p: (p.mkdir(), (p / "x.txt").write_text("x")), r"holds 1 files but no matrix\.mtx"),
        (lambda p: p.write_bytes(b""), "the file is empty"),
        (lambda p: p.write_bytes(b"\x93NUMPY" + b"0" * 99), "not a format that is read"),
    ],
    ids=["missing", "empty folder", "folder of others", "empty file", "other format"],
)
def test_what_is_no_source_is_refused_by_name(tmp_path: Path, opened: Any, make: Any, message: str):
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(SourceError, match=message) as caught:
        opened(path)
    assert str(path) in str(caught.value)


def test_an_h5ad_that_is_no_hdf5_is_refused(tmp_path: Path, opened: Any):
    (tmp_path / "a.h5ad").write_text("<html>404</html>")
    with pytest.raises(SourceError, match="not a whole HDF5 file"):
        opened(tmp_path / "a.h5ad")


def test_another_hdf5_is_refused_with_what_it_holds(tmp_path: Path, opened: Any):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["weights"] = [1.0]
    with pytest.raises(SourceError, match="it holds weights"):
        opened(tmp_path / "a.h5")


def test_a_lone_matrix_is_refused(tmp_path: Path, opened: Any):
    (tmp_path / "matrix.mtx").write_text("%%MatrixMarket\n")
    with pytest.raises(SourceError, match="give the folder it lies in"):
        opened(tmp_path / "matrix.mtx")


def test_a_10x_file_called_h5ad_and_the_other_way_round_are_known_by_content(
    adata: Any, tmp_path: Path, opened: Any
):
    adata.write_h5ad(tmp_path / "matrix.h5")
    write_h5(tmp_path / "a.h5ad", np.ones((2, 1), dtype=int), ["G1"], ["G1"], version=3)
    assert opened(tmp_path / "matrix.h5").format == "h5ad"
    assert opened(tmp_path / "a.h5ad").format == "10x_h5"
    with pytest.raises(SourceError, match="is read by '10x_h5', not by 'h5ad': leave `reader` out"):
        opened(tmp_path / "a.h5ad", "h5ad")


def test_an_unknown_reader_is_refused_with_the_nearest(adata: Any, tmp_path: Path, opened: Any):
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(SourceError, match="did you mean 'h5ad'"):
        opened(tmp_path / "a.h5ad", "h5da")


def test_the_files_of_a_folder_come_in_a_fixed_order(tmp_path: Path):
    for name in ("b", "a", "sub/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = [path.relative_to(tmp_path).as_posix() for path in source_files(tmp_path)]
    assert found == ["a", "b", "sub/c"]


def test_a_stamp_tells_a_change_of_any_file(tmp_path: Path):
    write_mtx(tmp_path / "m", np.ones((2, 1), dtype=int), ["G1"], ["G1"])
    first = stamp_of(tmp_path / "m")
    assert stamp_of(tmp_path / "m") == first
    path = tmp_path / "m" / "barcodes.tsv.gz"
    path.write_bytes(path.read_bytes() + b"x")
    second = stamp_of(tmp_path / "m")
    os.utime(path, ns=(0, 0))
    assert len({first, second, stamp_of(tmp_path / "m")}) == 3
    (tmp_path / "m" / "gone").symlink_to(tmp_path / "nowhere")
    assert stamp_of(tmp_path / "m") == stamp_of(tmp_path / "m")
