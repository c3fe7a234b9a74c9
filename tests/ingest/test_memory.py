from pathlib import Path
from typing import Any

import numpy as np
from cytolake.ingest.sources.h5ad import H5adSource
from cytolake.ingest.sources.memory import MemorySource
from scipy import sparse


def test_an_object_reads_like_its_file(adata: Any, tmp_path: Path):
    adata.raw = adata.copy()
    adata.layers["counts"] = sparse.csc_matrix(adata.X)
    adata.write_h5ad(tmp_path / "a.h5ad")
    file, memory = H5adSource(path=tmp_path / "a.h5ad"), MemorySource(adata=adata)
    names = [layer.name for layer in memory.layers()]
    assert names == [layer.name for layer in file.layers()] == ["raw/X", "layers/counts", "X"]
    for name in names:
        blocks = [block.matrix for block in memory.blocks(name, 3, 31)]
        assert (sparse.vstack(blocks).toarray() == adata.X.toarray()[3:31]).all()
        assert {k: v.tolist() for k, v in memory.genes(name).items()} == {
            k: v.tolist() for k, v in file.genes(name).items()
        }
    assert memory.barcodes().tolist() == file.barcodes().tolist()
    for name in memory.obs_columns():
        ours, theirs = memory.obs(2, 9).column(name), file.obs(2, 9).column(name)
        assert ours.to_pylist() == theirs.to_pylist()


def test_a_dense_object_is_read(adata: Any):
    dense = adata.X.toarray()
    adata.X = np.asarray(dense)
    block = next(iter(MemorySource(adata=adata).blocks("X", 0, 40)))
    assert (block.matrix.toarray() == dense).all()
