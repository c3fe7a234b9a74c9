"""Whole ingests through Ray, on small files and on real ones. One Ray session for all."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytolake.corpus.change.deletion import withdraw
from cytolake.corpus.store import Corpus
from cytolake.ingest import job
from cytolake.ingest.job import ingest
from cytolake.ingest.sources_toml import MutationalBurden, SourceEntry, load_sources
from cytolake.platform.errors import CorpusError
from cytolake.platform.session import ray_session
from cytolake.platform.settings import Settings
from cytolake.platform.tracking import MemoryTracker
from scipy import sparse

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Observation names are not unique"),  # while making files
]


@pytest.fixture(scope="module", autouse=True)
def session():
    with ray_session(n_cpus=2):
        yield


def cells(path: Path) -> list[dict[str, Any]]:
    query = "SELECT source_id, barcode, content_hash, n_counts, cell_type FROM cells ORDER BY 1, 2"
    return Corpus.open(path).sql(query).to_pylist()


def test_bad_sources_are_refused_and_the_others_land(adata: Any, tmp_path: Path, run: Any):
    adata.write_h5ad(tmp_path / "good.h5ad")
    data = (tmp_path / "good.h5ad").read_bytes()
    (tmp_path / "cut.h5ad").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty").mkdir()
    late = adata.copy()
    late.X.data[len(late.X.data) // 4 + 150] += 0.5
    late = late[list(range(40)) * 30].copy()
    late.obs_names = [f"c{i}" for i in range(1200)]
    late.write_h5ad(tmp_path / "late.h5ad")
    logs = adata.copy()
    logs.X.data[:] = np.log1p(logs.X.data)
    logs.write_h5ad(tmp_path / "logs.h5ad")
    mouse = adata.copy()
    mouse.var_names = [f"Mus{i}" for i in range(30)]
    del mouse.var["symbol"]
    mouse.write_h5ad(tmp_path / "mouse.h5ad")
    (tmp_path / "copy.h5ad").write_bytes(data)
    tracker = MemoryTracker()
    names = ("nowhere", "cut", "empty", "late", "logs", "mouse", "good", "copy")
    entries = [
        SourceEntry(path=name if name == "empty" else f"{name}.h5ad", name=name) for name in names
    ]
    report = run(*entries, tracker=tracker)
    assert report.exit_status == 1
    found = {source.source_id: source for source in report.sources}
    assert [found[name].status for name in names] == ["refused"] * 6 + ["added", "refused"]
    said = {name: str(found[name].error) for name in names}
    assert "no such file" in said["nowhere"]
    assert "cut.h5ad" in said["cut"] and "HDF5" in said["cut"]
    assert "folder is empty" in said["empty"]
    assert "X: " in said["late"] and ".5 at row" in said["late"]
    assert "no raw counts" in said["logs"] and "logs.h5ad" in said["logs"]
    assert "'Mus0', 'Mus1', 'Mus2', 'Mus3', 'Mus4'" in said["mouse"]
    assert "given twice" in said["copy"]
    assert all("Traceback" not in text and len(text) < 700 for text in said.values())
    lake = Corpus.open(tmp_path / "lake")
    assert lake.verify(deep=True) == []
    assert {row["source_id"] for row in cells(tmp_path / "lake")} == {"good"}
    statuses = lake.sql("SELECT source_id, status FROM sources").to_pylist()
    assert {row["source_id"]: row["status"] for row in statuses} == {
        name: "added" if name == "good" else "refused" for name in names
    } | {"good": "accepted"}
    assert not any((tmp_path / "lake" / "staging").iterdir())
    assert [drawn.row_count > 0 for drawn in report.tables()] == [True, True, True]
    good = found["good"].receipt
    assert good is not None and good.n_read == good.n_kept + good.n_dropped == 40
    assert len(good.units) == 3 and all("pid" in unit for unit in good.units)


def test_a_second_run_adds_nothing_and_exits_with_0(adata: Any, tmp_path: Path, run: Any):
    adata.write_h5ad(tmp_path / "a.h5ad")
    entry = SourceEntry(path="a.h5ad")
    first, second = run(entry), run(entry)
    assert [s.status for s in first.sources] == ["added"]
    assert [s.status for s in second.sources] == ["present"]
    assert (second.exit_status, second.n_added) == (0, 0)
    assert Corpus.open(tmp_path / "lake").snapshot == 1


def test_every_format_of_the_same_counts_gives_the_same_cells(adata: Any, tmp_path: Path, run: Any):
    dense = adata.X.toarray().astype(int)
    adata.X = sparse.csc_matrix(adata.X)
    adata.write_h5ad(tmp_path / "csc.h5ad")
    rows = [",".join(["", *adata.obs_names])]
    rows += [",".join([n, *map(str, c)]) for n, c in zip(adata.var_names, dense.T, strict=True)]
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    (tmp_path / "cells.csv").write_text(adata.obs.to_csv())
    report = run(
        SourceEntry(path="csc.h5ad"),
        SourceEntry(path="table.csv.gz", metadata="cells.csv"),
        unit_cells=7,
    )
    assert report.exit_status == 0
    rows = cells(tmp_path / "lake")
    by_source = {
        name: [{**row, "source_id": ""} for row in rows if row["source_id"] == name]
        for name in ("csc", "table")
    }
    assert by_source["csc"] == by_source["table"] and len(by_source["csc"]) > 30
    assert run(SourceEntry(path="csc.h5ad"), unit_cells=1000, name="other").exit_status == 0
    other = [{**row, "source_id": ""} for row in cells(tmp_path / "other")]
    assert other == by_source["csc"]


def test_a_source_of_cell_lines_lands_with_no_cell_and_every_reason(
    adata: Any, tmp_path: Path, run: Any
):
    adata.write_h5ad(tmp_path / "a.h5ad")
    burden = MutationalBurden(reason="cell lines")
    (source,) = run(SourceEntry(path="a.h5ad", mutational_burden=burden)).sources
    assert source.status == "added" and source.receipt is not None
    assert dict(source.receipt.dropped) == {"mutational_burden": 40}
    lake = Corpus.open(tmp_path / "lake")
    assert lake.sql("SELECT count(*) AS n FROM cells").to_pylist() == [{"n": 0}]
    assert lake.sql("SELECT count(*) AS n FROM dropped").to_pylist() == [{"n": 40}]


def test_the_next_layer_is_tried_when_one_fails_beyond_its_sample(
    adata: Any, tmp_path: Path, run: Any
):
    big = adata[list(range(40)) * 30].copy()
    big.obs_names = [f"c{i}" for i in range(1200)]
    big.layers["counts"] = big.X.copy()
    place = big.layers["counts"].indptr[300]
    big.layers["counts"].data[place] = 0.5
    big.write_h5ad(tmp_path / "a.h5ad")
    (source,) = run(SourceEntry(path="a.h5ad"), unit_cells=500).sources
    assert source.status == "added" and source.receipt is not None
    assert source.receipt.layer == "X"
    assert any("layers/counts: 0.5 at row 300" in line for line in source.receipt.warnings)


def test_the_richer_demo_uses_four_units_in_two_processes(resources: Path, tmp_path: Path):
    demo = Path(str(job.__file__)).parent / "demo"
    settings = Settings(home=tmp_path, resources=(resources,))
    report = ingest(str(tmp_path / "lake"), load_sources(demo / "sources.toml"), settings)
    assert report.exit_status == 0
    assert sum(len(source.units) for source in report.sources) >= 4
    assert len(report.worker_pids) >= 2
    dropped = {s.source_id: dict(s.receipt.dropped) for s in report.sources if s.receipt}
    assert dropped["mixology-celseq2"] == {"mutational_burden": 274}
    assert dropped["mixology-dropseq"] == {"mutational_burden": 225}
    panels = {s.source_id: s.receipt.panel for s in report.sources if s.receipt}
    assert panels["kang"] and not panels["pbmc3k"]
    assert Corpus.open(tmp_path / "lake").verify() == []


def test_a_corrected_file_replaces_its_source_in_one_commit_without_withdrawn_cells(
    adata: Any, tmp_path: Path, run: Any
):
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert run(SourceEntry(path="a.h5ad")).exit_status == 0
    before = cells(tmp_path / "lake")
    withdraw(tmp_path / "lake", "barcode IN ('cell1', 'cell2')", "consent ended")
    adata.X.data[adata.X.indptr[1]] += 1  # cell1 comes with other counts, cell2 with its own
    adata.X.data[adata.X.indptr[3]] += 1
    adata[:30].copy().write_h5ad(tmp_path / "corrected.h5ad")
    report = run(SourceEntry(path="corrected.h5ad"), replace="a")
    (source,) = report.sources
    assert (source.status, source.source_id, source.n_withdrawn) == ("replaced", "a", 2)
    assert source.receipt is not None and report.n_added == source.receipt.n_kept - 2
    lake = Corpus.open(tmp_path / "lake")
    assert lake.log()[0]["what"] == "replaced a" and lake.snapshot == 3
    after = {row["barcode"]: row["content_hash"] for row in cells(tmp_path / "lake")}
    old = {row["barcode"]: row["content_hash"] for row in before}
    assert not {"cell1", "cell2", *(f"cell{i}" for i in range(30, 40))} & after.keys()
    assert [name for name in after if after[name] != old[name]] == ["cell3"]
    assert lake.verify(deep=True) == []
    assert any("left out: withdrawn" in str(list(t.columns[1].cells)) for t in report.tables())
    again = run(SourceEntry(path="corrected.h5ad"), replace="a")
    assert [s.status for s in again.sources] == ["present"]
    with pytest.raises(CorpusError, match="no source 'aa' to replace"):
        run(SourceEntry(path="corrected.h5ad"), replace="aa")


def test_the_same_file_replaces_itself_when_it_is_to_be_read_with_other_settings(
    adata: Any, tmp_path: Path, run: Any
):
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert run(SourceEntry(path="a.h5ad", constants={"tissue": "heart"})).exit_status == 0
    corrected = SourceEntry(path="a.h5ad", constants={"tissue": "lung"})
    refused = run(corrected)
    assert "ingest --replace a" in str(refused.sources[0].error)
    report = run(corrected, replace="a")
    assert [source.status for source in report.sources] == ["replaced"]
    lake = Corpus.open(tmp_path / "lake")
    assert lake.sql("SELECT DISTINCT tissue FROM cells").to_pylist() == [{"tissue": "lung"}]
    assert lake.snapshot == 2 and lake.verify(deep=True) == []
    assert [source.status for source in run(corrected, replace="a").sources] == ["present"]


def test_no_record_of_a_source_says_a_barcode(adata: Any, tmp_path: Path, run: Any):
    adata.obs_names = ["Jane-0", "Jane-0", *(f"Jane-{i}" for i in range(2, 40))]
    adata.layers["counts"] = adata.X.copy()
    adata.layers["counts"].data[50] = 0.5
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.X.data[50] = 0.5
    adata.write_h5ad(tmp_path / "b.h5ad")
    report = run(SourceEntry(path="a.h5ad"), SourceEntry(path="b.h5ad"))
    assert [source.status for source in report.sources] == ["added", "refused"]
    good = report.sources[0].receipt
    assert good is not None and any("1 rows repeat a barcode" in line for line in good.warnings)
    assert "Jane" not in report.to_json()
    logs = [*(tmp_path / "lake").glob("*/_delta_log/*.json")]
    assert logs and not any(b"Jane" in path.read_bytes() for path in logs)
