"""What became of a source: read, kept, dropped and why. Knows no file of the corpus."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ...platform.errors import CorpusError, DamageError

CELLS, BULK = "cells", "bulk"
"""What the rows of a source are: cells (nuclei, spots), or samples of many cells."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """The account of one source; it balances, or the commit is refused.

    Attributes:
        source_id: the source's name in this corpus; another file needs another name.
        uri: where it was read from.
        sha256: of the file's bytes (of a folder: of its files' names and hashes).
        n_bytes: size of the source.
        reader: the reader that read it.
        layer: the matrix that held the raw counts.
        recover: how counts were recovered from another layer; None where they were read.
        n_read: cells read.
        n_kept: cells kept.
        dropped: reason -> cells dropped for it, the first that applied.
        skipped_rules: quality rule -> why this source cannot support it.
        thresholds: quality value -> the bound it was held against, frozen for the source.
        genes: how many gene names were read, mapped, summed, and of each kind.
        panel: it measures under half of the coding genes.
        panel_use: it is a panel and was asked to count in medians all the same.
        kind: what its rows are: `cells`, or the samples of `bulk` tables.
        recipe_hash: of all that decides what is kept.
        versions: library -> version.
        warnings: what the reader should know.
        units: the source's units, in order.
    """

    source_id: str
    uri: str
    sha256: str
    n_bytes: int
    reader: str
    n_read: int
    n_kept: int
    layer: str = ""
    recover: str | None = None
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])
    skipped_rules: Mapping[str, str] = field(default_factory=dict[str, str])
    thresholds: Mapping[str, float] = field(default_factory=dict[str, float])
    genes: Mapping[str, int] = field(default_factory=dict[str, int])
    panel: bool = False
    panel_use: bool = False
    kind: str = CELLS
    recipe_hash: str = ""
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    warnings: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    @property
    def n_dropped(self) -> int:
        """Cells dropped for any reason."""
        return sum(self.dropped.values())

    def check(self) -> None:
        """Refuse an account that does not balance.

        Raises:
            CorpusError: cells read are not cells kept and dropped.
        """
        if self.n_read != self.n_kept + self.n_dropped:
            raise CorpusError(
                f"source {self.source_id}: {self.n_read} cells read, but {self.n_kept} kept + "
                f"{self.n_dropped} dropped; nothing is committed"
            )

    def to_values(self) -> dict[str, Any]:
        """The receipt as JSON values."""
        return asdict(self)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Receipt":
        """Read what `to_values` gave; what a later cytolake added is left out.

        Raises:
            DamageError: these are no values of a receipt.
        """
        try:
            known = {field.name for field in fields(cls)}
            given = {name: value for name, value in values.items() if name in known}
            for name in ("warnings", "units"):
                given[name] = tuple(given.get(name, ()))
            return cls(**given)
        except (TypeError, AttributeError) as error:
            raise DamageError(f"not a receipt: {str(values)[:80]!r}: {error}") from error

    def to_json(self) -> str:
        """The receipt as JSON text."""
        return json.dumps(self.to_values(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Receipt":
        """Read what `to_json` wrote.

        Raises:
            DamageError: the text is no receipt.
        """
        try:
            return cls.from_values(json.loads(text))
        except json.JSONDecodeError as error:
            raise DamageError(f"not a receipt: {text[:80]!r}: {error}") from error
