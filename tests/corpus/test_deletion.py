"""Deleting and withdrawing on the fake corpus (answers by hand), and against writers beside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytolake.corpus.change.deletion import Deleted, delete, withdraw
from cytolake.corpus.log.chain import load_table
from cytolake.corpus.log.commits import commit_source
from cytolake.corpus.query.conditions import choose_gone, choose_living, shape_of
from cytolake.corpus.schema import CELL_COLUMNS
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CorpusError, QueryError, WithdrawnError
from cytolake.tests.faults.commands import ingest_source
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture
def corpus(build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path) -> Corpus:
    return build_fake_corpus(tmp_path / "corpus")


def cells(folder: Path, snapshot: int | None = None) -> list[tuple[str, str]]:
    rows = Corpus.open(folder, snapshot).sql("SELECT source_id, barcode FROM cells ORDER BY ALL")
    return [(row["source_id"], row["barcode"]) for row in rows.to_pylist()]


def parquet_files(corpus: Corpus) -> set[str]:
    return {str(path) for path in corpus.folder.rglob("*.parquet")}


def last_record(corpus: Corpus) -> Any:
    return load_table(corpus.folder / "cells").records[-1]


def test_a_deleted_cell_is_in_no_newer_snapshot_and_stays_in_older_ones(corpus: Corpus) -> None:
    done = delete(corpus.folder, "donor_id = 'd1' AND n_counts = 10")
    assert done == Deleted(snapshot=3, n_cells=2, n_tombstones=0, n_equal_elsewhere=1)
    assert cells(corpus.folder) == [
        ("blood", "AAC"), ("lung", "AAA"), ("lung", "CCC"), ("lung", "GGG"),
    ]  # fmt: skip
    assert len(cells(corpus.folder, 2)) == 6
    assert Corpus.open(corpus.folder).verify(deep=True) == []


def test_the_same_deletion_again_has_nothing_to_do(corpus: Corpus) -> None:
    delete(corpus.folder, "tissue = 'blood'")
    files = parquet_files(corpus)
    again = delete(corpus.folder, "tissue = 'blood'")
    assert (again.snapshot, again.n_cells) == (None, 0)
    assert (Corpus.open(corpus.folder).snapshot, parquet_files(corpus)) == (3, files)


def test_a_dry_run_counts_and_writes_nothing(corpus: Corpus) -> None:
    before = parquet_files(corpus)
    assert delete(corpus.folder, "barcode = 'CCC'", dry_run=True) == Deleted(
        snapshot=None, n_cells=1, n_tombstones=0, n_equal_elsewhere=1
    )
    assert withdraw(corpus.folder, "tissue = 'lung'", "consent", dry_run=True) == Deleted(
        snapshot=None, n_cells=3, n_tombstones=3, n_equal_elsewhere=1
    )
    assert parquet_files(corpus) == before and Corpus.open(corpus.folder).snapshot == 2


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ("NOT is_primary", [("blood", "AAA"), ("blood", "AAC"), ("blood", "AAG"),
                            ("lung", "AAA"), ("lung", "GGG")]),
        ("cell_id IN (SELECT cell_id FROM expression WHERE symbol = 'CD3D')",
         [("blood", "AAC"), ("blood", "AAG"), ("lung", "CCC"), ("lung", "GGG")]),
        ("barcode IN (SELECT barcode FROM cells GROUP BY 1 HAVING count(*) > 1)",
         [("blood", "AAC"), ("blood", "AAG"), ("lung", "CCC"), ("lung", "GGG")]),
        ("cells.cell_type IS NULL", [("blood", "AAA"), ("blood", "AAC"), ("blood", "AAG"),
                                     ("lung", "AAA"), ("lung", "CCC")]),
        ("true", []),
    ],
    ids=["duplicates", "another view", "the same view", "a qualified name", "all"],
)  # fmt: skip
def test_a_condition_may_ask_any_view(
    corpus: Corpus, where: str, left: list[tuple[str, str]]
) -> None:
    delete(corpus.folder, where)
    assert cells(corpus.folder) == left
    assert Corpus.open(corpus.folder).verify(deep=True) == []


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("tissu = 'blood'", "did you mean 'tissue'"),
        ("random() < 0.5", r"cannot use random\(\)"),
        ("true); DROP TABLE cells", "statement|syntax error"),
        ("barcode IN (SELECT content FROM read_text('/etc/passwd'))", "read_text"),
    ],
)
def test_a_condition_that_is_no_safe_one_is_refused_and_nothing_changes(
    corpus: Corpus, where: str, message: str
) -> None:
    before = parquet_files(corpus)
    for call in (lambda: delete(corpus.folder, where), lambda: withdraw(corpus.folder, where, "r")):
        with pytest.raises(QueryError, match=message):
            call()
    assert parquet_files(corpus) == before and Corpus.open(corpus.folder).snapshot == 2


# ---------------------------------------------------------------------- withdrawing


def test_a_snapshot_that_holds_withdrawn_cells_is_refused_with_their_number(
    corpus: Corpus,
) -> None:
    done = withdraw(corpus.folder, "donor_id = 'd1'", "consent ended")
    assert done == Deleted(snapshot=3, n_cells=2, n_tombstones=2, n_equal_elsewhere=1)
    assert len(cells(corpus.folder)) == 4
    with pytest.raises(WithdrawnError, match=r"snapshot 2 holds 2 cells .*\(consent ended\).* 3"):
        Corpus.open(corpus.folder, 2)
    assert Corpus.open(corpus.folder, 0).snapshot == 0, "it holds none of them"
    again = withdraw(corpus.folder, "donor_id = 'd1'", "consent ended")
    assert (again.snapshot, again.n_tombstones) == (None, 0)


def test_a_cell_that_was_deleted_earlier_is_withdrawn_too(corpus: Corpus) -> None:
    delete(corpus.folder, "donor_id = 'd1'")
    done = withdraw(corpus.folder, "donor_id IN ('d1', 'd3')", "two consents ended")
    assert (done.n_cells, done.n_tombstones, done.snapshot) == (2, 4, 4)
    for snapshot, n_cells in ((1, 2), (2, 4), (3, 2)):
        with pytest.raises(WithdrawnError, match=f"holds {n_cells} cells"):
            Corpus.open(corpus.folder, snapshot)
    assert cells(corpus.folder) == [("blood", "AAC"), ("lung", "GGG")]


def test_only_deleted_cells_may_be_left_to_withdraw(corpus: Corpus) -> None:
    delete(corpus.folder, "donor_id = 'd1'")
    done = withdraw(corpus.folder, "donor_id = 'd1'", "consent ended")
    assert (done.snapshot, done.n_cells, done.n_tombstones) == (4, 0, 2)
    assert len(cells(corpus.folder)) == 4
    with pytest.raises(WithdrawnError, match="holds 2 cells"):
        Corpus.open(corpus.folder, 2)


def test_the_condition_may_ask_other_views_of_deleted_cells(corpus: Corpus) -> None:
    delete(corpus.folder, "tissue = 'blood'")
    where = "cell_id IN (SELECT cell_id FROM expression WHERE symbol = 'MIR21')"
    done = withdraw(corpus.folder, where, "consent ended")
    assert (done.n_cells, done.n_tombstones) == (0, 1)


def test_another_writers_file_that_vanishes_while_old_files_are_searched_does_no_harm(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cytolake.corpus.query import conditions

    delete(corpus.folder, "barcode = 'AAC'")
    state = load_table(corpus.folder / "cells")
    found, passing = conditions._files_on_disk, state.folder / f"{'0' * 64}.parquet"
    times: list[int] = []

    def with_a_passing_file(folder: Path) -> dict[Path, int]:
        times.append(1)
        return found(folder) | ({passing: 10} if len(times) == 1 else {})

    monkeypatch.setattr(conditions, "_files_on_disk", with_a_passing_file)
    chosen = choose_gone(corpus.folder, state, "true")
    assert chosen.column("barcode").to_pylist() == ["AAC"] and len(times) == 2


@pytest.mark.parametrize("reason", ["", " \n"])
def test_a_blank_reason_is_refused(corpus: Corpus, reason: str) -> None:
    with pytest.raises(CorpusError, match="a withdrawal needs a reason"):
        withdraw(corpus.folder, "true", reason)


def test_a_withdrawn_cell_does_not_come_back_by_another_source_or_corrected_counts(
    corpus: Corpus, prepare_source: Callable[..., Any]
) -> None:
    withdraw(corpus.folder, "barcode = 'CCC' OR (source_id = 'blood' AND barcode = 'AAC')", "r")
    # The same counts under another name: CCC's equal, and AAC.
    commit = corpus.commit_source(*prepare_source(corpus, "blood", source_id="b", sha256="c" * 64))
    assert commit.n_withdrawn == 2
    # Other counts under the same names: blood's AAC by its barcode, lung's CCC's equal by counts.
    receipt, segments = prepare_source(
        corpus, "lung", source_id="blood", segment_id="corrected", sha256="d" * 64
    )
    again = commit_source(corpus.folder, receipt, segments, replace=True)
    assert again.n_withdrawn == 1
    assert cells(corpus.folder) == [
        ("b", "AAA"), ("blood", "AAA"), ("blood", "GGG"), ("lung", "AAA"), ("lung", "GGG"),
    ]  # fmt: skip
    assert Corpus.open(corpus.folder).verify(deep=True) == []


def test_a_barcode_that_was_withdrawn_stays_out_of_a_corrected_file(
    corpus: Corpus, prepare_source: Callable[..., Any]
) -> None:
    """Blood's AAA is withdrawn; the corrected blood has lung's counts, so AAA has others."""
    withdraw(corpus.folder, "source_id = 'blood' AND barcode = 'AAA'", "r")
    receipt, segments = prepare_source(
        corpus, "lung", source_id="blood", segment_id="corrected", sha256="d" * 64
    )
    assert commit_source(corpus.folder, receipt, segments, replace=True).n_withdrawn == 1
    assert ("blood", "AAA") not in cells(corpus.folder)
    assert ("lung", "AAA") in cells(corpus.folder)


def test_neither_record_nor_tombstone_says_a_barcode_or_a_value(corpus: Corpus) -> None:
    withdraw(corpus.folder, "barcode = 'CCC' AND donor_id = $$d3$$ -- Jane Roe", "consent ended")
    record = last_record(corpus)
    assert record.kind == "withdraw"
    assert record.body["condition"] == "barcode = ? AND donor_id = ?"
    assert record.body["n_cells"] == 1
    for path in (corpus.folder / "withdrawn").iterdir():
        assert b"CCC" not in path.read_bytes()
    for path in (corpus.folder / "cells" / "_delta_log").iterdir():
        text = path.read_bytes()
        assert b"CCC" not in text and b"Jane" not in text and b"$d3" not in text


# ---------------------------------------------------------------------- the shape of a condition


@pytest.mark.parametrize(
    ("where", "shape"),
    [
        ("tissue = 'blood' AND n_counts > 500", "tissue = ? AND n_counts > ?"),
        ("barcode IN ('A', 'B','C')", "barcode IN (?, ?, ?)"),
        ("lower(donor_id) LIKE 'j%' ESCAPE '!'", "lower (donor_id) LIKE ? ESCAPE ?"),
        ("cell_id IN (SELECT cell_id FROM expression WHERE symbol = 'X')",
         "cell_id IN (SELECT cell_id FROM expression WHERE symbol = ?)"),
        ("'Jane' 'Roe' = donor_id", "? = donor_id"),
        ("cells.sex::VARCHAR = E'a\\'b'", "cells.sex::VARCHAR = ?"),
    ],
)  # fmt: skip
def test_a_shape_keeps_what_is_no_value(where: str, shape: str) -> None:
    assert shape_of(where, CELL_COLUMNS) == shape


SECRET = "Zq7x"


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                f"donor_id = '{SECRET}'",
                f"donor_id = 'it''s {SECRET}'",
                f"donor_id = E'a\\'{SECRET}'",
                f"donor_id = $${SECRET}$$",
                f"donor_id = $tag${SECRET} $$ '$tag$",
                f"true -- {SECRET}\n",
                f"true /* {SECRET} */",
                f"donor_id IN (WITH {SECRET}(a) AS (SELECT 1) SELECT 'é' AS \"{SECRET}\")",
                f"{{'{SECRET}': 1}} IS NOT NULL",
                f"donor_id = '{SECRET}é' OR tissue = 'é{SECRET}'",
                f'"{SECRET} "" é" = donor_id',
                "n_counts = 0x5A71_78",
                "n_counts > 1.5e77",
                "DATE '1977-01-01' IS NULL",
            ]
        ),
        min_size=1,
    )
)
def test_no_constant_comment_or_name_of_the_users_own_survives(parts: list[str]) -> None:
    shape = shape_of("(" + "\n) AND (".join(parts) + "\n)", CELL_COLUMNS)
    assert SECRET.lower() not in shape.lower()
    assert not any(letter.isdigit() or letter in "'$é" for letter in shape)


# ---------------------------------------------------------------------- statistics


def test_totals_of_genes_follow_the_living(corpus: Corpus) -> None:
    delete(corpus.folder, "source_id = 'blood' AND barcode = 'AAA'")
    rows = Corpus.open(corpus.folder).sql("SELECT symbol, n_cells, total FROM genes ORDER BY 1")
    assert {row["symbol"]: (row["n_cells"], row["total"]) for row in rows.to_pylist()} == {
        "ACTB": (4, 70007), "CD3D": (1, 2), "MS4A1": (2, 10), "MT-CO1": (0, 0), "MIR21": (1, 2),
    }  # fmt: skip


def test_totals_and_medians_are_exact_after_a_third_of_a_segment_went(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "corpus")
    ingest_source(corpus, "blood")
    ingest_source(corpus, "lung")
    ids = corpus_ids(corpus.folder, "segment = 'blood-0'")
    gone = np.random.default_rng(0).choice(ids, round(0.3 * len(ids)), replace=False)
    delete(corpus.folder, f"cell_id IN ({', '.join(map(str, gone))})")
    corpus = Corpus.open(corpus.folder)
    counts = corpus.sql(
        "SELECT e.gene_id, e.count, c.n_counts FROM expression e JOIN cells c USING (cell_id)"
    ).to_pandas()
    by_gene = counts.groupby("gene_id")
    totals = corpus.sql("SELECT gene_id, n_cells, total FROM genes").to_pandas()
    totals = totals.set_index("gene_id")
    assert (by_gene["count"].sum() == totals["total"]).all()
    assert (by_gene.size() == totals["n_cells"]).all()
    exact = (counts["count"] / counts["n_counts"] * 10_000).groupby(counts["gene_id"]).median()
    check_medians(corpus, exact.to_dict())


@pytest.mark.parametrize("n_left", [1, 2, 3])
def test_medians_of_genes_with_few_cells_left_are_exact(tmp_path: Path, n_left: int) -> None:
    corpus = Corpus.create(tmp_path / "corpus")
    ingest_source(corpus, "blood")
    kept = corpus_ids(corpus.folder, "true")[:n_left]
    delete(corpus.folder, f"cell_id NOT IN ({', '.join(map(str, kept))})")
    corpus = Corpus.open(corpus.folder)
    counts = corpus.sql(
        "SELECT e.gene_id, e.count, c.n_counts FROM expression e JOIN cells c USING (cell_id)"
    ).to_pandas()
    exact = (counts["count"] / counts["n_counts"] * 10_000).groupby(counts["gene_id"]).median()
    check_medians(corpus, exact.to_dict())


def corpus_ids(folder: Path, where: str) -> list[int]:
    chosen = choose_living(folder, load_table(folder / "cells"), where)
    return sorted(chosen.column("cell_id").to_pylist())


def check_medians(corpus: Corpus, exact: dict[str, float]) -> None:
    from cytolake.corpus.medians import medians_of

    medians = medians_of(corpus, corpus.select())
    found = dict(zip(medians.gene_ids, medians.medians, strict=True))
    assert found.keys() == exact.keys()
    for gene_id, median in exact.items():
        assert found[gene_id] == pytest.approx(median, rel=0.005), gene_id
