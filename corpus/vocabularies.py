"""Genes to tokens: which genes a model knows. Knows no gene table, no cell and no model."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..platform.errors import ResourceError, VocabularyError, did_you_mean
from .spellings import ensembl_id

_OFFICIAL = {"v1": "gc30M", "v2": "gc95M"}


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
