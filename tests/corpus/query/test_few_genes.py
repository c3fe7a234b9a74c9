"""The view `expression` over few genes: the same answers, and no file of others opened."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from cytolake.corpus.query import few_genes, gene_index
from cytolake.corpus.query.gene_index import GeneIndex
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CytolakeError, DamageError

EVERY_COLUMN = "FROM expression WHERE symbol IN ('S1', 'S300') ORDER BY ALL"
QUERIES = [
    EVERY_COLUMN,
    "FROM expression WHERE gene_id = 'ENSG00000000150' ORDER BY ALL",
    "FROM expression WHERE symbol = 'nobody'",
    "FROM mean_by('S10', cell_type)",
    "SELECT c.donor_id, sum(e.count) FROM cells c JOIN expression e USING (cell_id) "
    "WHERE e.symbol = 'S0' AND c.row > 5 GROUP BY ALL ORDER BY ALL",
    "FROM markers(cell_type = 'T cell', genes := ['S10', 'S400'])",
    "FROM coexpression('S10', 'S400', groups := cell_type)",
]


@pytest.fixture
def fresh(asked: Corpus) -> Corpus:
    """The corpus before any question."""
    return Corpus.open(asked.folder)


def whole(corpus: Corpus, query: str, views: set[str]) -> pa.Table:
    """The answer over the view of every gene."""
    return corpus._engine.inner(query, views)


def shows_few(corpus: Corpus) -> bool:
    views = corpus._engine._views
    return views is not None and views._few_genes._restricted


@pytest.mark.parametrize("query", QUERIES)
def test_few_genes_give_the_answer_of_all(fresh: Corpus, query: str) -> None:
    found = fresh.sql(query)
    assert shows_few(fresh)
    expected = whole(fresh, query, {"expression"})
    assert not shows_few(fresh)
    assert found.schema == expected.schema
    for name, kind in zip(found.schema.names, found.schema.types, strict=True):
        one, other = found.column(name).to_pylist(), expected.column(name).to_pylist()
        # Sums of the same numbers in another order.
        assert one == (pytest.approx(other, rel=1e-12) if pa.types.is_floating(kind) else other)


def test_a_question_about_every_gene_sees_them_all_before_and_after(fresh: Corpus) -> None:
    asked_first = fresh.sql("SELECT count(*), sum(count) FROM expression")
    few = fresh.sql(EVERY_COLUMN)
    assert 0 < few.num_rows < asked_first.column(0)[0].as_py()
    assert fresh.sql("SELECT count(*), sum(count) FROM expression") == asked_first
    assert fresh.sql(EVERY_COLUMN) == few


def test_no_file_is_opened_for_genes_that_are_read_by_themselves(fresh: Corpus) -> None:
    query = "SELECT sum(count) FROM expression WHERE symbol = 'S300'"
    fresh.sql(query)
    connection = fresh._engine._connection
    assert connection is not None
    assert "PARQUET" not in str(connection.sql(f"EXPLAIN {query}").fetchall())
    whole(fresh, query, {"expression"})
    assert "PARQUET" in str(connection.sql(f"EXPLAIN {query}").fetchall())


@pytest.mark.parametrize(
    ("room", "name", "limit"),
    [
        (few_genes, "_MOST_GENES", 1),
        (few_genes, "_MOST_COUNTS", 3),
        (few_genes, "PLACES_IN_MEMORY", 3),
        (gene_index, "_NUMBERS_IN_MEMORY", 3),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_not_fit_is_read_by_duckdb(
    fresh: Corpus, monkeypatch: pytest.MonkeyPatch, room: object, name: str, limit: int
) -> None:
    monkeypatch.setattr(room, name, limit)
    found = fresh.sql(EVERY_COLUMN)
    assert not shows_few(fresh)
    monkeypatch.undo()
    assert Corpus.open(fresh.folder).sql(EVERY_COLUMN) == found


def test_statistics_that_do_not_fit_the_counts_are_not_trusted(
    fresh: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fresh.sql(EVERY_COLUMN)
    read_table = gene_index.pq.read_table

    def reversed_numbers(*arguments: object, **named: object) -> pa.Table:
        table = read_table(*arguments, **named)
        numbers = table.column("n_cells").to_pylist()
        return table.set_column(
            table.column_names.index("n_cells"), "n_cells", pa.array(numbers[::-1])
        )

    monkeypatch.setattr(gene_index.pq, "read_table", reversed_numbers)
    again = Corpus.open(fresh.folder)
    assert again.sql(EVERY_COLUMN) == expected
    assert not shows_few(again)


@pytest.fixture
def copied(asked: Corpus, tmp_path: Path) -> Iterator[Corpus]:
    folder = tmp_path / "copy"
    shutil.copytree(asked.folder, folder)
    yield Corpus.open(folder)


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
def test_a_file_that_changes_between_questions_is_an_error(copied: Corpus, damage: str) -> None:
    copied.sql(EVERY_COLUMN)
    path = copied.folder / "segments" / "large-0" / "expression" / "0000.parquet"
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
        changed = bytearray(data)
        changed[200:] = bytes(len(data) - 200) if damage == "flipped" else b""
        path.write_bytes(changed)
    with pytest.raises(CytolakeError) as error:
        copied.sql("FROM expression WHERE symbol = 'S10'")
    assert isinstance(error.value, DamageError)
    assert "expression/0000.parquet" in str(error.value)


def test_an_empty_corpus_has_no_index(tmp_path: Path) -> None:
    empty = Corpus.create(tmp_path / "empty")
    assert empty.sql("FROM expression WHERE symbol = 'A'").num_rows == 0
    assert GeneIndex.build([]) is not None
