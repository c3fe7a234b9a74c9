"""The cells that a question is asked of: which, with which labels and which independent units.

Knows the corpus's batches and the encoding; knows no model. Choices are made by a hash of seed
and content key, so that a corpus built anew gives the same cells. Array suffixes: c cell,
o a gene in a cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..corpus.cells import CellBatch
from ..train.encodings.rank_value import RankValueEncoding
from ..train.encodings.tokens import TokenBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedCells:
    """Some cells, encoded, with what is known of them.

    Attributes:
        batches: the cells' counts, in the order of all the arrays.
        tokens: the cells encoded.
        columns: columns of `cells`, each of shape (n_cells,), dtype object, None where unknown.
    """

    batches: tuple[CellBatch, ...]
    tokens: TokenBatch
    columns: dict[str, NDArray[np.object_]]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.tokens.n_cells


@dataclass(frozen=True, kw_only=True, slots=True)
class Units:
    """The independent units of some cells: donors, or the cells themselves.

    Attributes:
        names: the units' names; the cells' numbers where the cells are the units.
        unit_c: each cell's unit, 0 to n_units - 1. Shape (n_cells,).
        word: what a unit is, in the plural.
        note: what to say of them; empty where they are donors.
    """

    names: tuple[str, ...]
    unit_c: NDArray[np.int64]
    word: str
    note: str

    @property
    def n_units(self) -> int:
        """How many there are."""
        return len(self.names)

    @property
    def are_cells(self) -> bool:
        """Whether cells had to take the place of donors."""
        return self.word == "cells"


@dataclass(frozen=True, kw_only=True, slots=True)
class GenesOfCells:
    """The genes of some cells, cell after cell by rank; special tokens are left out.

    Attributes:
        place_o: where each stands among the tokens. Shape (n_genes,).
        token_o: its token. Shape (n_genes,).
        cell_o: its cell. Shape (n_genes,).
        rank_o: how many genes stand before it in its cell. Shape (n_genes,).
        offsets: where each cell begins and ends in these arrays. Shape (n_cells + 1,).
    """

    place_o: NDArray[np.int64]
    token_o: NDArray[np.int64]
    cell_o: NDArray[np.int64]
    rank_o: NDArray[np.int64]
    offsets: NDArray[np.int64]


def genes_of(tokens: TokenBatch, n_special: int) -> GenesOfCells:
    """The genes of encoded cells; the vocabulary begins with `n_special` other tokens."""
    is_gene = tokens.tokens >= n_special
    offsets = np.concatenate([[0], np.cumsum(is_gene)])[tokens.offsets].astype(np.int64)
    cell_o = np.repeat(np.arange(tokens.n_cells), np.diff(offsets))
    return GenesOfCells(
        place_o=np.flatnonzero(is_gene),
        token_o=tokens.tokens[is_gene].astype(np.int64),
        cell_o=cell_o,
        rank_o=np.arange(len(cell_o)) - offsets[cell_o],
        offsets=offsets,
    )


def encode_cells(
    batches: Sequence[CellBatch], encoding: RankValueEncoding, columns: Sequence[str] = ()
) -> AskedCells:
    """Encode batches and gather columns of their `obs`."""
    known = {
        name: np.array(
            [value for batch in batches for value in batch.obs.column(name).to_pylist()],
            dtype=object,
        )
        for name in columns
    }
    tokens = TokenBatch.concatenate([encoding.encode(batch) for batch in batches])
    return AskedCells(batches=tuple(batches), tokens=tokens, columns=known)


def units_of(names_c: NDArray[np.object_], column: str) -> Units:
    """Group cells by unit; cells are their own units where fewer than two units are named.

    Args:
        names_c: each cell's unit, None where it has none. Shape (n_cells,).
        column: the column's name, for the words.
    """
    named = sorted({str(name) for name in names_c if name is not None})
    if len(named) < 2 or any(name is None for name in names_c):
        n_cells = len(names_c)
        return Units(
            names=tuple(str(cell) for cell in range(n_cells)),
            unit_c=np.arange(n_cells),
            word="cells",
            note="cells, not donors: optimistic",
        )
    number = {name: place for place, name in enumerate(named)}
    return Units(
        names=tuple(named),
        unit_c=np.array([number[str(name)] for name in names_c], dtype=np.int64),
        word="donors" if column == "donor_id" else f"values of {column}",
        note="",
    )


def scattered(keys_c: NDArray[np.uint64], seed: int) -> NDArray[np.int64]:
    """An order of cells that depends on seed and content alone. Shape (n_cells,)."""
    mixed = keys_c ^ np.uint64((seed * 0x9E3779B97F4A7C15) & (2**64 - 1))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.argsort(mixed ^ (mixed >> np.uint64(31)), kind="stable").astype(np.int64)


def thinned(
    groups_c: Sequence[object], keys_c: NDArray[np.uint64], *, most: int, seed: int
) -> NDArray[np.int64]:
    """The rows of at most `most` cells of each group, ascending.

    Args:
        groups_c: each cell's group. Shape (n_cells,).
        keys_c: content keys. Shape (n_cells,).
        most: cells kept of a group.
        seed: another seed, other cells.
    """
    taken: dict[object, int] = {}
    rows: list[int] = []
    for row in scattered(keys_c, seed).tolist():
        group = groups_c[row]
        if taken.get(group, 0) < most:
            taken[group] = taken.get(group, 0) + 1
            rows.append(row)
    return np.array(sorted(rows), dtype=np.int64)
