from pathlib import Path

import pytest
from cytolake.corpus.log.notes import create_note, notes_in, read_note, remove_note
from cytolake.platform.errors import DamageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "notes" / "one.json"
    create_note(path, {"name": "one"}, "note")
    return path


def test_a_note_is_read_back_and_listed(path: Path) -> None:
    assert read_note(path) == {"name": "one"}
    assert notes_in(path.parent) == [path]
    assert notes_in(path.parent.with_name("nowhere")) == []


def test_a_note_is_not_written_over(path: Path) -> None:
    with pytest.raises(FileExistsError):
        create_note(path, {"name": "two"}, "note")
    assert read_note(path) == {"name": "one"}


def test_a_note_that_is_gone_is_told_by_its_mark(path: Path) -> None:
    path.unlink()
    with pytest.raises(DamageError, match=r"one\.json is missing: restore it"):
        notes_in(path.parent)


def test_a_note_that_was_removed_is_not_missed(path: Path) -> None:
    remove_note(path, "note")
    assert notes_in(path.parent) == []
    assert list(path.parent.iterdir()) == []


def test_a_note_whose_mark_is_gone_is_a_note_all_the_same(path: Path) -> None:
    (path.parent / ".one.there").unlink()
    assert notes_in(path.parent) == [path]


@pytest.mark.parametrize("place", range(0, 90, 9))
def test_a_flipped_bit_is_told(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamageError, match=r"one\.json"):
        read_note(path)
