"""Bytes of a zarr chunk to numbers or text, by the codecs that its array names.

Knows no store. A closed list of codecs, none of which can run code (no pickle); what a chunk says
of its own size is checked before it is believed, so that a small file cannot fill the memory.
"""

import lzma
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
from numcodecs import Blosc
from numcodecs.lz4 import LZ4
from numcodecs.registry import get_codec
from numcodecs.vlen import VLenBytes, VLenUTF8
from numpy.typing import NDArray

from ...platform.errors import SourceError

Codec = Mapping[str, Any]
"""A codec as `name` and its settings."""

DAMAGED = (
    ValueError, OSError, RuntimeError, TypeError, KeyError, MemoryError, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""What `decode` raises where bytes are not what they should be."""

_PACKED = {"blosc", "zstd", "gzip", "zlib", "bz2", "lzma", "lz4", "crc32c"}
_TEXT = {"vlen-utf8", "vlen-bytes", "json2"}
_FILTERS = {"delta", "shuffle"}
KNOWN = _PACKED | _TEXT | _FILTERS | {"bytes", "transpose", "sharding_indexed"}

_BLOSC_HEADER = struct.Struct("<BBBBIII")


def check_known(codecs: Sequence[Codec], where: str) -> None:
    """Refuse what cannot be unpacked, or must not be.

    Raises:
        SourceError: a codec is not in the list; pickle is told apart.
    """
    for codec in codecs:
        name = str(codec["name"])
        if "pickle" in name:
            raise SourceError(
                f"{where} is pickled: reading it could run any code, so it is not read; write it "
                "with text as text (AnnData 0.7 and later do)"
            )
        if name not in KNOWN:
            raise SourceError(
                f"{where} is packed with {name!r}, which is not read; write it with one of "
                f"{', '.join(sorted(_PACKED))}"
            )


def decode(
    data: bytes, codecs: Sequence[Codec], dtype: np.dtype[Any], shape: tuple[int, ...], limit: int
) -> NDArray[Any]:
    """A chunk's values.

    Args:
        data: the chunk's bytes.
        codecs: in the order in which they were applied when it was written.
        dtype: of the values; object for text.
        shape: of the chunk.
        limit: the most bytes that it may unpack to.

    Returns:
        The values; text as str, or as bytes where it is no UTF-8. Shape `shape`.

    Raises:
        Exception: one of `DAMAGED`: the bytes are not such a chunk.
    """
    n_values = int(np.prod(shape, dtype=np.int64))
    most = limit if dtype.hasobject else n_values * dtype.itemsize
    if most > limit:
        raise ValueError(f"a chunk of {most:,} bytes, expected at most {limit:,}")
    axes: tuple[int, ...] | None = None
    values: NDArray[Any] | None = None
    for codec in reversed(codecs):
        name = str(codec["name"])
        if name in _PACKED:
            data = _unpacked(data, name, codec, most)
        elif name in _TEXT:
            values = _text(data, name, n_values)
        elif name in _FILTERS:
            settings = {key: value for key, value in codec.items() if key != "name"}
            data = np.asarray(get_codec({"id": name, **settings}).decode(data)).tobytes()
        elif name == "bytes":
            big = codec.get("endian") == "big"
            dtype = dtype.newbyteorder(">") if big else dtype
        elif name == "transpose":
            axes = _axes(codec["order"], len(shape))
    if values is None:
        if len(data) != n_values * dtype.itemsize:
            raise ValueError(f"a chunk of {len(data)} bytes, expected {n_values * dtype.itemsize}")
        values = np.frombuffer(data, dtype=dtype)
    if axes is not None:
        stored = tuple(shape[axis] for axis in axes)
        return values.reshape(stored).transpose(np.argsort(axes))
    return values.reshape(shape)


def crc32c_checked(data: bytes) -> bytes:
    """The bytes without the checksum at their end.

    Raises:
        ValueError: they do not fit it.
    """
    body, stored = data[:-4], data[-4:]
    if int(google_crc32c.value(body)).to_bytes(4, "little") != stored:
        raise ValueError("a checksum (crc32c) does not fit its bytes")
    return body


def _unpacked(data: bytes, name: str, codec: Codec, most: int) -> bytes:
    match name:
        case "crc32c":
            return crc32c_checked(data)
        case "blosc":
            return _unblosced(data, most)
        case "zlib":
            return _whole(zlib.decompressobj().decompress(data, most + 1), most)
        case "lzma":
            settings = {key: codec.get(key) for key in ("format", "filters")}
            machine = lzma.LZMADecompressor(
                format=settings["format"] or lzma.FORMAT_AUTO, filters=settings["filters"]
            )
            return _whole(machine.decompress(data, most + 1), most)
        case "lz4":
            if len(data) < 4 or int.from_bytes(data[:4], "little") > most:
                raise ValueError("a chunk says that it unpacks to more than it can hold")
            return bytes(LZ4().decode(data))
        case _:
            with pa.CompressedInputStream(pa.BufferReader(data), name) as stream:
                return _whole(stream.read(most + 1), most)


def _unblosced(data: bytes, most: int) -> bytes:
    """c-blosc reads as many bytes as a chunk's header says, so the header is checked first."""
    if len(data) < _BLOSC_HEADER.size:
        raise ValueError(f"a blosc chunk of {len(data)} bytes has no header")
    _, _, _, _, n_bytes, _, packed = _BLOSC_HEADER.unpack_from(data)
    if packed != len(data) or n_bytes > most:
        raise ValueError(
            f"a blosc chunk of {len(data)} bytes says it has {packed} and unpacks to {n_bytes}, "
            f"expected at most {most}"
        )
    return bytes(Blosc().decode(data))


def _whole(data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise ValueError(f"a chunk unpacks to more than the {most} bytes that it can hold")
    return data


def _text(data: bytes, name: str, n_values: int) -> NDArray[Any]:
    if name == "json2":
        values = np.asarray(get_codec({"id": "json2"}).decode(data), dtype=object)
    else:
        if int.from_bytes(data[:4], "little") != n_values:
            raise ValueError(f"a chunk of text does not hold {n_values} values")
        try:
            values = (VLenUTF8() if name == "vlen-utf8" else VLenBytes()).decode(data)
        except UnicodeDecodeError:  # the same layout; the caller shows the odd bytes
            values = VLenBytes().decode(data)
    return np.asarray(values, dtype=object)


def _axes(order: Any, n_axes: int) -> tuple[int, ...]:
    if order == "F":
        return tuple(reversed(range(n_axes)))
    if order == "C":
        return tuple(range(n_axes))
    axes = tuple(int(axis) for axis in order)
    if sorted(axes) != list(range(n_axes)):
        raise ValueError(f"a transposition {order} of {n_axes} axes")
    return axes
