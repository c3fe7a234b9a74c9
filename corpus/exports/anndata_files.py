"""An extract as an AnnData file, h5ad or zarr: counts are appended block by block.

Knows AnnData's format on disk; knows no corpus. Whatever is no matrix is written by anndata itself.
Source of the layout: anndata's "on-disk format", `csr_matrix` 0.1.0.
"""

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .extract import Extract

_CHUNK = 1 << 16
"""Elements that are compressed together."""

_SHARD = 1 << 22
"""Elements of one file of a zarr: a matrix of 2e9 non-zeros lies in a thousand files."""

_CSR = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0"}
_ROOT = {"encoding-type": "anndata", "encoding-version": "0.1.0"}
_ARRAY = {"encoding-type": "array", "encoding-version": "0.2.0"}


def write_h5ad(extract: Extract, path: Path, advance: Callable[[int], None]) -> None:
    """Write an h5ad; a block of cells is in memory at a time, and the metadata of all.

    Counts are compressed with gzip at its fastest, bytes shuffled, which every HDF5 can read.

    Args:
        extract: what.
        path: where; nothing is there yet.
        advance: is told how many more cells are written.
    """
    import h5py

    with h5py.File(path, "w") as file:
        _write_frames(file, extract)

        def create(name: str, dtype: type[np.generic]) -> Any:
            return file.create_dataset(
                f"X/{name}",
                shape=(0,),
                maxshape=(None,),
                dtype=dtype,
                chunks=(_CHUNK,),
                compression="gzip",
                compression_opts=1,
                shuffle=True,
            )

        _write_matrix(extract, file.create_group("X"), create, _CHUNK, advance)


def write_zarr(extract: Extract, path: Path, advance: Callable[[int], None]) -> None:
    """Write a zarr of format 3, sharded; memory as in `write_h5ad`, and a shard."""
    import zarr
    from zarr.codecs import BloscCodec

    root = zarr.open_group(path, mode="w", zarr_format=3)
    with _without_warnings():
        _write_frames(root, extract)
    group = root.create_group("X")

    def create(name: str, dtype: type[np.generic]) -> Any:
        size = np.dtype(dtype).itemsize
        return group.create_array(
            name,
            shape=(0,),
            dtype=np.dtype(dtype),
            chunks=(_CHUNK,),
            shards=(_SHARD,),
            compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=size)],
            fill_value=0,
        )

    _write_matrix(extract, group, create, _SHARD, advance)


def _write_frames(root: Any, extract: Extract) -> None:
    """Everything but X."""
    from anndata.io import write_elem

    root.attrs.update(_ROOT)
    write_elem(root, "obs", extract.obs())
    write_elem(root, "var", extract.var())
    write_elem(root, "uns", extract.uns)
    for name in ("layers", "obsm", "obsp", "varm", "varp"):
        write_elem(root, name, {})


def _write_matrix(
    extract: Extract,
    group: Any,
    create: Callable[[str, type[np.generic]], Any],
    piece: int,
    advance: Callable[[int], None],
) -> None:
    """Append the blocks of counts; `indptr` comes last (8 bytes a cell in memory)."""
    data = _Growing(create("data", extract.dtype), piece)
    indices = _Growing(create("indices", np.int32), piece)
    ends = [np.zeros(1, dtype=np.int64)]
    for block in extract.blocks():
        data.append(block.data)
        indices.append(block.indices)
        ends.append(block.indptr[1:].astype(np.int64) + ends[-1][-1])
        advance(len(ends[-1]))
    data.close()
    indices.close()
    indptr = _Growing(create("indptr", np.int64), piece)
    indptr.append(np.concatenate(ends))
    indptr.close()
    for array in (data, indices, indptr):
        array.stored.attrs.update(_ARRAY)
    group.attrs.update({**_CSR, "shape": list(extract.shape)})


class _Growing:
    """An array on disk that is written from its start, whole pieces at a time.

    A chunk or shard that is written in parts would be compressed as often as it has parts.
    """

    def __init__(self, stored: Any, piece: int) -> None:
        """Begin with an empty array of h5py or zarr; `piece`: elements that go together."""
        self.stored, self._piece = stored, piece
        self._held: list[NDArray[Any]] = []
        self._n_held = 0

    def append(self, values: NDArray[Any]) -> None:
        """Add values; what does not fill a piece is held back."""
        self._held.append(values)
        self._n_held += len(values)
        if self._n_held >= self._piece:
            joined = np.concatenate(self._held)
            whole = len(joined) - len(joined) % self._piece
            self._write(joined[:whole])
            self._held, self._n_held = [joined[whole:].copy()], len(joined) - whole

    def close(self) -> None:
        """Write what was held back."""
        if self._n_held:
            self._write(np.concatenate(self._held))
        self._held, self._n_held = [], 0

    def _write(self, values: NDArray[Any]) -> None:
        start = int(self.stored.shape[0])
        self.stored.resize((start + len(values),))
        for first in range(0, len(values), self._piece):
            part = values[first : first + self._piece]
            self.stored[start + first : start + first + len(part)] = part


@contextmanager
def _without_warnings() -> Generator[None]:
    """AnnData's own text arrays: zarr says that the v3 specification lacks the type."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification")
        warnings.filterwarnings("ignore", message=".*autosharding.*")
        yield
