"""Groups and arrays of a zarr store, read as h5py's are: by name, by a range of the first axis.

Knows no AnnData beyond which arrays hold no chunk of fill values. A chunk whose file is missing
reads as the fill value, as zarr wants it, except in those: there it is an error.
"""

import itertools
import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...platform.errors import SourceError
from .zarr_chunks import ChunkFiles
from .zarr_codecs import DAMAGED, decode
from .zarr_layout import ArrayLayout, array_layout
from .zarr_store import MOST_BYTES, Store


class ZarrGroup:
    """A group: `in`, iteration, `get` and `[]` by a name or a path of names."""

    def __init__(self, store: Store, name: str, attrs: dict[str, Any]) -> None:
        """Of the place `name`, without a slash at its ends."""
        self.store = store
        self.name = name
        self.attrs = attrs

    @property
    def file(self) -> "ZarrGroup":
        """The group at the root."""
        return root_group(self.store)

    @property
    def filename(self) -> str:
        """The store, for errors."""
        return str(self.store.path)

    def __contains__(self, name: object) -> bool:
        """Whether there is a group or array of that name."""
        return isinstance(name, str) and _metadata(self.store, self._place(name)) is not None

    def __iter__(self) -> Any:
        """Names of the groups and arrays in it."""
        return iter([name for name in self.store.children(self.name) if name in self])

    def __getitem__(self, name: str) -> "ZarrGroup | ZarrArray":
        """The group or array of that name."""
        item = self.get(name)
        if item is None:
            raise KeyError(f"{name!r} in {self.name or 'the store'}")
        return item

    def get(self, name: str) -> "ZarrGroup | ZarrArray | None":
        """The group or array of that name, None where there is none."""
        place = self._place(name)
        found = _metadata(self.store, place)
        if found is None:
            return None
        metadata, attrs = found
        if metadata is None:
            return ZarrGroup(self.store, place, attrs)
        above, _, last = place.rpartition("/")
        parent = self if above == self.name else ZarrGroup(self.store, above, {})
        layout = array_layout(metadata, f"{self.store.path}: {place}")
        return ZarrArray(parent, place, layout, attrs, whole=parent.holds_whole(last))

    def holds_whole(self, name: str) -> bool:
        """Whether an array of this group must have all its chunks.

        No chunk of the parts of a sparse matrix is all zeros (stored zeros aside), nor are names
        all empty, so a writer has no reason to leave one out. Of an empty matrix all are.
        """
        kind = str(self.attrs.get("encoding-type", ""))
        if kind in ("csr_matrix", "csc_matrix") and name in ("data", "indices", "indptr"):
            found = _metadata(self.store, self._place("data"))
            return found is None or not found[0] or found[0].get("shape") != [0]
        return kind == "dataframe" and name == self.attrs.get("_index")

    def _place(self, name: str) -> str:
        return "/".join(part for part in [*self.name.split("/"), *str(name).split("/")] if part)


class ZarrArray:
    """An array: `[start:stop]` reads the chunks that hold these places of the first axis."""

    def __init__(
        self,
        parent: ZarrGroup,
        name: str,
        layout: ArrayLayout,
        attrs: dict[str, Any],
        *,
        whole: bool,
    ) -> None:
        """Of a layout; `whole` where a missing chunk is an error."""
        self.parent = parent
        self.name = name
        self.layout = layout
        self.attrs = attrs
        self.whole = whole
        self._last: tuple[tuple[int, ...], NDArray[Any]] | None = None
        self._files = ChunkFiles(parent.store, name, layout)

    @property
    def file(self) -> ZarrGroup:
        """The group at the root."""
        return self.parent.file

    @property
    def shape(self) -> tuple[int, ...]:
        """In values."""
        return self.layout.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.layout.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.layout.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values; object for text."""
        return self.layout.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of a chunk."""
        return self.layout.chunks

    def __len__(self) -> int:
        """Length of the first axis."""
        return self.layout.shape[0]

    def fields(self, name: str) -> "_Field":
        """One field of an array of records."""
        return _Field(self, name)

    def n_missing(self) -> tuple[int, int]:
        """Files of chunks (or shards) that are not stored, and how many there could be."""
        return self._files.n_missing()

    def __getitem__(self, key: Any) -> Any:
        """Values at `[:]`, `[start:stop]` or `[()]`; of records also one field by its name."""
        if isinstance(key, str):
            return self.fields(key)[:]
        if key == () and not self.layout.shape:
            return self._chunk(())[()]
        span = slice(None) if key == () else key
        if not isinstance(span, slice) or span.step not in (None, 1):
            raise TypeError(f"{self.name}[{key!r}]: read by a range of the first axis only")
        start, stop, _ = span.indices(len(self))
        return self._read(start, max(start, stop))

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        layout = self.layout
        shape = (stop - start, *layout.shape[1:])
        if math.prod(shape) * layout.dtype.itemsize > MOST_BYTES:
            raise SourceError(f"{layout.where}: {shape} values at once are more than is read")
        values = np.empty(shape, dtype=layout.dtype.newbyteorder("="))
        if not values.size:
            return values
        rows = layout.chunks[0]
        others = [
            range(-(-n // size))
            for n, size in zip(layout.shape[1:], layout.chunks[1:], strict=True)
        ]
        for numbers in itertools.product(range(start // rows, -(-stop // rows)), *others):
            chunk = self._chunk(numbers)
            low = max(start, numbers[0] * rows)
            high = min(stop, (numbers[0] + 1) * rows)
            begins = [number * size for number, size in zip(numbers, layout.chunks, strict=True)]
            into = [slice(low - start, high - start)]
            out_of = [slice(low - begins[0], high - begins[0])]
            for axis in range(1, len(numbers)):
                end = min(layout.shape[axis], begins[axis] + layout.chunks[axis])
                into.append(slice(begins[axis], end))
                out_of.append(slice(0, end - begins[axis]))
            values[tuple(into)] = chunk[tuple(out_of)]
        return values

    def _chunk(self, numbers: tuple[int, ...]) -> NDArray[Any]:
        """One chunk; the last is kept, for ranges that are smaller than a chunk."""
        if self._last is not None and self._last[0] == numbers:
            return self._last[1]
        layout = self.layout
        if math.prod(layout.chunks) * layout.dtype.itemsize > MOST_BYTES:
            raise SourceError(
                f"{layout.where}: chunks of {layout.chunks} values are larger than is read: write "
                "it with smaller ones"
            )
        data = self._files.read(numbers)
        if data is None:
            chunk = self._filled(numbers)
        else:
            try:
                chunk = decode(data, layout.codecs, layout.dtype, layout.chunks, MOST_BYTES)
            except DAMAGED as error:
                raise SourceError(
                    f"{layout.where}: chunk {layout.file_of(numbers)} is damaged: {error}"
                ) from error
        self._last = (numbers, chunk)
        return chunk

    def _filled(self, numbers: tuple[int, ...]) -> NDArray[Any]:
        layout = self.layout
        if self.whole or layout.fill is None:
            raise SourceError(
                f"{layout.where}: chunk {layout.file_of(numbers)} is missing; zarr would read it "
                f"as {layout.fill!r}. Copy the store again, or write it whole "
                "(write_empty_chunks=True)"
            )
        try:
            return np.full(layout.chunks, _fill_value(layout), dtype=layout.dtype)
        except (ValueError, TypeError) as error:
            raise SourceError(f"{layout.where}: fill value {layout.fill!r}: {error}") from error


class _Field:
    """One field of an array of records, read by a range."""

    def __init__(self, array: ZarrArray, name: str) -> None:
        self._array = array
        self._name = name

    def __getitem__(self, key: slice) -> NDArray[Any]:
        return self._array[key][self._name]


def root_group(store: Store) -> ZarrGroup:
    """The group at the root of a store.

    Raises:
        SourceError: there is none.
    """
    found = _metadata(store, "")
    if found is None or found[0] is not None:
        raise SourceError(f"{store.path}: has no zarr group at its root")
    return ZarrGroup(store, "", found[1])


def _fill_value(layout: ArrayLayout) -> Any:
    fill, kind = layout.fill, layout.dtype.kind
    if kind == "f" and isinstance(fill, str):
        return float(fill.replace("Infinity", "inf"))  # "NaN", "Infinity", "-Infinity"
    if kind in "OSU" and not isinstance(fill, str):
        return ""  # format 2 says 0 or nothing where it means no text
    return fill


def _metadata(store: Store, place: str) -> tuple[dict[str, Any] | None, dict[str, Any]] | None:
    """Metadata (None of a group) and attributes; None where there is neither group nor array."""
    lead = f"{place}/" if place else ""
    found = _json(store, f"{lead}zarr.json")
    if found is not None:
        attrs = dict(found.get("attributes") or {})
        return (found if found.get("node_type") == "array" else None), attrs
    array = _json(store, f"{lead}.zarray")
    if array is None and store.size(f"{lead}.zgroup") is None:
        return None
    return array, _json(store, f"{lead}.zattrs") or {}


def _json(store: Store, key: str) -> dict[str, Any] | None:
    data = store.read(key)
    if data is None:
        return None
    try:
        found: Any = json.loads(data)
    except ValueError as error:
        raise SourceError(f"{store.path}: {key} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise SourceError(f"{store.path}: {key} is damaged: it holds no table")
    return found
