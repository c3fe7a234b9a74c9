from pathlib import Path
from typing import Any

import h5py
import pytest
from cytolake.corpus.genes import GeneReference
from cytolake.ingest.harmonise import n_recognised
from cytolake.ingest.sources.formats import open_source, source_files
from cytolake.platform.errors import SourceError


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
