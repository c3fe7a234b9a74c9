import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytolake.ingest import inspect as inspect_module
from cytolake.ingest.inspect import inspect_source, likely_columns
from cytolake.ingest.sources_toml import SourceEntry
from cytolake.platform.configuration import parse_values
from cytolake.platform.errors import NoGenesError, SourceError
from cytolake.platform.settings import Settings, load_settings
from scipy import sparse


@pytest.fixture
def look(reference_table: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inspect_module, "gene_table", lambda settings: reference_table)
    return lambda path: inspect_source(path, Settings())


def test_an_inspection_tells_what_ingest_would_do(adata: Any, tmp_path: Path, look: Any):
    adata.raw = adata.copy()
    adata.raw.X.data[:] = np.log1p(adata.raw.X.data)
    adata.write_h5ad(tmp_path / "a.h5ad")
    found = look(tmp_path / "a.h5ad")
    assert (found.format, found.n_cells, found.n_genes) == ("h5ad", 40, 30)
    assert found.layer == "X" and not found.recover
    assert "all" in found.proof and "not raw/X: 1.09" in found.proof
    assert found.mapped_share == 1.0
    assert found.likely == {"donor_id": "donor"}
    assert "cell_type (T, B)" in found.to_text()


def test_the_source_to_paste_is_understood(adata: Any, tmp_path: Path, look: Any):
    adata.write_h5ad(tmp_path / 'a "quoted" name.h5ad')
    values = tomllib.loads(look(tmp_path / 'a "quoted" name.h5ad').to_toml())["source"][0]
    entry = parse_values(values, SourceEntry, origin="test")
    assert entry.columns == {"donor_id": "donor"}
    assert entry.path == str(tmp_path / 'a "quoted" name.h5ad')


def test_recovery_is_proposed_where_it_works(adata: Any, tmp_path: Path, look: Any):
    counts = adata.X.toarray()
    totals = counts.sum(axis=1, keepdims=True)
    adata.obs["n_counts"] = totals.ravel()
    adata.X = sparse.csr_matrix(np.log1p(counts / np.maximum(totals, 1) * 1e4))
    adata.write_h5ad(tmp_path / "a.h5ad")
    found = look(tmp_path / "a.h5ad")
    assert found.recover and found.layer == "X"
    assert 'recover = "log1p_cp10k"' in found.to_toml()


def test_names_without_an_id_and_repeated_barcodes_are_shown(adata: Any, tmp_path: Path, look: Any):
    adata.var_names = [*adata.var_names[:28], "foo", "TWICE"]
    del adata.var["symbol"]
    names = adata.obs_names.tolist()
    names[1] = names[0]
    adata.obs_names = names
    adata.write_h5ad(tmp_path / "a.h5ad")
    text = look(tmp_path / "a.h5ad").to_text()
    assert "TWICE, foo" in text
    assert "93.3% of 30 names" in text
    assert "repeated barcodes  1" in text


def test_proteins_alone_are_refused(adata: Any, tmp_path: Path, look: Any):
    adata.var_names = [f"CD{i}_PROT" for i in range(30)]
    del adata.var["symbol"]
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(NoGenesError, match="CD0_PROT"):
        look(tmp_path / "a.h5ad")


def test_nothing_there_is_refused(look: Any):
    with pytest.raises(SourceError, match="no such file"):
        look("/nowhere/a.h5ad")


@pytest.mark.parametrize(
    ("columns", "likely"),
    [
        (["celltype", "Patient"], {"cell_type": "celltype", "donor_id": "Patient"}),
        (["cell_type", "cluster_id"], {}),
        (["n_genes"], {}),
    ],
)
def test_columns_are_likely_by_their_names(columns: Any, likely: Any):
    assert likely_columns(columns) == likely


@pytest.mark.parametrize(
    "path",
    [
        "pbmc3k_10x/pbmc3k_filtered_gene_bc_matrices.tar.gz",
        "kang2018_ifnb_pbmc/kang_12261cells_1287genes.h5ad",
        "sc_mixology_tian2019/sc_dropseq.count.csv.gz",
    ],
)
def test_nearly_every_gene_of_a_real_file_is_known(resources: Path, path: str):
    assert inspect_source(resources / path, load_settings()).mapped_share > 0.99
