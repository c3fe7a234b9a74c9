from typing import Any

import anndata as ad
import numpy as np
import pytest
from cytolake.ingest.expected_counts import RoundedSource, check_expected_counts, rounded
from cytolake.ingest.proof import choose_layer
from cytolake.ingest.sources.memory import MemorySource
from cytolake.platform.errors import NotRawCountsError
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse


def nearest(value: float) -> float:
    """The oracle: the nearer neighbour; of two as near, the even one."""
    if not value >= 0 or value == float("inf"):
        return value
    low = value // 1
    if value - low != 0.5:
        return low + (value - low > 0.5)
    return low if low % 2 == 0 else low + 1


@given(st.lists(st.one_of(st.floats(), st.sampled_from([0.5, 1.5, 2.5, 0.49999]))))
def test_values_go_to_the_nearest_integer_and_what_is_no_count_stays(values: list[float]):
    found = rounded(np.array(values, dtype=np.float64))
    np.testing.assert_array_equal(found, [nearest(value) for value in values])


def source_of(dense: Any) -> MemorySource:
    adata = ad.AnnData(sparse.csr_matrix(np.array(dense, dtype=np.float32)))
    adata.var_names = [f"G{i}" for i in range(adata.n_vars)]
    adata.obs_names = [f"s{i}" for i in range(adata.n_obs)]
    return MemorySource(adata=adata)


def test_blocks_and_samples_are_rounded_and_the_broken_values_are_counted():
    source = source_of([[120.37, 0, 0.4], [3, 7.5, 1000]])
    both = RoundedSource(source=source)
    (block,) = both.blocks("X", 0, 2)
    assert block.matrix.toarray().tolist() == [[120, 0, 0], [3, 8, 1000]]
    assert sorted(both.sample("X").values.tolist()) == [0, 3, 8, 120, 1000]
    assert choose_layer(both).layer.name == "X"
    assert check_expected_counts(source, "X") == (
        "expected counts: 3 of 5 values were no integers and were rounded to the nearest one, "
        "as asked"
    )
    assert both.barcodes().tolist() == ["s0", "s1"] and both.path == source.path


@pytest.mark.parametrize(
    ("dense", "message"),
    [
        (np.log2(np.array([[1000.0, 7], [30, 2]]) + 1), "these are logarithms"),
        ([[400_000.5, 599_999.5], [250_000.25, 749_999.75]], "these are TPM or CPM"),
    ],
    ids=["logarithms", "TPM"],
)
def test_what_cannot_be_expected_counts_is_refused(dense: Any, message: str):
    with pytest.raises(NotRawCountsError, match=message):
        check_expected_counts(source_of(dense), "X")


def test_small_integers_are_no_logarithms():
    assert "0 of 3 values" in check_expected_counts(source_of([[1, 2], [0, 3]]), "X")


@pytest.mark.parametrize("value", [-0.2, float("nan")])
def test_a_value_that_is_no_count_is_still_found(value: float):
    both = RoundedSource(source=source_of([[900.2, value]]))
    with pytest.raises(NotRawCountsError, match="no raw counts"):
        choose_layer(both)


def test_the_refusal_of_bulk_samples_names_the_setting():
    source = source_of([[900.2, 3]])
    with pytest.raises(NotRawCountsError, match='set expected_counts = "round" for this source'):
        choose_layer(source, bulk=True)
    with pytest.raises(NotRawCountsError) as told:
        choose_layer(source)
    assert "expected_counts" not in str(told.value)
