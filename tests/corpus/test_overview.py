"""What a corpus holds: figures that can be done by hand."""

from collections.abc import Callable
from pathlib import Path

import anndata
import pytest
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import QueryError
from cytolake.platform.faults import watching


@pytest.fixture
def corpus(build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path) -> Corpus:
    return build_fake_corpus(tmp_path / "corpus")


def test_cells_are_counted_by_what_they_are(corpus: Corpus) -> None:
    shown = corpus.show()
    assert (shown["n_cells"], shown["n_written"], shown["n_primary"]) == (6, 6, 5)
    assert shown["cells_by"]["source_id"] == {"blood": 3, "lung": 3}
    assert shown["cells_by"]["cell_type"] == {"T cell": 3, "B cell": 2, None: 1}
    assert shown["funnel"] == {"read": 7, "dropped": {"total_counts": 1}, "kept": 6}
    assert set(shown["bytes"]) >= {"rna.zarr", "expression", "cells"}


def test_the_living_are_told_from_the_written(corpus: Corpus) -> None:
    corpus.delete("source_id = 'blood' AND barcode = 'AAC'")
    shown = Corpus.open(corpus.uri).show()
    assert (shown["n_cells"], shown["n_written"]) == (5, 6)


def test_a_snapshot_tells_its_tags_and_the_log_too(corpus: Corpus) -> None:
    corpus.tag("paper")
    assert corpus.show()["tags"] == ["paper"]
    assert [entry["tags"] for entry in corpus.log()] == [["paper"], [], []]


def test_an_export_is_on_record_before_it_is_written(corpus: Corpus, tmp_path: Path) -> None:
    target = tmp_path / "blood.h5ad"
    seen: list[tuple[str, bool, int]] = []

    def look(point: str) -> None:
        if point.startswith("before export"):
            seen.append((point, target.exists(), len(corpus.uses())))

    with watching(look):
        corpus.write_anndata(target, "tissue = 'blood'", genes=["CD3D"])
    assert seen == [("before export/rename", False, 1)]
    assert anndata.read_h5ad(target).to_df().to_numpy().sum() == 4
    [use] = corpus.uses()
    assert (use.kind, use.name, use.where, use.uri) == (
        "export",
        "blood.h5ad",
        "tissue = 'blood'",
        str(target),
    )


def test_an_export_that_fails_leaves_the_file_of_before(corpus: Corpus, tmp_path: Path) -> None:
    target = tmp_path / "blood.h5ad"
    target.write_text("of before")
    with pytest.raises(QueryError):
        corpus.write_anndata(target, "tisue = 'blood'")

    def fail(point: str) -> None:
        if point == "before export/rename":
            raise OSError("the disk fails")

    with watching(fail), pytest.raises(OSError, match="the disk fails"):
        corpus.write_anndata(target)
    assert target.read_text() == "of before"
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "blood.h5ad"}
