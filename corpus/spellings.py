"""How gene names are written: ids, genomes' prefixes, species' habits, names turned into dates.

Knows no reference: what a spelling says, never whether such a gene exists.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

HUMAN = "human"

# ENSG00000141510, with an optional version and the suffix GENCODE gives chromosome Y's copies;
# ENSGR0000182378 is how the first Geneformer vocabulary names those copies.
_ENSEMBL = re.compile(r"(ENS(?:[A-Z]{3})?G(?:\d{11}|R\d{10}))(?:\.\d+)?(_PAR_Y)?")

# Ensembl's own prefixes: https://www.ensembl.org/info/genome/stable_ids/prefixes.html
SPECIES_OF_ENSEMBL: Mapping[str, str] = {
    "ENSMUSG": "mouse",
    "ENSRNOG": "rat",
    "ENSDARG": "zebrafish",
    "ENSSSCG": "pig",
    "ENSGALG": "chicken",
    "ENSBTAG": "cow",
    "ENSCAFG": "dog",
    "ENSFCAG": "cat",
    "ENSECAG": "horse",
    "ENSOARG": "sheep",
    "ENSOCUG": "rabbit",
    "ENSCPOG": "guinea pig",
    "ENSMMUG": "rhesus macaque",
    "ENSMFAG": "crab-eating macaque",
    "ENSPTRG": "chimpanzee",
    "ENSPPAG": "bonobo",
    "ENSGGOG": "gorilla",
    "ENSCJAG": "marmoset",
    "ENSMICG": "mouse lemur",
    "ENSMODG": "opossum",
    "ENSXETG": "western clawed frog",
    "ENSORLG": "medaka",
}
_OTHER_IDS = {"fruit fly": re.compile(r"FBgn\d{7}"), "nematode": re.compile(r"WBGene\d{8}")}

# Names of genomes: UCSC's, the Genome Reference Consortium's with patch or 10x year, plain words.
# 10x joins them with underscores, Seurat turns those into hyphens.
_GENOMES: Mapping[str, str] = {
    HUMAN: r"GRCh3[678](?:p\d+|-\d{4}-[A-Z])?|hg1[6-9]|hg38|hs|human|Homo_sapiens|T2T-CHM13",
    "mouse": r"GRCm3[89](?:p\d+|-\d{4}-[A-Z])?|mm(?:9|10|39)|mm|mouse|Mus_musculus",
    "rat": r"mRatBN7|Rnor6?|rn[4-7]|rat|Rattus_norvegicus",
    "zebrafish": r"GRCz1[01]|danRer\d+|zebrafish",
    "pig": r"Sscrofa\d*|susScr\d+",
    "rhesus macaque": r"Mmul_?\d*|rheMac\d+",
}
_GENOME = re.compile(
    f"(?:{'|'.join(f'({words})' for words in _GENOMES.values())})[_:-]+(.+)", re.IGNORECASE
)

# Mouse and rat write a capital and then small letters (Gapdh, Tnfrsf1a, H2-Aa); human symbols
# have small letters only in `orf` (C1orf112). Clones: Gm1234, 4933401J01Rik; mitochondria: mt-Co1.
_MOUSE = re.compile(r"[A-Z][a-z0-9]*[a-z][A-Za-z0-9.-]*|H2-[A-Za-z0-9]+|Gm\d+|\w+Rik|mt-\w+")
_ORF = re.compile(r"C(?:\d+|X|Y)orf\d+.*")

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = "|".join((*_MONTHS, "sept", "march", "june", "july", "april"))
_DAY_FIRST = re.compile(rf"(\d{{1,2}})[-/ .]({_MONTH})(?:[-/ .]\d{{2,4}})?", re.IGNORECASE)
_MONTH_FIRST = re.compile(rf"({_MONTH})[-/ .](\d{{1,2}})", re.IGNORECASE)
_ISO = re.compile(r"\d{4}-(\d{2})-(\d{2})(?:[ T]00:00(?::00)?(?:\.0+)?)?")
_SERIAL = re.compile(r"[34]\d{4}(?:\.0)?")

# Today's names of the families whose old ones spreadsheets read as dates: MARCH1 and MARC1, SEPT1,
# SEP15, DEC1. Source: Ziemann, Eren, El-Osta 2016, doi 10.1186/s13059-016-1044-7; HGNC renamed
# them in 2020, doi 10.1038/s41588-020-0669-3.
_DATED: Mapping[int, tuple[str, ...]] = {
    3: ("MARCHF{}", "MTARC{}"),
    9: ("SEPTIN{}",),
    12: ("DELEC{}",),
}
_DATED_ONCE = {(9, 15): ("SELENOF",)}
_RENAMED = re.compile(r"(MARCH|MARC|SEPT|DEC)(\d+)")
_RENAMED_TO = {"MARCH": "MARCHF", "MARC": "MTARC", "SEPT": "SEPTIN", "DEC": "DELEC"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Species:
    """What the names of a list say about whose genes they are.

    Attributes:
        name: the species.
        share: share of the names that say so.
        sign: what they have in common, for a message.
    """

    name: str
    share: float
    sign: str


def ensembl_id(name: str) -> str | None:
    """The Ensembl gene id in a name, without its version; None where there is none."""
    match = _ENSEMBL.fullmatch(name.strip())
    return match.group(1) + (match.group(2) or "") if match else None


def species_of_id(name: str) -> str | None:
    """The species of a gene id; None for a name that is no id.

    An Ensembl id whose prefix is not in `SPECIES_OF_ENSEMBL` is called by that prefix.
    """
    gene_id = ensembl_id(name) if name.startswith("ENS") else None
    if gene_id is None:
        return next((who for who, form in _OTHER_IDS.items() if form.fullmatch(name)), None)
    prefix = re.match(r"ENS[A-Z]{3}G", gene_id)
    if prefix is None:
        return HUMAN
    return SPECIES_OF_ENSEMBL.get(prefix.group(), f"{prefix.group()}...")


def species_named(name: str) -> str | None:
    """The species that a name speaks of, by its id or by its genome's prefix; None if by neither.

    A symbol's style names no species: it takes many names to tell.
    """
    genome = split_genome(name)
    return species_of_id(genome[2] if genome else name) or (genome[1] if genome else None)


def split_genome(name: str) -> tuple[str, str, str] | None:
    """Prefix as written, species and the rest of `hg19_TP53`; None where no genome is named."""
    match = _GENOME.fullmatch(name)
    if match is None:
        return None
    rest = match.group(match.lastindex or 0)
    species = next(
        who for who, word in zip(_GENOMES, match.groups(), strict=False) if word is not None
    )
    return name.removesuffix(rest), species, rest


def has_mouse_style(name: str) -> bool:
    """Whether a symbol is written as mouse and rat write theirs."""
    return _MOUSE.fullmatch(name) is not None and _ORF.fullmatch(name) is None


def guess_species(names: Sequence[str]) -> Species | None:
    """The species, other than human, that most names speak of; None where they do not.

    Args:
        names: as a source has them, at least one.
    """
    signs: Counter[tuple[str, str]] = Counter()
    for name in names:
        genome = split_genome(name)
        given = species_of_id(name)
        if given is not None:
            prefix = re.match(r"[A-Za-z]+", name)
            signs[given, f"ids that begin with {prefix.group() if prefix else ''}"] += 1
        elif genome is not None:
            signs[genome[1], f"names that begin with {genome[0]}"] += 1
        elif has_mouse_style(name):
            signs["mouse", "symbols written like Actb, as mouse and rat write them"] += 1
    if not signs:
        return None
    (species, sign), n_names = signs.most_common(1)[0]
    if species == HUMAN or n_names < 0.5 * len(names):
        return None
    return Species(name=species, share=n_names / len(names), sign=sign)


def spreadsheet_date(name: str) -> tuple[int, int] | None:
    """Month and day of a name that a spreadsheet turned into a date; None where it is no date.

    Known are `1-Mar`, `01-Mar-2001`, `Mar-01`, `2001-03-01 00:00:00` and the serial number of a
    day between 1982 and 2036 (43891 is 2020-03-01).
    """
    if (match := _DAY_FIRST.fullmatch(name)) is not None:
        day, word = int(match[1]), match[2]
        month = _MONTHS.index(word[:3].lower()) + 1
    elif (match := _MONTH_FIRST.fullmatch(name)) is not None:
        month, day = _MONTHS.index(match[1][:3].lower()) + 1, int(match[2])
    elif (match := _ISO.fullmatch(name)) is not None:
        month, day = int(match[1]), int(match[2])
    elif _SERIAL.fullmatch(name) is not None:
        # Day 1 is 1900-01-01, and spreadsheets count a 29 February 1900 that never was.
        found = date(1899, 12, 30) + timedelta(days=int(float(name)))
        month, day = found.month, found.day
    else:
        return None
    return (month, day) if 1 <= month <= 12 and 1 <= day <= 31 else None


def renamed_family(name: str) -> str | None:
    """Today's symbol of a gene of a family that HGNC renamed for spreadsheets; None for others.

    SEPT2 was SEPTIN2's approved symbol, and is an alias of SEPTIN6 as well: the former counts.
    """
    match = _RENAMED.fullmatch(name)
    return _RENAMED_TO[match[1]] + match[2] if match else None


def names_of_date(month: int, day: int) -> tuple[str, ...]:
    """Today's symbols that a date may have been; only a reference knows which exist."""
    family = tuple(form.format(day) for form in _DATED.get(month, ()))
    return family + _DATED_ONCE.get((month, day), ())
