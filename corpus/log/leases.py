"""Leases: whoever prepares segments says so, and a vacuum spares what is staged meanwhile.

Knows a folder and the file system's clock; knows no segment. A lease is a file under
`<corpus>/leases` that its holder touches every few seconds; it ends with its holder, or some
minutes after the holder's death.
"""

import os
import threading
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...platform.storage import storing_in

_BEAT_SECONDS = 5.0
_LIVE_SECONDS = 120.0
"""A lease that was touched longer ago is of a dead holder."""


@contextmanager
def lease(folder: Path) -> Generator[str]:
    """Hold a lease on what is staged in a corpus while the body runs; gives its name."""
    name = uuid.uuid4().hex
    path = folder / "leases" / name
    with storing_in(path.parent):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    over = threading.Event()

    def beat() -> None:
        while not over.wait(_BEAT_SECONDS):
            with suppress(OSError):  # the next beat may succeed; it is made anew where it is gone
                path.touch()

    beating = threading.Thread(target=beat, name="lease", daemon=True)
    beating.start()
    try:
        yield name
    finally:
        over.set()
        beating.join()
        path.unlink(missing_ok=True)


def live_leases(folder: Path, *, besides: str | None = None) -> list[str]:
    """The names of the leases that are held, less one's own."""
    return [path.name for path, live in _leases(folder) if live and path.name != besides]


def remove_dead_leases(folder: Path) -> None:
    """Take away the leases of holders that have died."""
    for path, live in _leases(folder):
        if not live:
            path.unlink(missing_ok=True)


def time_of_files(folder: Path) -> float:
    """What time it is by the clock that dates the folder's files, in seconds since 1970.

    A host's own clock may be set back or be another's; where nothing can be written it has to do.
    """
    probe = folder / f".clock.{uuid.uuid4().hex}.tmp"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:
        return time.time()
    return now


def _leases(folder: Path) -> list[tuple[Path, bool]]:
    """Every lease, and whether it is live."""
    where = folder / "leases"
    if not where.is_dir():
        return []
    names = sorted(name for name in os.listdir(where) if not name.startswith("."))
    if not names:
        return []
    now = time_of_files(where)
    found: list[tuple[Path, bool]] = []
    for name in names:
        with suppress(FileNotFoundError):  # given back meanwhile
            found.append((where / name, now - (where / name).stat().st_mtime < _LIVE_SECONDS))
    return found
