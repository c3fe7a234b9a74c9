"""Objects in a bucket: listed, read, written, removed, one whole object at a time.

Knows names and bytes; knows no folder of this machine and no cell. Speaks obstore, whose settings
and credentials are taken from the environment (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...).
"""

import os
import secrets
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import CytolakeError, SettingsError, StorageError
from .refusals import plain
from .uris import recorded, scheme_of

SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "adl", "azure")
"""Object stores that a corpus may lie in: those that obstore and delta-rs both speak."""

_PATIENCE = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}
_MANY = 1000
"""Objects that one request may remove."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """An object.

    Attributes:
        name: below the bucket's prefix, with `/` between its parts.
        n_bytes: its size.
        modified: when it was written, in seconds since 1970 by the store's clock.
    """

    name: str
    n_bytes: int
    modified: float


class Bucket:
    """What lies below a URI of an object store. Every error of the store is a StorageError."""

    def __init__(self, uri: str) -> None:
        """Prepare; nothing is asked of the store yet.

        Raises:
            SettingsError: the URI is of another kind, or holds a password.
        """
        if scheme_of(uri) not in SCHEMES:
            raise SettingsError(
                f"{recorded(uri)}: {scheme_of(uri)}:// is no object store that a corpus may lie "
                f"in; expected a path or one of {', '.join(f'{name}://' for name in SCHEMES)}"
            )
        if recorded(uri) != uri:
            raise SettingsError(
                f"{recorded(uri)}: give credentials by the environment (AWS_ACCESS_KEY_ID, "
                "AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS, ...), not in the URI"
            )
        self.uri = uri.rstrip("/")

    @property
    def options(self) -> dict[str, str]:
        """What delta-rs is to be told beside the environment."""
        return {"allow_http": "true"} if _plain_http() else {}

    def things(self, prefix: str = "", *, after: str | None = None) -> list[Thing]:
        """All objects whose names begin with a prefix that ends in `/`, by name.

        Args:
            prefix: empty for all.
            after: only those whose names come after this one.
        """
        import obstore

        with self._telling(prefix):
            listed = obstore.list(self._store, prefix.rstrip("/") or None, offset=after)
            found = [_thing(meta) for batch in listed for meta in batch]
        return sorted(found, key=lambda thing: thing.name)

    def children(self, prefix: str) -> tuple[list[str], list[Thing]]:
        """What lies directly below a prefix that ends in `/`: names of folders, and objects."""
        import obstore

        with self._telling(prefix):
            found = obstore.list_with_delimiter(self._store, prefix.rstrip("/") or None)
        folders = [name.rstrip("/").rpartition("/")[2] for name in found["common_prefixes"]]
        return sorted(folders), [_thing(meta) for meta in found["objects"]]

    def read(self, name: str) -> bytes | None:
        """The bytes of a small object; None where there is none."""
        import obstore

        with self._telling(name):
            try:
                return bytes(obstore.get(self._store, name).bytes())
            except FileNotFoundError:
                return None

    def copy_to(self, name: str, path: Path) -> None:
        """Write an object to a local file that is not there yet.

        Raises:
            FileNotFoundError: there is no such object.
        """
        import obstore

        with self._telling(name):
            try:
                found = obstore.get(self._store, name)
            except FileNotFoundError:
                raise FileNotFoundError(f"{self.uri}/{name}") from None
            with path.open("xb") as file:
                for piece in found.stream(min_chunk_size=4 << 20):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())

    def put(self, name: str, data: bytes | Path) -> None:
        """Write an object, over one of that name."""
        import obstore

        with self._telling(name):
            obstore.put(self._store, name, data)

    def create(self, name: str, data: bytes) -> None:
        """Write an object that must not be there yet: of several writers one succeeds.

        Raises:
            FileExistsError: the name is taken.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with self._telling(name):
            try:
                obstore.put(self._store, name, data, mode="create")
            except AlreadyExistsError:
                raise FileExistsError(f"{self.uri}/{name}") from None

    def swap(self, name: str, data: bytes, before: bytes) -> bool:
        """Write an object where it still holds what it did; False where it does not."""
        import obstore
        from obstore.exceptions import PreconditionError

        with self._telling(name):
            try:
                found = obstore.get(self._store, name)
                if bytes(found.bytes()) != before:
                    return False
                mark = {key: found.meta.get(key) for key in ("e_tag", "version")}
                held = {key: value for key, value in mark.items() if value is not None}
                obstore.put(self._store, name, data, mode=held)  # pyright: ignore[reportArgumentType] - a mapping of just these
            except (FileNotFoundError, PreconditionError):
                return False
        return True

    def remove(self, names: Sequence[str]) -> None:
        """Remove objects; what is not there is no fault."""
        import obstore

        for start in range(0, len(names), _MANY):
            with self._telling(names[start]), suppress(FileNotFoundError):
                obstore.delete(self._store, list(names[start : start + _MANY]))

    def head(self, name: str) -> Thing | None:
        """What the store says of an object; None where there is none."""
        import obstore

        with self._telling(name):
            try:
                return _thing(obstore.head(self._store, name))
            except FileNotFoundError:
                return None

    def modified(self, name: str) -> float | None:
        """When an object was written, by the store's clock; None where there is none."""
        thing = self.head(name)
        return None if thing is None else thing.modified

    def now(self) -> float:
        """What time it is by the store's clock, in seconds since 1970."""
        with self._probe() as name:
            return self.modified(name) or 0.0

    def check_creates_once(self) -> None:
        """Prove that the store refuses to create an object a second time.

        Commits to a Delta table rest on that: without it two writers could both believe that
        theirs is the next version, and one would be lost without a word.

        Raises:
            StorageError: it does not refuse.
        """
        with self._probe() as name:
            try:
                self.create(name, b"second")
            except FileExistsError:
                return
        raise StorageError(
            f"{self.uri}: this object store overwrites where it was told to create (it ignores "
            "If-None-Match), so that commits could be lost: nothing is written to it. Use a store "
            "with conditional writes, or keep the corpus in a file system"
        )

    @contextmanager
    def _probe(self) -> Generator[str]:
        """A small object that is there while the body runs."""
        name = f".probe-{secrets.token_hex(8)}"
        self.create(name, b"first")
        try:
            yield name
        finally:
            self.remove([name])

    @property
    def _store(self) -> Any:
        return _open(self.uri, os.environ.get("AWS_ENDPOINT_URL", ""), os.getpid())

    @contextmanager
    def _telling(self, name: str) -> Generator[None]:
        """Tell what a store says as an error of ours; a missing or present name passes."""
        from obstore.exceptions import BaseError

        try:
            yield
        except (CytolakeError, FileNotFoundError, FileExistsError):
            raise
        except (BaseError, PermissionError, OSError, ValueError) as error:
            raise StorageError(
                f"{self.uri}/{name}: the object store says no: {plain(error)}. Are "
                "AWS_ENDPOINT_URL, region and credentials in the environment, the bucket there?"
            ) from None


@lru_cache(maxsize=32)
def _open(uri: str, endpoint: str, pid: int) -> Any:
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    options: dict[str, Any] = {"allow_http": True} if endpoint.startswith("http://") else {}
    try:
        return from_url(uri, client_options=options, retry_config=_PATIENCE)  # pyright: ignore[reportCallIssue, reportArgumentType] - one of its overloads a scheme
    except (BaseError, ValueError, TypeError, OSError) as error:
        raise SettingsError(f"{uri}: no such object store can be opened: {plain(error)}") from None


def _plain_http() -> bool:
    return os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")


def _thing(meta: Any) -> Thing:
    return Thing(
        name=str(meta["path"]),
        n_bytes=int(meta["size"]),
        modified=meta["last_modified"].timestamp(),
    )
