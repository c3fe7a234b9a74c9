"""Where a cell, a source or a snapshot comes from, what was done to it, and who read it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from cytolake.corpus.report.file_spans import NEVER, spans
from cytolake.corpus.report.lineage import lineage
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CorpusError, NoCellsError


@pytest.fixture
def corpus(build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path) -> Corpus:
    return build_fake_corpus(tmp_path / "corpus")


def id_of(corpus: Corpus, source: str, barcode: str) -> int:
    where = f"source_id = '{source}' AND barcode = '{barcode}'"
    return corpus.sql(f"SELECT cell_id FROM cells WHERE {where}").to_pylist()[0]["cell_id"]


def test_a_cell_is_followed_to_its_file_and_unit(corpus: Corpus) -> None:
    cell_id = id_of(corpus, "lung", "CCC")
    [found] = lineage(corpus.folder, cell_id)
    assert (found["kind"], found["status"], found["source_id"]) == ("cell", "living", "lung")
    assert found["unit"] == {"segment": "lung-0", "first_row": 0, "position": 1}
    assert (found["source"]["uri"], found["source"]["sha256"]) == ("/data/lung.h5ad", "b" * 64)
    assert [commit["kind"] for commit in found["commits"]] == ["ingest"]
    assert found["uses"] == []


def test_a_barcode_of_two_sources_gives_two_cells(corpus: Corpus) -> None:
    assert {found["source_id"] for found in lineage(corpus.folder, "AAA")} == {"blood", "lung"}


def test_commits_that_only_moved_other_cells_do_not_count(corpus: Corpus) -> None:
    cell_id = id_of(corpus, "blood", "AAA")
    corpus.delete("source_id = 'blood' AND barcode = 'AAC'")  # rewrites the file of both
    corpus.annotate(pa.table({"cell_id": [cell_id], "cell_type": ["NK"]}))
    [found] = lineage(corpus.folder, cell_id)
    assert [commit["kind"] for commit in found["commits"]] == ["ingest", "annotate"]


def test_a_cell_is_followed_through_a_compaction(
    corpus: Corpus, prepare_source: Callable[..., Any]
) -> None:
    cell_id = id_of(corpus, "blood", "AAG")
    corpus.commit_source(*prepare_source(corpus, "blood", source_id="more", sha256="d" * 64))
    corpus.compact()
    [found] = lineage(corpus.folder, cell_id)
    assert [(place["since"], place["until"]) for place in found["segments"]] == [(1, 4), (4, None)]
    assert found["segments"][0]["segment"] == found["unit"]["segment"] == "blood-0"
    assert [commit["kind"] for commit in found["commits"]] == ["ingest", "compact"]


@pytest.mark.parametrize("status", ["deleted", "withdrawn"])
def test_a_cell_that_is_gone_is_told_of_while_a_file_holds_it(corpus: Corpus, status: str) -> None:
    cell_id = id_of(corpus, "blood", "AAG")
    if status == "deleted":
        corpus.delete(f"cell_id = {cell_id}")
    else:
        corpus.withdraw(f"cell_id = {cell_id}", "consent ended")
    [found] = lineage(corpus.folder, cell_id)
    assert found["status"] == status and found["segments"][-1]["until"] == 3
    assert [commit["snapshot"] for commit in found["commits"]] == [1, 3]


def test_only_uses_that_can_have_read_the_cell_are_told(corpus: Corpus) -> None:
    first = Corpus.open(corpus.uri, 1)
    first.record_use("pretrain", "before-lung", uri="/runs/a")
    corpus.record_use("pretrain", "blood-only", where="tissue = 'blood'", uri="/runs/b")
    corpus.record_use("evaluate", "lung-only", where="tissue = 'lung'", uri="/runs/c")
    corpus.record_use("evaluate", "half", part="evaluation", uri="/runs/d")
    corpus.record_use("export", "donors", where="donor_id = 'd9'", uri="/e.h5ad")
    [found] = lineage(corpus.folder, id_of(corpus, "lung", "GGG"))
    assert {use["name"]: use["certain"] for use in found["uses"]} == {
        "lung-only": True,
        "half": None,
        "donors": None,  # whose values were not kept
    }


def test_a_source_tells_its_file_segments_and_readers(corpus: Corpus) -> None:
    corpus.record_use("pretrain", "tiny", uri="/runs/tiny")
    Corpus.open(corpus.uri, 1).record_use("pretrain", "older", uri="/runs/older")
    [found] = lineage(corpus.folder, "lung")
    assert (found["kind"], found["status"]) == ("source", "accepted")
    assert [segment["segment_id"] for segment in found["segments"]] == ["lung-0"]
    assert [use["name"] for use in found["uses"]] == ["tiny"]


def test_a_snapshot_tells_its_commit_tags_and_sources(corpus: Corpus) -> None:
    corpus.tag("first", 1)
    for what in (1, "1", "first", "tag:first", "snapshot:1"):
        [found] = lineage(corpus.folder, what)
        assert (found["kind"], found["snapshot"], found["tags"]) == ("snapshot", 1, ["first"])
        assert [source["source_id"] for source in found["sources"]] == ["blood"]


def test_a_word_before_the_colon_says_what_is_meant(corpus: Corpus) -> None:
    corpus.tag("blood", 2)  # a tag and a source of one name
    assert lineage(corpus.folder, "blood")[0]["kind"] == "snapshot"
    assert lineage(corpus.folder, "source:blood")[0]["kind"] == "source"
    assert lineage(corpus.folder, "barcode:GGG")[0]["kind"] == "cell"
    with pytest.raises(CorpusError, match="by its number"):
        lineage(corpus.folder, "cell:AAA")


@pytest.mark.parametrize("what", ["nobody", "source:nobody", "99999", "barcode:'; DROP"])
def test_what_nobody_knows_is_refused(corpus: Corpus, what: str) -> None:
    with pytest.raises(NoCellsError, match="knows no"):
        lineage(corpus.folder, what)


def test_files_stand_in_the_snapshots_that_the_table_says(corpus: Corpus) -> None:
    from cytolake.corpus.log.chain import load_table

    corpus.delete("source_id = 'blood' AND barcode = 'AAC'")
    corpus.restore(1)
    found = spans(corpus.folder / "cells", 4)
    for version in range(5):
        held = {span.name for span in found if span.since <= version < span.until}
        assert held == set(load_table(corpus.folder / "cells", version).files)
    assert {span.until for span in found if span.since == 4} == {NEVER}
