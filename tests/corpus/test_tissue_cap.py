from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cytolake.corpus.store import Corpus
from cytolake.corpus.tissue_cap import cap_per_tissue, capped, most_per_tissue
from cytolake.platform.errors import NoCellsError
from hypothesis import given, settings
from hypothesis import strategies as st


def keys_of(n_cells: int) -> Any:
    return np.random.default_rng(1).integers(0, 2**63, n_cells).astype(np.uint64)


def slowest(sizes: list[int], share: str) -> int:
    """Every number tried, from the greatest down."""
    for most in range(max(sizes, default=0), 0, -1):
        if Fraction(most, sum(min(size, most) for size in sizes)) <= Fraction(share):
            return most
    return 0


@given(
    sizes=st.lists(st.integers(1, 60), max_size=9),
    share=st.sampled_from(["0.07", "0.25", "0.29", "0.3", "0.5", "1.0"]),
)
@settings(max_examples=200, deadline=None)
def test_the_cap_is_the_greatest_that_holds(sizes: list[int], share: str):
    assert most_per_tissue(np.array(sizes, dtype=np.int64), float(share)) == slowest(sizes, share)


@given(tissues=st.lists(st.sampled_from(["blood", "lung", "heart", "skin", "", None]), max_size=80))
@settings(max_examples=100, deadline=None)
def test_no_tissue_is_above_its_share_and_small_ones_stay_whole(tissues: list[str | None]):
    try:
        taken = cap_per_tissue(tissues, keys_of(len(tissues)), share=0.25)
    except NoCellsError:
        assert most_per_tissue(np.array([*Counter(tissues).values()]), 0.25) == 0
        return
    left = Counter(tissue for tissue, keep in zip(tissues, taken, strict=True) if keep)
    assert all(4 * n_cells <= left.total() for n_cells in left.values())
    most = max(left.values(), default=0)
    assert all(left[tissue] == min(size, most) for tissue, size in Counter(tissues).items())


def test_the_choice_follows_content_and_seed_and_not_the_order_of_cells():
    tissues = np.array(
        ["blood"] * 50 + ["lung"] * 10 + ["heart"] * 10 + ["skin"] * 10, dtype=object
    )
    keys = keys_of(80)
    taken = cap_per_tissue(tissues, keys)
    assert taken[50:].all() and taken[:50].sum() == 10
    mixed = np.random.default_rng(2).permutation(80)
    again = cap_per_tissue(tissues[mixed], keys[mixed])
    assert set(keys[taken]) == set(keys[mixed][again])
    assert set(keys[taken]) != set(keys[cap_per_tissue(tissues, keys, seed=1)])
    assert (cap_per_tissue(tissues, keys, share=1.0)).all()
    column = pa.chunked_array([pa.array(tissues[:33]), pa.array(tissues[33:])])
    for given_column in (column, column.cast(pa.dictionary(pa.int32(), pa.string()))):
        assert (cap_per_tissue(given_column, keys) == taken).all()


def test_too_few_tissues_for_the_share_are_refused_with_a_way_out():
    with pytest.raises(NoCellsError, match=r"3 tissues .* 25% .* expected 4 tissues .* 0\.34"):
        cap_per_tissue(["a", "b", "c"], keys_of(3))
    assert cap_per_tissue(["a", "b", "c"], keys_of(3), share=0.34).all()
    with pytest.raises(NoCellsError, match="share is 0"):
        cap_per_tissue(["a"], keys_of(1), share=0)
    assert cap_per_tissue([], keys_of(0)).tolist() == []


def test_a_selection_is_capped_to_a_digest_of_its_own(fake_corpus: Corpus) -> None:
    whole = fake_corpus.select(primary_only=False)
    half = capped(fake_corpus, whole, share=0.5, seed=3)
    tissues = fake_corpus.column(half, "tissue").to_pylist()
    assert sorted(tissues) == ["blood"] * 3 + ["lung"] * 3 and half.digest != whole.digest
    assert half.digest == capped(fake_corpus, whole, share=0.5, seed=3).digest
    assert half.digest != capped(fake_corpus, whole, share=0.5, seed=4).digest
    few = fake_corpus.select("tissue = 'blood' OR barcode = 'x'")
    with pytest.raises(NoCellsError, match="tissues cannot each be at most 30%"):
        capped(fake_corpus, few, share=0.3)
