"""Which reader reads a path: by its content first, by its name where the content is silent.

Knows the readers; knows no corpus and no gene.
"""

import tarfile
from pathlib import Path
from typing import Literal

import h5py

from ...platform.errors import SourceError, did_you_mean
from .h5ad import H5adSource, open_hdf5
from .protocol import Source
from .tables import Orientation, Recognise, open_table
from .tenx_h5 import TenxH5Source
from .tenx_mtx import TenxMtxSource

Reader = Literal["h5ad", "10x_h5", "10x_mtx", "csv"]
READERS: tuple[Reader, ...] = ("h5ad", "10x_h5", "10x_mtx", "csv")

_HDF5 = b"\x89HDF\r\n\x1a\n"
_TEXT = (".csv", ".tsv", ".txt", ".tab", ".matrix")


def open_source(
    path: Path,
    reader: str | None = None,
    *,
    recognise: Recognise,
    orientation: Orientation | None = None,
) -> Source:
    """Open a file or folder that holds cells.

    Args:
        path: an h5ad, a 10x HDF5, a folder or tar with a 10x matrix.mtx, or a text table.
        reader: one of `READERS`; found out where None.
        recognise: how many of some names are names of genes; decides how a table lies.
        orientation: how a table lies, where the user says so.

    Raises:
        SourceError: there is no such path, or nothing in it that a reader reads.
    """
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    if reader is not None and reader not in READERS:
        raise SourceError(
            f"{path}: no reader is called {reader!r}, there are {', '.join(READERS)}"
            f"{did_you_mean(reader, READERS)}"
        )
    match reader or _reader_for(path):
        case "h5ad":
            return H5adSource(path=path)
        case "10x_h5":
            return TenxH5Source(path=path)
        case "10x_mtx":
            return TenxMtxSource(path=path)
        case _:
            return open_table(path, orientation, recognise)


def source_files(path: Path) -> list[Path]:
    """The files that a source is made of, in a fixed order."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path]


def _reader_for(path: Path) -> Reader:
    if path.is_dir():
        if any(path.rglob("matrix.mtx")) or any(path.rglob("matrix.mtx.gz")):
            return "10x_mtx"
        n_files = len(source_files(path))
        what = "is empty" if n_files == 0 else f"holds {n_files} files but no matrix.mtx(.gz)"
        raise SourceError(f"{path}: the folder {what}; give a 10x matrix folder, or single files")
    try:
        with path.open("rb") as file:
            begin = file.read(8)
    except OSError as error:
        raise SourceError(f"{path}: cannot be opened: {error}") from error
    if not begin:
        raise SourceError(f"{path}: the file is empty")
    if h5py.is_hdf5(path):  # a user block may come before the signature, as Muon.jl's does
        return _hdf5_reader(path)
    if begin == _HDF5 or path.suffix in (".h5ad", ".h5"):
        raise SourceError(
            f"{path}: is not a whole HDF5 file (cut short, still being written, or another format)"
        )
    if _is_tar(path):
        return "10x_mtx"
    if path.name.endswith((".mtx", ".mtx.gz")):
        raise SourceError(f"{path}: a matrix alone names no genes; give the folder it lies in")
    name = path.name.removesuffix(".gz")
    if name.endswith(_TEXT):
        return "csv"
    raise SourceError(
        f"{path}: not a format that is read: expected h5ad, 10x HDF5, a folder or tar with "
        "matrix.mtx, or csv/tsv/txt(.gz)"
    )


def _hdf5_reader(path: Path) -> Reader:
    with open_hdf5(path) as file:
        if "obs" in file and ("X" in file or "layers" in file or "raw" in file):
            return "h5ad"
        groups = [item for item in file.values() if isinstance(item, h5py.Group)]
        if any({"barcodes", "indptr"} <= set(group) for group in groups):
            return "10x_h5"
        found = ", ".join(file)
    raise SourceError(
        f"{path}: an HDF5 file, but neither AnnData (obs, var, X) nor 10x (matrix/barcodes); "
        f"it holds {found}"
    )


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError):
        return False
