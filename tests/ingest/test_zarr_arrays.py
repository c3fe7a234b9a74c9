import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import zarr
from cytolake.ingest.sources.zarr_store import open_store
from cytolake.ingest.sources.zarr_tree import root_group
from cytolake.platform.errors import SourceError
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Delta, GZip, Pickle, VLenUTF8, Zlib
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

CODECS_2: dict[str, Any] = {
    "none": None,
    "zlib": Zlib(),
    "gzip": GZip(),
    **{
        name: {"id": name} for name in ("blosc", "zstd", "lz4", "bz2", "lzma")
    },
}  # fmt: skip
CODECS_3: dict[str, Any] = {
    "none": None,
    "blosc": BloscCodec(),
    "gzip": GzipCodec(),
    "zstd": ZstdCodec(),
    "crc32c": [ZstdCodec(), Crc32cCodec()],
}


def read(folder: Path, name: str, start: int = 0, stop: int | None = None) -> Any:
    with open_store(folder) as store:
        array: Any = root_group(store)[name]
        return array[start:stop]


def array_of(dtype: str, shape: tuple[int, ...]) -> Any:
    n = int(np.prod(shape))
    return (np.arange(n) % 251).reshape(shape).astype(dtype)


@given(
    shape=st.one_of(
        st.tuples(st.integers(1, 30)), st.tuples(st.integers(1, 12), st.integers(1, 9))
    ),
    chunk=st.integers(1, 10),
    dtype=st.sampled_from(["i4", ">i4", "u2", "f4", "f8", "?", "i1"]),
    codec=st.sampled_from(sorted(CODECS_2)),
    order=st.sampled_from(["C", "F"]),
    bounds=st.tuples(st.integers(0, 12), st.integers(0, 12)),
)
@settings(max_examples=25, deadline=None)
def test_a_range_of_format_2_is_what_zarr_reads(
    shape: Any, chunk: int, dtype: str, codec: str, order: Any, bounds: Any
):
    with TemporaryDirectory() as folder:
        group = zarr.open_group(folder, mode="w", zarr_format=2)
        array = group.create_array(
            "a", shape=shape, chunks=(chunk,) * len(shape), dtype=dtype, order=order,
            compressors=CODECS_2[codec], filters=[Delta(dtype=dtype)] if dtype == "i4" else None,
        )  # fmt: skip
        array[:] = array_of(dtype, shape)
        start, stop = min(bounds), max(bounds)
        assert (read(Path(folder), "a", start, stop) == array[start:stop]).all()


@given(
    shape=st.one_of(
        st.tuples(st.integers(1, 30)), st.tuples(st.integers(1, 12), st.integers(1, 9))
    ),
    chunk=st.integers(1, 5),
    per_shard=st.sampled_from([0, 1, 3]),
    dtype=st.sampled_from(["i4", ">i4", "u2", "f4", "f8", "?", "i1"]),
    codec=st.sampled_from(sorted(CODECS_3)),
    turned=st.booleans(),
    bounds=st.tuples(st.integers(0, 12), st.integers(0, 12)),
)
@settings(max_examples=25, deadline=None)
def test_a_range_of_format_3_is_what_zarr_reads(
    shape: Any, chunk: int, per_shard: int, dtype: str, codec: str, turned: bool, bounds: Any
):
    chunks = (chunk,) * len(shape)
    with TemporaryDirectory() as folder:
        group = zarr.open_group(folder, mode="w", zarr_format=3)
        array = group.create_array(
            "a", shape=shape, chunks=chunks, dtype=dtype, compressors=CODECS_3[codec],
            shards=tuple(per_shard * n for n in chunks) if per_shard else None,
            filters=[TransposeCodec(order=(1, 0))] if turned and len(shape) == 2 else "auto",
        )  # fmt: skip
        array[:] = array_of(dtype, shape)
        start, stop = min(bounds), max(bounds)
        assert (read(Path(folder), "a", start, stop) == array[start:stop]).all()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_text_comes_back_as_it_was(tmp_path: Path, zarr_format: Any):
    words = np.array(["", "é-actinin", "CD3", "x" * 3000, "\n"], dtype=object)
    group = zarr.open_group(tmp_path, mode="w", zarr_format=zarr_format)
    array = group.create_array("a", shape=(5,), chunks=(2,), dtype=str)
    array[:] = words.astype(np.dtypes.StringDType())
    assert read(tmp_path, "a").tolist() == words.tolist()
    assert read(tmp_path, "a", 1, 4).tolist() == words.tolist()[1:4]


def test_records_are_read_by_field(tmp_path: Path):
    records = np.array([(1, 0.5), (2, 1.5)], dtype=[("n", "i4"), ("x", "f8")])
    group = zarr.open_group(tmp_path, mode="w", zarr_format=2)
    group.create_array("a", data=records)
    with open_store(tmp_path) as store:
        array: Any = root_group(store)["a"]
        assert array["n"].tolist() == [1, 2]
        assert array.fields("x")[1:2].tolist() == [1.5]


@pytest.mark.parametrize("codec", ["pickle", "msgpack2", "categorize"])
def test_what_could_run_code_or_is_unknown_is_refused(tmp_path: Path, codec: str):
    zarr.open_group(tmp_path, mode="w", zarr_format=2)
    (tmp_path / "a").mkdir()
    metadata = {
        "zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "order": "C",
        "fill_value": None, "compressor": None, "filters": [{"id": codec}],
    }  # fmt: skip
    (tmp_path / "a" / ".zarray").write_text(json.dumps(metadata))
    (tmp_path / "a" / "0").write_bytes(Pickle().encode(np.array([print], dtype=object)))
    message = "is pickled: reading it could run any code" if codec == "pickle" else codec
    with pytest.raises(SourceError, match=message):
        read(tmp_path, "a")


def test_a_chunk_that_is_not_stored_is_the_fill_value(tmp_path: Path):
    group = zarr.open_group(tmp_path, mode="w", zarr_format=3)
    group.create_array("a", shape=(9,), chunks=(3,), dtype="f4", fill_value=np.nan)[3:6] = 1
    with open_store(tmp_path) as store:
        array: Any = root_group(store)["a"]
        assert array.n_missing() == (2, 3)
        assert np.isnan(array[:3]).all() and (array[3:6] == 1).all()


DAMAGE: dict[str, Callable[[bytearray], bytes]] = {
    "cut": lambda data: bytes(data[: len(data) // 2]),
    "empty": lambda data: b"",
    "longer": lambda data: bytes(data) + b"0" * 16,
    "another length in its head": lambda data: b"\xff" * 16 + bytes(data[16:]),
}


ENDING_BY_ITSELF = {"zlib", "bz2", "lzma"}  # what follows the end of these is not theirs


@pytest.mark.parametrize(
    ("codec", "damage"),
    [
        (codec, damage)
        for codec in sorted(CODECS_2)
        for damage in DAMAGE
        if not (damage == "longer" and codec in ENDING_BY_ITSELF)
        if not (damage == "another length in its head" and codec == "none")
    ],
)
def test_a_damaged_chunk_is_refused_by_name(tmp_path: Path, codec: str, damage: str):
    group = zarr.open_group(tmp_path, mode="w", zarr_format=2)
    values = np.random.default_rng(0).integers(0, 1000, 500)
    group.create_array("a", shape=(500,), chunks=(500,), dtype="i8",
                       compressors=CODECS_2[codec])[:] = values  # fmt: skip
    chunk = tmp_path / "a" / "0"
    chunk.write_bytes(DAMAGE[damage](bytearray(chunk.read_bytes())))
    with pytest.raises(SourceError, match=r"chunk 0 is damaged"):
        read(tmp_path, "a")


def test_a_flipped_bit_under_a_checksum_is_refused(tmp_path: Path):
    group = zarr.open_group(tmp_path, mode="w", zarr_format=3)
    group.create_array("a", data=np.arange(99), chunks=(9,), shards=(99,),
                       compressors=[Crc32cCodec()])  # fmt: skip
    for place in (40, -10):  # in a chunk, in the shard's index
        shard = tmp_path / "a" / "c" / "0"
        good = shard.read_bytes()
        bad = bytearray(good)
        bad[place] ^= 1
        shard.write_bytes(bytes(bad))
        with pytest.raises(SourceError, match=r"damaged: a checksum \(crc32c\) does not fit"):
            read(tmp_path, "a")
        shard.write_bytes(good)


@pytest.mark.parametrize("codec", ["zlib", "gzip", "zstd", "bz2", "lzma"])
def test_a_small_chunk_does_not_fill_the_memory(tmp_path: Path, codec: str):
    group = zarr.open_group(tmp_path, mode="w", zarr_format=2)
    big = group.create_array("big", shape=(2**24,), chunks=(2**24,), dtype="u1", fill_value=1,
                             compressors=CODECS_2[codec])  # fmt: skip
    big[:] = 0
    group.create_array("a", shape=(9,), chunks=(9,), dtype="u1", compressors=CODECS_2[codec])
    (tmp_path / "a" / "0").write_bytes((tmp_path / "big" / "0").read_bytes())
    with pytest.raises(SourceError, match="unpacks to more than the 9 bytes"):
        read(tmp_path, "a")


@pytest.mark.parametrize(
    "change",
    [
        {"chunks": [0]}, {"chunks": [2, 2]}, {"shape": [-1]}, {"shape": "x"}, {"dtype": "<q9"},
        {"chunks": [10**12], "shape": [10**12]},
    ],
    ids=str,
)  # fmt: skip
def test_metadata_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, Any]):
    group = zarr.open_group(tmp_path, mode="w", zarr_format=2)
    group.create_array("a", data=np.arange(4))
    path = tmp_path / "a" / ".zarray"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(SourceError, match=str(tmp_path)):
        read(tmp_path, "a")


def test_chunks_without_end_are_neither_listed_nor_filled(tmp_path: Path):
    group = zarr.open_group(tmp_path, mode="w", zarr_format=2)
    group.create_array("a", shape=(10**15,), chunks=(1,), dtype="i1")
    group.create_array("b", shape=(10**15,), chunks=(10**15,), dtype="i1")
    with open_store(tmp_path) as store:
        first: Any = root_group(store)["a"]
        assert first.n_missing() == (10**15, 10**15)
        second: Any = root_group(store)["b"]
        with pytest.raises(SourceError, match="larger than is read"):
            second[:10]


def test_a_name_does_not_lead_out_of_the_store(tmp_path: Path):
    (tmp_path / "secret").mkdir()
    zarr.open_group(tmp_path / "store", mode="w", zarr_format=2)
    with open_store(tmp_path / "store") as store, pytest.raises(SourceError, match="leads out of"):
        root_group(store).get("../secret")


def test_text_that_is_no_utf_8_keeps_its_bytes(tmp_path: Path):
    group = zarr.open_group(tmp_path, mode="w", zarr_format=2)
    group.create_array("a", shape=(1,), chunks=(1,), dtype=str, compressors=None)[:] = ["é"]
    chunk = tmp_path / "a" / "0"
    chunk.write_bytes(VLenUTF8().encode(np.array(["ab"], dtype=object)).replace(b"ab", b"\xe9b"))
    assert read(tmp_path, "a").tolist() == [b"\xe9b"]
