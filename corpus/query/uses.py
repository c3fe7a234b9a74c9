"""Who read the corpus: the runs, screens and files that hold something of its cells.

Knows notes; knows no run and no model. When cells are withdrawn, this list tells what was made from
them. It outlives the cells: so a condition whose values might name a person is kept without them.
"""

import uuid
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import duckdb

from ...platform.errors import CorpusError, DamageError, StorageError
from ..log.chain import who
from ..log.notes import create_note, notes_in, read_note
from ..log.snapshots import now_ms
from ..schema import CELL_COLUMNS
from .conditions import shape_of

Kind = Literal["pretrain", "evaluate", "export", "embed"]

_NAMING = {"barcode", "cell_id", "content_hash", "donor_id"}
_TELLING = {*CELL_COLUMNS.names, "is_primary"} - _NAMING
"""Columns whose values name no person; of all others, a user's own too, nobody knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """One reading of the corpus.

    Attributes:
        kind: what for.
        name: the run's name, or the file's.
        snapshot: the snapshot that was read.
        where: the condition that chose the cells; None for all of them.
        part: the part of a split; None for all parts.
        uri: where what was made from the cells lies: a run's folder or id, a file.
        at: when, in milliseconds since 1970.
        by: who: user@host.
        details: whatever else there is to say, JSON values.
    """

    kind: Kind
    name: str
    snapshot: int
    where: str | None = None
    part: str | None = None
    uri: str = ""
    at: int = field(default_factory=now_ms)
    by: str = field(default_factory=who)
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def is_exact(self) -> bool:
        """Whether `where` tells which cells were read; False where its values were left out."""
        return not self.details.get("where_without_values", False)


def record_use(folder: Path, use: Use) -> None:
    """Put on record that the corpus was read; the same reading once more adds nothing.

    A corpus that cannot be written is read all the same: a warning says that it is not on record.

    Raises:
        CorpusError: there is no such kind.
    """
    if use.kind not in get_args(Kind):
        raise CorpusError(f"a use is one of {', '.join(get_args(Kind))}, not {use.kind!r}")
    body = _without_names(use)
    path = folder / "uses" / f"{_name_of(body)}.json"
    try:
        create_note(path, body, "use")
    except FileExistsError:
        return
    except (StorageError, OSError) as error:
        warnings.warn(
            f"the {use.kind} {use.name} reads snapshot {use.snapshot} of {folder}, and this is "
            f"not on record there: a later withdrawal of cells will not name it ({error})",
            stacklevel=2,
        )


def uses(folder: Path) -> list[Use]:
    """All uses on record, oldest first.

    Raises:
        DamageError: a file of a use is not what was written.
    """
    return sorted(
        (_read(path) for path in notes_in(folder / "uses")),
        key=lambda use: (use.at, use.kind, use.name),
    )


def _name_of(body: Mapping[str, Any]) -> str:
    """A use's own name: a run that was killed and begins again must not be on record twice."""
    same = "\0".join(
        str(body[name]) for name in ("kind", "name", "snapshot", "where", "part", "uri")
    )
    return str(uuid.uuid5(uuid.NAMESPACE_URL, same))


def _without_names(use: Use) -> dict[str, Any]:
    body = asdict(use)
    if use.where is not None and not _names_nobody(use.where):
        body["where"] = shape_of(use.where, CELL_COLUMNS)
        body["details"] = {**use.details, "where_without_values": True}
    return body


def _names_nobody(where: str) -> bool:
    """Whether a condition asks for columns alone whose values may be kept."""
    given = where.encode()  # the tokens' places are counted in bytes
    tokens = duckdb.tokenize(where)
    ends = [*(start for start, _ in tokens), len(given)][1:]
    for (start, kind), end in zip(tokens, ends, strict=True):
        text = given[start:end].decode().strip()
        if kind == duckdb.token_type.comment or "--" in text or "/*" in text:
            return False
        if kind == duckdb.token_type.identifier and text.strip('"').lower() not in _TELLING:
            return False
    return True


def _read(path: Path) -> Use:
    try:
        body = read_note(path)
        found = Use(**body)
    except FileNotFoundError as error:
        raise DamageError(f"{path} is gone while the uses were read: read them again") from error
    except TypeError as error:
        raise DamageError(f"{path} is no use: {error}") from error
    if path.stem != _name_of(body):
        raise DamageError(f"{path} is the use {_name_of(body)}: rename it back")
    return found
