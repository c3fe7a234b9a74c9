import random
from collections.abc import Callable
from pathlib import Path

import pytest
from cytolake.corpus.log.chain import load_table
from cytolake.corpus.log.logs import problems_of_log
from cytolake.corpus.log.witness import log_file, witness_file
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import DamageError
from deltalake import DeltaTable


@pytest.fixture
def cells(build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path) -> Path:
    """The table `cells` of a corpus with two sources and a deletion, commits 0 to 3."""
    corpus = build_fake_corpus(tmp_path / "corpus")
    corpus.delete("barcode = 'GGG'")
    return corpus.folder / "cells"


def problems(folder: Path) -> list[str]:
    return list(problems_of_log(load_table(folder)))


def test_a_sound_log_has_no_problems(cells: Path) -> None:
    assert problems(cells) == []
    DeltaTable(cells).create_checkpoint()
    assert problems(cells) == []


@pytest.mark.parametrize("version", range(4))
def test_every_flipped_bit_of_a_commit_is_found(cells: Path, version: int) -> None:
    path, draw = log_file(cells, version), random.Random(version)
    sound = path.read_bytes()
    for _ in range(40):
        data = bytearray(sound)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        try:
            found = problems(cells)
        except DamageError:
            continue
        assert any(str(path) in problem for problem in found), bytes(data)


def test_a_commit_that_a_checkpoint_stands_for_is_looked_at_too(cells: Path) -> None:
    DeltaTable(cells).create_checkpoint()
    Corpus.open(cells.parent).delete("barcode = 'AAC'")
    path = log_file(cells, 3)
    path.write_bytes(path.read_bytes()[:-200])  # its record stands in the first line
    assert Corpus.open(cells.parent).snapshot == 4
    assert any("has other bytes" in problem for problem in problems(cells))


def test_without_a_witness_a_changed_list_of_files_is_found_by_replaying_it(cells: Path) -> None:
    DeltaTable(cells).create_checkpoint()
    witness_file(cells).unlink()
    path = log_file(cells, 3)
    path.write_text(path.read_text().replace('"size":', '"size":1'))
    assert [problem for problem in problems(cells) if "not those that were" in problem]


def test_a_hint_to_a_checkpoint_that_is_not_there_is_told(cells: Path) -> None:
    DeltaTable(cells).create_checkpoint()
    hint = cells / "_delta_log" / "_last_checkpoint"
    hint.write_text(hint.read_text().replace('"version":3', '"version":2'))
    assert any("names a checkpoint 2" in problem for problem in problems(cells))
    hint.write_text("{")
    assert any("is not what was written" in problem for problem in problems(cells))


def test_a_checkpoint_that_holds_other_files_is_told(cells: Path) -> None:
    DeltaTable(cells, version=1).create_checkpoint()
    log = cells / "_delta_log"
    (log / "_last_checkpoint").unlink()
    Corpus.open(cells.parent).delete("barcode = 'AAC'")
    [checkpoint] = log.glob("*.checkpoint.parquet")
    checkpoint.rename(log / "00000000000000000002.checkpoint.parquet")
    [problem] = problems(cells)
    assert "checkpoint" in problem and "version 2 are not those that were committed" in problem
