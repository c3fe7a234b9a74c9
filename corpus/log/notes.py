"""Small JSON files beside the tables, each with a checksum of its own content. Knows no meaning.

A note is created whole under a name that must be free, and never changed: what several processes
write at once cannot be mixed up, and a flipped bit is told when the note is read. An empty file
beside it, its mark, says that it was written: a note that is gone is told by its mark.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...platform.errors import DamageError
from ...platform.places import refresh
from ...platform.refusals import storing_in
from ...platform.storage import create_durably, discard, remove_durably, sync_folder, touch


def create_note(path: Path, body: Mapping[str, Any], step: str) -> None:
    """Write a note; its folder is made where it is not there.

    Args:
        path: where; the name must be free.
        body: JSON values.
        step: the name of the durable step, such as "tag".

    Raises:
        FileExistsError: the name is taken.
        StorageError: the disk says no.
    """
    if not path.parent.is_dir():
        with storing_in(path.parent.parent):
            path.parent.mkdir(exist_ok=True)
            sync_folder(path.parent.parent)
    create_durably(path, note(body), step)
    with suppress(OSError):  # without a mark it is a note all the same
        touch(_mark(path))
        if not path.exists():  # removed meanwhile
            discard(_mark(path))


def remove_note(path: Path, step: str) -> None:
    """Remove a note, and first its mark.

    Raises:
        StorageError: the disk says no.
    """
    with storing_in(path.parent):
        discard(_mark(path))
        sync_folder(path.parent)
    remove_durably(path, step)


def notes_in(folder: Path) -> list[Path]:
    """The notes of a folder, by name; none where there is no folder.

    Raises:
        DamageError: one is missing.
    """
    refresh(folder)
    for mark in sorted(folder.glob(".*.there")):
        path = folder / f"{mark.name[1:].removesuffix('.there')}.json"
        if not path.exists() and mark.exists():  # else it is being removed
            refresh(folder)
        if not path.exists() and mark.exists():
            raise DamageError(
                f"{path} is missing: restore it from a copy, or remove {mark} to do without it"
            )
    return sorted(folder.glob("[!.]*.json"))


def note(body: Mapping[str, Any]) -> bytes:
    """The bytes of a note with this body."""
    text = json.dumps({"sha256": _digest(body), "body": body}, indent=1, sort_keys=True)
    return text.encode() + b"\n"


def read_note(path: Path) -> dict[str, Any]:
    """The body of a note.

    Raises:
        DamageError: the file cannot be read, or is not what was written.
        FileNotFoundError: there is none (any more).
    """
    try:
        values: Any = json.loads(path.read_bytes())
        body = values["body"]
        if set(values) == {"sha256", "body"} and values["sha256"] == _digest(body):
            return body
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamageError(f"{path} cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError):
        pass
    raise DamageError(f"{path} is not what was written: restore it from a copy, or remove it")


def _mark(path: Path) -> Path:
    return path.with_name(f".{path.stem}.there")


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
