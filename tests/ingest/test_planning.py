import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytolake.corpus.store import Corpus
from cytolake.ingest import job, planning
from cytolake.ingest.plan_toml import plan_toml, toml_value
from cytolake.ingest.planning import plan_report
from cytolake.ingest.plans import PlanReport
from cytolake.ingest.sources_toml import SourceEntry, SourcesFile, load_sources
from cytolake.platform.settings import Settings
from hypothesis import given
from hypothesis import settings as trying
from hypothesis import strategies as st

Plan = Callable[..., PlanReport]


@pytest.fixture
def plan(reference_table: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plan:
    monkeypatch.setattr(planning, "gene_table", lambda settings: reference_table)

    def make(*entries: SourceEntry, unit_cells: int = 16) -> PlanReport:
        sources = SourcesFile(source=entries, unit_cells=unit_cells, folder=tmp_path)
        return plan_report(sources, Settings(home=tmp_path), n_cpus=2)

    return make


@pytest.fixture
def ingested(reference_table: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A whole ingest in this process: the driver's stages without Ray."""
    monkeypatch.setattr(job, "gene_table", lambda settings: reference_table)
    monkeypatch.setattr(job, "_in_parallel", job._at_home)
    monkeypatch.setattr(job, "_open_ray", lambda *_: None)
    return lambda sources: job.ingest(str(tmp_path / "lake"), sources, Settings(home=tmp_path))


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"quality": {"method": "mad", "total_counts_mad": 4}, "duplicate_barcodes": "keep"},
        {"filters": {"keep": {"cell_type": ["T"]}, "max": {"score": 0.8}}},
        {"quality": {"min_counts": 20, "max_mito_fraction": 0.3, "min_genes_detected": 9}},
        {"mutational_burden": {"reason": "lines", "column": "cell_type", "values": ["B"]}},
        {"columns": {"donor_id": "donor"}, "constants": {"tissue": "heart"}},
    ],
    ids=["plain", "mad", "filters", "stated", "burden", "columns"],
)
def test_an_ingest_does_what_its_plan_said(
    adata: Any, tmp_path: Path, plan: Plan, ingested: Any, values: Any
):
    names = adata.obs_names.tolist()
    adata.obs_names = [*names[:39], names[3]]
    adata.write_h5ad(tmp_path / "a.h5ad")
    entry = SourceEntry(path="a.h5ad", **values)
    (told,) = plan(entry).sources
    assert told.error is None and sorted(path.name for path in tmp_path.iterdir()) == ["a.h5ad"]
    (done,) = ingested(SourcesFile(source=(entry,), unit_cells=16, folder=tmp_path)).sources
    receipt = done.receipt
    assert receipt is not None and done.status == "added"
    assert told.thresholds.bounds == receipt.thresholds
    assert told.thresholds.skipped == receipt.skipped_rules
    assert told.dropped == dict(receipt.dropped)
    assert (told.n_cells, told.n_kept) == (receipt.n_read, receipt.n_kept)
    assert (told.n_gene_names, told.n_mapped) == (30, receipt.genes["n_mapped"])
    assert told.bytes_expected > 0 and told.seconds_expected > 0
    lake = Corpus.open(tmp_path / "lake")
    columns = lake.sql("SELECT donor_id, tissue FROM cells LIMIT 1").to_pylist()[0]
    assert {name for name, value in columns.items() if value is not None} == {
        name for name in told.mapped if name in ("donor_id", "tissue")
    }


def test_the_written_sources_toml_gives_the_planned_cells(adata: Any, tmp_path: Path, plan: Plan):
    adata.layers["counts"] = adata.X.copy()
    adata.X.data[:] = np.log1p(adata.X.data)
    (tmp_path / "in").mkdir()
    adata.write_h5ad(tmp_path / "in" / 'a "b".h5ad')
    (tmp_path / "in" / "cells.csv").write_text("barcode,lane\n" + "cell0,1\n")
    entry = SourceEntry(
        path='in/a "b".h5ad',
        metadata="in/cells.csv",
        columns={"cell_type": "cell_type"},
        quality={"total_counts_sd": "off", "max_mito_fraction": 0.25},
        filters={"drop": {"cell_type": ["X\ty"]}},
        doublets={"seed": 3},
    )
    first = plan(entry, SourceEntry(path="nowhere.h5ad"))
    assert first.exit_status == 1
    (tmp_path / "out").mkdir()
    written = tmp_path / "out" / "sources.toml"
    written.write_text(plan_toml(first))
    again = load_sources(written)
    (source,) = again.source
    assert source.layer == "layers/counts" and source.reader == "h5ad"
    assert source.quality == entry.quality and source.filters == entry.filters
    assert source.doublets == entry.doublets and source.columns == entry.columns
    assert "# refused: " in written.read_text() and "no such file" in written.read_text()
    assert 'likely by their names, look and uncomment: columns = { donor_id = "donor"' in plan_toml(
        first
    )
    second = plan(*again.source)
    assert second.sources[0].thresholds == first.sources[0].thresholds
    assert second.sources[0].dropped == first.sources[0].dropped
    assert "total_counts" in second.sources[0].thresholds.skipped


def test_refusals_are_told_with_the_reason_of_an_ingest(adata: Any, tmp_path: Path, plan: Plan):
    late = adata.copy()
    late.X.data[-1] += 0.5
    late.write_h5ad(tmp_path / "late.h5ad")
    (tmp_path / "broken.h5ad").write_bytes(b"\x89HDF\r\n\x1a\n" + b"x" * 50)
    adata.write_h5ad(tmp_path / "good.h5ad")
    report = plan(*(SourceEntry(path=f"{name}.h5ad") for name in ("late", "broken", "good")))
    said = [source.error for source in report.sources]
    assert ".5 at row 39" in str(said[0]) and "HDF5" in str(said[1]) and said[2] is None
    drawn = report.tables()
    assert len(drawn) == 3 and drawn[2].row_count > 6
    text = dict(report.sources[2].rows())
    assert "all" in text["raw counts"] and "30 names have an Ensembl id" in text["genes"]
    assert text["malignant cells"].startswith("CELLxGENE's words in cell_type")


@given(
    values=st.recursive(
        st.booleans() | st.integers(-(2**40), 2**40) | st.text()
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=8,
    )
)  # fmt: skip
@trying(max_examples=200, deadline=None)
def test_what_is_written_as_toml_is_read_as_it_was(values: Any):
    assert tomllib.loads(f"v = {toml_value(values)}")["v"] == values


def test_seurats_first_tutorial_keeps_its_2638_cells(resources: Path, tmp_path: Path):
    """More than 200 and fewer than 2,500 genes, under 5 % mitochondrial: 2,638 of 2,700 cells.

    Source: the guided clustering of 2,700 PBMC, https://satijalab.org/seurat/articles/pbmc3k_tutorial
    """
    entry = SourceEntry(
        path=str(resources / "pbmc3k_10x/pbmc3k_raw_labelled.h5ad"),
        quality={
            "min_genes_detected": 201, "max_genes_detected": 2499, "max_mito_fraction": 0.04999999,
            "total_counts_sd": "off",
        },
    )  # fmt: skip
    settings = Settings(home=tmp_path, resources=(resources,))
    (told,) = plan_report(SourcesFile(source=(entry,)), settings, n_cpus=2).sources
    assert (told.n_cells, told.n_kept) == (2700, 2638)
