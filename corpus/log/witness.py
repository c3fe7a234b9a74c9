"""Which commit of a table was the newest, told beside its log: a log that lost its end is found.

Knows no cell and no Delta. The chain of records tells a commit that is missing between others; not
one that is missing at the end, nor other bytes of a commit that mean nothing to the chain. The
witness may lag behind, where its writer died; it is never ahead.
"""

import hashlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ...platform.errors import DamageError, StorageError
from ...platform.storage import write_durably
from .notes import note, read_note


@dataclass(frozen=True, kw_only=True, slots=True)
class Witness:
    """A commit that is in the log.

    Attributes:
        version: its number.
        digest: of its record.
        log: SHA-256 of its file in the log.
    """

    version: int
    digest: str
    log: str


def log_file(folder: Path, version: int) -> Path:
    """The file of a commit in a table's log."""
    return folder / "_delta_log" / f"{version:020}.json"


def hash_of_commit(folder: Path, version: int) -> str:
    """SHA-256 of a commit's file.

    Raises:
        DamageError: it cannot be read.
    """
    path = log_file(folder, version)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DamageError(f"{path} cannot be read: {error}: restore it from a copy") from error


def read_witness(folder: Path) -> Witness | None:
    """The witness of a table; None where nobody has left one.

    Raises:
        DamageError: it is not what was written.
    """
    try:
        return Witness(**read_note(witness_file(folder)))
    except FileNotFoundError:
        return None
    except TypeError as error:
        raise DamageError(f"{witness_file(folder)} is no witness: {error}; remove it") from error


def leave_witness(folder: Path, version: int, digest: str) -> None:
    """Put on record that a commit is in the log; where that fails, the next writer's will do."""
    with suppress(StorageError, OSError, DamageError):
        before = None
        with suppress(DamageError):  # a damaged one is replaced
            before = read_witness(folder)
        if before is None or before.version < version:
            new = Witness(version=version, digest=digest, log=hash_of_commit(folder, version))
            write_durably(witness_file(folder), note(asdict(new)), f"{folder.name}/witness")


def witness_file(folder: Path) -> Path:
    """Where it is."""
    return folder / ".newest.json"
