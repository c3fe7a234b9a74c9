"""Names for snapshots: made once, checked when read, never another snapshot's by chance."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cytolake.corpus.log.tags import remove_tag, snapshot_of, tag, tags
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import ConflictError, CorpusError, DamageError


@pytest.fixture
def corpus(build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path) -> Corpus:
    return build_fake_corpus(tmp_path / "corpus")


def test_a_snapshot_is_opened_by_its_tag(corpus: Corpus) -> None:
    made = tag(corpus.folder, "blood-only", 1)
    assert (made.name, made.snapshot) == ("blood-only", 1)
    opened = Corpus.open(corpus.uri, snapshot="blood-only")
    assert opened.snapshot == 1
    assert opened.sql("SELECT count(*) AS n FROM cells").to_pylist() == [{"n": 3}]


@pytest.mark.parametrize("given", [1, "1"])
def test_a_number_names_a_snapshot_without_any_tag(corpus: Corpus, given: int | str) -> None:
    assert snapshot_of(corpus.folder, given) == 1
    assert Corpus.open(corpus.uri, snapshot=given).snapshot == 1


def test_an_unknown_tag_is_answered_with_the_nearest(corpus: Corpus) -> None:
    tag(corpus.folder, "figure-2", 1)
    with pytest.raises(CorpusError, match="did you mean 'figure-2'"):
        Corpus.open(corpus.uri, snapshot="figure2")


def test_the_same_tag_again_is_fine_and_another_snapshot_is_refused(corpus: Corpus) -> None:
    first = tag(corpus.folder, "v1", 1)
    assert tag(corpus.folder, "v1", 1) == first
    with pytest.raises(ConflictError, match="corpus untag v1"):
        tag(corpus.folder, "v1", 2)
    assert tags(corpus.folder)["v1"].snapshot == 1


def test_a_tag_needs_a_snapshot_that_is_there(corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match="no snapshot 99"):
        tag(corpus.folder, "future", 99)
    assert tags(corpus.folder) == {}


@pytest.mark.parametrize("name", ["", "7", "../cells", ".hidden", "a b", "x" * 101, "-v"])
def test_what_is_no_name_is_refused(corpus: Corpus, name: str) -> None:
    with pytest.raises(CorpusError, match="cannot be a tag"):
        tag(corpus.folder, name, 1)


def test_a_removed_tag_is_gone_and_may_be_given_anew(corpus: Corpus) -> None:
    tag(corpus.folder, "v1", 1)
    remove_tag(corpus.folder, "v1")
    assert tags(corpus.folder) == {}
    tag(corpus.folder, "v1", 2)
    assert tags(corpus.folder)["v1"].snapshot == 2
    tag(corpus.folder, "release", 2)
    with pytest.raises(CorpusError, match="no tag 'relase'; did you mean 'release'"):
        remove_tag(corpus.folder, "relase")


def test_every_flipped_byte_of_a_tag_is_told(corpus: Corpus) -> None:
    tag(corpus.folder, "v1", 1)
    path = corpus.folder / "tags" / "v1.json"
    whole = path.read_bytes()
    for place in range(len(whole.rstrip())):
        if whole[place : place + 1].isspace():
            continue
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DamageError):
            tags(corpus.folder)


def test_a_tag_under_another_name_is_told(corpus: Corpus) -> None:
    tag(corpus.folder, "v1", 1)
    path = corpus.folder / "tags" / "v1.json"
    path.with_name("v2.json").write_bytes(path.read_bytes())
    with pytest.raises(DamageError, match="is the tag 'v1'"):
        tags(corpus.folder)


def test_of_processes_that_give_one_name_to_two_snapshots_one_succeeds(corpus: Corpus) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from cytolake.corpus.log.tags import tag\n"
        "from cytolake.platform.errors import ConflictError\n"
        "try: tag(Path(sys.argv[1]), 'v1', int(sys.argv[2]))\n"
        "except ConflictError: sys.exit(3)\n"
    )
    racing = [
        subprocess.Popen([sys.executable, "-c", code, str(corpus.folder), str(1 + number % 2)])
        for number in range(4)
    ]
    ended = [one.wait() for one in racing]
    winner = tags(corpus.folder)["v1"].snapshot
    assert ended == [0 if 1 + number % 2 == winner else 3 for number in range(4)]
