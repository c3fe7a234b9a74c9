"""Fault points: every durable step of ours has a name, and a test can be told when it is reached.

Knows no step by its name, and reads no setting: a watcher is set in process, by a test, or not at
all. A step has two points, `before NAME` and `after NAME`; the second is reached if it succeeded.
"""

import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

DEAD = 77
"""The exit status of a process that `death` ended."""

_watcher: Callable[[str], None] | None = None


@contextmanager
def durable(step: str) -> Generator[None]:
    """Name one durable action: a synced write, a rename, a link, a removal, a commit.

    Args:
        step: what is done to what, such as `segment/rename`; the same for every occurrence.
    """
    _reach(f"before {step}")
    yield
    _reach(f"after {step}")


@contextmanager
def watching(watcher: Callable[[str], None]) -> Generator[None]:
    """Call a watcher with every point reached, in the thread that reached it; for tests.

    `watching([].append)` records; `watching(death(...))` kills; a watcher may also act as another
    writer that comes in between.
    """
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before


def death(at: str, nth: int = 1) -> Callable[[str], None]:
    """A watcher that ends the process as a power cut of the process would: nothing is cleaned up.

    Args:
        at: the point, such as `before segment/rename`.
        nth: which time it is reached, from 1, counted over all threads.
    """
    lock = threading.Lock()
    left = nth

    def die(point: str) -> None:
        nonlocal left
        if point == at:
            with lock:  # whoever is second here waits for a process that is no more
                left -= 1
                if not left:
                    os._exit(DEAD)

    return die


def _reach(point: str) -> None:
    if _watcher is not None:
        _watcher(point)
