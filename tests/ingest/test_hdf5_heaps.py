import os
import struct
from pathlib import Path
from typing import Any

import h5py
import pytest
from cytolake.ingest.sources import hdf5_heaps
from cytolake.ingest.sources.h5ad import H5adSource, open_hdf5
from cytolake.ingest.sources.hdf5_heaps import check_heaps, found_sound, trust
from cytolake.platform.errors import SourceError

HEAP = b"GCOL\x01\x00\x00\x00"


def heap_of(*objects: tuple[int, int], size: int = 4096) -> bytes:
    """A heap of objects of (index, size); what is left is free space."""
    body = b""
    for index, length in objects:
        body += struct.pack("<HHIQ", index, 1, 0, length)
        body += bytes(min(512, (length + 7) // 8 * 8)) if index else b""
    left = size - 16 - len(body)
    return HEAP + struct.pack("<Q", size) + body + struct.pack("<HHIQ", 0, 0, 0, left).ljust(left)


def test_a_sound_file_passes(adata: Any, tmp_path: Path):
    adata.obs["note"] = [f"{i}" * 500 for i in range(40)]
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert (tmp_path / "a.h5ad").read_bytes().count(HEAP) >= 1
    check_heaps(tmp_path / "a.h5ad")


@pytest.mark.parametrize("size", [64, 512, 4000])
def test_a_block_of_zeros_in_a_heap_is_refused_before_hdf5_hangs_on_it(
    adata: Any, tmp_path: Path, size: int
):
    path = tmp_path / "a.h5ad"
    adata.write_h5ad(path)
    data = bytearray(path.read_bytes())
    begin = data.index(HEAP) + 16
    data[begin : begin + size] = bytes(size)
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.h5ad: a heap of text at byte .* is damaged"):
        H5adSource(path=path).barcodes()


@pytest.mark.parametrize(
    ("objects", "endless"),
    [
        (((1, 5), (2, 0), (3, 8)), False),
        (((1, 5), (0, 0)), True),
        (((1, 2**64 - 16),), True),  # its size and header add up to 0 in 64 bits
        (((1, 2**63),), False),  # beyond the end, which HDF5 refuses
        (((1, 1_000_000),), False),
    ],
    ids=["sound", "no free space", "round the clock", "beyond", "far beyond"],
)
def test_a_walk_that_stands_still_is_told_from_one_that_ends(
    tmp_path: Path, objects: tuple[tuple[int, int], ...], endless: bool
):
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(88) + heap_of(*objects))
    if endless:
        with pytest.raises(SourceError, match="at byte 96 is damaged"):
            check_heaps(tmp_path / "a.h5")
    else:
        check_heaps(tmp_path / "a.h5")


@pytest.mark.parametrize("window", [1, 7, 8, 50, 97, 103, 104, 4096])
def test_a_heap_is_found_wherever_windows_begin(
    window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hdf5_heaps, "_WINDOW", window)
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(88) + heap_of((1, 5), (0, 0)))
    with pytest.raises(SourceError, match="at byte 96 is damaged"):
        check_heaps(tmp_path / "a.h5")


def test_a_file_that_is_trusted_is_not_searched_until_it_changes(tmp_path: Path):
    path = tmp_path / "a.h5"
    path.write_bytes(bytes(96) + heap_of((1, 5)))
    check_heaps(path)
    stamp = found_sound(path)
    assert stamp is not None
    other = tmp_path / "b.h5"
    other.write_bytes(bytes(96) + heap_of((0, 0)))
    assert found_sound(other) is None
    status = other.stat()
    trust(other, (status.st_size, status.st_mtime_ns))
    check_heaps(other)
    os.utime(other, ns=(0, 0))
    with pytest.raises(SourceError, match="is damaged"):
        check_heaps(other)


def test_counts_that_spell_a_heap_do_no_harm(tmp_path: Path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = list(HEAP * 3 + bytes([255] * 8) + HEAP)
    with open_hdf5(tmp_path / "a.h5") as file:
        assert bytes(file["data"][:8].astype("u1").tolist()) == HEAP


def test_an_empty_and_a_missing_file_are_refused_by_name(tmp_path: Path):
    (tmp_path / "empty.h5").touch()
    for name in ("empty", "missing"):
        with pytest.raises(SourceError, match=rf"{name}\.h5: not a whole HDF5 file"):
            with open_hdf5(tmp_path / f"{name}.h5"):
                pass
