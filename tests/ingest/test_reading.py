import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytolake.corpus.genes import GeneReference
from cytolake.ingest.reading import open_cells, read_cells
from cytolake.platform.errors import NotRawCountsError
from scipy import sparse


@pytest.mark.parametrize("as_file", [True, False], ids=["file", "object"])
@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, np.asarray],
                         ids=["csr", "csc", "dense"])  # fmt: skip
def test_every_cell_comes_in_order(
    adata: Any, reference: GeneReference, tmp_path: Path, as_file: bool, kind: Any
):
    dense = adata.X.toarray()
    adata.X = kind(dense)
    adata.write_h5ad(tmp_path / "a.h5ad")
    cells = tmp_path / "a.h5ad" if as_file else adata
    batches = list(read_cells(cells, reference, cells_per_batch=7, spool_folder=tmp_path / "s"))
    assert [b for batch in batches for b in batch.obs.column("barcode").to_pylist()] == (
        adata.obs_names.tolist()
    )
    stored = np.vstack([batch.to_csr().toarray() for batch in batches])
    assert (stored == dense[:, np.argsort(adata.var_names)]).all()
    totals = np.concatenate([batch.n_counts for batch in batches])
    assert totals.tolist() == dense.sum(axis=1).tolist()


def test_the_keys_of_masks_are_those_of_the_corpus(adata: Any, reference: GeneReference):
    (whole,) = read_cells(adata, reference)
    pieces = list(read_cells(adata, reference, cells_per_batch=3))
    assert np.concatenate([p.content_keys for p in pieces]).tolist() == (
        whole.content_keys.tolist()
    )


def test_a_table_is_read_through_a_spool(reference: GeneReference, tmp_path: Path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b",c1,c2\nG1,1,0\nG2,0,5\nG3,2,2\n"))
    opened = open_cells(path, reference, spool_folder=tmp_path / "spool")
    assert opened.n_cells == 2
    (batch,) = opened.batches()
    assert batch.to_csr().toarray().tolist() == [[1, 0, 2], [0, 5, 2]]


def test_values_that_are_no_counts_are_refused(adata: Any, reference: GeneReference):
    adata.X = adata.X * 0.3
    with pytest.raises(NotRawCountsError, match="AnnData object"):
        open_cells(adata, reference)
