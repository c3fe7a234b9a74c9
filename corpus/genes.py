"""Gene names to Ensembl ids. Knows the genes of one organism; knows no matrix, no cell, no model.

A gene is an Ensembl id without version. A well-formed Ensembl id that the reference lacks stays
itself (retired or renamed: never rewritten to a newer one); a name without an Ensembl id becomes
`unmapped:<name>`, outside every vocabulary.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..platform.errors import VocabularyError
from .gene_tables import read_genes
from .spellings import (
    HUMAN,
    ensembl_id,
    names_of_date,
    renamed_family,
    species_of_id,
    split_genome,
    spreadsheet_date,
)

GeneKind = Literal[
    "ensembl", "entrez", "symbol", "previous", "alias", "case", "date", "ortholog", "retired",
    "ambiguous", "ambiguous_date", "other_species", "unmapped",
]  # fmt: skip
RECOGNISED = ("ensembl", "entrez", "symbol", "previous", "alias", "case", "date", "ortholog")
"""Kinds of names that have a gene of the reference."""
OUTSIDE = ("ambiguous", "ambiguous_date", "other_species", "unmapped")
"""Kinds of names that have no gene of the organism."""
UNMAPPED = "unmapped:"

_RULES = "2"  # enters the digest: to be raised when a rule below maps a name to another gene

MOST = 0.5
"""A column speaks of Entrez ids, or with a genome's prefix, when more than half of its names do."""

FEW_NUMBERS = 0.05
"""Among more bare numbers than these a number is no date: the column holds numbers of some kind."""

ROW_NUMBERS_END = 80_000
"""Row numbers of a table of genes end below this; Entrez ids do not (34 % of the coding genes' are
above). 71 % of the numbers under 2,000 are somebody's Entrez id, so being known is not enough."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneMapping:
    """What became of a source's gene names.

    Attributes:
        gene_ids: one id a name. Shape (n_names,), dtype object (str).
        kinds: how each was understood. Shape (n_names,), dtype object (str):
            `ensembl` (an id that the reference knows), `entrez`, `symbol`, `previous` (was approved
            once), `alias`, `case` (C1ORF112 for C1orf112), `date` (made by a spreadsheet, one gene
            can be meant), `ortholog` (of another species' gene); `retired` (a well-formed id that
            the reference lacks); `ambiguous` (of several genes), `ambiguous_date` (several genes
            can be meant), `other_species`, `unmapped`.
        prefixes: prefixes of genomes as written, with how many names had them.
    """

    gene_ids: NDArray[np.object_]
    kinds: NDArray[np.object_]
    prefixes: Mapping[str, int] = field(default_factory=dict[str, int])

    def counts(self) -> dict[str, int]:
        """How many names were understood in each way."""
        return dict(sorted(Counter(self.kinds.tolist()).items()))

    @property
    def n_recognised(self) -> int:
        """How many names have a gene of the reference."""
        return sum(n for kind, n in self.counts().items() if kind in RECOGNISED)


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneReference:
    """The genes of an organism: id, symbol, biotype and other names.

    Attributes:
        gene_ids: Ensembl ids without version.
        symbols: the approved symbol of each gene (its id where it has none).
        biotypes: the biotype of each gene, GENCODE's words.
        aliases: other names of each gene.
        previous: symbols of each gene that were approved once; nobody's where empty.
        entrez_ids: NCBI's number of each gene, "" where there is none; nobody's where empty.
        digest: SHA-256 of all of the above and of the rules by which names are understood.
    """

    gene_ids: tuple[str, ...]
    symbols: tuple[str, ...]
    biotypes: tuple[str, ...]
    aliases: tuple[tuple[str, ...], ...]
    previous: tuple[tuple[str, ...], ...] = ()
    entrez_ids: tuple[str, ...] = ()
    digest: str = field(init=False)
    _row_of: dict[str, int] = field(init=False, repr=False, compare=False)
    _rows_with: dict[GeneKind, dict[str, list[int]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the names once."""
        columns = [self.gene_ids, self.symbols, self.biotypes, self.aliases]
        lengths = {len(c) for c in (*columns, self.previous or columns[0])}
        lengths.add(len(self.entrez_ids or columns[0]))
        if len(lengths) != 1:
            raise VocabularyError(f"gene reference with columns of lengths {sorted(lengths)}")
        kinds: tuple[GeneKind, ...] = ("symbol", "previous", "alias", "case", "entrez")
        rows_with = {kind: defaultdict[str, list[int]](list) for kind in kinds}
        lines = [_RULES]
        no_names: tuple[str, ...] = ()
        for row, (gene_id, symbol, biotype, aliases, previous, entrez) in enumerate(
            zip(
                self.gene_ids,
                self.symbols,
                self.biotypes,
                self.aliases,
                self.previous or repeat(no_names, len(self.gene_ids)),
                self.entrez_ids or repeat("", len(self.gene_ids)),
                strict=True,
            )
        ):
            rows_with["symbol"][symbol].append(row)
            for name in set(previous):
                rows_with["previous"][name].append(row)
            for name in set(aliases):
                rows_with["alias"][name].append(row)
            for name in _written_large(symbol, previous, aliases):
                rows_with["case"][name].append(row)
            if entrez:
                rows_with["entrez"][entrez].append(row)
            names = (*aliases, "previous", *previous, "entrez", entrez)
            lines.append("\t".join((gene_id, symbol, biotype, *names)))
        digest = hashlib.sha256(("\n".join(lines) + "\n").encode())
        row_of = {gene_id: row for row, gene_id in enumerate(self.gene_ids)}
        object.__setattr__(self, "_row_of", row_of)
        object.__setattr__(self, "_rows_with", {k: dict(v) for k, v in rows_with.items()})
        object.__setattr__(self, "digest", digest.hexdigest())

    @classmethod
    def load(cls, table: Path, *others: Path) -> "GeneReference":
        """Read a gene table, and join other tables' names; see `gene_tables.read_genes`.

        Raises:
            ResourceError: a file is no such table.
        """
        rows = read_genes(table, *others)
        return cls(
            gene_ids=tuple(row.gene_id for row in rows),
            symbols=tuple(row.symbol for row in rows),
            biotypes=tuple(row.biotype for row in rows),
            aliases=tuple(row.aliases for row in rows),
            previous=tuple(row.previous for row in rows),
            entrez_ids=tuple(row.entrez_id for row in rows),
        )

    @property
    def n_coding(self) -> int:
        """Number of protein-coding genes."""
        return sum(biotype == "protein_coding" for biotype in self.biotypes)

    def map_names(self, names: Iterable[str]) -> GeneMapping:
        """Understand a column of gene names: ids, symbols, other names, mixed as they come.

        Two things are asked of the column as a whole: whether most names begin with the name of a
        genome (`hg19_TP53`; it is taken off, names of another species' genome stay unmapped), and
        whether most are known Entrez ids. Then, name by name, the first that fits of: Ensembl id,
        Entrez id, approved symbol, previous symbol, alias, `LOC` and an Entrez id, small letters
        written large (C1ORF112), a date that a spreadsheet made.

        A symbol of several genes goes to the protein-coding one among them; of several, to the
        one with the lowest id (GENCODE v48 has 28 such symbols: 18 are chromosome Y's copies of
        pseudoautosomal genes, the others newer read-through loci). Any other name of several
        coding genes is ambiguous.
        """
        texts = [str(name).strip() for name in names]
        genomes = [split_genome(text) for text in texts]
        if sum(genome is not None for genome in genomes) <= MOST * len(texts):
            genomes = [None] * len(texts)
        rests = [g[2] if g else text for g, text in zip(genomes, texts, strict=True)]
        numbers = [_number(rest) for rest in rests]
        entrez = self._are_entrez([number for number in numbers if number], len(rests))
        dated = sum(bool(number) for number in numbers) <= FEW_NUMBERS * len(rests)
        understood: list[tuple[str, GeneKind]] = []
        for text, genome, rest, number in zip(texts, genomes, rests, numbers, strict=True):
            if genome is not None and genome[1] != HUMAN and ensembl_id(rest) is None:
                understood.append((UNMAPPED + text, "other_species"))
            elif number:
                known = self._find(number, ("entrez",)) if entrez else None
                known = known or (self._from_date(rest) if dated else None)
                understood.append(known or (UNMAPPED + rest, "unmapped"))
            else:
                understood.append(self._understand(rest))
        return GeneMapping(
            gene_ids=np.array([gene_id for gene_id, _ in understood], dtype=object),
            kinds=np.array([kind for _, kind in understood], dtype=object),
            prefixes=dict(Counter(genome[0] for genome in genomes if genome is not None)),
        )

    def _are_entrez(self, numbers: Sequence[str], n_names: int) -> bool:
        """Whether the numbers in a column are Entrez ids, and not rows of some table."""
        known = self._rows_with["entrez"]
        large = sum(int(number) > ROW_NUMBERS_END for number in numbers)
        found = sum(number in known for number in numbers)
        return found > MOST * n_names and large >= 0.05 * len(numbers)

    def _understand(self, name: str) -> tuple[str, GeneKind]:
        given = ensembl_id(name) if name.startswith("ENS") else None
        if given is not None and given in self._row_of:
            return given, "ensembl"
        if (species := species_of_id(name)) is not None:
            return given or UNMAPPED + name, "retired" if species == HUMAN else "other_species"
        found = self._find(name, ("symbol", "previous"))
        if found is None and (today := renamed_family(name)) is not None:
            found = self._find(today, ("symbol",), name)
            found = (found[0], "previous") if found and found[1] == "symbol" else found
        found = found or self._find(name, ("alias",))
        if found is None and name.startswith("LOC"):
            found = self._find(name.removeprefix("LOC"), ("entrez",), name)
        found = found or self._find(name, ("case",)) or self._from_date(name)
        return found or (UNMAPPED + name, "unmapped")

    def _find(
        self, name: str, kinds: Sequence[GeneKind], written: str | None = None
    ) -> tuple[str, GeneKind] | None:
        """The gene of a name by the first index that has it; None where none has."""
        for kind in kinds:
            rows = self._rows_with[kind].get(name)
            if not rows:
                continue
            coding = [row for row in rows if self.biotypes[row] == "protein_coding"]
            chosen = rows if len(rows) == 1 else coding
            if len(chosen) == 1 or (chosen and kind == "symbol"):
                return min(self.gene_ids[row] for row in chosen), kind
            return UNMAPPED + (written or name), "ambiguous"
        return None

    def _from_date(self, name: str) -> tuple[str, GeneKind] | None:
        """The gene that a date can have been; None where the name is no date, or of no gene."""
        if not name[:1].isalnum() or (day := spreadsheet_date(name)) is None:
            return None
        found = {self._find(symbol, ("symbol",)) for symbol in names_of_date(*day)} - {None}
        if not found:
            return None
        known = found.pop()
        if found or known is None or known[1] == "ambiguous":
            return UNMAPPED + name, "ambiguous_date"
        return known[0], "date"

    def symbol_of(self, gene_ids: Iterable[str]) -> NDArray[np.object_]:
        """Each gene's symbol; a gene that the reference lacks keeps its id (or unmapped name)."""
        rows = ((gene_id, self._row_of.get(gene_id)) for gene_id in gene_ids)
        return np.array(
            [
                gene_id.removeprefix(UNMAPPED) if row is None else self.symbols[row]
                for gene_id, row in rows
            ],
            dtype=object,
        )

    def biotype_of(self, gene_ids: Iterable[str]) -> NDArray[np.object_]:
        """Each gene's biotype; an empty string where the reference lacks the gene."""
        rows = (self._row_of.get(gene_id) for gene_id in gene_ids)
        return np.array(["" if row is None else self.biotypes[row] for row in rows], dtype=object)

    def is_coding(self, gene_ids: Iterable[str]) -> NDArray[np.bool_]:
        """Which genes are protein-coding."""
        return np.asarray(self.biotype_of(gene_ids) == "protein_coding", dtype=bool)

    def is_coding_or_mirna(self, gene_ids: Iterable[str]) -> NDArray[np.bool_]:
        """Which genes are protein-coding or microRNAs: the universe of Geneformer's rules."""
        biotypes = self.biotype_of(gene_ids)
        return np.asarray((biotypes == "protein_coding") | (biotypes == "miRNA"), dtype=bool)

    def is_mitochondrial(self, gene_ids: Iterable[str]) -> NDArray[np.bool_]:
        """Which genes lie in the mitochondrial genome: human symbols that begin with `MT-`."""
        rows = (self._row_of.get(gene_id) for gene_id in gene_ids)
        return np.array(
            [row is not None and self.symbols[row].startswith("MT-") for row in rows], dtype=bool
        )


def _number(name: str) -> str:
    """The digits of a bare number; a suffix `.1` of repeated names or of floats is left out."""
    digits, dot, suffix = name.partition(".")
    bare = digits.isascii() and digits.isdigit()
    return digits if bare and (not dot or (suffix.isdigit() and len(suffix) < 3)) else ""


def _written_large(symbol: str, previous: tuple[str, ...], aliases: tuple[str, ...]) -> set[str]:
    """Names of a gene with small letters, as files write them large: of aliases the `orf` ones."""
    names = {name for name in (symbol, *previous) if not name.isupper() and name != name.upper()}
    names.update(alias for alias in aliases if "orf" in alias)
    return {name.upper() for name in names}
