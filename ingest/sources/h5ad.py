"""AnnData's h5ad files, and how any HDF5 file is opened.

Knows HDF5's errors; where AnnData keeps things is known by `anndata_file`.
"""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from ...platform.errors import SourceError
from .anndata_file import AnnDataFile
from .hdf5_heaps import check_heaps

_DAMAGED = (
    RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError, OverflowError,
    MemoryError,
)  # fmt: skip
"""What h5py raises, beside OSError, where a damaged file holds another thing than expected."""


@contextmanager
def open_hdf5(path: Path) -> Generator[Any]:
    """Open for reading; what HDF5 cannot read becomes a SourceError that names the file.

    Yields:
        The `h5py.File`; as Any, for what lies at a place of it is only known by looking.
    """
    try:
        check_heaps(path)
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise SourceError(
            f"{path}: not a whole HDF5 file (cut short, or still being written?): {error}; copy or "
            "download it again"
        ) from error
    except _DAMAGED as error:
        raise SourceError(
            f"{path}: is damaged, or holds something else than its layout says: {error!r}; "
            "copy or download it again"
        ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class H5adSource(AnnDataFile):
    """An h5ad file."""

    format: str = "h5ad"

    def _open(self) -> AbstractContextManager[Any]:
        return open_hdf5(self.path)
