"""What differs between two snapshots, held against both read whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from cytolake.corpus.report.comparison import compare
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CorpusError, WithdrawnError
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture
def corpus(build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path) -> Corpus:
    return build_fake_corpus(tmp_path / "corpus")


def test_a_snapshot_differs_in_nothing_from_itself(corpus: Corpus) -> None:
    found = compare(corpus.folder, 2, 2)
    assert not found.by_source and not found.by_column and not found.sources
    assert not found.segments_added and not found.segments_removed


def test_an_added_source_is_told_with_its_cells_and_segment(corpus: Corpus) -> None:
    found = compare(corpus.folder, 1, 2)
    assert found.sources == {"lung": "added"}
    assert found.segments_added == ("lung-0",)
    assert found.by_source == [
        {"source_id": "lung", "n_added": 3, "n_removed": 0, "n_changed": 0, "n_moved": 0}
    ]


def test_the_other_way_round_it_is_removed(corpus: Corpus) -> None:
    found = compare(corpus.folder, 2, 1)
    assert found.sources == {"lung": "removed"} and found.segments_removed == ("lung-0",)
    assert (found.total("n_removed"), found.total("n_added")) == (3, 0)


def test_changed_values_are_counted_by_column_and_source(corpus: Corpus) -> None:
    table = {
        "source_id": ["blood", "blood", "lung"],
        "barcode": ["AAA", "AAC", "GGG"],
        "cell_type": ["NK", "T cell", "macrophage"],
        "grade": ["high", None, "low"],
    }
    corpus.annotate(pa.table(table))
    found = corpus.compare(2, Corpus.open(corpus.uri).snapshot)
    assert found.by_column == {"cell_type": 2, "grade": 2}
    assert found.columns == ("grade",)
    assert {row["source_id"]: row["n_changed"] for row in found.by_source} == {
        "blood": 1,
        "lung": 1,
    }


def test_a_compaction_moves_cells_and_changes_none(
    corpus: Corpus, prepare_source: Callable[..., Any]
) -> None:
    corpus.commit_source(*prepare_source(corpus, "blood", source_id="more", sha256="d" * 64))
    corpus.compact()
    found = compare(corpus.folder, 3, 4)
    assert (found.total("n_moved"), found.total("n_changed")) == (6, 0)
    assert set(found.segments_removed) == {"blood-0", "more-0"} and len(found.segments_added) == 1


def test_a_replaced_source_is_told(corpus: Corpus, prepare_source: Callable[..., Any]) -> None:
    import shutil

    shutil.move(corpus.segments_folder / "lung-0", corpus.folder / "lung-of-before")
    corrected = prepare_source(corpus, "blood", source_id="lung", sha256="d" * 64)
    corpus.commit_source(*corrected, replace=True)
    assert Corpus.open(corpus.uri).state.accepted[-1].receipt.sha256 == "d" * 64
    found = compare(corpus.folder, 2, 3)
    assert found.sources == {"lung": "replaced"}
    assert (found.total("n_added"), found.total("n_removed")) == (3, 3)


def test_tags_name_snapshots_and_unknown_ones_are_refused(corpus: Corpus) -> None:
    corpus.tag("first", 1)
    assert corpus.compare("first", 2).total("n_added") == 3
    with pytest.raises(CorpusError, match="first"):
        corpus.compare("frist", 2)


def test_a_snapshot_that_holds_withdrawn_cells_is_refused(corpus: Corpus) -> None:
    corpus.withdraw("donor_id = 'd4'", "consent ended")
    with pytest.raises(WithdrawnError):
        compare(corpus.folder, 2, 3)


@settings(max_examples=8, deadline=None)
@given(
    deleted=st.sets(st.integers(0, 5), max_size=4),
    changed=st.sets(st.integers(0, 5), max_size=4),
)
def test_counts_are_those_of_both_snapshots_read_whole(
    build_fake_corpus: Callable[[Path], Corpus],
    tmp_path_factory: pytest.TempPathFactory,
    deleted: set[int],
    changed: set[int],
) -> None:
    corpus = build_fake_corpus(tmp_path_factory.mktemp("compared") / "corpus")
    ids = corpus.sql("SELECT cell_id FROM cells ORDER BY cell_id").column("cell_id").to_pylist()
    if changed:
        table = {"cell_id": [ids[i] for i in changed], "tissue": ["elsewhere"] * len(changed)}
        corpus.annotate(pa.table(table))
    if deleted:
        corpus.delete(f"cell_id IN ({', '.join(str(ids[i]) for i in deleted)})")
    newest = Corpus.open(corpus.uri)

    def rows(opened: Corpus) -> dict[int, dict[str, object]]:
        return {row["cell_id"]: row for row in opened.sql("SELECT * FROM cells").to_pylist()}

    before, after = rows(corpus), rows(newest)
    found = compare(corpus.folder, 2, newest.snapshot)
    assert found.total("n_removed") == len(before.keys() - after.keys())
    assert found.total("n_added") == len(after.keys() - before.keys())
    both = before.keys() & after.keys()
    expected = sum(before[i]["tissue"] != after[i]["tissue"] for i in both)
    assert found.total("n_changed") == expected
    assert found.by_column == ({"tissue": expected} if expected else {})
