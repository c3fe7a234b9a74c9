"""Which cell belongs to which part: by query, by donor or by cell. Pure; the same in a new corpus.

Knows no file. Nothing here is drawn: order comes from a hash of the seed and the cell's content
key (or the donor's name), so equal cells fall on one side and a rebuilt corpus splits alike. Donors
who share a cell under two names are one donor.
"""

import hashlib
from collections.abc import Collection, Sequence
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ..platform.configuration import Configuration
from ..platform.errors import CorpusError, RecipeError
from .content import content_keys, from_binary

DONOR = "donor_id"
"""The column of `cells` that names a person; whatever else is kept whole, persons are, too."""

PART = "part_"
"""A query split's table has one true/false column a part, of this prefix and the part's name."""


class Split(Configuration):
    """How a corpus is cut into parts, once, by a recipe.

    Attributes:
        kind: `query` (each part is a WHERE clause), `cells` (a share of the cells, stratified)
            or `donors` (a share of the donors).
        parts: for `query`: part -> WHERE clause over `cells`. Parts must not overlap.
        fractions: for `cells` and `donors`: part -> share; the shares add up to 1 at most.
        stratify: for `cells`: a column of `cells` each of whose values is cut alike.
        column: for `donors`: the column that names the donor, or whatever is to stay whole (a
            source, a technical batch). Donors who share a cell are one: they go to one part.
        or_cells: for `donors`: cells whose donor is not known are cut one by one, as if each had a
            donor of its own; and so are all cells where there are too few donors for every part to
            have one. Without it such cells are in no part, and such a part is empty.
        whole: for `query`: a column, such as `donor_id`, none of whose values may lie in two parts;
            values that share a cell count as one.
        seed: for `cells` and `donors`: another seed, another cut.
    """

    kind: Literal["query", "cells", "donors"]
    parts: dict[str, str] = Field(default_factory=dict[str, str])
    fractions: dict[str, float] = Field(default_factory=dict[str, float])
    stratify: str | None = None
    column: str = DONOR
    or_cells: bool = False
    whole: str | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        given, other = ("parts", "fractions") if self.kind == "query" else ("fractions", "parts")
        if not getattr(self, given) or getattr(self, other):
            raise ValueError(f"a split by {self.kind} needs {given} and takes no {other}")
        if any(share <= 0 for share in self.fractions.values()):
            raise ValueError(f"fractions are {self.fractions}, expected each > 0")
        if sum(self.fractions.values()) > 1 + 1e-9:
            raise ValueError(f"fractions add up to {sum(self.fractions.values())}, expected <= 1")
        if self.stratify is not None and self.kind != "cells":
            raise ValueError(f"only a split by cells can stratify, not one by {self.kind}")
        if self.whole is not None and self.kind != "query":
            raise ValueError(f"whole is for a split by query; one by {self.kind} cuts nothing else")
        if self.or_cells and self.kind != "donors":
            raise ValueError(f"or_cells is for a split by donors, not for one by {self.kind}")
        return self

    @property
    def names(self) -> list[str]:
        """The names of the parts."""
        return list(self.parts or self.fractions)

    @property
    def columns(self) -> list[str]:
        """The columns of `cells` that `assign` needs, beside `content_hash`."""
        named = self.kept_whole if self.kind != "cells" else self.stratify
        return [] if named is None else [named]

    @property
    def kept_whole(self) -> str | None:
        """The column whose values lie on one side, each."""
        return {"donors": self.column, "query": self.whole, "cells": None}[self.kind]

    def surely_keeps(self, column: str) -> bool:
        """Whether no value of a column can lie on two sides, whatever the corpus."""
        return self.kept_whole == column and not self.or_cells


def assign(split: Split, table: pa.Table, shared: pa.Table | None = None) -> NDArray[np.object_]:
    """Each cell's part; None for a cell in no part. Shape (n_cells,), dtype object.

    Args:
        split: how to cut.
        table: the cells of the whole snapshot, each content once: `content_hash`, the columns
            `split.columns`, and for a query split one column `part_<name>` a part.
        shared: `what, value`: what is shared (any text) and a value of `split.kept_whole` that
            has a share in it. Values that share something are on one side.

    Raises:
        RecipeError: two parts of a query split share a cell, or a value that is to stay whole.
        CorpusError: the table lacks a column.
    """
    if split.kind == "query":
        parts = _by_query(split, table)
        if split.whole is not None:
            _refuse_cut(split.whole, _texts(table, split.whole), parts, shared)
        return parts
    if split.kind == "donors":
        donors = _texts(table, split.column)
        group_of = joined({donor for donor in donors if donor is not None}, shared)
        named = sorted(set(group_of.values()))
        part_of = _cut(split, [_hash(split.seed, group.encode()) for group in named])
        chosen = dict(zip(named, part_of, strict=True))
        parts = np.array([None if d is None else chosen[group_of[d]] for d in donors], dtype=object)
        if split.or_cells:
            too_few = not set(split.names) <= set(part_of)
            alone = [row for row, donor in enumerate(donors) if too_few or donor is None]
            parts[alone] = _cut(split, _cell_hashes(split, table.take(alone)))
        return parts
    hashes = _cell_hashes(split, table)
    strata = _texts(table, split.stratify) if split.stratify else [None] * len(hashes)
    rows_of: dict[str | None, list[int]] = {}
    for row, stratum in enumerate(strata):
        rows_of.setdefault(stratum, []).append(row)
    parts = np.full(len(hashes), None, dtype=object)
    for rows in rows_of.values():
        parts[rows] = _cut(split, [hashes[row] for row in rows])
    return parts


def joined(values: Collection[str], shared: pa.Table | None) -> dict[str, str]:
    """Values that share something, directly or through others, under the first name among them.

    Args:
        values: all values.
        shared: as in `assign`; it may name values that are not among these.

    Returns:
        Each value's group: the first, in order of the alphabet, of those among `values`.
    """
    parent = {value: value for value in values}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]  # halves the way for the next one
            name = parent[name]
        return name

    first_of: dict[str, str] = {}
    for what, value in zip(*_pairs(shared), strict=True):
        parent.setdefault(value, value)
        one, other = root(first_of.setdefault(what, value)), root(value)
        parent[other] = one
    groups: dict[str, list[str]] = {}
    for value in values:
        groups.setdefault(root(value), []).append(value)
    return {value: min(group) for group in groups.values() for value in group}


def _pairs(shared: pa.Table | None) -> tuple[list[Any], list[Any]]:
    if shared is None:
        return [], []
    return _texts(shared, "what"), _texts(shared, "value")


def _refuse_cut(
    column: str, values: Sequence[str | None], parts: NDArray[np.object_], shared: pa.Table | None
) -> None:
    """Refuse parts of a query that cut what is to stay whole."""
    group_of = joined({value for value in values if value is not None}, shared)
    parts_of: dict[str, set[str]] = {}
    for value, part in zip(values, parts, strict=True):
        if value is not None and part is not None:
            parts_of.setdefault(group_of[value], set()).add(part)
    cut = sorted(group for group, found in parts_of.items() if len(found) > 1)
    if cut:
        raise RecipeError(
            f"split: {len(cut)} values of {column} lie in two parts, {cut[0]!r} in "
            f"{' and '.join(sorted(parts_of[cut[0]]))} (values that share a cell count as one); "
            f"choose the parts by {column}, or leave `whole` out"
        )


def folds(
    labels: Sequence[str],
    groups: Sequence[str] | None,
    n_folds: int,
    keys: NDArray[np.uint64],
    seed: int,
) -> NDArray[np.int64]:
    """The fold that holds each cell out. Shape (n_cells,), from 0.

    With groups (donors), one group a fold, in ascending order of name, whatever `n_folds` says.
    Without, `n_folds` stratified folds: each label's cells are ordered by a hash of seed and
    content key and dealt in turn, each label going on where the one before it stopped.

    Args:
        labels: each cell's label. Shape (n_cells,).
        groups: each cell's group, or None for folds of cells.
        n_folds: number of folds without groups, >= 2.
        keys: each cell's content key. Shape (n_cells,).
        seed: another seed, other folds.

    Raises:
        CorpusError: fewer than two groups or folds.
    """
    if groups is not None:
        names = sorted(set(groups))
        if len(names) < 2:
            raise CorpusError(f"folds by group need at least 2 groups, found {names}")
        number = {name: i for i, name in enumerate(names)}
        return np.array([number[group] for group in groups], dtype=np.int64)
    if n_folds < 2:
        raise CorpusError(f"{n_folds} folds, expected at least 2")
    hashes = np.array([_hash(seed, key.tobytes()) for key in keys.astype("<u8")], dtype=np.uint64)
    order = np.lexsort((hashes, np.asarray(labels, dtype=str)))
    fold = np.empty(len(labels), dtype=np.int64)
    fold[order] = np.arange(len(labels)) % n_folds
    return fold


def _by_query(split: Split, table: pa.Table) -> NDArray[np.object_]:
    parts = np.full(table.num_rows, None, dtype=object)
    for name in split.parts:
        member = np.array(_column(table, PART + name).to_pylist(), dtype=object) == True  # noqa: E712 - NULL is neither true nor false here
        taken = np.flatnonzero(member & (parts != None))  # noqa: E711 - elementwise on objects
        if taken.size:
            raise RecipeError(
                f"split: parts {parts[taken[0]]!r} and {name!r} share {taken.size} cells; "
                "make their WHERE clauses exclude each other"
            )
        parts[member] = name
    return parts


def _cut(split: Split, hashes: Sequence[int]) -> NDArray[np.object_]:
    """Deal things ordered by hash to the parts by their shares, borders rounded."""
    n = len(hashes)
    parts = np.full(n, None, dtype=object)
    order = sorted(range(n), key=lambda i: hashes[i])
    start, share = 0, 0.0
    for name, fraction in split.fractions.items():
        share += fraction
        end = min(n, int(np.floor(share * n + 0.5)))
        parts[order[start:end]] = name
        start = end
    return parts


def _cell_hashes(split: Split, table: pa.Table) -> list[int]:
    keys = content_keys(from_binary(_column(table, "content_hash")))
    return [_hash(split.seed, key.tobytes()) for key in keys.astype("<u8")]


def _hash(seed: int, what: bytes) -> int:
    digest = hashlib.blake2b(what, digest_size=8, key=seed.to_bytes(16, "little", signed=True))
    return int.from_bytes(digest.digest(), "little")


def _texts(table: pa.Table, name: str) -> list[str | None]:
    return [None if v is None else str(v) for v in _column(table, name).to_pylist()]


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise CorpusError(f"a split needs the column {name!r} of cells; found {table.column_names}")
    return table.column(name)
