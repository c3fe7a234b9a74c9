from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from cytolake.corpus.content import to_binary
from cytolake.corpus.splits import Split, assign, folds
from cytolake.corpus.store import Corpus
from cytolake.platform.configuration import parse_values
from cytolake.platform.errors import CorpusError, NoCellsError, RecipeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def table_of(n_cells: int, **columns: Any) -> pa.Table:
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**63, (n_cells, 2)).astype(np.uint64)
    return pa.table({"content_hash": to_binary(hashes), **columns})


def test_a_stratified_split_halves_every_label() -> None:
    table = table_of(30, cell_type=["T"] * 20 + ["B"] * 10)
    split = Split(kind="cells", fractions={"train": 0.5, "test": 0.5}, stratify="cell_type")
    parts = assign(split, table)
    assert (parts[:20] == "train").sum() == 10
    assert (parts[20:] == "train").sum() == 5


@given(st.permutations(range(40)), st.integers(-5, 5))
def test_the_order_of_rows_does_not_matter(order: list[int], seed: int) -> None:
    table = table_of(40, cell_type=["T", "B"] * 20)
    split = Split(kind="cells", fractions={"a": 0.3, "b": 0.3}, stratify="cell_type", seed=seed)
    assert (
        assign(split, table.take(list(order))).tolist()
        == assign(split, table)[list(order)].tolist()
    )


def test_another_seed_gives_another_split() -> None:
    table = table_of(100)
    first = assign(Split(kind="cells", fractions={"a": 0.5}, seed=1), table)
    second = assign(Split(kind="cells", fractions={"a": 0.5}, seed=2), table)
    assert first.tolist() != second.tolist()


def test_a_donor_is_never_cut_and_a_cell_without_donor_is_in_no_part() -> None:
    donors = ["d1", "d2", "d3", "d4"] * 5 + [None]
    parts = assign(
        Split(kind="donors", fractions={"a": 0.5, "b": 0.5}), table_of(21, donor_id=donors)
    )
    sides = {
        donor: {p for p, d in zip(parts, donors, strict=True) if d == donor} for donor in donors
    }
    assert sides.pop(None) == {None}
    assert all(len(side) == 1 for side in sides.values())
    assert sorted(next(iter(side)) for side in sides.values()) == ["a", "a", "b", "b"]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=60),
    st.lists(st.floats(0.05, 0.5), min_size=1, max_size=2),
    st.integers(-(2**40), 2**40),
    st.sampled_from(["donors", "cells"]),
)
def test_equal_donors_and_equal_contents_are_on_one_side(
    cells: list[tuple[int, int]], shares: list[float], seed: int, kind: Literal["donors", "cells"]
) -> None:
    """Whatever the rows are: a donor has one part; a content has one, also cut from other rows."""
    donors = [f"d{donor}" for donor, _ in cells]
    table = table_of(len(cells), donor_id=donors)
    fractions = {f"part{i}": share for i, share in enumerate(shares)}
    split = Split(kind=kind, fractions=fractions, seed=seed)
    parts = assign(split, table)
    assert parts.tolist() == assign(split, table).tolist()
    if kind == "donors":
        for donor in set(donors):
            assert len({part for part, d in zip(parts, donors, strict=True) if d == donor}) == 1
    sizes = {name: int((parts == name).sum()) for name in fractions}
    if kind == "cells":
        for name, share in fractions.items():
            assert abs(sizes[name] - share * len(cells)) <= 1


@given(
    st.sampled_from(["donors", "cells"]),
    st.floats(0.1, 0.6),
    st.integers(0, 1000),
    st.sampled_from([None, "tissue = 'blood'", "tissue = 'lung'", "n_counts > 3"]),
)
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_content_and_no_donor_of_a_corpus_is_on_two_sides(
    fake_corpus: Corpus,
    kind: Literal["donors", "cells"],
    share: float,
    seed: int,
    where: str | None,
) -> None:
    """Of any query's cells: a copy follows its primary cell, in another source as well."""
    split = Split(kind=kind, fractions={"train": share, "test": 1 - share}, seed=seed)
    rows = fake_corpus.sql("SELECT cell_id, donor_id FROM cells").to_pylist()
    donor_of = {row["cell_id"]: row["donor_id"] for row in rows}
    contents: dict[str, set[int]] = {}
    donors: dict[str, set[str | None]] = {}
    for part in ("train", "test"):
        try:
            everything = fake_corpus.select(where, split=split, part=part, primary_only=False)
        except NoCellsError:
            continue
        contents[part] = set(everything.content_key.tolist())
        try:
            primaries = fake_corpus.select(where, split=split, part=part)
        except NoCellsError:
            continue
        donors[part] = {donor_of[cell] for cell in primaries.cell_id.tolist()}
    assert not contents.get("train", set()) & contents.get("test", set())
    if kind == "donors":
        assert not donors.get("train", set()) & donors.get("test", set())


def test_overlapping_queries_are_refused() -> None:
    split = Split(kind="query", parts={"a": "x", "b": "y"})
    table = table_of(2, part_a=[True, False], part_b=[True, None])
    with pytest.raises(RecipeError, match="'a' and 'b' share 1 cells"):
        assign(split, table)


def test_null_in_a_query_is_in_no_part() -> None:
    split = Split(kind="query", parts={"a": "x"})
    assert assign(split, table_of(2, part_a=[None, True])).tolist() == [None, "a"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "cells"}, "needs fractions"),
        ({"kind": "query", "fractions": {"a": 1}}, "needs parts"),
        ({"kind": "cells", "fractions": {"a": 0.7, "b": 0.7}}, "add up"),
        ({"kind": "cells", "fractions": {"a": -1}}, "each > 0"),
        ({"kind": "donors", "fractions": {"a": 1}, "stratify": "x"}, "only a split by cells"),
        ({"kind": "cells", "fraction": {"a": 1}}, "did you mean 'fractions'"),
    ],
)
def test_an_impossible_split_is_refused_when_it_is_read(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_values(values, Split, origin="r.toml")


def test_a_missing_column_is_named() -> None:
    with pytest.raises(CorpusError, match="'donor_id'"):
        assign(Split(kind="donors", fractions={"a": 1.0}), table_of(2))


def test_folds_by_group_hold_out_one_group_each() -> None:
    fold = folds(["x"] * 4, ["d2", "d1", "d2", "d3"], 99, np.arange(4, dtype=np.uint64), 0)
    assert fold.tolist() == [1, 0, 1, 2]


@given(st.integers(2, 5), st.integers(0, 3))
def test_stratified_folds_differ_by_one_at_most_within_a_label(n_folds: int, seed: int) -> None:
    labels = np.array(["T"] * 17 + ["B"] * 8)
    keys = np.arange(25, dtype=np.uint64) * np.uint64(7919)
    fold = folds(labels.tolist(), None, n_folds, keys, seed)
    for label in ("T", "B"):
        sizes = np.bincount(fold[labels == label], minlength=n_folds)
        assert sizes.max() - sizes.min() <= 1


def test_one_fold_is_refused() -> None:
    with pytest.raises(CorpusError, match="at least 2"):
        folds(["x"], None, 1, np.zeros(1, dtype=np.uint64), 0)
