"""Who read the corpus: on record once, without the values that name a person."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from cytolake.corpus.query.uses import Use, record_use, uses
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CorpusError, DamageError


@pytest.fixture
def corpus(build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path) -> Corpus:
    return build_fake_corpus(tmp_path / "corpus")


def test_a_use_is_read_back_as_it_was_recorded(corpus: Corpus) -> None:
    use = Use(
        kind="pretrain",
        name="tiny",
        snapshot=2,
        where="tissue = 'blood'",
        part="train",
        uri="/runs/tiny",
        details={"run_id": "abc"},
    )
    record_use(corpus.folder, use)
    assert uses(corpus.folder) == [use]
    assert use.is_exact and "@" in use.by


def test_a_run_that_begins_again_is_recorded_once(corpus: Corpus) -> None:
    for at in (1, 2):
        use = Use(kind="pretrain", name="tiny", snapshot=2, uri="/runs/tiny", at=at)
        record_use(corpus.folder, use)
    assert [use.at for use in uses(corpus.folder)] == [1]


def test_another_snapshot_or_place_is_another_use(corpus: Corpus) -> None:
    for snapshot, uri in ((1, "/a"), (2, "/a"), (2, "/b")):
        record_use(corpus.folder, Use(kind="export", name="a", snapshot=snapshot, uri=uri))
    assert len(uses(corpus.folder)) == 3


@pytest.mark.parametrize(
    "condition",
    [
        "tissue = 'blood' AND n_counts > 500",
        "\"cell_type\" IN ('T cell', 'Zellen für später') OR is_primary",
    ],
)
def test_a_condition_that_names_nobody_is_kept_whole(corpus: Corpus, condition: str) -> None:
    record_use(corpus.folder, Use(kind="export", name="a", snapshot=2, where=condition))
    [use] = uses(corpus.folder)
    assert use.where == condition and use.is_exact


@pytest.mark.parametrize(
    "condition",
    [
        "donor_id = 'Jane Roe'",
        "Barcode IN ('Jane Roe', $$AAC$$)",
        "tissue = 'blüte' AND \"barcode\" LIKE 'Jane%'",
        "patient = 'Jane'",
        "tissue = 'blood' -- of Jane",
        "tissue = 'blood' /* Jane */",
        "cell_id IN (SELECT cell_id FROM source_obs WHERE name = 'Jane')",
    ],
)
def test_values_that_may_name_a_person_are_left_out(corpus: Corpus, condition: str) -> None:
    record_use(corpus.folder, Use(kind="export", name="a", snapshot=2, where=condition))
    [use] = uses(corpus.folder)
    assert use.where and not use.is_exact
    assert all("Jane" not in path.read_text() for path in (corpus.folder / "uses").iterdir())


def test_a_corpus_that_cannot_be_written_is_read_all_the_same(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "link", refuse)  # modes do not stop root
    with pytest.warns(UserWarning, match="not on record"):
        record_use(corpus.folder, Use(kind="export", name="a", snapshot=2))
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert uses(corpus.folder) == []


def test_an_unknown_kind_is_refused(corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match="pretrain, evaluate, export, embed"):
        record_use(corpus.folder, Use(kind="stare", name="a", snapshot=2))  # pyright: ignore[reportArgumentType]


def test_a_flipped_bit_in_a_use_is_told(corpus: Corpus) -> None:
    record_use(corpus.folder, Use(kind="export", name="adata", snapshot=2))
    [path] = (corpus.folder / "uses").glob("*.json")
    path.write_bytes(path.read_bytes().replace(b"adata", b"bdata"))
    with pytest.raises(DamageError, match="not what was written"):
        uses(corpus.folder)
