"""A source's gene names to Ensembl ids, duplicates summed. Knows no file and no cell metadata.

Array suffixes: c cell, g gene of the segment, n name in the source.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from ..corpus.genes import OUTSIDE, GeneMapping, GeneReference
from ..corpus.sparse_counts import Rows
from ..corpus.spellings import ensembl_id, split_genome
from ..platform.errors import NoGenesError, NotRawCountsError, SourceError, did_you_mean
from .gene_notes import notes_of, other_species
from .orthologs import Orthologs, map_through_orthologs
from .recover import LARGEST_COUNT
from .sources.protocol import INDEX, Names

FEWEST_RECOGNISED = 0.05
"""A source of whose names under 5 % are recognised is of another species or of other features:
some names of any list collide with a human alias."""

LEAST_ENSEMBL = 0.5
"""From this share on, a column is taken for a column of Ensembl ids."""

FEWEST_MITOCHONDRIAL = 5
"""With fewer mitochondrial genes measured their fraction says nothing about a cell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Harmonised:
    """A source's genes as genes of the corpus.

    Attributes:
        column: the column of the source's gene table that named them.
        gene_ids: Ensembl ids (or `unmapped:<name>`), ascending, unique. Shape (n_genes,).
        gene_of: each name's place in `gene_ids`. Shape (n_names,), int32.
        var: the segment's gene table, columns of `corpus.schema.VAR_COLUMNS`, n_genes rows.
        kinds: how many names were understood in each way.
        coding_or_mirna_g: which genes Geneformer's rules count. Shape (n_genes,).
        mitochondrial_g: which genes are mitochondrial. Shape (n_genes,).
        coding_share: share of the reference's coding genes that are measured.
        notes: what should be known of the names, a line each.
    """

    column: str
    gene_ids: NDArray[np.object_]
    gene_of: NDArray[np.int32]
    var: pa.Table
    kinds: dict[str, int]
    coding_or_mirna_g: NDArray[np.bool_]
    mitochondrial_g: NDArray[np.bool_]
    coding_share: float
    notes: tuple[str, ...] = ()

    @property
    def n_names(self) -> int:
        """Number of names in the source."""
        return len(self.gene_of)

    @property
    def n_summed(self) -> int:
        """Names that met another name's gene: their counts are summed."""
        return self.n_names - len(self.gene_ids)

    @property
    def n_mapped(self) -> int:
        """Names that have an Ensembl id of the organism."""
        return self.n_names - sum(self.kinds.get(kind, 0) for kind in OUTSIDE)

    @property
    def panel(self) -> bool:
        """Whether under half of the coding genes are measured."""
        return self.coding_share < 0.5

    @property
    def measures_mitochondria(self) -> bool:
        """Whether enough mitochondrial genes are measured for their fraction to mean something."""
        return int(self.mitochondrial_g.sum()) >= FEWEST_MITOCHONDRIAL

    def sum_genes(self, parts: Sequence[tuple[sparse.csr_matrix, NDArray[np.int64]]]) -> Rows:
        """Counts by name to counts by gene, ascending and unique in a row.

        Args:
            parts: raw counts, cells x names, and the rows of them to take; taken after each other.

        Raises:
            NotRawCountsError: the sum of names that are one gene is no count any more.
        """
        n_rows = sum(len(rows) for _, rows in parts)
        most = sum(int(np.diff(matrix.indptr)[rows].sum()) for matrix, rows in parts)
        indptr = np.zeros(n_rows + 1, dtype=np.int64)
        indices, counts = np.empty(most, dtype=np.int32), np.empty(most, dtype=np.uint32)
        room = _room(len(self.gene_ids))
        done = 0
        for matrix, rows in parts:
            given = (matrix.indptr, matrix.indices, matrix.data, rows, self.gene_of)
            largest = int(_sum_names(*given, *room, indptr[done:], indices, counts))
            if largest > LARGEST_COUNT:
                raise NotRawCountsError(
                    f"names of one gene sum to {largest} counts in a cell, expected "
                    f"{LARGEST_COUNT} at most"
                )
            done += len(rows)
        return indptr, indices[: indptr[-1]], counts[: indptr[-1]]


def choose_names(
    columns: dict[str, Names],
    reference: GeneReference,
    *,
    named: str | None,
    where: str,
    orthologs: Orthologs | None = None,
) -> tuple[str, Names]:
    """The column that names the genes best: Ensembl ids before symbols, the index before others.

    Args:
        columns: columns of the source's gene table; the index first.
        reference: the genes.
        named: the column that the user names.
        where: the file, for errors.
        orthologs: another species' genes as human ones; the column that it knows best is taken.

    Raises:
        SourceError: there is no such column.
    """
    if named is not None:
        if named not in columns:
            raise SourceError(
                f"{where}: the gene table has no column {named!r}; it has {', '.join(columns)}"
                f"{did_you_mean(named, columns)}"
            )
        return named, columns[named]
    for name, names in columns.items() if orthologs is None else ():
        n_ids = sum(_holds_id(str(text).strip()) for text in names)
        if len(names) and n_ids / len(names) >= LEAST_ENSEMBL:
            return name, names
    recognised = {
        name: _map(names, reference, orthologs).n_recognised for name, names in columns.items()
    }
    best = max(recognised, key=lambda name: recognised[name], default=INDEX)
    return best, columns[best]


def n_recognised(names: Names, reference: GeneReference) -> int:
    """How many names have a gene of the reference."""
    return reference.map_names(names).n_recognised


def harmonise(
    columns: dict[str, Names],
    reference: GeneReference,
    *,
    where: str,
    named: str | None = None,
    orthologs: Orthologs | None = None,
) -> Harmonised:
    """Map a source's genes.

    Args:
        columns: columns of the source's gene table; the index first.
        reference: the genes.
        where: the file, for errors.
        named: the column with the names, where the user says so.
        orthologs: another species' genes as human ones, where the source is of that species.

    Raises:
        NoGenesError: no name, or under 5 % of them, is recognised, or they are another species'.
        SourceError: there is no such column.
    """
    column, names = choose_names(columns, reference, named=named, where=where, orthologs=orthologs)
    names = np.array([str(name).strip() for name in names], dtype=object)
    mapping = _map(names, reference, orthologs)
    _refuse_strangers(names, mapping, column=column, columns=columns, where=where)
    gene_ids, gene_of = np.unique(mapping.gene_ids.astype(str), return_inverse=True)
    gene_ids = gene_ids.astype(object)
    biotypes = reference.biotype_of(gene_ids)
    coding = int(reference.is_coding(gene_ids).sum())
    return Harmonised(
        column=column,
        gene_ids=gene_ids,
        gene_of=gene_of.astype(np.int32),
        var=_var(gene_ids, gene_of, names, mapping.kinds, reference, biotypes),
        kinds=mapping.counts(),
        coding_or_mirna_g=reference.is_coding_or_mirna(gene_ids),
        mitochondrial_g=reference.is_mitochondrial(gene_ids),
        coding_share=coding / max(1, reference.n_coding),
        notes=notes_of(names.tolist(), mapping),
    )


def _map(names: Names, reference: GeneReference, orthologs: Orthologs | None) -> GeneMapping:
    if orthologs is None:
        return reference.map_names(names)
    return map_through_orthologs(names, orthologs, reference)


def _refuse_strangers(
    names: Names, mapping: GeneMapping, *, column: str, columns: dict[str, Names], where: str
) -> None:
    found = mapping.n_recognised
    species = other_species(names.tolist(), mapping)
    if found and found >= FEWEST_RECOGNISED * len(names) and species is None:
        return
    first = ", ".join(repr(str(name)) for name in names[:5]) or "none at all"
    how_many = "no gene" if found == 0 else f"only {found} of {len(names)} genes"
    looks = (
        ""
        if species is None
        else f"looks like {species.name}: {species.share:.0%} are {species.sign}; a table of "
        "orthologs (`orthologs`) can map them; "
    )
    raise NoGenesError(
        f"{where}: {how_many} recognised in column {column!r} of the gene table; it begins "
        f"{first}; {looks}expected Ensembl ids (ENSG00000141510), Entrez ids or human symbols "
        f"(TP53). Columns: {', '.join(columns)}; name the right one with `genes`"
    )


def _holds_id(name: str) -> bool:
    """Whether a name is an Ensembl id, behind a genome's prefix or not."""
    if ensembl_id(name) is not None:
        return True
    genome = split_genome(name)
    return genome is not None and ensembl_id(genome[2]) is not None


def _var(
    gene_ids: NDArray[np.object_],
    gene_of: NDArray[Any],
    names: Names,
    kinds: NDArray[np.object_],
    reference: GeneReference,
    biotypes: NDArray[np.object_],
) -> pa.Table:
    """The segment's gene table; names that met are joined by `|`, the first one's kind is kept."""
    order = np.argsort(gene_of, kind="stable")
    starts = np.searchsorted(gene_of[order], np.arange(len(gene_ids) + 1))
    rows = [order[low:high] for low, high in pairwise(starts)]
    return pa.table(
        {
            "gene_id": pa.array(gene_ids, pa.string()),
            "symbol": pa.array(reference.symbol_of(gene_ids), pa.string()),
            "biotype": pa.array(biotypes, pa.string()),
            "mapping": pa.array([str(kinds[row[0]]) for row in rows], pa.string()),
            "source_name": pa.array(["|".join(names[row]) for row in rows], pa.string()),
        }
    )


_PLACE_OF = np.zeros(64, dtype=np.uint8)
_PLACE_OF[[((0x03F79D71B4CB0A89 << place) % 2**64) >> 58 for place in range(64)]] = np.arange(64)
"""The place of a word's only bit by a product's first 6 bits: a de Bruijn sequence of order 6
(Leiserson, Prokop, Randall 1998, "Using de Bruijn Sequences to Index a 1 in a Computer Word")."""


def _room(n_genes: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """What `_sum_names` works in: all 0, and 0 again when it is done."""
    return np.zeros(n_genes, dtype=np.int64), np.zeros(n_genes // 64 + 1, dtype=np.uint64)


@numba.njit(cache=True, nogil=True)
def _sum_names(
    indptr: NDArray[Any],
    indices: NDArray[Any],
    counts: NDArray[Any],
    rows: NDArray[np.int64],
    gene_of: NDArray[np.int32],
    of_gene: NDArray[np.int64],
    marks: NDArray[np.uint64],
    ends: NDArray[np.int64],
    genes: NDArray[np.int32],
    sums: NDArray[np.uint32],
) -> Any:  # pragma: no cover - compiled
    """Some rows by name to rows by gene, from `ends[0]` on; tell the largest sum.

    A row's genes are marked as bits and taken from there in order, in linear time.
    """
    one, largest, n_stored = np.uint64(1), np.int64(0), ends[0]
    for taken in range(len(rows)):
        for place in range(indptr[rows[taken]], indptr[rows[taken] + 1]):
            gene = gene_of[indices[place]]
            of_gene[gene] += counts[place]
            marks[gene >> 6] |= one << np.uint64(gene & 63)
        for word in range(len(marks)):
            mark = marks[word]
            while mark:
                lowest = mark & (~mark + one)
                mark ^= lowest
                product = lowest * np.uint64(0x03F79D71B4CB0A89)
                gene = word * 64 + _PLACE_OF[product >> np.uint64(58)]
                genes[n_stored] = gene
                sums[n_stored] = of_gene[gene]
                largest = max(largest, of_gene[gene])
                of_gene[gene] = 0
                n_stored += 1
            marks[word] = 0
        ends[taken + 1] = n_stored
    return largest
