from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from cytolake.corpus.content import to_binary
from cytolake.corpus.splits import Split, assign, folds, joined
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


THREE = {"learn": 0.8, "look": 0.1, "ask": 0.1}


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 12)), min_size=1, max_size=80),
    st.integers(0, 1000),
)
def test_cells_are_cut_where_donors_are_unknown_or_too_few_for_every_part(
    given_donors: list[int | None], seed: int
) -> None:
    donors = [None if donor is None else f"d{donor}" for donor in given_donors]
    table = table_of(len(donors), donor_id=pa.array(donors, pa.string()))
    by_donor = assign(Split(kind="donors", fractions=THREE, seed=seed), table)
    found = assign(Split(kind="donors", fractions=THREE, seed=seed, or_cells=True), table)
    is_named = np.array([donor is not None for donor in donors])
    if set(by_donor[is_named]) == set(THREE):
        assert (found[is_named] == by_donor[is_named]).all()
        cut = np.flatnonzero(~is_named)
    else:
        cut = np.arange(len(donors))
    by_cell = Split(kind="cells", fractions=THREE, seed=seed)
    assert found[cut].tolist() == assign(by_cell, table.take(cut)).tolist()
    assert all(part in THREE for part in found)  # no cell is lost


def test_only_a_split_by_donors_may_fall_back_on_cells() -> None:
    with pytest.raises(RecipeError, match="or_cells is for a split by donors"):
        given_split = {"kind": "cells", "fractions": {"a": 1.0}, "or_cells": True}
        parse_values(given_split, Split, origin="test")


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
    """Of any query's cells, copies too. d1 and d3 share a cell, so they are one person."""
    split = Split(kind=kind, fractions={"train": share, "test": 1 - share}, seed=seed)
    rows = fake_corpus.sql("SELECT cell_id, donor_id FROM cells").to_pylist()
    donor_of = {row["cell_id"]: row["donor_id"] for row in rows}
    person_of = {**{row["donor_id"]: row["donor_id"] for row in rows}, "d3": "d1"}
    contents: dict[str, set[int]] = {}
    donors: dict[str, set[str | None]] = {}
    for part in ("train", "test"):
        try:
            everything = fake_corpus.select(where, split=split, part=part, primary_only=False)
        except NoCellsError:
            continue
        contents[part] = set(everything.content_key.tolist())
        donors[part] = {person_of[donor_of[cell]] for cell in everything.cell_id.tolist()}
    assert not contents.get("train", set()) & contents.get("test", set())
    if kind == "donors":
        assert not donors.get("train", set()) & donors.get("test", set())


def merged_sets(sets: list[set[str]]) -> list[set[str]]:
    """The oracle: as long as two sets share something, they are one."""
    for one in sets:
        for other in sets:
            if one is not other and one & other:
                rest = [some for some in sets if some is not one and some is not other]
                return merged_sets([*rest, one | other])
    return sets


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from([None, *"abcdefgh"])),
        min_size=1,
        max_size=40,
    ),
    st.floats(0.05, 0.95),
    st.integers(-9, 9),
)
def test_donors_who_share_cells_are_one_donor(
    cells: list[tuple[int, str | None]], share: float, seed: int
) -> None:
    """Also through a third, and through a primary cell that names no donor."""
    first: dict[int, int] = {}
    for place, (content, _) in enumerate(cells):
        first.setdefault(content, place)
    primaries = sorted(first.values())
    table = table_of(len(primaries), donor_id=[cells[place][1] for place in primaries])
    pairs = [(f"cell {content}", donor) for content, donor in cells if donor is not None]
    shared = pa.table({"what": [p[0] for p in pairs], "value": [p[1] for p in pairs]})
    split = Split(kind="donors", fractions={"x": share, "y": 1 - share}, seed=seed)
    part_of = {
        cells[row][0]: p for row, p in zip(primaries, assign(split, table, shared), strict=True)
    }
    people = merged_sets([{what, donor} for what, donor in pairs])
    for person in people:
        found = {part_of[content] for content, donor in cells if donor in person}
        assert len(found - {None}) <= 1
    # As many people as there are (of those with a primary cell) are dealt out by the shares.
    named = [person for person in people if person & {cells[place][1] for place in primaries}]
    sides = [
        {part_of[content] for content, donor in cells if donor in person} - {None}
        for person in named
    ]
    assert abs(sum(side == {"x"} for side in sides) - share * len(named)) <= 0.5 + 1e-9


def test_donors_who_share_nothing_have_the_parts_that_they_always_had() -> None:
    names = [f"d{number}" for number in range(40)]
    table = table_of(40, donor_id=names)
    split = Split(kind="donors", fractions={"a": 0.5, "b": 0.5}, seed=7)
    alone = pa.table({"what": [f"cell {name}" for name in names], "value": names})
    assert assign(split, table).tolist() == assign(split, table, alone).tolist()
    assert joined(names, alone) == dict(zip(names, names, strict=True))


def test_sources_that_share_a_cell_are_on_one_side(fake_corpus: Corpus) -> None:
    for seed in range(5):
        fractions = {"train": 0.5, "test": 0.5}
        split = Split(kind="donors", column="source_id", fractions=fractions, seed=seed)
        assert fake_corpus.select(split=split, part="train").n_cells == 5
        with pytest.raises(NoCellsError):
            fake_corpus.select(split=split, part="test")


def test_a_source_with_the_donor_of_another_is_on_its_side(
    build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path
) -> None:
    corpus = build_fake_corpus(tmp_path / "corpus")
    corpus.delete("barcode = 'CCC'")  # the cell that both had
    split = Split(kind="donors", column="source_id", fractions={"a": 0.5, "b": 0.5})
    apart = Corpus.open(corpus.uri)
    assert {apart.select(split=split, part=part).n_cells for part in "ab"} == {2, 3}
    rows = apart.sql("SELECT cell_id, 'd9' AS donor_id FROM cells WHERE barcode IN ('AAC', 'GGG')")
    apart.annotate(rows, origin="a table")
    again = Corpus.open(corpus.uri)
    assert again.select(split=split, part="a").n_cells == 5


def test_parts_of_a_query_that_cut_a_donor_are_refused_where_it_is_to_stay_whole(
    fake_corpus: Corpus,
) -> None:
    """d1 of blood and d3 of lung share a cell."""
    parts = {"mine": "source_id = 'blood'", "rest": "tissue = 'lung'"}
    cut = Split(kind="query", parts=parts, whole="donor_id")
    with pytest.raises(RecipeError, match="1 values of donor_id lie in two parts, 'd1' in mine"):
        fake_corpus.select(split=cut, part="mine")
    parts = {"mine": "donor_id IN ('d1', 'd3')", "rest": "donor_id = 'd4'"}
    whole = Split(kind="query", parts=parts, whole="donor_id")
    assert fake_corpus.select(split=whole, part="mine").n_cells == 3


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
        ({"kind": "cells", "fractions": {"a": 1}, "whole": "x"}, "whole is for a split by query"),
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
