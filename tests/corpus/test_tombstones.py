"""Tombstones: whom they know again, and what they tell of anyone (nothing)."""

from pathlib import Path

import pyarrow as pa
import pytest
from cytolake.corpus.log.history import Withdrawal
from cytolake.corpus.log.tombstones import (
    is_withdrawn,
    read_tombstones,
    tombstones_of,
    write_tombstones,
)
from cytolake.platform.errors import DamageError

UUID = "0123456789abcdef0123456789abcdef"


def cells(*rows: tuple[int, bytes, str, str]) -> pa.Table:
    names = ("cell_id", "content_hash", "source_id", "barcode")
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])


GONE = cells((7, b"x" * 16, "blood", "AAA"))


@pytest.mark.parametrize(
    ("row", "withdrawn"),
    [
        ((8, b"x" * 16, "lung", "CCC"), True),
        ((8, b"y" * 16, "blood", "AAA"), True),
        ((7, b"y" * 16, "blood", "AAC"), False),
        ((8, b"y" * 16, "lung", "AAA"), False),
        ((8, b"y" * 16, "bloodAAA", ""), False),
    ],
    ids=["equal counts", "its barcode", "its id alone", "another source's", "words run together"],
)
def test_a_cell_is_known_by_its_counts_or_by_source_and_barcode(
    row: tuple[int, bytes, str, str], withdrawn: bool
) -> None:
    assert is_withdrawn(cells(row), tombstones_of(GONE, UUID), UUID).tolist() == [withdrawn]


def test_without_tombstones_nobody_is_withdrawn() -> None:
    none = tombstones_of(GONE.slice(0, 0), UUID)
    assert is_withdrawn(GONE, none, UUID).tolist() == [False]


def test_a_hash_of_one_corpus_tells_nothing_in_another() -> None:
    here, there = (tombstones_of(GONE, uuid) for uuid in (UUID, UUID[::-1]))
    assert here.column("barcode_hash") != there.column("barcode_hash")
    assert here.column_names == ["cell_id", "content_hash", "barcode_hash"]


def test_tombstones_are_read_as_they_were_written_and_damage_is_found(tmp_path: Path) -> None:
    tombstones = tombstones_of(GONE, UUID)
    file = write_tombstones(tmp_path, tombstones)
    told = Withdrawal(snapshot=1, at=0, reason="r", tombstones=file.name, n_bytes=file.n_bytes)
    assert read_tombstones(tmp_path, [told]).equals(tombstones)
    assert read_tombstones(tmp_path, []).num_rows == 0
    other = tmp_path / "other"
    (other / "withdrawn").mkdir(parents=True)
    data = bytearray((tmp_path / "withdrawn" / file.name).read_bytes())
    data[len(data) // 2] ^= 1
    (other / "withdrawn" / file.name).write_bytes(data)
    with pytest.raises(DamageError, match="other bytes"):
        read_tombstones(other, [told])
