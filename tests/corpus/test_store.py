from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
from cytolake.corpus.log import snapshots
from cytolake.corpus.splits import Split
from cytolake.corpus.store import Corpus
from cytolake.corpus.stream import Selection
from cytolake.platform.errors import (
    CorpusError,
    DamageError,
    NewerFormatError,
    NoCellsError,
    NotACorpusError,
    QueryError,
    RecipeError,
)
from deltalake import DeltaTable


def barcodes(corpus: Corpus, selection: Selection):
    return corpus.column(selection, "barcode").to_pylist()


def test_a_folder_that_holds_no_corpus_is_told_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(NotACorpusError, match="holds no corpus"):
        Corpus.open(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_another_delta_table_is_no_corpus(tmp_path: Path) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    write_deltalake(tmp_path / "cells", pa.table({"x": [1]}))
    with pytest.raises(NotACorpusError, match="not of a cytolake corpus"):
        Corpus.open(tmp_path)


def test_a_newer_corpus_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "FORMAT", 99)
    corpus = Corpus.create(tmp_path / "corpus")
    monkeypatch.undo()
    with pytest.raises(NewerFormatError, match="has format 99"):
        Corpus.open(corpus.uri)


def test_a_table_that_another_program_changed_is_refused(
    build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path
) -> None:
    corpus = build_fake_corpus(tmp_path / "corpus")
    DeltaTable(corpus.folder / "cells").alter.set_table_description("better cells")
    with pytest.raises(DamageError, match="commit 3 is none of cytolake's"):
        Corpus.open(corpus.uri)


def test_a_folder_with_other_things_does_not_become_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(CorpusError, match=r"thesis\.docx"):
        Corpus.open_or_create(tmp_path)


def test_a_snapshot_that_is_not_there_is_refused(fake_corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match="no snapshot 7, expected 0 to 2"):
        Corpus.open(fake_corpus.uri, snapshot=7)


def test_a_file_uri_names_the_same_corpus(fake_corpus: Corpus) -> None:
    assert Corpus.open(f"file://{fake_corpus.folder}").uuid == fake_corpus.uuid


def test_a_selection_takes_primary_cells_in_canonical_order(fake_corpus: Corpus) -> None:
    assert barcodes(fake_corpus, fake_corpus.select()) == ["AAA", "AAC", "AAG", "AAA", "GGG"]
    everything = fake_corpus.select(primary_only=False)
    assert barcodes(fake_corpus, everything) == ["AAA", "AAC", "AAG", "AAA", "CCC", "GGG"]


def test_a_condition_cannot_let_duplicates_in(fake_corpus: Corpus) -> None:
    assert fake_corpus.select("false OR true").n_cells == 5
    with pytest.raises(QueryError, match="syntax error"):
        fake_corpus.select("false) OR (true")


def test_a_condition_may_ask_other_views(fake_corpus: Corpus) -> None:
    chosen = fake_corpus.select("cell_id IN (SELECT cell_id FROM expression WHERE symbol = 'CD3D')")
    assert barcodes(fake_corpus, chosen) == ["AAA", "AAA"]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("true LIMIT 3", "syntax error"),
        ("true) LIMIT 1 --", "syntax error"),
        ("true; SELECT 1", "syntax error"),
        ("true) UNION SELECT 1 WHERE (true", "without anything after it"),
        ("random() < 0.5", r"cannot use random\(\)"),
        ("now() > '2020-01-01'", r"cannot use now\(\)"),
        ("cell_id IN (SELECT cell_id FROM cells LIMIT 1)", "no LIMIT"),
        ("cell_id IN (SELECT cell_id FROM cells USING SAMPLE 2)", "no SAMPLE"),
        ("cell_id IN (SELECT any_value(cell_id) FROM cells)", r"cannot use any_value\(\)"),
        ("cell_id IN (SELECT 1 FROM 'x.csv')", "a path cannot be a table"),
        ("cell_typ = 'T cell'", "did you mean 'cell_type'"),
        ("WHERE true", "bare condition"),
    ],
)
def test_a_condition_that_could_choose_otherwise_tomorrow_is_refused(
    fake_corpus: Corpus, where: str, message: str
) -> None:
    with pytest.raises(QueryError, match=message):
        fake_corpus.select(where)


def test_choosing_nothing_is_an_error_that_says_what_there_is(fake_corpus: Corpus) -> None:
    with pytest.raises(NoCellsError, match="the snapshot has 6 cells"):
        fake_corpus.select("tissue = 'brain'")


def test_a_part_is_the_same_whatever_the_query(fake_corpus: Corpus) -> None:
    split = Split(kind="cells", fractions={"a": 0.5, "b": 0.5}, seed=3)
    parts = {
        name: set(fake_corpus.select(split=split, part=name).cell_id.tolist()) for name in "ab"
    }
    assert parts["a"] | parts["b"] == set(fake_corpus.select().cell_id.tolist())
    assert not parts["a"] & parts["b"]
    for name, cells in parts.items():
        chosen = fake_corpus.select("tissue = 'blood'", primary_only=False)
        blood = set(chosen.cell_id.tolist()) & cells
        if blood:
            again = fake_corpus.select("tissue = 'blood'", split=split, part=name)
            assert set(again.cell_id.tolist()) == blood


def test_an_equal_content_follows_its_primary_cell(fake_corpus: Corpus) -> None:
    split = Split(kind="query", parts={"mine": "source_id = 'blood'", "rest": "tissue = 'lung'"})
    mine = fake_corpus.select(split=split, part="mine", primary_only=False)
    assert "CCC" in barcodes(fake_corpus, mine)  # lung's, equal to blood's AAG
    rest = fake_corpus.select(split=split, part="rest", primary_only=False)
    assert "CCC" not in barcodes(fake_corpus, rest)


def test_a_split_tells_a_wrong_part_or_column(fake_corpus: Corpus) -> None:
    with pytest.raises(RecipeError, match="did you mean 'train'"):
        fake_corpus.select(split=Split(kind="cells", fractions={"train": 1.0}), part="tran")
    with pytest.raises(RecipeError, match="did you mean 'cell_type'"):
        fake_corpus.select(
            split=Split(kind="cells", fractions={"a": 1.0}, stratify="cell_typ"), part="a"
        )


def test_reading_gives_counts_columns_and_keys_in_the_order_asked(fake_corpus: Corpus) -> None:
    chosen = fake_corpus.select()
    blood, lung = fake_corpus.read(chosen, np.array([4, 2, 0]), columns=["barcode"])
    assert blood.obs["barcode"].to_pylist() == ["AAG", "AAA"]
    assert blood.to_csr().toarray().tolist() == [[3, 0, 5, 0, 0], [2, 4, 0, 1, 0]]
    assert blood.n_counts.tolist() == [10, 10]
    assert lung.obs["barcode"].to_pylist() == ["GGG"]
    assert blood.content_keys.tolist() == chosen.content_key[[2, 0]].tolist()


def test_a_column_that_is_not_there_is_refused(fake_corpus: Corpus) -> None:
    with pytest.raises(QueryError, match="did you mean 'donor_id'"):
        fake_corpus.read(fake_corpus.select(), columns=["donorid"])


def test_a_missing_shard_is_never_read_as_zeros(
    build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path
) -> None:
    corpus = build_fake_corpus(tmp_path / "corpus")
    (corpus.segments_folder / "blood-0/rna.zarr/X/data/c/0").unlink()
    with pytest.raises(DamageError, match="X/data/c/0 is missing"):
        corpus.read(corpus.select())


def test_to_anndata_gives_counts_names_and_the_source_columns(
    fake_corpus: Corpus, tmp_path: Path
) -> None:
    adata = fake_corpus.to_anndata()
    assert adata.shape == (6, 5)
    assert adata.X.dtype == np.float32
    assert adata.obs_names.is_unique
    assert adata.obs["barcode"].tolist() == ["AAA", "AAC", "AAG", "AAA", "CCC", "GGG"]
    assert adata.obs["is_primary"].tolist() == [True] * 4 + [False, True]
    assert adata.obs["age"].tolist() == [40, 50, 60] * 2
    assert adata.var["n_cells_measured"].tolist() == [6, 6, 6, 3, 3]
    assert adata.X.toarray()[5].tolist() == [70_000, 0, 0, 0, 0]
    adata.write_h5ad(tmp_path / "x.h5ad")
    assert anndata.read_h5ad(tmp_path / "x.h5ad").obs["cell_type"].isna().sum() == 1


def test_to_anndata_finds_genes_by_symbol_or_id_in_the_order_asked(fake_corpus: Corpus) -> None:
    adata = fake_corpus.to_anndata("tissue = 'blood'", genes=["MIR21", "ENSG00000000001"])
    assert adata.var["symbol"].tolist() == ["MIR21", "ACTB"]
    assert adata.X.toarray().tolist() == [[0, 2], [2, 1], [0, 3]]
    with pytest.raises(QueryError, match="did you mean 'CD3D'"):
        fake_corpus.to_anndata(genes=["CD3E"])


def test_show_adds_up(fake_corpus: Corpus) -> None:
    shown = fake_corpus.show()
    assert (shown["n_cells"], shown["n_primary"], shown["n_genes"]) == (6, 5, 5)
    assert shown["cells_by"]["cell_type"] == {"T cell": 3, "B cell": 2, None: 1}
    assert shown["funnel"] == {"read": 7, "dropped": {"total_counts": 1}, "kept": 6}
    on_disk = sum(
        path.stat().st_size
        for path in fake_corpus.segments_folder.rglob("*")
        if path.is_file() and path.name != "segment.json"
    )
    assert sum(shown["bytes"].values()) - shown["bytes"]["cells"] == on_disk


def test_why_tells_each_source_its_values_and_thresholds(fake_corpus: Corpus) -> None:
    kept = fake_corpus.why("AAA")
    assert [(found["source_id"], found["status"]) for found in kept] == [
        ("blood", "kept"),
        ("lung", "kept"),
    ]
    (dropped,) = fake_corpus.why("TTT")
    assert (dropped["status"], dropped["reason"]) == ("dropped", "total_counts")
    assert dropped["values"]["n_counts"] == 1
    assert dropped["thresholds"] == {"total_counts_low": 2.0}
    with pytest.raises(NoCellsError, match='no source has read a cell "it\'s"'):
        fake_corpus.why("it's")


def test_verify_is_silent_on_a_whole_corpus_and_names_what_is_wrong(
    build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path
) -> None:
    corpus = build_fake_corpus(tmp_path / "corpus")
    assert corpus.verify(deep=True) == []
    (corpus.segments_folder / "lung-0/obs.parquet").unlink()
    problems = corpus.verify()
    assert len(problems) == 1
    assert "lung-0/obs.parquet is missing" in problems[0]
