import tempfile
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from cytolake.ingest.sources import spool as spool_module
from cytolake.ingest.sources.h5ad import H5adSource
from cytolake.ingest.sources.spool import spool
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse


def rows_of(source: Any, layer: Any, start: Any, stop: Any):
    return sparse.vstack([b.matrix for b in source.blocks(layer, start, stop)]).toarray()


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_spooled_matrix_is_the_matrix_for_every_range(data: Any):
    n_cells = data.draw(st.integers(1, 25))
    dense = data.draw(
        st.lists(st.lists(st.sampled_from([0, 0, 1, 7, 70000]), min_size=4, max_size=4),
                 min_size=n_cells, max_size=n_cells)
    )  # fmt: skip
    dense = np.array(dense, dtype=np.float32)
    start = data.draw(st.integers(0, n_cells - 1))
    stop = data.draw(st.integers(start + 1, n_cells))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool_module, "CELLS_PER_BUCKET", data.draw(st.integers(1, 9)))
        path = Path(folder) / "a.h5ad"
        ad.AnnData(sparse.csc_matrix(dense)).write_h5ad(path)
        source = H5adSource(path=path)
        assert source.layers()[0].order == "columns"
        spooled = spool(source, "X", Path(folder) / "spool")
        assert (rows_of(spooled, "X", start, stop) == dense[start:stop]).all()
        assert spooled.barcodes().tolist() == source.barcodes().tolist()


def test_obs_and_names_go_along(adata: Any, tmp_path: Path):
    adata.X = sparse.csc_matrix(adata.X)
    adata.write_h5ad(tmp_path / "a.h5ad")
    source = H5adSource(path=tmp_path / "a.h5ad")
    spooled = spool(source, "X", tmp_path / "spool")
    assert spooled.obs(3, 9).equals(source.obs(3, 9).combine_chunks())
    assert spooled.genes("X")["symbol"].tolist() == source.genes("X")["symbol"].tolist()


def test_a_spool_that_was_killed_is_begun_again_and_a_finished_one_kept(adata: Any, tmp_path: Path):
    adata.X = sparse.csc_matrix(adata.X)
    adata.write_h5ad(tmp_path / "a.h5ad")
    source = H5adSource(path=tmp_path / "a.h5ad")
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "000000.bucket").write_bytes(b"half a record")
    spooled = spool(source, "X", folder)
    assert (rows_of(spooled, "X", 0, 40) == adata.X.toarray()).all()
    before = (folder / "000000.bucket").stat().st_mtime_ns
    spool(source, "X", folder)
    assert (folder / "000000.bucket").stat().st_mtime_ns == before


def test_memory_does_not_grow_with_the_file(tmp_path: Path):
    import tracemalloc

    random = np.random.default_rng(0)
    peaks = []
    for n_cells in (4_000, 32_000):
        matrix = sparse.random(n_cells, 300, density=0.2, rng=random, format="csc")
        matrix.data = np.ceil(matrix.data * 9)
        path = tmp_path / f"{n_cells}.h5ad"
        ad.AnnData(matrix.astype(np.float32)).write_h5ad(path)
        del matrix
        tracemalloc.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("cytolake.ingest.sources.compressed.MOST_VALUES", 2**16)
            spooled = spool(H5adSource(path=path), "X", tmp_path / f"spool-{n_cells}")
            for _ in spooled.blocks("X", 0, n_cells):
                pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    names = 32_000 * 120  # barcodes are kept: a Python string a cell
    assert peaks[1] < 1.5 * peaks[0] + names
