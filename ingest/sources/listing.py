"""What a word on the command line names: a file, a folder of sources, or a pattern.

Knows which files and folders are one source by their names and layout; opens none of them.
"""

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from ...platform.errors import SourceError
from .tenx_mtx import MATRIX_ENDINGS, parts_beside
from .visium import is_visium
from .zarr_store import is_store

_TEXT = (".csv", ".tsv", ".txt", ".tab", ".matrix")
ENDINGS = (
    ".h5ad", ".h5mu", ".h5", ".loom", ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz",
    *_TEXT, *(f"{ending}.gz" for ending in _TEXT),
)  # fmt: skip
"""Endings of files that are taken out of a folder; a file named by itself may have any."""

_PARTS = (
    "barcodes.tsv", "features.tsv", "genes.tsv", "matrix.mtx", "molecule_info.h5",
    "tissue_positions.csv", "tissue_positions_list.csv", "metrics_summary.csv",
)  # fmt: skip
"""What lies in folders of Cell Ranger and Space Ranger and is no source by itself."""

_MATRIX = ("matrix.mtx", "matrix.mtx.gz")
_FILTERED = {
    "raw_feature_bc_matrix": "filtered_feature_bc_matrix",
    "raw_gene_bc_matrices": "filtered_gene_bc_matrices",
}


def source_paths(argument: str | Path) -> list[Path]:
    """The sources that a word names, each once, in a fixed order.

    A folder stands for every source in it and below it; a folder of 10x or Space Ranger and a
    zarr store are one source. Of a filtered and a raw matrix side by side the filtered one is
    taken, of HDF5 and text of one matrix the HDF5. Hidden files are left out; links to folders are
    followed, each real folder once.

    Args:
        argument: a file, a folder, or a pattern with `*`, `?`, `[..]` or `**`.

    Raises:
        SourceError: nothing there, or no source in it.
    """
    path = Path(argument).expanduser()
    if path.is_dir():
        found = _inside(path)
    elif path.exists() or not glob.has_magic(str(path)):
        if not path.exists():
            raise SourceError(f"{path}: no such file or folder")
        return [path]
    else:
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
        if not matches:
            raise SourceError(f"{path}: no file or folder fits this pattern")
        found = [
            source
            for match in matches
            for source in (_below(match, set()) if match.is_dir() else [match])
        ]
    return _each_once(found, path)


def _inside(path: Path) -> list[Path]:
    """The sources of a folder; the folder itself where all it holds is one matrix of 10x."""
    found = list(_below(path, set()))
    if len(found) == 1 and found[0].is_dir() and not is_store(found[0]):
        return [found[0] if is_visium(found[0]) else path]
    return found


def _below(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Sources in a folder and below it; `seen` are the real folders entered before."""
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as items:
            names = sorted(item.name for item in items if not _hidden(item.name))
    except OSError as error:
        raise SourceError(f"{folder}: cannot be listed: {error}") from error
    if is_store(folder) or is_visium(folder) or any(name in names for name in _MATRIX):
        yield folder
        return
    for name in names:
        if _is_second(name, names):
            continue
        path = folder / name
        if path.is_dir():
            yield from _below(path, seen)
        elif path.is_file() and (_may_be_source(name) or _is_matrix(path)):
            yield path


def _is_second(name: str, names: list[str]) -> bool:
    """Whether the same cells lie beside it in a better form: filtered, or as HDF5."""
    for raw, filtered in _FILTERED.items():
        better = name.replace(raw, filtered)
        if better != name and any(
            other.startswith(better.removesuffix(".h5").removesuffix("_h5")) for other in names
        ):
            return True
    return f"{name}.h5" in names or f"{name}_h5.h5" in names


def _may_be_source(name: str) -> bool:
    plain = name.removesuffix(".gz")
    if plain.endswith(_PARTS) or name.upper().startswith(("README", "LICENSE", "CHANGELOG")):
        return False
    return name.endswith(ENDINGS)


def _is_matrix(path: Path) -> bool:
    """Whether it is a matrix whose name a sample leads, with genes and barcodes beside it."""
    return path.name.endswith(MATRIX_ENDINGS) and len(parts_beside(path)) > 1


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _each_once(found: list[Path], asked: Path) -> list[Path]:
    once: dict[Path, Path] = {}
    for path in found:
        once.setdefault(path.resolve(), path)
    if not once:
        raise SourceError(
            f"{asked}: holds no source; looked for {', '.join(ENDINGS[:5])}, text tables, folders "
            "of 10x or Space Ranger and zarr stores. Name a file with another ending by itself"
        )
    return list(once.values())
