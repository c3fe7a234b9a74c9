"""Whether a corpus is what was committed: each kind of wrong is found and named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cytolake.corpus.log.chain import load_table
from cytolake.corpus.log.ledger import Proposal, commit, write_rows
from cytolake.corpus.report.soundness import n_bytes, unknown_files
from cytolake.corpus.store import Corpus


@pytest.fixture
def corpus(build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path) -> Corpus:
    return build_fake_corpus(tmp_path / "corpus")


def replace_rows(corpus: Corpus, change: Callable[[pa.Table], pa.Table]) -> Corpus:
    """Commit other rows of blood, as a writer with a mistake would: every hash is right."""
    state = load_table(corpus.folder / "cells")
    [old] = [
        name
        for name in state.files
        if "blood" in pq.read_table(state.folder / name).column("source_id").to_pylist()
    ]
    new = write_rows(state.folder, change(pq.read_table(state.folder / old)))
    body = {"condition": "?", "n_cells": 0}
    commit(state.folder, lambda _: Proposal(kind="delete", body=body, adds=[new], removes=[old]))
    return Corpus.open(corpus.uri)


def with_column(rows: pa.Table, name: str, values: list[object]) -> pa.Table:
    place = rows.column_names.index(name)
    return rows.set_column(
        place, rows.schema.field(name), pa.array(values, rows.schema.types[place])
    )


def test_a_sound_corpus_has_no_problem_after_every_kind_of_change(corpus: Corpus) -> None:
    corpus.tag("first", 1)
    corpus.record_use("export", "a.h5ad")
    corpus.annotate(pa.table({"source_id": ["blood"], "barcode": ["AAA"], "grade": ["high"]}))
    corpus.delete("source_id = 'blood' AND barcode = 'AAC'")
    corpus.withdraw("donor_id = 'd4'", "consent ended")
    corpus.compact()
    assert Corpus.open(corpus.uri).verify() == []
    assert Corpus.open(corpus.uri).verify(deep=True) == []


def test_all_bytes_are_told_while_they_are_looked_at(corpus: Corpus) -> None:
    told: list[float] = []
    assert corpus.verify(deep=True, advance=told.append) == []
    assert sum(told) == n_bytes(corpus) > 10_000


@pytest.mark.parametrize(
    ("victim", "deep"),
    [
        ("cells/*.parquet", False),
        ("sources/*.parquet", False),
        ("segments/*/cells.parquet", False),
        ("withdrawn/*.parquet", False),
    ],
)
def test_a_missing_file_is_found_by_sizes_alone(corpus: Corpus, victim: str, deep: bool) -> None:
    corpus.withdraw("donor_id = 'd4'", "consent ended")
    opened = Corpus.open(corpus.uri)
    for path in corpus.folder.glob(victim):
        path.unlink()
    assert any("is missing" in problem for problem in opened.verify(deep=deep))


@pytest.mark.parametrize(
    "victim",
    ["cells/*.parquet", "sources/*.parquet", "withdrawn/*.parquet", "tags/*.json", "uses/*.json"],
)
def test_a_flipped_bit_is_found_by_deep(corpus: Corpus, victim: str) -> None:
    corpus.withdraw("donor_id = 'd4'", "consent ended")
    opened = Corpus.open(corpus.uri)
    opened.tag("now")
    opened.record_use("export", "a.h5ad")
    path = max(corpus.folder.glob(victim))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.chmod(0o644)
    path.write_bytes(data)
    assert opened.verify(deep=True) != []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]), "there twice",
                     id="a row twice"),
        pytest.param(lambda rows: with_column(rows, "row", [0, 1, 7]), "outside",
                     id="a row beyond"),
        pytest.param(lambda rows: with_column(rows, "segment", ["elsewhere"] * 3), "of no commit",
                     id="an unknown segment"),
        pytest.param(lambda rows: with_column(rows, "n_counts_stored", [7, 3, 9]),
                     "n_counts_stored is not", id="other counts"),
        pytest.param(lambda rows: with_column(rows, "content_hash", [b"x" * 16] * 3),
                     "content_hash is not", id="other contents"),
        pytest.param(lambda rows: with_column(rows, "cell_id", [1, 2, 3]), "cell ids are of no",
                     id="other ids"),
        pytest.param(lambda rows: with_column(rows, "barcode", ["AAA", "AAC", "TTT"]),
                     "barcode is not", id="another barcode"),
    ],
)  # fmt: skip
def test_a_writers_mistake_in_the_rows_is_found_though_every_hash_is_right(
    corpus: Corpus, change: Callable[[pa.Table], pa.Table], said: str
) -> None:
    found = replace_rows(corpus, change)
    assert found.verify() == []
    assert any(said in problem for problem in found.verify(deep=True))


def test_a_withdrawn_cell_that_is_there_again_is_found(corpus: Corpus) -> None:
    rows = {
        name: pq.read_table(corpus.folder / "cells" / name)
        for name in load_table(corpus.folder / "cells").files
    }
    corpus.withdraw("source_id = 'blood' AND barcode = 'AAA'", "consent ended")
    [blood] = [table for table in rows.values() if "blood" in table["source_id"].to_pylist()]
    found = replace_rows(corpus, lambda _: blood)
    assert any("1 cells are here that were withdrawn" in p for p in found.verify(deep=True))


def test_a_source_that_is_projected_twice_is_found(corpus: Corpus) -> None:
    from cytolake.corpus.log.snapshots import SOURCE_COLUMNS

    row = {"source_id": "lung", "status": "accepted", "snapshot": 2}
    new = write_rows(corpus.folder / "sources", pa.Table.from_pylist([row], schema=SOURCE_COLUMNS))
    commit(
        corpus.folder / "sources",
        lambda _: Proposal(kind="accepted", body={"snapshots": [2]}, adds=[new]),
    )
    assert any("its rows are of snapshots" in problem for problem in corpus.verify())


def test_a_projection_that_lags_behind_is_no_damage(
    corpus: Corpus, prepare_source: Callable[..., tuple[object, object]], tmp_path: Path
) -> None:
    before = shutil.copytree(corpus.folder / "sources", tmp_path / "sources")
    given = prepare_source(corpus, "blood", source_id="more", sha256="d" * 64)
    corpus.commit_source(*given)  # pyright: ignore[reportArgumentType]
    shutil.rmtree(corpus.folder / "sources")
    shutil.copytree(before, corpus.folder / "sources")
    assert Corpus.open(corpus.uri).verify(deep=True) == []


def test_what_no_commit_names_is_told_apart_from_damage(corpus: Corpus) -> None:
    assert unknown_files(corpus) == []
    stray = corpus.folder / "cells" / f"{'0' * 64}.parquet"
    stray.write_bytes(b"left over")
    staged = corpus.segments_folder / "staged-0"
    staged.mkdir()
    (staged / "segment.json").write_text(json.dumps({}))
    assert set(unknown_files(corpus)) == {stray, staged}
    assert corpus.verify(deep=True) == []
