"""What the metadata of a zarr array says, format 2 or 3: shape, chunks, type, codecs, names.

Knows no bytes of a chunk and no store.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...platform.errors import SourceError
from .zarr_codecs import Codec, check_known


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharding:
    """How chunks lie in a shard.

    Attributes:
        shape: of a shard, in values. Shape (n_axes,).
        index_at_end: whether the index is the last thing in it, else the first.
        index_checked: whether the index ends with its crc32c.
    """

    shape: tuple[int, ...]
    index_at_end: bool
    index_checked: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayLayout:
    """One array.

    Attributes:
        where: store and place, for errors.
        shape: of the array, in values.
        chunks: of a chunk, in values.
        dtype: of the values; object for text.
        codecs: of a chunk, in the order in which they are applied when it is written.
        sharding: where chunks lie in shards.
        fill: what a chunk that is not stored reads as; None where that is not said.
        prefix: what the name of a chunk's file begins with.
        separator: what stands between the numbers of its name.
    """

    where: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    codecs: tuple[Codec, ...]
    sharding: Sharding | None
    fill: Any
    prefix: str
    separator: str

    def file_of(self, numbers: tuple[int, ...]) -> str:
        """The name of a chunk's (a shard's) file in the array's folder."""
        if self.prefix == "c":
            return self.separator.join(["c", *map(str, numbers)])
        return self.separator.join(map(str, numbers)) or "0"


_TYPES_3 = {
    "bool": "?", "int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8", "uint8": "u1",
    "uint16": "u2", "uint32": "u4", "uint64": "u8", "float16": "f2", "float32": "f4",
    "float64": "f8", "string": "O", "variable_length_bytes": "O", "bytes": "O",
}  # fmt: skip


def array_layout(metadata: Mapping[str, Any], where: str) -> ArrayLayout:
    """Parse `.zarray` or an array's `zarr.json`.

    Raises:
        SourceError: it holds a type or codec that is not read, or is damaged.
    """
    try:
        layout = (_layout_3 if metadata["zarr_format"] == 3 else _layout_2)(metadata, where)
        n_axes = len(layout.shape)
        inner = layout.sharding.shape if layout.sharding else layout.chunks
        fits = len(layout.chunks) == len(inner) == n_axes and min(layout.chunks, default=1) > 0
        if not fits or any(outer % own for outer, own in zip(inner, layout.chunks, strict=True)):
            raise ValueError(f"shape {layout.shape}, chunks {layout.chunks}, shards {inner}")
        if min(layout.shape, default=0) < 0:
            raise ValueError(f"shape {layout.shape}")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"{where}: its metadata is damaged: {error!r}") from error
    check_known(layout.codecs, where)
    return layout


def _layout_2(metadata: Mapping[str, Any], where: str) -> ArrayLayout:
    applied = [*(metadata.get("filters") or ()), metadata.get("compressor")]
    codecs = [_codec_2(codec) for codec in applied if codec]
    check_known(codecs, where)  # before the type: a pickle is told as such
    given = metadata["dtype"]
    if isinstance(given, list):
        dtype = np.dtype([tuple(field) for field in given])  # pyright: ignore[reportArgumentType]
    else:
        dtype = np.dtype(given)
    if dtype.hasobject and (dtype.names or not codecs):
        raise SourceError(f"{where}: Python objects of an unknown kind are not read")
    shape = tuple(int(length) for length in metadata["shape"])
    if metadata.get("order") == "F" and len(shape) > 1:
        codecs = [{"name": "transpose", "order": "F"}, *codecs]
    return ArrayLayout(
        where=where,
        shape=shape,
        chunks=tuple(int(length) for length in metadata["chunks"]),
        dtype=dtype,
        codecs=tuple(codecs),
        sharding=None,
        fill=metadata.get("fill_value"),
        prefix="",
        separator=str(metadata.get("dimension_separator", ".")),
    )


def _layout_3(metadata: Mapping[str, Any], where: str) -> ArrayLayout:
    grid, naming = metadata["chunk_grid"], metadata["chunk_key_encoding"]
    if grid["name"] != "regular":
        raise SourceError(f"{where}: chunks of a {grid['name']!r} grid are not read")
    chunks = tuple(int(length) for length in grid["configuration"]["chunk_shape"])
    codecs = [_codec_3(codec) for codec in metadata["codecs"]]
    sharding = None
    if codecs and codecs[0]["name"] == "sharding_indexed":
        check_known(codecs, where)
        outer = codecs[0]
        index = [codec["name"] for codec in outer["index_codecs"]]
        if len(codecs) > 1 or index not in (["bytes", "crc32c"], ["bytes"]):
            raise SourceError(f"{where}: shards packed as a whole, or with an index of {index}, "
                              "are not read")  # fmt: skip
        sharding = Sharding(
            shape=chunks,
            index_at_end=outer.get("index_location", "end") == "end",
            index_checked="crc32c" in index,
        )
        chunks = tuple(int(length) for length in outer["chunk_shape"])
        codecs = [_codec_3(codec) for codec in outer["codecs"]]
    kind = naming["name"]
    return ArrayLayout(
        where=where,
        shape=tuple(int(length) for length in metadata["shape"]),
        chunks=chunks,
        dtype=_type_3(metadata["data_type"], where),
        codecs=tuple(codecs),
        sharding=sharding,
        fill=metadata.get("fill_value"),
        prefix="c" if kind == "default" else "",
        separator=str(
            naming.get("configuration", {}).get("separator", "/" if kind == "default" else ".")
        ),
    )


def _type_3(given: Any, where: str) -> np.dtype[Any]:
    name = given if isinstance(given, str) else str(given["name"])
    if name in _TYPES_3:
        return np.dtype(_TYPES_3[name])
    if not isinstance(given, str) and name in ("fixed_length_utf32", "null_terminated_bytes"):
        n_bytes = int(given["configuration"]["length_bytes"])
        return np.dtype(f"<U{n_bytes // 4}" if name == "fixed_length_utf32" else f"S{n_bytes}")
    raise SourceError(f"{where}: values of type {name!r} are not read")


def _codec_2(codec: Mapping[str, Any]) -> Codec:
    return {**codec, "name": codec["id"]}


def _codec_3(codec: Any) -> Codec:
    if isinstance(codec, str):
        return {"name": codec}
    settings = dict(codec.get("configuration") or {})
    return {**settings, "name": str(codec["name"]).removeprefix("numcodecs.")}
