import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from cytolake.corpus.payload.arrays import CountsReader, write_counts
from cytolake.corpus.payload.shards import CHUNK, SEGMENT_ATTRIBUTE, ShardedArray, write_shards
from cytolake.platform.errors import DamageError
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec

from .made_segments import damaged, flipped


def forged(path: Path, change: Callable[[bytearray], None]) -> None:
    """Change a shard of one chunk, and make every checksum true again."""
    data = path.read_bytes()
    index = bytearray(data[-20:-4])
    offset, length = np.frombuffer(index, "<u8").tolist()
    chunk = bytearray(data[offset : offset + length - 4])
    change(chunk)
    packed = bytes(chunk) + google_crc32c.value(bytes(chunk)).to_bytes(4, "little")
    path.write_bytes(packed + data[-20:])


def with_index(path: Path, offset: int, length: int) -> None:
    index = np.array([offset, length], dtype="<u8").tobytes()
    checksum = google_crc32c.value(index).to_bytes(4, "little")
    path.write_bytes(path.read_bytes()[:-20] + index + checksum)


@pytest.fixture
def own_arrays(tmp_path: Path) -> Path:
    """One cell of 3,000 genes, counts 1 to 3,000, each array one chunk."""
    write_counts(
        tmp_path / "z",
        segment_id="s",
        indptr=np.array([0, 3000], dtype=np.int64),
        indices=np.arange(3000, dtype=np.int32),
        counts=np.arange(1, 3001, dtype=np.uint32),
        n_genes=3000,
        obs={"barcode": ["AAA"]},
        var={"gene_id": ["g"] * 3000},
    )
    return tmp_path / "z"


def test_no_flipped_bit_in_a_shard_gives_other_counts(own_arrays: Path) -> None:
    path = own_arrays / "X/data/c/0"
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(data), 60):
        with damaged(path, flipped(data, int(place), int(rng.integers(8)))):
            with pytest.raises(DamageError):
                CountsReader(own_arrays, "s", 3000).read(np.array([0]))


@pytest.mark.parametrize("array", ["data", "indices", "indptr"])
@pytest.mark.parametrize(
    ("offset", "length"),
    [
        pytest.param(2**64 - 1, 2**64 - 1, id="a chunk that is marked missing"),
        pytest.param(2**63, 100, id="beyond any file"),
        pytest.param(0, 2**40, id="longer than the file"),
        pytest.param(0, 0, id="empty"),
        pytest.param(0, 4, id="a checksum of nothing"),
        pytest.param(1, 100, id="another place"),
    ],
)
def test_a_shard_whose_index_lies_is_refused(
    own_arrays: Path, array: str, offset: int, length: int
) -> None:
    with_index(own_arrays / f"X/{array}/c/0", offset, length)
    with pytest.raises(DamageError, match=f"X/{array}/c/0: chunk 0"):
        CountsReader(own_arrays, "s", 3000).read(np.array([0]))


@pytest.mark.parametrize("byte", [4, 5, 6, 7, 12, 13, 14, 15, 3])
@pytest.mark.parametrize("array", ["data", "indices", "indptr"])
def test_a_chunk_whose_header_lies_about_sizes_is_refused(
    own_arrays: Path, array: str, byte: int
) -> None:
    def change(chunk: bytearray) -> None:
        chunk[byte] ^= 0x11

    forged(own_arrays / f"X/{array}/c/0", change)
    with pytest.raises(DamageError, match="says it holds"):
        CountsReader(own_arrays, "s", 3000).read(np.array([0]))


@pytest.mark.parametrize(
    ("array", "place", "value", "expected"),
    [
        ("indptr", 0, 1, "does not ascend from 0"),
        ("indptr", 1, -1, "does not ascend from 0"),
        ("indptr", 1, 2999, "indptr ends at 2999"),
        ("indices", 7, 3000, "do not ascend"),
        ("indices", 2999, 65_535, "do not ascend below 3000"),
        ("indices", 7, 6, "do not ascend"),
        ("data", 7, 0, "a stored count is 0"),
    ],
)
def test_arrays_that_are_no_matrix_of_these_genes_are_refused(
    own_arrays: Path, array: str, place: int, value: int, expected: str
) -> None:
    zarr.open_array(own_arrays / f"X/{array}", mode="r+")[place] = value
    with pytest.raises(DamageError, match=expected):
        CountsReader(own_arrays, "s", 3000).read(np.array([0]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data_type", "float64"),
        ("data_type", "object"),
        ("shape", [2**60]),
        ("shape", [-1]),
        ("shape", ["3000"]),
        ("shape", [3000, 2]),
        ("codecs", []),
    ],
)
def test_metadata_that_nobody_wrote_is_refused(own_arrays: Path, name: str, value: Any) -> None:
    path = own_arrays / "X/data/zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(DamageError):
        CountsReader(own_arrays, "s", 3000)


@settings(deadline=None, max_examples=30)
@given(
    n_values=st.sampled_from([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 7]),
    per_shard=st.integers(1, 3),
    dtype=st.sampled_from(["uint16", "uint32", "int64", "float32"]),
)
def test_zarr_reads_what_we_write_and_we_what_zarr_writes(
    n_values: int, per_shard: int, dtype: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    values = np.random.default_rng(n_values).integers(0, 9, n_values).astype(dtype)
    for name in ("ours", "zarrs"):
        array: Any = zarr.create_array(
            folder / name,
            shape=values.shape,
            dtype=dtype,
            chunks=(CHUNK,),
            shards=(CHUNK * per_shard,),
            compressors=[BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()],
            attributes={SEGMENT_ATTRIBUTE: "s"},
            config={"write_empty_chunks": True},
        )
        if name == "zarrs":
            array[:] = values
    write_shards(folder / "ours", values, per_shard)
    for name in ("ours", "zarrs"):
        theirs: Any = zarr.open_array(folder / name, mode="r")
        np.testing.assert_array_equal(theirs[:], values)
        mine = ShardedArray(folder / name, "s", [dtype])
        mine.check_shards()
        np.testing.assert_array_equal(mine.chunks(np.arange(mine.n_chunks))[:n_values], values)
