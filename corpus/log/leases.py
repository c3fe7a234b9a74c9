"""Leases: whoever prepares segments says so, and a vacuum spares what is staged meanwhile.

Knows a folder and the file system's clock; knows no segment. A lease is a file under
`<corpus>/leases` that its holder touches every few seconds; it ends with its holder, or some
minutes after the holder's death.
"""

import threading
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...platform.errors import StorageError
from ...platform.places import files_in, modified_at, time_of_files
from ...platform.refusals import storing_in
from ...platform.storage import discard, touch

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
        touch(path)
    over = threading.Event()

    def beat() -> None:
        while not over.wait(_BEAT_SECONDS):
            with suppress(OSError, StorageError):  # the next beat may do
                touch(path)

    beating = threading.Thread(target=beat, name="lease", daemon=True)
    beating.start()
    try:
        yield name
    finally:
        over.set()
        beating.join()
        discard(path)


def live_leases(folder: Path, *, besides: str | None = None) -> list[str]:
    """The names of the leases that are held, less one's own."""
    return [path.name for path, live in _leases(folder) if live and path.name != besides]


def remove_dead_leases(folder: Path) -> None:
    """Take away the leases of holders that have died."""
    for path, live in _leases(folder):
        if not live:
            discard(path)


def _leases(folder: Path) -> list[tuple[Path, bool]]:
    """Every lease, and whether it is live."""
    where = folder / "leases"
    held = files_in(where)
    if not held:
        return []
    now = time_of_files(where)
    found: list[tuple[Path, bool]] = []
    for path in held:
        with suppress(FileNotFoundError):  # given back meanwhile
            found.append((path, now - modified_at(path) < _LIVE_SECONDS))
    return found
