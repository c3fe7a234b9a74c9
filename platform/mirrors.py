"""Local folders that stand for places in object stores: what is read is fetched, once.

Knows names and bytes; knows no cell and no table. A mirror holds copies of files that never change
once they have their name, so that everything that reads local files reads a bucket, too. The
bucket is the truth: what is written goes there first, and a mirror may be removed at any time.

    <home>/mirrors/<name>-<hash>/
        mirror.json     the URI
        here/           what lies below it, as far as it was needed
"""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .buckets import Bucket, Thing
from .claims import claim
from .errors import StorageError
from .progress import Bar, progress
from .uris import is_uri, scheme_of

ASIDE = ("staging",)
"""Folders of this machine alone: they are never written to a bucket."""

REMOVED = ".removed-"
"""What is put before the name of what is being removed."""

_ACCOUNT = "mirror.json"
_HERE = "here"
_CLAIM = ".claim"
_AT_ONCE = 16
"""Transfers under way together."""
_MANY = 64
"""So many files are fetched with a bar."""


def is_bucket(uri: str | Path) -> bool:
    """Whether a URI names a place in an object store, and none of this machine."""
    return isinstance(uri, str) and is_uri(uri) and scheme_of(uri) != "file"


def mirror_for(uri: str, home: Path) -> "Mirror":
    """The mirror of a bucket's place below a home; its folder is made where it is not there.

    Raises:
        SettingsError: the URI is of no object store, or holds a password.
    """
    bucket = Bucket(uri)
    word = re.sub(r"[^\w.-]", "-", bucket.uri.rpartition("/")[2])[:40]
    digest = hashlib.sha256(bucket.uri.encode()).hexdigest()[:12]
    folder = home / "mirrors" / f"{word}-{digest}"
    root = folder / _HERE
    if not (folder / _ACCOUNT).is_file():
        root.mkdir(parents=True, exist_ok=True)
        _replace(folder / _ACCOUNT, json.dumps({"uri": bucket.uri}).encode())
    root.mkdir(exist_ok=True)
    return Mirror(root=root, bucket=bucket)


def mirror_of(path: Path) -> "Mirror | None":
    """The mirror that a path lies in; None for every other path."""
    return _mirror_of(str(path)) if f"{os.sep}mirrors{os.sep}" in str(path) else None


@lru_cache(maxsize=1 << 14)
def _mirror_of(name: str) -> "Mirror | None":
    parts = Path(name).parts
    for place, part in enumerate(parts):
        if part == _HERE and parts[place - 2] == "mirrors":
            folder = Path(*parts[:place])
            with suppress(OSError, ValueError, KeyError):
                uri = str(json.loads((folder / _ACCOUNT).read_bytes())["uri"])
                return Mirror(root=folder / _HERE, bucket=Bucket(uri))
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Mirror:
    """One mirror.

    Attributes:
        root: the local folder.
        bucket: what it stands for.
    """

    root: Path
    bucket: Bucket

    def uri_of(self, path: Path) -> str:
        """The URI that a path in the mirror stands for."""
        name = self._name(path)
        return f"{self.bucket.uri}/{name}" if name else self.bucket.uri

    def is_aside(self, path: Path) -> bool:
        """Whether a path is this machine's alone: below `ASIDE`, or in a hidden folder."""
        folders = path.relative_to(self.root).parts[:-1]
        return self._name(path).partition("/")[0] in ASIDE or any(
            name.startswith(".") for name in folders
        )

    # ------------------------------------------------------------------ reading

    def bring(self, paths: Collection[Path]) -> None:
        """Fetch the files that are not here yet.

        Raises:
            FileNotFoundError: one is not in the bucket either.
        """
        missing = [path for path in dict.fromkeys(paths) if not path.exists()]
        if len(missing) == 1:
            self.fetch(missing[0])
        elif missing:
            with ThreadPoolExecutor(_AT_ONCE) as pool, _bar(len(missing)) as bar:
                for _ in pool.map(self.fetch, missing):
                    bar.advance(1)

    def fetch(self, path: Path) -> None:
        """Fetch a file, over the copy that is here.

        Raises:
            FileNotFoundError: it is not in the bucket.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = hidden_sibling(path)
        try:
            self.bucket.copy_to(self._name(path), temporary)
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)

    def refresh(self, folder: Path) -> None:
        """Make a folder of small files what it is in the bucket; subfolders are let be.

        A file is taken to be the same if its size and its time, which is the bucket's, are.
        """
        _, things = self.bucket.children(self._prefix(folder))
        there = {_last(thing): thing for thing in things}
        if not there and not folder.is_dir():
            return
        folder.mkdir(parents=True, exist_ok=True)
        stale: list[Path] = []
        for name, thing in there.items():
            with suppress(FileNotFoundError):
                found = (folder / name).stat()
                if (found.st_size, found.st_mtime) == (thing.n_bytes, thing.modified):
                    continue
            stale.append(folder / name)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._renew, stale, [there[path.name] for path in stale]))
        for path in folder.iterdir():
            if path.name not in there and path.is_file() and not path.name.endswith(".tmp"):
                path.unlink(missing_ok=True)

    def refresh_file(self, path: Path) -> None:
        """Make one small file what it is in the bucket; one that is not there goes."""
        data = self.bucket.read(self._name(path))
        if data is None:
            path.unlink(missing_ok=True)
        elif not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, data)

    def follow(self, folder: Path, ending: str) -> None:
        """Fetch what was added to a folder to which numbered files are only ever added.

        Raises:
            StorageError: the newest of the files here is not what the bucket has.
        """
        known = sorted(path.name for path in folder.glob(f"[!.]*{ending}"))
        numbers = [int(name.partition(".")[0]) for name in known]
        known = [name for place, name in enumerate(known) if numbers[place] == place]
        prefix = self._prefix(folder)
        things = self.bucket.things(prefix, after=f"{prefix}{known[-1]}" if known else None)
        if known:
            newest = folder / known[-1]
            if self.bucket.read(self._name(newest)) != newest.read_bytes():
                raise StorageError(
                    f"{self.bucket.uri} holds another corpus than it did, or an older state of it: "
                    f"if that is meant, remove the copy of what it was, {self.root.parent}"
                )
        names = [thing.name[len(prefix) :] for thing in things]
        self._fetch_in_order(
            [folder / name for name in names if name.endswith(ending) and "/" not in name]
        )

    def _fetch_in_order(self, paths: Sequence[Path]) -> None:
        """Fetch files, each of which is here only if those before it are."""
        temporary = {path: hidden_sibling(path) for path in paths}

        def copy(path: Path) -> Path:
            self.bucket.copy_to(self._name(path), temporary[path])
            return path

        for path in paths[:1]:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                for path in pool.map(copy, paths):
                    temporary[path].rename(path)
        finally:
            for left in temporary.values():
                left.unlink(missing_ok=True)

    def has(self, path: Path) -> bool:
        """Whether the bucket has an object of this name, or any below it."""
        name = self._name(path)
        return self.bucket.modified(name) is not None or any(self.bucket.children(f"{name}/"))

    def listed(self, folder: Path) -> list[tuple[Path, bool]]:
        """What the bucket has directly below a folder: paths, and whether they are folders."""
        folders, things = self.bucket.children(self._prefix(folder))
        found = [(folder / name, True) for name in folders]
        return sorted(found + [(folder / _last(thing), False) for thing in things])

    def modified(self, path: Path) -> float | None:
        """When an object, or the newest below a folder, was written; None where there is none."""
        found = self.bucket.modified(self._name(path))
        if found is not None:
            return found
        return max((thing.modified for thing in self.things(path)), default=None)

    def size(self, path: Path) -> int:
        """Bytes of an object; 0 where there is none."""
        thing = self.bucket.head(self._name(path))
        return 0 if thing is None else thing.n_bytes

    def forget_gone(self, folder: Path) -> None:
        """Remove the copies in a folder of what the bucket has no more; hidden ones stay."""
        there = {path for path, _ in self.listed(folder)}
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name.startswith(REMOVED):
                shutil.rmtree(path, ignore_errors=True)
                path.unlink(missing_ok=True)
            elif path not in there and not path.name.startswith("."):
                self.forget(path)

    def things(self, folder: Path) -> list[Thing]:
        """All that the bucket has below a folder; names are relative to the folder."""
        prefix = self._prefix(folder)
        return [
            Thing(name=thing.name[len(prefix) :], n_bytes=thing.n_bytes, modified=thing.modified)
            for thing in self.bucket.things(prefix)
        ]

    def forget(self, path: Path) -> None:
        """Remove a local copy, of a file or of all below a folder; the bucket keeps its own."""
        hidden = path.with_name(f"{REMOVED}{path.name}.{secrets.token_hex(4)}")
        with suppress(FileNotFoundError):
            path.rename(hidden)
            if hidden.is_dir():
                shutil.rmtree(hidden, ignore_errors=True)
            hidden.unlink(missing_ok=True)

    # ------------------------------------------------------------------ writing

    def put(self, path: Path, data: bytes | Path) -> None:
        """Write what a path stands for, over what is there."""
        self.bucket.put(self._name(path), data)

    def create(self, path: Path, data: bytes) -> None:
        """Write what a path stands for, where nothing is there yet.

        Raises:
            FileExistsError: something is.
        """
        self.bucket.create(self._name(path), data)

    def put_folder(self, source: Path, final: Path, last: str) -> None:
        """Write a local folder's files; the one that makes it whole comes last.

        Of several writers of one folder one is at work at a time: its claim is an object beside
        the files. What a dead writer has left is written over.

        Args:
            source: the local folder.
            final: the path in the mirror that it is to have.
            last: the file that makes it whole.

        Raises:
            FileExistsError: a whole folder is there.
        """
        names = sorted(p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file())
        target = self._name(final)
        with claim(self.bucket, f"{target}/{_CLAIM}", whole=f"{target}/{last}") as check_ours:
            left = {thing.name for thing in self.bucket.things(f"{target}/")}
            ours = {f"{target}/{name}" for name in (*names, _CLAIM)}
            self.bucket.remove(sorted(left - ours))

            def put(name: str) -> None:
                check_ours()
                self.bucket.put(f"{target}/{name}", source / name)

            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(put, [name for name in names if name != last]))
            check_ours()
            self.bucket.create(f"{target}/{last}", (source / last).read_bytes())

    def remove(self, path: Path) -> None:
        """Remove what a path stands for, a file or all below it.

        What lies directly in a folder goes first: nobody takes the rest for a whole one then.
        """
        name = self._name(path)
        names = [thing.name for thing in self.bucket.things(f"{name}/")]
        direct = [below for below in names if "/" not in below[len(name) + 1 :]]
        if names:
            self.bucket.remove(direct)
            self.bucket.remove(sorted(set(names) - set(direct)))
        else:
            self.bucket.remove([name])

    # ------------------------------------------------------------------ names

    def _name(self, path: Path) -> str:
        name = path.relative_to(self.root).as_posix()
        return "" if name == "." else name

    def _prefix(self, folder: Path) -> str:
        name = self._name(folder)
        return f"{name}/" if name else ""

    def _renew(self, path: Path, thing: Thing) -> None:
        data = self.bucket.read(thing.name)
        if data is not None:  # else it was removed meanwhile
            _replace(path, data, modified=thing.modified)


def _bar(n_files: int) -> AbstractContextManager[Bar]:
    """A bar for many files; few are here at once."""
    if n_files < _MANY:
        return nullcontext(Bar("fetching", n_files, "files", None))
    return progress("fetching", n_files, "files")


def _last(thing: Thing) -> str:
    return thing.name.rpartition("/")[2]


def _replace(path: Path, data: bytes, modified: float | None = None) -> None:
    temporary = hidden_sibling(path)
    try:
        temporary.write_bytes(data)
        if modified is not None:
            os.utime(temporary, (modified, modified))
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def hidden_sibling(path: Path) -> Path:
    """A name beside a file, for what is to become it; no other writer has it."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
