"""Annotating the fake corpus (answers by hand), and files of annotations."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cytolake.corpus.change.annotation import Annotated, annotate
from cytolake.corpus.change.annotation_files import origin_of, read_annotations
from cytolake.corpus.log.chain import load_table
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CorpusError, NoCellsError


@pytest.fixture
def corpus(build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path) -> Corpus:
    return build_fake_corpus(tmp_path / "corpus")


def column(folder: Path, name: str) -> list[Any]:
    rows = Corpus.open(folder).sql(f'SELECT "{name}" AS x FROM cells ORDER BY source_id, barcode')
    return rows["x"].to_pylist()


def named(**columns: Any) -> pa.Table:
    """Values for blood's AAA and AAC and for lung's GGG."""
    keys = {"source_id": ["blood", "blood", "lung"], "barcode": ["AAA", "AAC", "GGG"]}
    return pa.table({**keys, **columns})


def test_values_are_joined_by_source_and_barcode_and_others_stay(corpus: Corpus) -> None:
    table = named(cell_type=["NK cell", None, "B cell"], age=[40, 50, None])
    done = annotate(corpus.folder, table, origin="labels.csv")
    assert done == Annotated(
        snapshot=4, n_cells=3, n_changed=3, n_unknown=0, columns=("cell_type", "age")
    )  # 3 brought the column `age`
    assert column(corpus.folder, "cell_type") == [
        "NK cell", "T cell", "B cell", "T cell", "B cell", "B cell",
    ]  # fmt: skip
    assert column(corpus.folder, "age") == [40, 50, None, None, None, None]
    after = Corpus.open(corpus.folder)
    assert after.verify(deep=True) == [] and after.sql("SELECT * FROM cells").num_rows == 6
    assert Corpus.open(corpus.folder, 2).sql("SELECT count(cell_type) AS n FROM cells")[
        "n"
    ].to_pylist() == [5]


def test_the_same_annotation_again_has_nothing_to_do(corpus: Corpus) -> None:
    table = named(score=[0.5, float("nan"), 1.0], sex=["female", "", " "])
    assert annotate(corpus.folder, table, origin="a").n_changed == 2
    again = annotate(corpus.folder, table, origin="a")
    assert (again.snapshot, again.n_cells, again.n_changed) == (None, 3, 0)
    assert column(corpus.folder, "score") == [0.5, None, None, None, None, 1.0]
    assert column(corpus.folder, "sex") == ["female", *[None] * 5]


def test_only_files_with_changes_are_written_anew(corpus: Corpus) -> None:
    before = load_table(corpus.folder / "cells")
    table = named(tissue=["marrow", "blood", "lung"])
    assert annotate(corpus.folder, table, origin="a").n_changed == 1
    after = load_table(corpus.folder / "cells")
    assert len(before.files.keys() - after.files.keys()) == 1
    assert len(before.files.keys() & after.files.keys()) == 1


def test_the_answer_of_a_query_annotates_by_cell_id(corpus: Corpus) -> None:
    answer = corpus.sql(
        "SELECT cell_id, count(*) AS n_seen, max(count) > 3 AS loud FROM expression GROUP BY 1"
    )
    done = annotate(corpus.folder, answer, origin="sql")
    assert (done.n_cells, done.n_changed, done.n_unknown) == (6, 6, 0)
    assert column(corpus.folder, "n_seen") == [3, 2, 2, 1, 2, 1]
    assert column(corpus.folder, "loud") == [True, False, True, False, True, True]


def test_rows_of_unknown_cells_are_counted_and_a_dry_run_changes_nothing(corpus: Corpus) -> None:
    table = pa.table(
        {"source_id": ["blood", "skin"], "barcode": ["AAA", "AAA"], "cell_type": ["x", "y"]}
    )
    before = {path: path.stat().st_mtime_ns for path in corpus.folder.rglob("*")}
    done = annotate(corpus.folder, table, origin="a", dry_run=True)
    assert (done.snapshot, done.n_cells, done.n_changed, done.n_unknown) == (None, 1, 1, 1)
    assert {path: path.stat().st_mtime_ns for path in corpus.folder.rglob("*")} == before


def test_the_record_says_columns_origin_and_number_and_no_cell(corpus: Corpus) -> None:
    annotate(corpus.folder, named(donor_id=["Jane", "Jane", "Jane"]), origin="d.csv sha256 00")
    record = load_table(corpus.folder / "cells").records[-1]
    assert (record.kind, record.body) == (
        "annotate",
        {"columns": ["donor_id"], "origin": "d.csv sha256 00", "n_cells": 3},
    )


KEYS = {"source_id": ["blood"], "barcode": ["AAA"]}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"barcode": ["AAA"], "sex": ["x"]}, "no cell_id, nor source_id and barcode"),
        ({"cell_id": ["one"], "sex": ["x"]}, "the key 'cell_id' is string, expected int64"),
        ({"source_id": ["blood"], "barcode": [7], "sex": ["x"]}, "'barcode' is int64"),
        ({"source_id": ["blood", None], "barcode": ["A", "B"], "sex": ["x", "y"]},
         "1 rows have no source_id"),
        ({"source_id": ["b", "b"], "barcode": ["A", "A"], "sex": ["x", "y"]},
         r"1 cells stand in several rows .*\(b, A\)"),
        (KEYS, "no column to fill"),
        (KEYS | {"note": pa.nulls(1)}, "note hold nothing"),
        (KEYS | {"n_counts": [1]}, "'n_counts' says what a cell is"),
        (KEYS | {"segment": ["s"]}, "'segment' says what a cell is"),
        (KEYS | {"is_primary": [True]}, "'is_primary' says what a cell is"),
        (KEYS | {"CELL_TYPE": ["x"]}, "is called 'cell_type' in a corpus"),
        (KEYS | {"cell_type": [3]}, "'cell_type' is int64 here and string in the corpus"),
        (KEYS | {"age": ["old"]}, "'age' is string here and int64 in the corpus"),
        (KEYS | {"tags": [["a"]]}, "'tags' is list"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_refused_and_nothing_changes(
    corpus: Corpus, table: dict[str, Any], message: str
) -> None:
    annotate(corpus.folder, named(age=[1, 2, 3]), origin="first")
    before = {str(path) for path in corpus.folder.rglob("*")}
    with pytest.raises(CorpusError, match=message):
        annotate(corpus.folder, pa.table(table), origin="a")
    assert {str(path) for path in corpus.folder.rglob("*")} == before


def test_a_table_that_names_no_cell_is_refused_with_examples(corpus: Corpus) -> None:
    table = pa.table({"source_id": ["Blood"], "barcode": ["AAA-1"], "sex": ["x"]})
    with pytest.raises(NoCellsError, match=r"none of the 1 rows .*the first: Blood, AAA-1"):
        annotate(corpus.folder, table, origin="a")


def test_a_barcode_of_several_cells_is_refused_with_their_number(
    corpus: Corpus, prepare_source: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt, [segment] = prepare_source(corpus, "blood", source_id="kept", sha256="e" * 64)
    rows = segment.cells()
    place = rows.schema.get_field_index("barcode")
    twice = rows.set_column(place, "barcode", [["AAA", "AAA", "AAG"]])
    monkeypatch.setattr(type(segment), "cells", lambda self: twice)
    corpus.commit_source(receipt, [segment])
    table = pa.table({"source_id": ["kept"] * 2, "barcode": ["AAA", "AAG"], "sex": ["x", "y"]})
    with pytest.raises(CorpusError, match="1 rows of the table stand for 2 cells"):
        annotate(corpus.folder, table, origin="a")
    only = table.slice(1)
    assert annotate(corpus.folder, only, origin="a").n_changed == 1


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".csv.gz"])
def test_a_text_file_keeps_names_as_text_and_reads_numbers_where_all_are(
    tmp_path: Path, ending: str
) -> None:
    rows = [
        "source_id,barcode,donor_id,age,score,smoker,code,when,empty",
        "1015,007,3,40,0.5,True,007,2020-01-01,",
        "1015,1e5,4,,-1e-3,false,8,2021-01-01,",
    ]
    text = "\n".join(rows).replace(",", "\t" if ending == ".tsv" else ",").encode()
    path = tmp_path / f"labels{ending}"
    path.write_bytes(gzip.compress(text) if ending.endswith(".gz") else text)
    assert read_annotations(path).to_pylist() == [
        {"source_id": "1015", "barcode": "007", "donor_id": "3", "age": 40, "score": 0.5,
         "smoker": True, "code": "007", "when": "2020-01-01", "empty": None},
        {"source_id": "1015", "barcode": "1e5", "donor_id": "4", "age": None, "score": -0.001,
         "smoker": False, "code": "8", "when": "2021-01-01", "empty": None},
    ]  # fmt: skip


def test_a_text_column_that_the_corpus_knows_gets_its_type(corpus: Corpus, tmp_path: Path) -> None:
    annotate(corpus.folder, named(cluster=["a", "b", "c"]), origin="first")
    path = tmp_path / "labels.csv"
    path.write_text("source_id,barcode,cluster\nblood,AAA,1\n")
    known = Corpus.open(corpus.folder).state.columns
    done = annotate(corpus.folder, read_annotations(path, known), origin=origin_of(path))
    assert done.n_changed == 1
    assert column(corpus.folder, "cluster")[:2] == ["1", "b"]
    body = load_table(corpus.folder / "cells").records[-1].body
    assert body["origin"].startswith("labels.csv sha256 ") and str(tmp_path) not in body["origin"]


def test_a_parquet_file_is_taken_as_it_is(tmp_path: Path) -> None:
    table = named(age=[1, 2, 3])
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_annotations(tmp_path / "a.parquet").equals(table)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.xlsx", "", "ends in .csv"),
        ("a.csv", "", "cannot be read as a table"),
        ("a.parquet", "nothing", "cannot be read as a table"),
        ("a.csv", "cell_id,sex\nx1,f\n", "'cell_id' is int64 in the corpus, and a value is not"),
    ],
)
def test_a_file_that_is_no_table_is_refused(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CorpusError, match=message):
        read_annotations(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="cannot be read as a table"):
        read_annotations(tmp_path / "nowhere.csv")
