"""Names for snapshots: a tag keeps its snapshot from ending. Knows no cell.

A tag is a note under `<corpus>/tags/<name>.json`, made once: two writers cannot give one name to
two snapshots, and to move a tag is to remove it and to make it again.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from ...platform.errors import ConflictError, CorpusError, DamageError, did_you_mean
from ...platform.places import named, refresh
from .chain import who
from .notes import create_note, notes_in, read_note, remove_note
from .snapshots import Snapshot, now_ms

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tag:
    """A name of a snapshot.

    Attributes:
        name: the name.
        snapshot: the snapshot's number.
        at: when it was given, in milliseconds since 1970.
        by: who gave it: user@host.
    """

    name: str
    snapshot: int
    at: int
    by: str


def tag(folder: Path, name: str, snapshot: int) -> Tag:
    """Name a snapshot; once more the same is fine.

    Args:
        folder: the corpus.
        name: letters, digits, `.`, `_`, `-`; not digits alone, which name a snapshot already.
        snapshot: one that can be opened.

    Raises:
        CorpusError: the name is no name, there is no such snapshot, or a vacuum has ended it.
        WithdrawnError: the snapshot holds cells that were withdrawn since.
        ConflictError: another snapshot has the name.
    """
    path = _path(folder, name)
    Snapshot.load(folder, snapshot)
    new = Tag(name=name, snapshot=snapshot, at=now_ms(), by=who())
    try:
        create_note(path, asdict(new), "tag")
    except FileExistsError:
        refresh(path.parent)
        old = _read(path)
        if old.snapshot != snapshot:
            raise ConflictError(
                f"{named(folder)}: the tag {name!r} is of snapshot {old.snapshot} already; remove "
                f"it first by `cytolake corpus untag {name}`, or give another name"
            ) from None
        return old
    try:
        Snapshot.load(folder, snapshot)  # a vacuum may have looked for tags just before this one
    except CorpusError:
        remove_note(path, "tag")
        raise
    return new


def tags(folder: Path) -> dict[str, Tag]:
    """All tags by name, in the order of their snapshots.

    Raises:
        DamageError: a file of a tag is not what was written.
    """
    found: list[Tag] = []
    for path in notes_in(folder / "tags"):
        try:
            found.append(_read(path))
        except FileNotFoundError:  # removed meanwhile
            continue
    return {one.name: one for one in sorted(found, key=lambda one: (one.snapshot, one.name))}


def remove_tag(folder: Path, name: str) -> None:
    """Remove a tag; its snapshot may then be ended by a vacuum.

    Raises:
        CorpusError: there is no such tag.
    """
    path = _path(folder, name)
    refresh(path.parent)
    if not path.exists():
        raise _unknown(folder, name, "has no tag")
    remove_note(path, "tag")


def snapshot_of(folder: Path, name: int | str) -> int:
    """The number of a snapshot that is given by number (also as text) or by tag.

    Raises:
        CorpusError: there is no such tag.
    """
    if isinstance(name, int) or (name.isascii() and name.isdigit()):
        return int(name)
    known = tags(folder)
    if name not in known:
        raise _unknown(folder, name, "has no snapshot or tag")
    return known[name].snapshot


def _unknown(folder: Path, name: str, what: str) -> CorpusError:
    known = tags(folder)
    names = ", ".join(known) or "none"
    return CorpusError(
        f"{folder} {what} {name!r}{did_you_mean(name, known)} (its tags are: {names})"
    )


def _path(folder: Path, name: str) -> Path:
    if not _NAME.fullmatch(name) or name.isdigit():
        raise CorpusError(
            f"{name!r} cannot be a tag: expected letters, digits, '.', '_' and '-', beginning "
            "with a letter or digit, at most 100 of them and not digits alone"
        )
    return folder / "tags" / f"{name}.json"


def _read(path: Path) -> Tag:
    body = read_note(path)
    try:
        found = Tag(**body)
    except TypeError as error:
        raise DamageError(f"{path} is no tag: {error}") from error
    if found.name != path.stem:
        raise DamageError(f"{path} is the tag {found.name!r}: rename it back, or remove it")
    return found
