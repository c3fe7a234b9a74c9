"""Genes of another species as human genes, through a table that the user gives.

Knows pairs of names; knows no matrix. Only one-to-one pairs are used: where one gene became two,
counts of one species say nothing of which of the two the other would express.
"""

import gzip
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..corpus.genes import UNMAPPED, GeneKind, GeneMapping, GeneReference
from ..corpus.spellings import HUMAN, ensembl_id, species_of_id
from ..platform.errors import SourceError
from ..platform.storage import sha256_file


@dataclass(frozen=True, kw_only=True, slots=True)
class Orthologs:
    """Which human gene another species' gene is.

    Attributes:
        human_of: name in the source -> human Ensembl id, one-to-one pairs only.
        several: names whose pairs are not one-to-one.
        sha256: of the table's bytes; belongs into what decides a source's cells.
    """

    human_of: Mapping[str, str]
    several: frozenset[str]
    sha256: str


@lru_cache(maxsize=4)
def load_orthologs(table: Path, reference: GeneReference) -> Orthologs:
    """Read a table of pairs: the source's id or symbol, the human Ensembl id or symbol.

    Columns lie between tabs (commas in a csv), gzipped or not; further columns are left alone, and
    so are a header and lines without a human gene. Ids and symbols of one species may both be
    listed: each is held against its own kind when one-to-one is judged.

    Args:
        table: the file.
        reference: the human genes.

    Raises:
        SourceError: it cannot be read, or no line names a human gene.
    """
    opened = gzip.open if table.suffix == ".gz" else open
    try:
        with opened(table, "rt", encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SourceError(f"{table}: cannot be read as a table of orthologs: {error}") from error
    between = "," if table.name.removesuffix(".gz").endswith(".csv") else "\t"
    cells = [[cell.strip().strip('"') for cell in line.split(between)] for line in lines]
    pairs = [(row[0], row[1]) for row in cells if len(row) > 1 and row[0] and row[1]]
    human = reference.map_names(second for _, second in pairs)
    humans_of: defaultdict[str, set[str]] = defaultdict(set)
    names_of: defaultdict[tuple[str, bool], set[str]] = defaultdict(set)
    for (given, _), gene_id, kind in zip(pairs, human.gene_ids, human.kinds, strict=True):
        if kind in ("ensembl", "retired", "symbol"):
            name = ensembl_id(given) or given
            humans_of[name].add(str(gene_id))
            names_of[str(gene_id), _is_id(name)].add(name)
    if not humans_of:
        first = lines[0] if lines else ""
        raise SourceError(
            f"{table}: no line names a human gene in its second column; expected lines like "
            f"ENSMUSG00000059552{between!r}ENSG00000141510; it begins {first!r:.80}"
        )
    human_of: dict[str, str] = {}
    for name, genes in humans_of.items():
        gene = next(iter(genes))
        if len(genes) == 1 and len(names_of[gene, _is_id(name)]) == 1:
            human_of[name] = gene
    return Orthologs(
        human_of=human_of,
        several=frozenset(humans_of.keys() - human_of.keys()),
        sha256=sha256_file(table),
    )


def map_through_orthologs(
    names: Iterable[str], orthologs: Orthologs, reference: GeneReference
) -> GeneMapping:
    """Understand another species' names as human genes.

    A name in a one-to-one pair is an `ortholog`; one whose pairs are not one-to-one is `ambiguous`;
    a human Ensembl id (a transgene in a mouse, say) is what it is; every other name is
    `other_species`. The latter stay unmapped; an Ensembl id stays itself.
    """
    gene_ids: list[str] = []
    kinds: list[GeneKind] = []
    texts = [str(name).strip() for name in names]
    human = [text for text in texts if species_of_id(text) == HUMAN]
    mapped = reference.map_names(human)
    as_given = dict(zip(human, zip(mapped.gene_ids, mapped.kinds, strict=True), strict=True))
    for text in texts:
        given = ensembl_id(text)
        name = given or text
        if text in as_given:
            gene_id, kind = as_given[text]
        elif name in orthologs.human_of:
            gene_id, kind = orthologs.human_of[name], "ortholog"
        else:
            gene_id = given or UNMAPPED + text
            kind = "ambiguous" if name in orthologs.several else "other_species"
        gene_ids.append(gene_id)
        kinds.append(kind)
    return GeneMapping(
        gene_ids=np.array(gene_ids, dtype=object), kinds=np.array(kinds, dtype=object)
    )


def _is_id(name: str) -> bool:
    return species_of_id(name) is not None
