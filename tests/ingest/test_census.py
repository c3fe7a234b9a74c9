"""Census by query, on local stores of the public one's layout. The public one is not reached."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytolake.corpus.store import Corpus
from cytolake.ingest.places import Nearby
from cytolake.ingest.sources import census
from cytolake.ingest.sources.census import CensusSource
from cytolake.ingest.sources.census_store import PUBLIC, CensusQuery, select_cells
from cytolake.ingest.sources.formats import open_source
from cytolake.ingest.sources_toml import SourceEntry, load_sources, plan_of, recipe_hash
from cytolake.ingest.work import fingerprint
from cytolake.platform.errors import RecipeError, SourceError
from cytolake.platform.session import ray_session
from cytolake.platform.settings import Settings

pytest.importorskip("tiledbsoma", reason="tiledbsoma is not installed: the extra [census]")
from .census_stores import write_census

HEART = "tissue_general == 'heart' and is_primary_data == True"


@pytest.fixture
def cells(adata: Any) -> Any:
    """The 40 cells as Census describes them: 2 data sets, hearts in both, some not primary."""
    adata.obs = adata.obs[["cell_type"]].assign(
        dataset_id=["one"] * 25 + ["two"] * 15,
        tissue_general=["heart", "heart", "blood", "heart"] * 10,
        is_primary_data=[i % 5 != 0 for i in range(40)],
        donor_id=[f"donor {i % 3}" for i in range(40)],
        nnz=np.diff(adata.X.indptr).astype(np.int64),
    )
    return adata


@pytest.fixture
def store(cells: Any, tmp_path: Path) -> Path:
    """They, as a Census in a folder; no data set says what it measured."""
    return write_census(tmp_path / "census", cells)


def asked(cells: Any) -> Any:
    return cells[(cells.obs.tissue_general == "heart") & cells.obs.is_primary_data]


def selected(store: Path, folder: Path, obs: str = HEART) -> CensusSource:
    return CensusSource(path=select_cells(CensusQuery(uri=str(store), obs=obs), folder / "picked"))


@pytest.mark.parametrize("rows", [3, 2048])
def test_counts_names_and_columns_are_those_of_the_anndata_it_was_made_of(
    cells: Any, store: Path, tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(census, "_ROWS", rows)
    wanted, source = asked(cells), selected(store, tmp_path)
    n_cells = wanted.n_obs
    assert n_cells == 24 and source.format == "census"
    assert source.layers()[0].n_stored == wanted.X.nnz
    genes = source.genes("raw")
    assert genes["index"].tolist() == list(cells.var_names)
    assert genes["feature_name"].tolist() == list(cells.var["symbol"])
    ids = 100 + 3 * np.flatnonzero(cells.obs_names.isin(wanted.obs_names))
    assert source.barcodes().tolist() == [str(joinid) for joinid in ids]
    whole = np.vstack([b.matrix.toarray() for b in source.blocks("raw", 0, n_cells)])
    assert np.array_equal(whole, wanted.X.toarray())
    part = list(source.blocks("raw", 5, 11))
    assert part[0].start == 5 and sum(block.n_cells for block in part) == 6
    assert np.array_equal(np.vstack([b.matrix.toarray() for b in part]), whole[5:11])
    obs = source.obs(5, 11)
    assert obs.column_names == source.obs_columns() == [*cells.obs.columns, "organism"]
    for name in cells.obs.columns:
        assert obs.column(name).to_pylist() == wanted.obs[name].tolist()[5:11]
    assert set(obs.column("organism").to_pylist()) == {"Homo sapiens"}
    assert source.obs(4, 4).schema == obs.schema
    assert len(source.sample("raw").values) == wanted.X.nnz


def test_one_query_on_one_release_is_one_source_and_any_other_is_another(
    cells: Any, store: Path, tmp_path: Path
):
    def identity(where: Path, obs: str, name: str) -> str:
        path = select_cells(CensusQuery(uri=str(where), obs=obs), tmp_path / name)
        assert open_source(path, recognise=len).format == "census"
        return fingerprint(path)[0]

    first = identity(store, HEART, "a")
    assert identity(store, HEART, "b") == first
    later = write_census(tmp_path / "later", cells, build="2025-11-08")
    assert len({first, identity(store, "", "c"), identity(later, HEART, "d")}) == 3


def test_genes_are_those_that_the_selected_data_sets_measured(cells: Any, tmp_path: Path):
    cells = cells[:, :].copy()
    dense = cells.X.toarray()
    dense[:25, 28:], dense[25:, :2] = 0, 0  # `one` lacks the last two genes, `two` the first two
    cells.X = type(cells.X)(dense)
    presence = {"one": [True] * 28 + [False] * 2, "two": [False] * 2 + [True] * 28}
    store = write_census(tmp_path / "census", cells, presence=presence)
    one = selected(store, tmp_path, "dataset_id == 'one'")
    assert one.genes("raw")["index"].tolist() == list(cells.var_names[:28])
    (block,) = one.blocks("raw", 0, 25)
    assert np.array_equal(block.matrix.toarray(), dense[:25, :28])
    assert not any("not measured" in note for note in one.notes)
    both = selected(store, tmp_path, "")
    assert len(both.genes("raw")["index"]) == 30
    assert any("4 of 30 genes are not measured by all" in note for note in both.notes)
    assert "census_build_date 2025-01-30" in both.notes[0] and "2 data sets" in both.notes[0]


def test_a_count_of_a_gene_that_the_store_calls_unmeasured_is_never_lost(
    cells: Any, tmp_path: Path
):
    presence = {"one": [True] * 29 + [False], "two": [True] * 29 + [False]}
    store = write_census(tmp_path / "census", cells, presence=presence)
    with pytest.raises(SourceError, match="has other cells or genes than its own tables say"):
        list(selected(store, tmp_path).blocks("raw", 0, 5))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"obs": "tissue == 'heart'"}, "Column tissue does not exist"),
        ({"obs": "donor_id =="}, "cannot be read with the filter of 11 letters"),
        ({"obs": "donor_id == 'Jane Doe'"}, "no cell fits the filter of 22 letters"),
        ({"organism": "mus_musculus"}, "no organism 'mus_musculus'; it has homo_sapiens"),
        ({"uri": "nowhere"}, "not a valid TileDB array or group"),
    ],
)
def test_what_cannot_be_selected_is_told_without_the_filter(
    store: Path, tmp_path: Path, query: dict[str, str], message: str
):
    with pytest.raises(SourceError, match=message) as caught:
        select_cells(CensusQuery(**({"uri": str(store)} | query)), tmp_path / "picked")
    assert "Jane" not in str(caught.value) and "donor_id ==" not in str(caught.value)
    assert not (tmp_path / "picked").exists()


def test_a_collection_that_is_no_census_is_named(store: Path, tmp_path: Path):
    for inside, message in (("census_info", "no census_data"), ("census_data", "no census_data")):
        with pytest.raises(SourceError, match=message):
            select_cells(CensusQuery(uri=str(store / inside)), tmp_path / "picked")


def test_without_tiledbsoma_the_extra_is_named(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "tiledbsoma", None)
    with pytest.raises(SourceError, match=r"pip install 'cytolake\[census\]'"):
        select_cells(CensusQuery(uri=str(store)), tmp_path / "picked")


def test_a_damaged_selection_is_refused(store: Path, tmp_path: Path):
    source = selected(store, tmp_path)
    np.save(source.path / "joinids.npy", np.arange(24))
    with pytest.raises(SourceError, match="is damaged"):
        source.barcodes()
    (source.path / "census.json").write_text("{}")
    with pytest.raises(SourceError, match="is no selection of a Census"):
        source.barcodes()


def test_the_public_census_is_read_without_credentials_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
):
    import tiledbsoma
    from cytolake.ingest.sources import census_store

    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(tiledbsoma, "open", lambda uri, context: context)
    for uri in (f"{PUBLIC}us-west-2/cell-census/2025-01-30/soma/", "s3://lab/census"):
        seen.append(census_store._open(uri).tiledb_config)
    assert seen[0]["vfs.s3.no_sign_request"] == "true" and seen[0]["vfs.s3.region"] == "us-west-2"
    assert seen[1].get("vfs.s3.no_sign_request", "false") == "false"
    assert all(config["soma.init_buffer_bytes"] == 2**25 for config in seen)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('census = { uri = "s3://k:secret@b/soma" }', "credentials by the environment"),
        ('census = { uri = "x", organism = "Homo sapiens" }', "organism"),
        ('census = { uri = "x", filter = "y" }', "no setting 'filter'"),
        ('path = "a"\ncensus = { uri = "x" }', "and not two"),
    ],
)
def test_a_mistake_in_the_table_is_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "sources.toml").write_text(f"[[source]]\n{text}")
    with pytest.raises(RecipeError, match=message) as caught:
        load_sources(tmp_path / "sources.toml")
    assert "secret" not in str(caught.value)


def test_a_query_is_its_place_and_no_setting_of_how_cells_are_read():
    hashes = {
        recipe_hash(entry, gene_reference="g", metadata_sha256=None)
        for entry in (
            SourceEntry(path="a"),
            SourceEntry(census=CensusQuery(uri="x", obs=HEART)),
        )
    }
    assert len(hashes) == 1


def test_the_same_query_is_staged_in_the_same_place(store: Path, tmp_path: Path):
    near = Nearby(staging=tmp_path / "staging")
    entry = SourceEntry(census=CensusQuery(uri="census", obs=HEART))
    plan = plan_of([tmp_path / "x.h5ad"]).model_copy(update={"folder": tmp_path})
    first, second = (near.bring(entry, plan, Settings()) for _ in range(2))
    assert first == second and first.name == "census-homo_sapiens"
    near.discard()
    assert not any((tmp_path / "staging").iterdir())


@pytest.mark.slow
def test_a_census_lands_whole_and_a_second_time_adds_nothing(
    cells: Any, store: Path, tmp_path: Path, run: Any
):
    entry = SourceEntry(
        census=CensusQuery(uri=str(store), obs=HEART),
        quality={"total_counts_sd": "off", "mitochondrial_sd": "off", "min_genes": 0},
    )
    empty = SourceEntry(name="none", census=CensusQuery(uri=str(store), obs="nnz > 1000"))
    with ray_session(n_cpus=2):
        report = run(entry, empty, unit_cells=7)
        again = run(entry, unit_cells=7)
    assert [source.status for source in report.sources] == ["added", "refused"]
    assert [source.status for source in again.sources] == ["present"]
    wanted = asked(cells)
    lake = Corpus.open(tmp_path / "lake")
    assert lake.sql("SELECT count(*) AS n FROM cells").to_pylist() == [{"n": wanted.n_obs}]
    found = lake.to_anndata()
    ids = [str(100 + 3 * i) for i in np.flatnonzero(cells.obs_names.isin(wanted.obs_names))]
    rows = [list(found.obs["barcode"]).index(joinid) for joinid in ids]
    assert np.array_equal(found[rows, list(cells.var_names)].X.toarray(), wanted.X.toarray())
    assert list(found.obs["donor_id"].iloc[rows]) == list(wanted.obs["donor_id"])
    accepted = lake.sql("SELECT uri, reader FROM sources WHERE status = 'accepted'").to_pylist()
    place = f"{store.as_uri()}/census_data/homo_sapiens"
    assert accepted == [{"uri": place, "reader": "census"}]
    assert lake.verify(deep=True) == []
    assert not any((tmp_path / "lake" / "staging").iterdir())
