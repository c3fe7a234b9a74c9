"""Which reader reads a path: by its content first, by its name where the content is silent.

Knows the readers; knows no corpus and no gene.
"""

import hashlib
from pathlib import Path
from typing import Literal, get_args

import h5py

from ...platform.errors import SourceError, did_you_mean
from .anndata_zarr import ZarrSource
from .archives import is_tar
from .census import CensusSource
from .census_store import is_census
from .h5ad import H5adSource, open_hdf5
from .h5mu import H5muSource
from .loom import LoomSource
from .protocol import Source
from .tables import Orientation, Recognise, open_table
from .tenx_h5 import TenxH5Source, matrices
from .tenx_mtx import MATRIX_ENDINGS, TenxMtxSource, parts_beside
from .visium import is_visium, open_visium, visium_files
from .zarr_store import is_store

Reader = Literal["h5ad", "h5mu", "zarr", "loom", "10x_h5", "10x_mtx", "visium", "csv", "census"]
READERS: tuple[Reader, ...] = get_args(Reader)

_HDF5 = b"\x89HDF\r\n\x1a\n"
_TEXT = (".csv", ".tsv", ".txt", ".tab", ".matrix")


def open_source(
    path: Path,
    reader: str | None = None,
    *,
    recognise: Recognise,
    orientation: Orientation | None = None,
    layer: str | None = None,
) -> Source:
    """Open a file or folder that holds cells.

    Args:
        path: an h5ad, a zarr store (folder or zip), a loom, a 10x HDF5, a folder or tar with a 10x
            matrix.mtx, a folder of Space Ranger, or a text table.
        reader: one of `READERS`; found out where None.
        recognise: how many of some names are names of genes; decides how a table lies.
        orientation: how a table lies, where the user says so.
        layer: the layer that the user names: of a 10x HDF5 with several genomes, the genome.

    Raises:
        SourceError: there is no such path, nothing in it that a reader reads, or another format
            than `reader` reads.
    """
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    if reader is not None and reader not in READERS:
        raise SourceError(
            f"{path}: no reader is called {reader!r}, there are {', '.join(READERS)}"
            f"{did_you_mean(reader, READERS)}"
        )
    found = "csv" if reader == "csv" else _reader_for(path)
    if reader not in (None, found):
        raise SourceError(
            f"{path}: is read by {found!r}, not by {reader!r}: leave `reader` out, or name that one"
        )
    match found:
        case "h5ad":
            return H5adSource(path=path)
        case "h5mu":
            return H5muSource(path=path)
        case "zarr":
            return ZarrSource(path=path)
        case "loom":
            return LoomSource(path=path)
        case "10x_h5":
            return TenxH5Source(path=path, genome=None if layer == "matrix" else layer)
        case "10x_mtx":
            return TenxMtxSource(path=path)
        case "visium":
            return open_visium(path, layer)
        case "census":
            return CensusSource(path=path)
        case _:
            return open_table(path, orientation, recognise)


def source_files(path: Path) -> list[Path]:
    """The files that a source is made of, in a fixed order."""
    if is_visium(path):
        return visium_files(path)
    if path.name.endswith(MATRIX_ENDINGS):
        return parts_beside(path)
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path]


def stamp_of(path: Path) -> str:
    """Size and time of change of a source's files, in one word: another word, another content.

    Taken when a source is fingerprinted and again when it was read, it tells a file that changed
    in between; it costs no reading.

    Raises:
        SourceError: a file is gone.
    """
    digest = hashlib.sha256()
    for file in source_files(path):
        try:
            status = file.stat()
        except OSError as error:
            raise SourceError(f"{file}: went away while it was read: {error}") from error
        digest.update(f"{file}\n{status.st_size}\n{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _reader_for(path: Path) -> Reader:
    if path.is_dir():
        if is_store(path):
            return "zarr"
        if is_visium(path):
            return "visium"
        if is_census(path):
            return "census"
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
    if begin == _HDF5 or path.suffix in (".h5ad", ".h5mu", ".h5"):
        raise SourceError(
            f"{path}: is not a whole HDF5 file (cut short, still being written, or another format)"
        )
    if begin.startswith(b"PK"):
        if is_store(path):
            return "zarr"
        raise SourceError(f"{path}: a zip without a zarr store in it: unpack it, give what it held")
    if is_tar(path):
        return "10x_mtx"
    if path.name.endswith((".mtx", ".mtx.gz")):
        if len(parts_beside(path)) > 1 and path.name.endswith(MATRIX_ENDINGS):
            return "10x_mtx"
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
        if "mod" in file and not {"X", "raw"} & set(file):
            return "h5mu"
        if "obs" in file and ("X" in file or "layers" in file or "raw" in file):
            return "h5ad"
        if isinstance(file.get("matrix"), h5py.Dataset) and {"row_attrs", "col_attrs"} <= set(file):
            return "loom"
        if matrices(file):
            return "10x_h5"
        found = ", ".join(file)
    raise SourceError(
        f"{path}: an HDF5 file, but neither AnnData (obs, var, X) nor 10x (matrix/barcodes) nor "
        f"loom (matrix, row_attrs, col_attrs); "
        f"it holds {found}"
    )
