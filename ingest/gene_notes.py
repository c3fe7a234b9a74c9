"""What should be known of how a source's genes were named: lines for the receipt, and refusals.

Knows names and their kinds; knows no matrix and no file.
"""

from collections import Counter
from collections.abc import Sequence

from ..corpus.genes import GeneMapping
from ..corpus.spellings import HUMAN, Species, guess_species, species_named

MOST_LISTED = 20
"""So many names of a kind are listed; all of them are in the segments' gene tables."""

FEWEST_BESIDE_ANOTHER = 0.25
"""Where most names speak of another species, a source with a smaller share of recognised names is
that species': 0.6 % of mouse symbols are human ones by chance (Ensembl 105). With more of them
recognised, it is a mixture of two species, and its human genes are taken."""

_LISTED = {
    "ambiguous": "are of several genes",
    "ambiguous_date": "were made dates by a spreadsheet, and several genes can be meant",
    "date": "were made dates by a spreadsheet, and one gene can be meant",
    "unmapped": "are not known",
}


def other_species(names: Sequence[str], mapping: GeneMapping) -> Species | None:
    """The species that the source is of, where that is another than human."""
    if not names or mapping.n_recognised >= FEWEST_BESIDE_ANOTHER * len(names):
        return None
    return guess_species(names)


def notes_of(names: Sequence[str], mapping: GeneMapping) -> tuple[str, ...]:
    """Lines on prefixes, other species, dates, ambiguous and unknown names.

    Args:
        names: the source's names, as they were mapped.
        mapping: what became of them.
    """
    kinds = mapping.counts()
    lines = [
        f"{n} gene names begin with {prefix!r}, the name of a genome: it was taken off"
        if _is_human(prefix)
        else f"{n} gene names begin with {prefix!r}, the name of another species' genome"
        for prefix, n in sorted(mapping.prefixes.items())
    ]
    if n_others := kinds.get("other_species", 0):
        whose = Counter(
            species_named(str(name)) or "another species"
            for name, kind in zip(names, mapping.kinds, strict=True)
            if kind == "other_species"
        )
        told = ", ".join(f"{n} {species}" for species, n in whose.most_common())
        lines.append(f"{n_others} gene names are of another species, outside the corpus: {told}")
    if n_orthologs := kinds.get("ortholog", 0):
        lines.append(f"{n_orthologs} gene names were mapped through orthologs, one to one")
    for kind, what in _LISTED.items():
        if n := kinds.get(kind, 0):
            listed = [
                str(name) for name, its in zip(names, mapping.kinds, strict=True) if its == kind
            ][:MOST_LISTED]
            more = ", ..." if n > len(listed) else ""
            lines.append(f"{n} gene names {what}: {', '.join(listed)}{more}")
    return tuple(lines)


def _is_human(prefix: str) -> bool:
    return species_named(prefix + "X") == HUMAN
