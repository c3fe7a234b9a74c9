"""Gzipped HDF5 arrays unpacked by chunks give what h5py gives, or h5py's own error."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cytolake.ingest.sources.hdf5_chunks import GzippedArray, quickly_read
from hypothesis import given, settings
from hypothesis import strategies as st

TYPES = ["<f4", "<f8", ">f4", "<i4", "<u2", "<i8", ">i2", "u1"]


def array_of(file: h5py.File) -> Any:
    return file["a"]


def write(path: Path, values: Any, **how: Any) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=values, **{"compression": "gzip", **how})


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_slice_is_what_h5py_gives(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    n = data.draw(st.integers(1, 300))
    kind = data.draw(st.sampled_from(TYPES))
    values = np.random.default_rng(n).integers(0, 100, n).astype(kind)
    path = tmp_path_factory.mktemp("gz") / "a.h5"
    write(
        path,
        values,
        chunks=(data.draw(st.integers(1, n)),),
        shuffle=data.draw(st.booleans()),
        compression_opts=data.draw(st.integers(0, 9)),
    )
    with h5py.File(path) as file:
        quick = quickly_read(array_of(file))
        assert isinstance(quick, GzippedArray) and len(quick) == n
        for _ in range(4):
            start, stop = data.draw(st.integers(0, n + 3)), data.draw(st.integers(0, n + 3))
            found = quick[start:stop]
            assert found.dtype == np.dtype(kind)
            np.testing.assert_array_equal(found, array_of(file)[start:stop])
        np.testing.assert_array_equal(quick[::2], array_of(file)[::2])


@pytest.mark.parametrize(
    "how",
    [
        {"compression": None},
        {"compression": None, "chunks": (4,)},
        {"compression": "lzf"},
        {"fletcher32": True},
        {"scaleoffset": 0},
    ],
    ids=["contiguous", "chunks", "lzf", "checksums", "scaled"],
)
def test_other_filters_are_left_to_h5py(tmp_path: Path, how: Any) -> None:
    write(tmp_path / "a.h5", np.arange(10), **how)
    with h5py.File(tmp_path / "a.h5") as file:
        assert isinstance(quickly_read(array_of(file)), h5py.Dataset)


@pytest.mark.parametrize("values", [np.zeros((3, 3)), np.zeros(0), np.array([b"ab", b"c"])])
def test_what_is_no_row_of_numbers_is_left_to_h5py(tmp_path: Path, values: Any) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        room = (None,) * values.ndim
        file.create_dataset("a", data=values, chunks=True, maxshape=room, compression="gzip")
        assert isinstance(quickly_read(array_of(file)), h5py.Dataset)


def test_a_chunk_that_was_never_written_holds_the_fill_value(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        how: dict[str, Any] = {"dtype": "i4", "chunks": (4,), "compression": "gzip"}
        file.create_dataset("a", shape=(10,), fillvalue=7, **how)[:4] = np.arange(4)
    with h5py.File(tmp_path / "a.h5") as file:
        assert quickly_read(array_of(file))[2:10].tolist() == [2, 3, 7, 7, 7, 7, 7, 7]


def test_a_chunk_written_without_its_filter_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", np.arange(8, dtype="<i4"), chunks=(4,))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        bare = np.arange(40, 44, dtype="<i4").tobytes()
        array_of(file).id.write_direct_chunk((4,), bare, filter_mask=1)
    with h5py.File(tmp_path / "a.h5") as file:
        assert quickly_read(array_of(file))[:].tolist() == [0, 1, 2, 3, 40, 41, 42, 43]


def test_damage_is_h5pys_error_or_its_answer(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 9, 4000).astype("<i4")
    write(tmp_path / "a.h5", values, chunks=(1000,))
    with h5py.File(tmp_path / "a.h5") as file:
        places = [array_of(file).id.get_chunk_info(i) for i in range(4)]
    sound, rng, n_refused = (tmp_path / "a.h5").read_bytes(), np.random.default_rng(1), 0
    for number in range(60):
        place = places[number % 4]
        at = place.byte_offset + int(rng.integers(place.size))
        path = tmp_path / f"{number}.h5"
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1 << number % 8]) + sound[at + 1 :])
        with h5py.File(path) as file:
            try:
                wanted = array_of(file)[:]
            except OSError:
                n_refused += 1
                with pytest.raises(OSError, match="read"):
                    quickly_read(array_of(file))[:]
            else:
                np.testing.assert_array_equal(quickly_read(array_of(file))[:], wanted)
    assert n_refused > 30
