"""Which cell belongs to which part: by query, by donor or by cell. Pure; the same in a new corpus.

Knows no file. Nothing here is drawn: order comes from a hash of the seed and the cell's content
key (or the donor's name), so equal cells fall on one side and a rebuilt corpus splits alike.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ..platform.configuration import Configuration
from ..platform.errors import CorpusError, RecipeError
from .content import content_keys, from_binary

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
        column: for `donors`: the column that names the donor.
        seed: for `cells` and `donors`: another seed, another cut.
    """

    kind: Literal["query", "cells", "donors"]
    parts: dict[str, str] = Field(default_factory=dict[str, str])
    fractions: dict[str, float] = Field(default_factory=dict[str, float])
    stratify: str | None = None
    column: str = "donor_id"
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
        return self

    @property
    def names(self) -> list[str]:
        """The names of the parts."""
        return list(self.parts or self.fractions)

    @property
    def columns(self) -> list[str]:
        """The columns of `cells` that `assign` needs, beside `content_hash`."""
        if self.kind == "donors":
            return [self.column]
        return [self.stratify] if self.stratify is not None else []


def assign(split: Split, table: pa.Table) -> NDArray[np.object_]:
    """Each cell's part; None for a cell in no part. Shape (n_cells,), dtype object.

    Args:
        split: how to cut.
        table: the cells of the whole snapshot, each content once: `content_hash`, the columns
            `split.columns`, and for a query split one column `part_<name>` a part.

    Raises:
        RecipeError: two parts of a query split share a cell.
        CorpusError: the table lacks a column.
    """
    keys = content_keys(from_binary(_column(table, "content_hash")))
    if split.kind == "query":
        return _by_query(split, table)
    if split.kind == "donors":
        donors = _texts(table, split.column)
        named = sorted({donor for donor in donors if donor is not None})
        part_of = _cut(split, [_hash(split.seed, donor.encode()) for donor in named])
        chosen = dict(zip(named, part_of, strict=True))
        return np.array([None if d is None else chosen[d] for d in donors], dtype=object)
    strata = _texts(table, split.stratify) if split.stratify else [None] * len(keys)
    hashes = [_hash(split.seed, key.tobytes()) for key in keys.astype("<u8")]
    rows_of: dict[str | None, list[int]] = {}
    for row, stratum in enumerate(strata):
        rows_of.setdefault(stratum, []).append(row)
    parts = np.full(len(keys), None, dtype=object)
    for rows in rows_of.values():
        parts[rows] = _cut(split, [hashes[row] for row in rows])
    return parts


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


def _hash(seed: int, what: bytes) -> int:
    digest = hashlib.blake2b(what, digest_size=8, key=seed.to_bytes(16, "little", signed=True))
    return int.from_bytes(digest.digest(), "little")


def _texts(table: pa.Table, name: str) -> list[str | None]:
    return [None if v is None else str(v) for v in _column(table, name).to_pylist()]


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise CorpusError(f"a split needs the column {name!r} of cells; found {table.column_names}")
    return table.column(name)
