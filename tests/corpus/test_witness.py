from collections.abc import Callable
from pathlib import Path

import pytest
from cytolake.corpus.log.witness import leave_witness, log_file, read_witness, witness_file
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import DamageError


@pytest.fixture
def cells(build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path) -> Path:
    """The table `cells` of a corpus with two sources: commits 0, 1 and 2."""
    return build_fake_corpus(tmp_path / "corpus").folder / "cells"


def test_each_commit_is_witnessed(cells: Path) -> None:
    witness = read_witness(cells)
    assert witness is not None and witness.version == 2


def test_a_log_that_lost_its_newest_commit_is_refused_and_not_read_as_an_older_snapshot(
    cells: Path,
) -> None:
    log_file(cells, 2).unlink()
    with pytest.raises(DamageError, match="the log ends at commit 1, but commit 2 was made"):
        Corpus.open(cells.parent)


def test_a_newest_commit_that_is_another_than_the_one_made_is_refused(
    cells: Path, build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path
) -> None:
    other = build_fake_corpus(tmp_path / "other").folder / "cells"
    for version in range(3):
        log_file(cells, version).write_bytes(log_file(other, version).read_bytes())
    with pytest.raises(DamageError, match="commit 2 of the log is not the one that was made"):
        Corpus.open(cells.parent)


def test_without_a_witness_the_corpus_opens_and_the_next_commit_leaves_one(cells: Path) -> None:
    witness_file(cells).unlink()
    assert Corpus.open(cells.parent).snapshot == 2
    Corpus.open(cells.parent).delete("barcode = 'GGG'")
    witness = read_witness(cells)
    assert witness is not None and witness.version == 3


def test_a_witness_that_lags_behind_tells_no_damage(cells: Path) -> None:
    old = witness_file(cells).read_bytes()
    Corpus.open(cells.parent).delete("barcode = 'GGG'")
    witness_file(cells).write_bytes(old)
    assert Corpus.open(cells.parent).verify(deep=True) == []


def test_a_writer_that_comes_late_does_not_replace_a_newer_witness(cells: Path) -> None:
    leave_witness(cells, 1, "0" * 64)
    witness = read_witness(cells)
    assert witness is not None and witness.version == 2


@pytest.mark.parametrize("place", [0, 30, 120, 200])
def test_a_damaged_witness_is_told(cells: Path, place: int) -> None:
    data = bytearray(witness_file(cells).read_bytes())
    data[place] ^= 1
    witness_file(cells).write_bytes(data)
    with pytest.raises(DamageError, match=r"newest\.json"):
        Corpus.open(cells.parent)


def test_a_witness_that_cannot_be_written_fails_no_commit(cells: Path) -> None:
    witness_file(cells).unlink()
    witness_file(cells).mkdir()
    (witness_file(cells) / "in the way").touch()
    leave_witness(cells, 2, "0" * 64)
    assert (witness_file(cells) / "in the way").is_file()
