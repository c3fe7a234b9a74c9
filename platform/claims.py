"""Whose work a place in a bucket is: an object beside it that one writer at a time has.

Knows a name and the store's clock. A folder of objects cannot be given its name at once, so whoever
writes one says so first; who does not renew that for ten minutes is taken to be dead.
"""

import secrets
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

from .buckets import Bucket
from .errors import StorageError

_CLAIM_SECONDS = 600.0
"""A claim that was made or renewed longer ago is of a dead writer."""


@contextmanager
def claim(bucket: Bucket, name: str, whole: str) -> Generator[Callable[[], None]]:
    """Hold a claim while the body runs; waits for another writer's, which may finish first.

    Gives a function that refuses to go on where another writer has taken the claim, which
    happens to whoever stood still for minutes.

    Args:
        bucket: where.
        name: the object that is the claim.
        whole: the object that is there once the work is done.

    Raises:
        FileExistsError: the work is done already.
    """
    ours = secrets.token_bytes(16)
    while not _take(bucket, name, ours):
        time.sleep(1.0)
    over, lost = threading.Event(), threading.Event()
    held_until = [time.monotonic() + _CLAIM_SECONDS / 2]

    def renew() -> None:
        while not over.wait(_CLAIM_SECONDS / 10):
            with suppress(StorageError):
                if not bucket.swap(name, ours, ours):
                    lost.set()
                    return
                held_until[0] = time.monotonic() + _CLAIM_SECONDS / 2

    def check() -> None:
        if lost.is_set() or time.monotonic() > held_until[0]:
            raise StorageError(
                f"{bucket.uri}/{name}: this process stood still or was cut off for so "
                "long that another may have taken its place: run the same command again"
            )

    renewing = threading.Thread(target=renew, name="claim", daemon=True)
    renewing.start()
    try:
        if bucket.modified(whole) is not None:
            raise FileExistsError(f"{bucket.uri}/{whole}")
        yield check
    finally:
        over.set()
        renewing.join()
        if bucket.read(name) == ours:
            bucket.remove([name])


def _take(bucket: Bucket, name: str, ours: bytes) -> bool:
    """Take a claim that is free, or a dead writer's."""
    try:
        bucket.create(name, ours)
    except FileExistsError:
        theirs, made = bucket.read(name), bucket.modified(name)
        if theirs == ours:  # the answer to a first try was lost
            return True
        if theirs is None or made is None or bucket.now() - made < _CLAIM_SECONDS:
            return False
        return bucket.swap(name, ours, theirs)
    return True
