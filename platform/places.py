"""Places by URI: a local folder, or a bucket by way of its mirror; what is there, since when.

Knows no cell and no corpus. Most functions do nothing, or what the operating system does, for a
local path; for one in a mirror (`platform.mirrors`) they ask the bucket, which is the truth.
"""

import os
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlparse

from .errors import SettingsError, StorageError
from .mirrors import Mirror, is_bucket, mirror_for, mirror_of
from .refusals import storing_in

_PROVEN: set[str] = set()
"""Buckets that refuse to create an object twice."""


def local_path(uri: str | Path) -> Path:
    """The local folder or file that a URI names.

    Args:
        uri: a path, with `~` allowed, or a `file://` URI.

    Raises:
        SettingsError: the URI has another scheme.
    """
    if isinstance(uri, Path):
        return uri.expanduser()
    scheme = urlparse(uri).scheme
    if scheme == "file":
        return Path(unquote(urlparse(uri).path))
    if scheme and "://" in uri:
        raise SettingsError(f"{uri}: {scheme}:// is not supported; give a path or a file:// URI")
    return Path(uri).expanduser()


def place_of(uri: str | Path) -> Path:
    """The folder in which a corpus is read and written: its own, or a bucket's mirror.

    Mirrors lie below the home of the settings (`CYTOLAKE_HOME`).

    Raises:
        SettingsError: a scheme that is neither, or a URI with a password in it.
    """
    if is_bucket(uri):
        from .settings import load_settings

        return mirror_for(str(uri), load_settings().home).root
    return local_path(uri).absolute()


def is_mirrored(path: Path) -> bool:
    """Whether a path stands for a place in a bucket."""
    return mirror_at(path) is not None


def named(path: Path) -> str:
    """What a person calls a path: its URI, where it stands for a place in a bucket."""
    mirror = mirror_of(path)
    return str(path) if mirror is None else mirror.uri_of(path)


def delta_place(folder: Path) -> tuple[str, dict[str, str] | None]:
    """Where delta-rs finds a table's log, and what it is to be told; None of a local table."""
    mirror = mirror_at(folder)
    return (str(folder), None) if mirror is None else (named(folder), mirror.bucket.options)


def absolute_uri(uri: str) -> str:
    """The same place, told so that a process in another working folder finds it too.

    Raises:
        SettingsError: as in `local_path`.
    """
    return uri if "://" in uri else str(local_path(uri).absolute())


def bring(paths: Iterable[Path]) -> None:
    """Fetch files that stand for objects in a bucket and are not here yet; else does nothing.

    Raises:
        FileNotFoundError: one is not in the bucket either.
        StorageError: the bucket cannot be reached.
    """
    by_root: dict[Path, tuple[Mirror, list[Path]]] = {}
    for path in paths:
        mirror = mirror_at(path)
        if mirror is not None:
            by_root.setdefault(mirror.root, (mirror, []))[1].append(path)
    for mirror, wanted in by_root.values():
        with storing_in(mirror.root):
            mirror.bring(wanted)


def bring_anew(path: Path) -> bool:
    """Fetch a file over the copy that is here; False where it stands for none in a bucket.

    Raises:
        FileNotFoundError: it is not in the bucket.
        StorageError: the bucket cannot be reached.
    """
    mirror = mirror_at(path)
    if mirror is None:
        return False
    with storing_in(mirror.root):
        mirror.fetch(path)
    return True


def sizes_in_bucket(folder: Path) -> dict[str, int] | None:
    """What a bucket has below the place that a folder stands for; None where it stands for none.

    Returns:
        Name -> bytes, without hidden ones.
    """
    mirror = mirror_at(folder)
    if mirror is None:
        return None
    things = mirror.things(folder)
    return {thing.name: thing.n_bytes for thing in things if not thing.name.startswith(".")}


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder; a copy of what a bucket has no more goes."""
    mirror = mirror_at(path)
    if mirror is None:
        return path.exists()
    if mirror.has(path):
        return True
    mirror.forget(path)
    return False


def refresh(folder: Path) -> None:
    """Make a folder of small files what it is in the bucket that it stands for, if in any."""
    mirror = mirror_at(folder)
    if mirror is not None:
        mirror.refresh(folder)


def follow(folder: Path, ending: str) -> None:
    """Fetch the numbered files that were added to a folder in a bucket; else does nothing.

    Raises:
        StorageError: the bucket holds others than it did.
    """
    mirror = mirror_at(folder)
    if mirror is not None:
        with storing_in(mirror.root):
            mirror.follow(folder, ending)


def refresh_file(path: Path) -> None:
    """Make a small file what it is in the bucket that it stands for a part of, if of any."""
    mirror = mirror_at(path)
    if mirror is not None:
        mirror.refresh_file(path)


def check_creates_once(folder: Path) -> None:
    """Prove, once in a process, that a bucket refuses to create an object a second time.

    Raises:
        StorageError: it does not.
    """
    mirror = mirror_at(folder)
    if mirror is not None and mirror.bucket.uri not in _PROVEN:
        mirror.bucket.check_creates_once()
        _PROVEN.add(mirror.bucket.uri)


def forget_gone(folder: Path) -> None:
    """Remove the copies in a folder of what the bucket that it stands for has no more."""
    mirror = mirror_at(folder)
    if mirror is not None:
        mirror.forget_gone(folder)


def forget_copy(path: Path) -> None:
    """Remove the copy of a file or folder that a bucket has; of another path nothing."""
    mirror = mirror_at(path)
    if mirror is not None:
        mirror.forget(path)


def files_in(folder: Path, ending: str = "") -> list[Path]:
    """The files directly in a folder, or in the bucket's place that it stands for, by name."""
    return [path for path, is_folder in _listed(folder) if not is_folder and _ends(path, ending)]


def folders_in(folder: Path) -> list[Path]:
    """The folders directly in a folder, or in the bucket's place that it stands for, by name."""
    return [path for path, is_folder in _listed(folder) if is_folder]


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; those that go meanwhile are left out."""
    mirror = mirror_at(path)
    if mirror is not None and mirror.has(path):
        below = sum(thing.n_bytes for thing in mirror.things(path))
        return below or mirror.size(path)
    total = 0
    if not path.is_dir():
        with suppress(FileNotFoundError):
            total = path.lstat().st_size
    for place, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(place) / name).lstat().st_size
    return total


def modified_at(path: Path) -> float:
    """When a file or folder was last written, by the clock of `time_of_files`.

    Raises:
        FileNotFoundError: it is not there.
    """
    mirror = mirror_at(path)
    found = None if mirror is None else mirror.modified(path)
    return path.lstat().st_mtime if found is None else found


def time_of_files(folder: Path) -> float:
    """What time it is by the clock that dates the folder's files, in seconds since 1970.

    A host's own clock may be set back or be another's; where nothing can be written it has to do.
    """
    mirror = mirror_at(folder)
    probe = folder / f".clock.{secrets.token_hex(8)}.tmp"
    try:
        if mirror is not None:
            return mirror.bucket.now()
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except (OSError, StorageError):
        return time.time()
    return now


def _listed(folder: Path) -> list[tuple[Path, bool]]:
    mirror = mirror_at(folder)
    if mirror is not None:
        return mirror.listed(folder)
    if not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        return sorted((Path(entry.path), entry.is_dir(follow_symlinks=False)) for entry in found)


def _ends(path: Path, ending: str) -> bool:
    return path.name.endswith(ending) and not path.name.startswith(".")


def mirror_at(path: Path) -> Mirror | None:
    """The mirror that a path lies in, where it stands for a place in the bucket."""
    mirror = mirror_of(path)
    return None if mirror is None or mirror.is_aside(path) else mirror
