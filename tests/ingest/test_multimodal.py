"""Sources of several modalities, written by the field's own library: whole ingests through Ray."""

from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
from cytolake.corpus.store import Corpus
from cytolake.ingest.sources.companions import row_order, rows_of
from cytolake.ingest.sources.h5mu import H5muSource
from cytolake.ingest.sources.memory import MemorySource
from cytolake.ingest.sources_toml import SourceEntry
from cytolake.platform.errors import SourceError
from cytolake.platform.session import ray_session
from scipy import sparse

TAGS = ["CD3", "CD19", "CD14"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Observation names are not unique"),
    pytest.mark.filterwarnings("ignore:.*obs_names.*"),
    pytest.mark.filterwarnings("ignore:.*pull_on_update.*"),
]


@pytest.fixture(scope="module")
def session():
    with ray_session(n_cpus=2):
        yield


def tags(adata: Any, names: Any = None) -> Any:
    rng = np.random.default_rng(5)
    dense = rng.poisson(2.0, (adata.n_obs, len(TAGS))).astype(np.float32)
    index = adata.obs_names if names is None else pd.Index(names)
    return ad.AnnData(
        sparse.csr_matrix(dense),
        obs=pd.DataFrame(index=index),
        var=pd.DataFrame(index=pd.Index(TAGS)),
    )


def write(path: Path, **mods: Any) -> None:
    """Each modality as it is given: in its own order, with its own cells."""
    with mudata.set_options(pull_on_update=False):
        mudata.MuData({name: mod.copy() for name, mod in mods.items()}).write_h5mu(path)


def proteins(folder: Path) -> dict[tuple[str, str], int]:
    rows = Corpus.open(folder).sql(
        "SELECT barcode, feature_id, count FROM protein JOIN "
        "(SELECT cell_id, barcode FROM cells) USING (cell_id)"
    )
    return {(r["barcode"], r["feature_id"]): r["count"] for r in rows.to_pylist()}


def expected(mod: Any, kept: Any) -> dict[tuple[str, str], int]:
    dense = mod.X.toarray()
    return {
        (barcode, name): int(dense[c, f])
        for c, barcode in enumerate(mod.obs_names)
        for f, name in enumerate(mod.var_names)
        if dense[c, f] and barcode in kept
    }


def kept(folder: Path) -> set[str]:
    return set(Corpus.open(folder).sql("SELECT barcode FROM cells")["barcode"].to_pylist())


def test_every_modality_of_an_h5mu_lands_with_its_own_counts(
    session: Any, adata: Any, tmp_path: Path, run: Any
):
    order = np.random.default_rng(1).permutation(adata.n_obs)
    adt = tags(adata)[order].copy()  # in another order than the genes
    peaks = ad.AnnData(
        sparse.csr_matrix(np.eye(adata.n_obs, 50, dtype=np.float32) * 3),
        obs=pd.DataFrame(index=adata.obs_names),
        var=pd.DataFrame(index=pd.Index([f"chr1:{i}00-{i}99" for i in range(50)])),
    )
    write(tmp_path / "a.h5mu", rna=adata, adt=adt, atac=peaks)
    report = run(SourceEntry(path="a.h5mu"))
    assert [source.status for source in report.sources] == ["added"]
    lake = tmp_path / "lake"
    assert proteins(lake) == expected(adt, kept(lake))
    corpus = Corpus.open(lake)
    assert corpus.verify(deep=True) == []
    mdata = corpus.to_mudata()
    assert list(mdata.mod) == ["rna", "protein", "atac"]
    found = mdata["atac"].to_df()
    found.index = mdata["atac"].obs["barcode"].to_numpy()
    wanted = peaks.to_df().loc[found.index, found.columns]
    assert (found.to_numpy() == wanted.to_numpy()).all()
    assert [s.status for s in run(SourceEntry(path="a.h5mu")).sources] == ["present"]


def test_a_modality_that_is_no_counts_or_lacks_cells_is_left_out_and_the_genes_land(
    session: Any, adata: Any, tmp_path: Path, run: Any
):
    logs = tags(adata)
    logs.X.data[:] = np.log1p(logs.X.data)
    write(tmp_path / "logs.h5mu", rna=adata, prot=logs)
    other = adata.copy()
    other.X.data[0] += 1
    write(tmp_path / "few.h5mu", rna=other, prot=tags(adata)[:30].copy())
    report = run(SourceEntry(path="logs.h5mu"), SourceEntry(path="few.h5mu"), name="both")
    said = [" ".join(source.receipt.warnings) for source in report.sources]
    assert "protein was left out" in said[0] and "no raw counts" in said[0]
    assert "10 of 40 cells are not in it" in said[1]
    assert proteins(tmp_path / "both") == {}
    asked = run(SourceEntry(path="logs.h5mu", modalities=("rna", "protein")), name="asked")
    assert "no raw counts" in str(asked.sources[0].error)
    absent = run(SourceEntry(path="logs.h5mu", modalities=("atac",)), name="asked")
    assert "has no modality 'atac'; it has rna, protein" in str(absent.sources[0].error)
    left = run(SourceEntry(path="logs.h5mu", modalities=("rna",)), name="rna")
    assert "protein was left out, as asked" in left.sources[0].receipt.warnings


def test_rows_of_one_barcode_are_summed_in_every_modality(
    session: Any, adata: Any, tmp_path: Path, run: Any
):
    names = [*adata.obs_names]
    names[20], names[21] = names[0], names[1]
    adata.obs_names = names
    adt = tags(adata, names)
    path = tmp_path / "twice.h5mu"
    write(path, rna=adata[:1].copy(), adt=adt[:1].copy())
    with h5py.File(path, "r+") as file:  # mudata itself refuses equal names
        for name, mod in (("rna", adata), ("adt", adt)):
            del file[f"mod/{name}"]
            ad.io.write_elem(file, f"mod/{name}", mod)
    run(SourceEntry(path="twice.h5mu"))
    dense = adt.X.toarray()
    dense[0] += dense[20]
    dense[1] += dense[21]
    summed = ad.AnnData(sparse.csr_matrix(dense[:20]), obs=adt.obs[:20], var=adt.var)
    rest = ad.AnnData(sparse.csr_matrix(dense[22:]), obs=adt.obs[22:], var=adt.var)
    stays = kept(tmp_path / "lake")
    assert proteins(tmp_path / "lake") == expected(summed, stays) | expected(rest, stays)


def test_antibodies_of_a_10x_file_land_from_hdf5_and_from_text(
    session: Any, adata: Any, tmp_path: Path, run: Any
):
    from .test_tenx import write_h5, write_mtx

    adt = tags(adata).X.toarray()
    counts = np.hstack([adata.X.toarray(), adt]).astype(np.int64)
    ids = [*adata.var_names, *TAGS]
    types = ["Gene Expression"] * adata.n_vars + ["Antibody Capture"] * len(TAGS)
    write_h5(tmp_path / "a.h5", counts, ids, ids, version=3, types=types)
    write_mtx(tmp_path / "m", counts, ids, ids, types=types)
    found = []
    for number, name in enumerate(("a.h5", "m")):
        run(SourceEntry(path=name), name=f"lake-{number}")
        assert Corpus.open(tmp_path / f"lake-{number}").verify(deep=True) == []
        found.append(proteins(tmp_path / f"lake-{number}"))
    assert found[0] == found[1]
    stays = kept(tmp_path / "lake-0")
    assert found[0] == {
        (f"b{c}", name): int(adt[c, f])
        for c in range(adata.n_obs)
        for f, name in enumerate(TAGS)
        if adt[c, f] and f"b{c}" in stays
    }


def test_a_real_cite_seq_file_lands_to_the_last_tag(session: Any, tmp_path: Path, resources: Path):
    from cytolake.ingest.job import ingest
    from cytolake.ingest.sources_toml import SourcesFile
    from cytolake.platform.settings import Settings

    path = resources / "eccite_pbmc_mimitou2019/eccite_500cells_rna_adt_hto.h5mu"
    plan = SourcesFile(source=(SourceEntry(path=str(path)),))
    ingest(str(tmp_path / "lake"), plan, Settings(home=tmp_path, resources=(resources,)))
    with h5py.File(path) as file:
        elem: Any = file["mod/adt"]
        adt: Any = ad.io.read_elem(elem)
    adt.X = sparse.csr_matrix(adt.X)
    assert proteins(tmp_path / "lake") == expected(adt, kept(tmp_path / "lake"))
    assert Corpus.open(tmp_path / "lake").verify(deep=True) == []


def test_rows_come_in_any_order(adata: Any):
    source = MemorySource(adata=adata)
    rows = np.array([7, 3, 3, 39, 0, 4, 5])

    def as_they_are(_: Any, __: str, block: Any) -> Any:
        return block.matrix.astype(np.int64)

    found = rows_of(source, "X", rows, as_they_are, adata.n_vars)
    assert (found.toarray() == adata.X.toarray()[rows]).all()
    assert rows_of(source, "X", rows[:0], as_they_are, 30).shape == (0, 30)


def test_cells_are_found_by_name_or_the_modality_is_refused():
    names = np.array(["a", "b", "c"], dtype=object)
    assert row_order(names, names, where="x") is None
    assert row_order(names, np.array(["c", "x", "b", "a"], dtype=object), where="x").tolist() == [
        3,
        2,
        0,
    ]
    with pytest.raises(SourceError, match="1 of 3 cells are not in it"):
        row_order(names, np.array(["a", "b"], dtype=object), where="x")
    with pytest.raises(SourceError, match="names a cell twice"):
        row_order(names, np.array(["a", "b", "c", "a"], dtype=object), where="x")


def test_a_file_without_a_modality_of_genes_is_refused(adata: Any, tmp_path: Path):
    hashtags = tags(adata)
    hashtags.var_names = ["HTO1", "HTO2", "HTO3"]
    write(tmp_path / "a.h5mu", adt=tags(adata), hto=hashtags)
    with pytest.raises(SourceError, match=r"none of its modalities \(adt, hto\)"):
        H5muSource(path=tmp_path / "a.h5mu").layers()
