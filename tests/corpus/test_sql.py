from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cytolake.corpus.query.sandbox import VIEWS
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import DamageError

MEAN_BY_TYPE = """
    WITH able AS (
        SELECT c.cell_type, count(*) AS n FROM cells c
        JOIN measured m ON m.segment = c.segment
        JOIN genes g ON g.gene_id = m.gene_id AND g.symbol = '{symbol}' GROUP BY 1
    ), seen AS (
        SELECT c.cell_type, sum(e.count / c.n_counts * 1e4) AS total, count(*) AS n
        FROM expression e JOIN cells c USING (cell_id) WHERE e.symbol = '{symbol}' GROUP BY 1
    )
    SELECT able.cell_type, coalesce(seen.total, 0) / able.n AS mean,
           coalesce(seen.n, 0) / able.n AS fraction
    FROM able LEFT JOIN seen ON able.cell_type IS NOT DISTINCT FROM seen.cell_type
"""


@pytest.mark.parametrize("symbol", ["ACTB", "CD3D", "MS4A1", "MT-CO1", "MIR21"])
def test_the_mean_over_all_cells_that_measured_a_gene_equals_numpy(
    fake_corpus: Corpus, symbol: str
) -> None:
    adata = fake_corpus.to_anndata(genes=[symbol])
    counts = adata.X.toarray()[:, 0]
    measured = (adata.obs["source_id"] == "blood").to_numpy() | (
        adata.var["n_cells_measured"].iloc[0] == 6
    )
    expected = {}
    types = np.array(
        adata.obs["cell_type"].astype(object).where(adata.obs["cell_type"].notna(), None)
    )
    for cell_type in {value for value, able in zip(types, measured, strict=True) if able}:
        chosen = measured & np.array([value == cell_type for value in types])
        values = counts[chosen] / adata.obs["n_counts"].to_numpy()[chosen] * 1e4
        expected[cell_type] = (values.mean(), (values > 0).mean())
    rows = fake_corpus.sql(MEAN_BY_TYPE.format(symbol=symbol)).to_pylist()
    found = {row["cell_type"]: (row["mean"], row["fraction"]) for row in rows}
    assert found.keys() == expected.keys()
    for cell_type, values in expected.items():
        np.testing.assert_allclose(found[cell_type], values, rtol=1e-12)


def test_cd3d_by_hand(fake_corpus: Corpus) -> None:
    # T cells: 4/10, 0/5 and 2/4 of 10,000; all three measured it
    rows = fake_corpus.sql(MEAN_BY_TYPE.format(symbol="CD3D")).to_pylist()
    t_cells = next(row for row in rows if row["cell_type"] == "T cell")
    assert t_cells["mean"] == pytest.approx((4000 + 0 + 5000) / 3)
    assert t_cells["fraction"] == pytest.approx(2 / 3)


def test_of_equal_contents_the_first_by_source_and_barcode_is_primary(fake_corpus: Corpus) -> None:
    rows = fake_corpus.sql("SELECT source_id, barcode FROM cells WHERE NOT is_primary").to_pylist()
    assert rows == [{"source_id": "lung", "barcode": "CCC"}]


def test_source_obs_gives_the_source_columns_back(fake_corpus: Corpus) -> None:
    rows = fake_corpus.sql(
        "SELECT c.barcode, o.cluster, o.age FROM source_obs o JOIN cells c USING (cell_id) "
        "WHERE c.source_id = 'lung' ORDER BY c.row"
    ).to_pylist()
    assert rows[2] == {"barcode": "GGG", "cluster": "lung-2", "age": 60}


def test_dropped_cells_stay_queryable(fake_corpus: Corpus) -> None:
    rows = fake_corpus.sql("SELECT source_id, barcode, reason FROM dropped").to_pylist()
    assert rows == [{"source_id": "blood", "barcode": "TTT", "reason": "total_counts"}]


def test_every_view_of_an_empty_corpus_is_empty(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "corpus")
    for view in VIEWS:
        assert corpus.sql(f"SELECT * FROM {view}").num_rows == 0


@pytest.mark.parametrize(
    ("part", "query"),
    [
        ("segments/blood-0/expression/0000.parquet", "SELECT * FROM expression"),
        ("segments/blood-0/obs.parquet", "SELECT * FROM source_obs"),
        ("segments/blood-0/statistics.parquet", "SELECT * FROM genes"),
        ("cells/*.parquet", "SELECT * FROM cells"),
    ],
)
def test_a_flipped_bit_in_parquet_is_found_before_the_first_use(
    build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path, part: str, query: str
) -> None:
    corpus = build_fake_corpus(tmp_path / "corpus")
    path: Path = sorted(corpus.folder.glob(part))[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(DamageError, match=path.name):
        Corpus.open(corpus.uri).sql(query)


def test_a_missing_parquet_is_named(
    build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path
) -> None:
    corpus = build_fake_corpus(tmp_path / "corpus")
    (corpus.segments_folder / "lung-0/dropped.parquet").unlink()
    with pytest.raises(DamageError, match=r"lung-0/dropped\.parquet is missing"):
        corpus.sql("SELECT * FROM dropped")
