"""Sources that lie elsewhere, brought near: a whole copy in a staging folder, or none.

Knows no format and no corpus. A file has its name only once all its bytes are there and synced;
what was interrupted is fetched again, what is whole is kept while size and mark (an ETag or a time
of change) still agree. Memory stays bounded: `READ_SIZE` a file, `AT_ONCE` files.
"""

import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ..platform.errors import SourceError, StorageError
from ..platform.progress import Bar, progress
from ..platform.refusals import storing_in
from ..platform.storage import publish, remove_durably, sync_folder, write_durably
from ..platform.uris import identity, recorded, scheme_of
from .remote import RemoteFile, RemoteSource, find_remote, look_again, reaching

READ_SIZE = 1 << 20
AT_ONCE = 8
"""Files of one source that are fetched at the same time: a zarr store has thousands of small."""

ATTEMPTS = 3
_PAUSE_S = 1.0
_BLOCK = 16 << 20
"""What is asked for at once where a file system reads in ranges."""

_LIST = ".listed.json"
_STEP = "fetch"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """A copy.

    Attributes:
        path: the file or folder.
        folder: the staging folder that holds it and nothing else.
    """

    path: Path
    folder: Path


def fetch(uri: str, staging: Path, *, console: Console | None = None) -> Fetched:
    """Bring a source near.

    Args:
        uri: a file, or a folder that is one source.
        staging: where copies lie; made if it is not there.
        console: where to show progress; standard error where None.

    Returns:
        The copy. It is the caller's to remove, by `discard`; a copy that was left by a process
        that died is taken up again.

    Raises:
        SourceError: it is not to be had, changed meanwhile, or came with another size.
        StorageError: the disk has no room for it, or cannot be written.
    """
    source = find_remote(uri)
    folder = staging / f"fetched-{identity(uri)}"
    with storing_in(staging):
        folder.mkdir(parents=True, exist_ok=True)
    wanted = _not_yet_here(source, folder)
    try:
        _check_room(source.uri, wanted, folder)
        _fetch_all(source, wanted, folder, console)
    except BaseException:
        _leave_what_is_whole(folder)
        raise
    return Fetched(path=folder / source.name, folder=folder)


def discard(fetched: Fetched) -> None:
    """Remove a copy; one that is gone is no fault.

    Raises:
        StorageError: the disk says no.
    """
    remove_durably(fetched.folder, _STEP)


def _not_yet_here(source: RemoteSource, folder: Path) -> list[RemoteFile]:
    """The files to fetch; those that are here and no longer the same are removed first."""
    known = _read_list(folder)
    wanted: list[RemoteFile] = []
    keep = {_LIST}
    for file in source.files:
        place = folder / file.name
        same = bool(file.mark) and known.get(file.name) == [file.n_bytes, file.mark]
        if same and place.is_file() and place.stat().st_size == file.n_bytes:
            keep.add(file.name)
        else:
            wanted.append(file)
    with storing_in(folder):
        for place in sorted(folder.rglob("*"), reverse=True):
            if place.is_dir() and not place.is_symlink():
                with suppress(OSError):  # what is kept lies in it
                    place.rmdir()
            elif place.relative_to(folder).as_posix() not in keep:
                place.unlink()
    # A file is trusted by this list alone, so the list is written when what it denies is gone.
    listed = {file.name: [file.n_bytes, file.mark] for file in source.files}
    write_durably(folder / _LIST, json.dumps(listed).encode(), _STEP)
    return wanted


def _read_list(folder: Path) -> dict[str, Any]:
    try:
        listed = json.loads((folder / _LIST).read_bytes())
    except (OSError, ValueError):
        return {}
    return listed if isinstance(listed, dict) else {}


def _check_room(uri: str, wanted: Sequence[RemoteFile], folder: Path) -> None:
    needed = sum(file.n_bytes or 0 for file in wanted)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"{recorded(uri)}: {needed / 1e9:,.1f} GB are to be fetched into {folder.parent}, "
            f"which has {free / 1e9:,.1f} GB free: make room, or give fewer sources at once"
        )


def _fetch_all(
    source: RemoteSource, wanted: Sequence[RemoteFile], folder: Path, console: Console | None
) -> None:
    if not wanted:
        return
    sizes = [file.n_bytes for file in wanted]
    total = None if None in sizes else sum(size or 0 for size in sizes) / 1e6
    stop, lock = threading.Event(), threading.Lock()
    with progress(f"fetching {source.name}"[:40], total, "MB", console=console) as bar:
        counter = _Counter(bar=bar, lock=lock, stop=stop)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch") as threads:
            tasks = [threads.submit(_fetch_file, source, f, folder, counter) for f in wanted]
            try:
                for task in wait(tasks, return_when=FIRST_EXCEPTION).done:
                    task.result()
            except BaseException:
                stop.set()
                threads.shutdown(cancel_futures=True)
                raise
    with storing_in(folder):
        for place in {(folder / file.name).parent for file in wanted}:
            sync_folder(place)


class _Stopped(Exception):
    """Another file failed, or the user wants no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Counter:
    """What threads share: the bar, and the word to stop."""

    bar: Bar
    lock: threading.Lock
    stop: threading.Event

    def add(self, n_bytes: int) -> None:
        """Say that so many more bytes are here."""
        if self.stop.is_set():
            raise _Stopped
        with self.lock:
            self.bar.advance(n_bytes / 1e6)


def _fetch_file(source: RemoteSource, file: RemoteFile, folder: Path, counter: _Counter) -> None:
    """Fetch one file, again where the way to it broke."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _copy(source, file, folder / file.name, counter)
        except SourceError:
            if attempt == ATTEMPTS or counter.stop.is_set():
                raise
            time.sleep(_PAUSE_S * attempt)
        else:
            return


def _copy(source: RemoteSource, file: RemoteFile, final: Path, counter: _Counter) -> None:
    """One file's bytes under an unfinished name; its own name once they are all there."""
    unfinished = final.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.part")
    n_bytes = 0
    with storing_in(final.parent):
        final.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _opened(source, file) as remote, unfinished.open("wb") as local:
            while True:
                with reaching(source.uri):
                    block = remote.read(READ_SIZE)
                if not block:
                    break
                with storing_in(final.parent):
                    local.write(block)
                n_bytes += len(block)
                counter.add(len(block))
            with storing_in(final.parent):
                local.flush()
                os.fsync(local.fileno())
        _check_whole(source, file, n_bytes)
        publish(unfinished, final, _STEP)
    except BaseException:
        with counter.lock:
            counter.bar.advance(-n_bytes / 1e6)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def _opened(source: RemoteSource, file: RemoteFile) -> Any:
    """The remote file, open: on the web as one stream, elsewhere range by range."""
    web = scheme_of(source.uri) in ("http", "https")
    with reaching(source.uri):
        return source.filesystem.open(file.path, "rb", block_size=0 if web else _BLOCK)


def _check_whole(source: RemoteSource, file: RemoteFile, n_bytes: int) -> None:
    """Hold what came against what was announced, and that against what is there now."""
    where = recorded(source.uri)
    if file.n_bytes is not None and n_bytes != file.n_bytes:
        raise SourceError(
            f"{where}: {file.name}: {n_bytes:,} bytes came, expected {file.n_bytes:,}: "
            "the connection broke, or it changed; run the same command again"
        )
    now = look_again(source.filesystem, file, source.uri)
    if (now.n_bytes, now.mark) != (file.n_bytes, file.mark):
        raise SourceError(
            f"{where}: {file.name}: changed while it was fetched: run the same command again when "
            "nobody writes to it"
        )


def _leave_what_is_whole(folder: Path) -> None:
    """After a failure: whole files stay for the next try; a folder without any goes."""
    with suppress(OSError):
        if not any(place.is_file() and place.name != _LIST for place in folder.rglob("*")):
            shutil.rmtree(folder)
