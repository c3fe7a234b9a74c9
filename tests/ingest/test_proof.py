from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from cytolake.ingest.proof import checked_counts, choose_layer, count_offence
from cytolake.ingest.sources.memory import MemorySource
from cytolake.platform.errors import NotRawCountsError, SourceError
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.floats(width=32) | st.integers(0, 9).map(float), max_size=20))
def test_the_first_value_that_is_no_count_is_found(values: Any):
    def is_count(value: Any):
        return value >= 0 and value <= 2**32 - 1 and value == int(value)

    expected = next((i for i, v in enumerate(values)
                     if v != v or abs(v) == float("inf") or not is_count(v)), None)  # fmt: skip
    assert count_offence(np.array(values, dtype=np.float64)) == expected


def test_negative_integers_are_no_counts():
    assert count_offence(np.array([1, -1], dtype=np.int32)) == 1


def test_x_is_taken_when_raw_holds_log_values(adata: Any):
    adata.raw = adata.copy()
    adata.raw.X.data[:] = np.log1p(adata.raw.X.data)
    choice = choose_layer(MemorySource(adata=adata))
    assert choice.layer.name == "X"
    assert choice.rejected[0].startswith("raw/X: ")


def test_a_layer_of_zeros_is_not_taken(adata: Any):
    adata.layers["counts"] = sparse.csr_matrix(adata.shape, dtype=np.float32)
    assert choose_layer(MemorySource(adata=adata)).layer.name == "X"


def test_the_layer_that_the_user_names_is_the_only_one_tried(adata: Any):
    adata.layers["norm"] = adata.X * 0.5
    with pytest.raises(NotRawCountsError) as caught:
        choose_layer(MemorySource(adata=adata), named="norm")
    assert "X:" not in str(caught.value)


def test_the_refusal_names_file_layers_and_a_value_with_its_place(adata: Any):
    adata.X = adata.X * 0.5
    first = int(np.flatnonzero(adata.X.data % 1)[0])
    cell = int(np.searchsorted(adata.X.indptr, first, side="right")) - 1
    with pytest.raises(NotRawCountsError) as caught:
        choose_layer(MemorySource(adata=adata))
    message = str(caught.value)
    gene = adata.var_names[adata.X.indices[first]]
    assert "AnnData object" in message
    assert f"X: {float(adata.X.data[first])!r} at row {cell}, gene {gene}" in message
    assert "recover" not in message


def test_the_refusal_says_recover_where_it_helps(adata: Any):
    counts = adata.X.toarray()
    totals = counts.sum(axis=1, keepdims=True)
    adata.obs["n_counts"] = totals.ravel()
    adata.X = sparse.csr_matrix(np.log1p(counts / np.maximum(totals, 1) * 1e4))
    source = MemorySource(adata=adata)
    with pytest.raises(NotRawCountsError, match='set recover = "log1p_cp10k"'):
        choose_layer(source)
    assert choose_layer(source, recover="log1p_cp10k").layer.name == "X"
    block = next(iter(source.blocks("X", 0, 40)))
    assert (checked_counts(source, "X", block, "n_counts").toarray() == counts).all()


def test_recovering_without_totals_is_refused(adata: Any):
    with pytest.raises(SourceError, match="looked for umis among cell_type, donor, score"):
        choose_layer(MemorySource(adata=adata), recover="log1p_cp10k", recover_total="umis")


def test_one_bad_value_beyond_the_sample_is_found_when_all_are_tested(adata: Any):
    source = MemorySource(adata=adata)
    adata.X.data[-1] = 0.25
    block = next(iter(source.blocks("X", 0, 40)))
    with pytest.raises(NotRawCountsError, match=r"0\.25 at row 39"):
        checked_counts(source, "X", block, None)


def test_a_list_that_numbers_its_genes_is_no_cell():
    rng = np.random.default_rng(0)
    numbers = rng.permutation(50).astype(np.float32)[None]
    names = pd.DataFrame(index=pd.Index([f"ENSG{i:011d}" for i in range(50)]))
    listed = MemorySource(adata=ad.AnnData(sparse.csr_matrix(numbers), var=names))
    with pytest.raises(NotRawCountsError, match="numbers its genes one by one"):
        choose_layer(listed)
    numbers[0, 7] = 3
    bulk = MemorySource(adata=ad.AnnData(sparse.csr_matrix(numbers), var=names))
    assert choose_layer(bulk).layer.name == "X"
