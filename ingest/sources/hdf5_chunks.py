"""Gzipped one-dimensional HDF5 arrays, their chunks unpacked by ISA-L instead of by HDF5.

Knows no matrix. A cell of 2,000 counts took HDF5 some 69 us to unpack and takes 22 (decision 51).
Whatever is out of the ordinary (another filter, a chunk that was never written, a damaged one) is
read through HDF5 itself, with its own answer or its own error.
"""

from typing import Any

import h5py
import numpy as np
from isal import igzip_lib, isal_zlib
from numpy.typing import NDArray

_GZIP, _SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE
_ZLIB_WINDOW = 15
_DAMAGED: type[Exception] = igzip_lib.IsalError  # pyright: ignore[reportAssignmentType] - its stub calls it an instance


class GzippedArray:
    """A dataset's values by slices, as h5py gives them."""

    def __init__(self, dataset: h5py.Dataset, *, shuffled: bool) -> None:
        """Use `quickly_read`.

        Args:
            dataset: one-dimensional, in chunks whose only filters are gzip, after a shuffle of
                bytes where `shuffled`.
            shuffled: whether the first bytes of all values come first in a chunk, and so on.
        """
        self._dataset, self._shuffled = dataset, shuffled
        self._length = int(dataset.shape[0])
        [self._chunk] = dataset.chunks or (self._length,)
        self._type: np.dtype[Any] = dataset.dtype
        self._last: tuple[int, NDArray[Any]] = (-1, np.zeros(0, dtype=self._type))

    def __len__(self) -> int:
        """Number of values."""
        return self._length

    def __getitem__(self, wanted: slice) -> NDArray[Any]:
        """The values of a slice without a step, in memory of their own."""
        start, stop, step = wanted.indices(self._length)
        if step != 1:
            return self._dataset[wanted]
        values = np.empty(max(0, stop - start), dtype=self._type)
        for number in range(start // self._chunk, -(-stop // self._chunk)):
            first = number * self._chunk
            chunk = self._unpacked(number)
            if chunk is None:
                return self._dataset[start:stop]
            low, high = max(start, first), min(stop, first + self._chunk)
            values[low - start : high - start] = chunk[low - first : high - first]
        return values

    def _unpacked(self, number: int) -> NDArray[Any] | None:
        """A whole chunk; the last one is kept, for a slice may end within it. None: ask HDF5."""
        if self._last[0] == number:
            return self._last[1]
        n_bytes = self._chunk * self._type.itemsize
        try:
            skipped, packed = self._dataset.id.read_direct_chunk((number * self._chunk,))
            data = None if skipped else isal_zlib.decompress(packed, _ZLIB_WINDOW, n_bytes)
        except (OSError, RuntimeError, ValueError, _DAMAGED):
            return None
        if data is None or len(data) != n_bytes:
            return None
        if self._shuffled:
            planes = np.frombuffer(data, dtype=np.uint8).reshape(self._type.itemsize, self._chunk)
            values = np.ascontiguousarray(planes.T).view(self._type).reshape(self._chunk)
        else:
            values = np.frombuffer(data, dtype=self._type)
        self._last = number, values
        return values


def quickly_read(array: Any) -> Any:
    """The same array to be sliced, unpacked faster where it can be; any other array as it is."""
    if not isinstance(array, h5py.Dataset) or array.ndim != 1 or not array.chunks:
        return array
    if array.dtype.kind not in "iuf" or not array.shape[0]:
        return array
    made = array.id.get_create_plist()
    filters = [made.get_filter(i)[0] for i in range(made.get_nfilters())]
    if filters not in ([_GZIP], [_SHUFFLE, _GZIP]):
        return array
    return GzippedArray(array, shuffled=filters[0] == _SHUFFLE)
