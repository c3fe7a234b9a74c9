"""A corpus of an older format brought to this one, in place: every cell, id and number is kept.

Knows folders and their order; what an older format says is `format_1`'s matter. New tables
are made beside the old ones, whole, and held against them; then folders are renamed, `cells` last.
A kill at any point leaves the old corpus, the new one, or what the same command finishes: that a
swap was begun is told by `.lifted/cells` without a `cells`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...platform.errors import CorpusError, DamageError, NotACorpusError
from ...platform.faults import durable
from ...platform.places import is_mirrored, named
from ...platform.refusals import storing_in
from ...platform.storage import finish_removals, publish, remove_durably, sync_file, sync_folder
from ..log.chain import load_table, open_table
from ..log.commits import project_sources
from ..log.snapshots import FORMAT_KEY, UUID, check_format
from ..schema import FORMAT
from .format_1 import make_again

_BUILDING, _LIFTED, _OLD = ".lifting", ".lifted", ".format-1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Upgraded:
    """What was lifted.

    Attributes:
        before: the format that it had.
        now: the format that it has.
        n_snapshots: commits made again, under the same numbers.
        n_segments: segments, which stay as they are.
    """

    before: int
    now: int
    n_snapshots: int
    n_segments: int


def upgrade(folder: Path, advance: Callable[[float], None] = lambda _: None) -> Upgraded | None:
    """Lift a corpus to the newest format.

    Args:
        folder: the corpus.
        advance: told of each commit that was made again.

    Returns:
        What was done; None where the corpus has this format already.

    Raises:
        NotACorpusError: the folder holds no corpus.
        NewerFormatError: a newer cytolake wrote it.
        DamageError: a file of the old corpus is not what was committed; nothing is changed.
        CorpusError: it lies in a bucket.
        StorageError: the disk says no; the same command goes on.
    """
    if is_mirrored(folder):
        raise CorpusError(
            f"{named(folder)}: a corpus is upgraded in a file system: copy it to a disk, upgrade "
            "it there, and copy it back under another name"
        )
    if not (folder / "cells").is_dir() and (folder / _LIFTED / "cells").is_dir():
        _swap(folder)
    if not (folder / "cells" / "_delta_log").is_dir():
        raise NotACorpusError(f"{folder} holds no corpus to upgrade; check the path")
    found = _format_of(folder / "cells")
    if found > FORMAT:
        check_format(folder)  # says so
    if found == FORMAT:
        done = _account_of(folder) if (folder / _OLD).is_dir() else None
        _finish(folder)
        return done
    for leftover in (_BUILDING, _LIFTED):
        remove_durably(folder / leftover, "upgrade")
    _build(folder, advance)
    _put_aside(folder)
    _swap(folder)
    done = _account_of(folder)
    _finish(folder)
    return done


def _format_of(cells: Path) -> int:
    properties = open_table(cells).metadata().configuration
    if FORMAT_KEY not in properties or UUID not in properties:
        raise NotACorpusError(f"{cells} is a Delta table, but not of a cytolake corpus")
    try:
        return int(properties[FORMAT_KEY])
    except ValueError as error:
        raise DamageError(f"{cells} has the format {properties[FORMAT_KEY]!r}") from error


def _build(folder: Path, advance: Callable[[float], None]) -> None:
    """Make the new tables under `.lifted`."""
    building = folder / _BUILDING
    with storing_in(folder), durable("upgrade/folder"):
        building.mkdir()
        sync_folder(folder)
    make_again(folder, building, advance)
    with storing_in(building), durable("upgrade/sync"):
        for path in sorted(building.rglob("*"), reverse=True):
            sync_file(path)
        sync_folder(building)
    publish(building, folder / _LIFTED, "lifted")


def _put_aside(folder: Path) -> None:
    """Take the old `cells` away: from here on an interrupted upgrade goes forward."""
    with storing_in(folder), durable("upgrade/aside"):
        (folder / _OLD).mkdir(exist_ok=True)
        sync_folder(folder)
    _move(folder / "cells", folder / _OLD / "cells")


def _swap(folder: Path) -> None:
    """Give the new tables their names; each step is skipped where it is done."""
    lifted, old = folder / _LIFTED, folder / _OLD
    if open_table(old / "cells").version() != open_table(lifted / "cells").version():
        _move(old / "cells", folder / "cells")
        raise CorpusError(
            f"{folder}: an older cytolake committed to it meanwhile; nothing is changed: stop it, "
            "and upgrade again"
        )
    if (lifted / "sources").is_dir():
        if (folder / "sources").is_dir():
            _move(folder / "sources", old / "sources")
        _move(lifted / "sources", folder / "sources")
    _move(lifted / "cells", folder / "cells")


def _move(path: Path, to: Path) -> None:
    publish(path, to, "upgrade")
    sync_folder(path.parent)


def _finish(folder: Path) -> None:
    """Complete the projection; take away what is of the old format, and what was left over."""
    project_sources(folder)
    for leftover in (_BUILDING, _LIFTED, _OLD):
        remove_durably(folder / leftover, "upgrade")
    finish_removals(folder, "upgrade")


def _account_of(folder: Path) -> Upgraded:
    records = load_table(folder / "cells").records
    return Upgraded(
        before=1,
        now=FORMAT,
        n_snapshots=len(records),
        n_segments=sum(len(record.body.get("segments", ())) for record in records),
    )
