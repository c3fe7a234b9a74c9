"""Cells through Ray Data: out of a corpus as rows, into another as one source, whole or not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cytolake.corpus.cell_rows import in_tables, rows_to_cells
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CorpusError, NoCellsError
from cytolake.platform.session import ray_session

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    with ray_session(n_cpus=2):
        yield


def rows_of(corpus: Corpus, **options: Any) -> tuple[list[dict[str, Any]], Any]:
    import ray
    from cytolake.corpus.job import CellsDatasource

    source = CellsDatasource(corpus.folder, **options)
    return ray.data.read_datasource(source, override_num_blocks=3).take_all(), source


def counts_by_cell(corpus: Corpus, where: str | None = None) -> dict[Any, dict[str, int]]:
    """cell_id -> gene -> count, of SQL."""
    condition = f"WHERE {where}" if where else ""
    rows = corpus.sql(
        f"SELECT e.cell_id, e.gene_id, e.count FROM expression e JOIN cells USING (cell_id) "
        f"{condition}"
    )
    found: dict[Any, dict[str, int]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["cell_id"], {})[row["gene_id"]] = row["count"]
    return found


def test_rows_are_the_cells_that_sql_tells_of(two: Corpus) -> None:
    rows, source = rows_of(
        two, where="source_id = 'lung'", columns=["barcode"], primary_only=False, cells_per_block=7
    )
    wanted = counts_by_cell(two, "source_id = 'lung'")
    barcodes = {
        row["cell_id"]: row["barcode"]
        for row in two.sql("SELECT cell_id, barcode FROM cells").to_pylist()
    }
    assert len(rows) == 48
    for row in rows:
        given = {source.genes[i]: n for i, n in zip(row["indices"], row["counts"], strict=True)}
        assert given == wanted.get(row["cell_id"], {})
        assert row["barcode"] == barcodes[row["cell_id"]]


def test_counts_of_other_genes_are_left_out(two: Corpus) -> None:
    gene = two.sql("SELECT gene_id FROM genes ORDER BY total DESC LIMIT 1").to_pylist()[0][
        "gene_id"
    ]
    rows, source = rows_of(two, genes=[gene], primary_only=False)
    assert source.genes == (gene,)
    found = {row["cell_id"]: row["counts"][0] for row in rows if len(row["counts"])}
    assert found == {
        cell: counts[gene] for cell, counts in counts_by_cell(two).items() if gene in counts
    }


def test_a_row_has_each_column_once_though_it_is_asked_for(two: Corpus) -> None:
    asked = ["cell_id", "n_counts", "n_genes", "barcode"]
    rows, _ = rows_of(two, columns=asked, primary_only=False)
    assert set(rows[0]) == {*asked, "indices", "counts"}
    told = two.sql("SELECT cell_id, n_counts, n_genes, barcode FROM cells ORDER BY cell_id")
    found = [{name: row[name] for name in asked} for row in rows]
    assert sorted(found, key=lambda row: row["cell_id"]) == told.to_pylist()


def test_a_column_named_as_the_counts_are_is_refused(two: Corpus) -> None:
    with pytest.raises(CorpusError, match="counts: a row's own counts have that name"):
        rows_of(two, columns=["counts"])


def test_an_open_corpus_gives_its_own_snapshot(two: Corpus) -> None:
    two.delete("source_id = 'blood'")  # in a newer one
    dataset = two.to_ray("source_id = 'blood'", columns=["barcode"])
    found = {row["cell_id"]: sorted(row["counts"]) for row in dataset.take_all()}
    wanted = counts_by_cell(two, "source_id = 'blood' AND is_primary")
    chosen = two.select("source_id = 'blood'").cell_id.tolist()
    assert found == {cell: sorted(wanted.get(cell, {}).values()) for cell in chosen}
    assert "barcode" in dataset.schema().names
    with pytest.raises(NoCellsError):
        Corpus.open(two.uri).to_ray("source_id = 'blood'")


def test_a_source_is_pinned_to_its_snapshot(two: Corpus) -> None:
    from cytolake.corpus.job import CellsDatasource

    source = CellsDatasource(two.folder, primary_only=False)
    two.delete("source_id = 'blood'")
    import ray

    assert ray.data.read_datasource(source).count() == 96
    with pytest.raises(NoCellsError):
        CellsDatasource(two.folder, where="source_id = 'blood'")


def test_what_goes_through_ray_data_into_another_corpus_is_the_same(
    two: Corpus, tmp_path: Path
) -> None:
    import ray
    from cytolake.corpus.job import CellsDatasink, CellsDatasource

    source = CellsDatasource(two.folder, primary_only=False, columns=["barcode", "tissue"])
    rows = ray.data.read_datasource(source, override_num_blocks=4).map(
        lambda row: {**row, "barcode": f"{row['cell_id']}", "twice": 2 * row["n_counts"]}
    )
    sink = CellsDatasink(tmp_path / "other", "copy", source.genes, version="1")
    rows.write_datasink(sink)
    other = Corpus.open(tmp_path / "other")
    assert sink.commit is not None and sink.commit.added and other.verify(deep=True) == []
    by_barcode = {
        row["cell_id"]: int(row["barcode"])
        for row in other.sql("SELECT cell_id, barcode FROM cells").to_pylist()
    }
    copied = {by_barcode[cell]: counts for cell, counts in counts_by_cell(other).items()}
    assert copied == counts_by_cell(two)
    assert other.sql(
        "SELECT count(*) AS n FROM cells JOIN source_obs USING (cell_id) WHERE twice = 2 * n_counts"
    ).to_pylist() == [{"n": 96}]
    assert not list((other.folder / "leases").iterdir())

    again = CellsDatasink(tmp_path / "other", "copy", source.genes, version="1")
    rows.write_datasink(again)
    assert again.commit is not None and not again.commit.added
    assert Corpus.open(tmp_path / "other").snapshot == other.snapshot


def test_two_cells_of_one_name_are_refused_and_nothing_is_there(tmp_path: Path) -> None:
    import ray
    from cytolake.corpus.job import CellsDatasink

    rows = [{"barcode": "A", "indices": [0], "counts": [3]}] * 2
    sink = CellsDatasink(tmp_path / "corpus", "twins", ["ENSG00000141510"])
    with pytest.raises(Exception, match="two cells are called 'A'"):
        ray.data.from_items(rows, override_num_blocks=2).write_datasink(sink)
    corpus = Corpus.open(tmp_path / "corpus")
    assert corpus.sql("SELECT * FROM cells").num_rows == 0
    assert not list((corpus.folder / "leases").iterdir())


def test_a_value_that_is_no_count_ends_the_job_with_its_reason(tmp_path: Path) -> None:
    import ray
    from cytolake.corpus.job import CellsDatasink

    rows = [{"barcode": "A", "indices": [0], "counts": [1.5]}]
    sink = CellsDatasink(tmp_path / "corpus", "halves", ["ENSG00000141510"])
    with pytest.raises(Exception, match="expected raw counts"):
        ray.data.from_items(rows).write_datasink(sink)
    assert Corpus.open(tmp_path / "corpus").sql("SELECT * FROM cells").num_rows == 0


ROW: dict[str, Any] = {"barcode": ["A"], "indices": [[0, 1]], "counts": [[1, 2]]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": None}, "no column 'counts'"),
        ({"barcode": None}, "neither 'barcode' nor 'cell_id'"),
        ({"counts": [[1]]}, "not as many counts as indices"),
        ({"indices": [[0, 2]]}, "lies outside its 2 genes"),
        ({"indices": [["a", "b"]]}, "expected whole numbers"),
        ({"indices": pa.array([None], pa.list_(pa.int32()))}, "expected an empty list"),
        ({"indices": [3]}, "expected lists of numbers"),
        ({"counts": [[0, 2]]}, "expected raw counts"),
        ({"counts": [[1, float("nan")]]}, "expected raw counts"),
    ],
)
def test_rows_that_are_no_cells_are_refused(change: dict[str, Any], message: str) -> None:
    given = {name: values for name, values in {**ROW, **change}.items() if values is not None}
    with pytest.raises(CorpusError, match=message):
        rows_to_cells(pa.table(given), ["G1", "G2"], where="source x")


@pytest.mark.parametrize("sizes", [[], [3], [2, 2, 2], [7], [1, 5, 1]])
def test_tables_of_a_size_hold_the_same_rows(sizes: list[int]) -> None:
    numbers = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]) if sizes else []
    tables = list(in_tables((pa.table({"n": some}) for some in numbers), 4))
    assert [n for table in tables for n in table.column("n").to_pylist()] == list(range(sum(sizes)))
    assert all(0 < table.num_rows <= 4 for table in tables)
