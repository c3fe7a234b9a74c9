"""What is left in staging for a later task: whole under its name, or not there. Knows no layout."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ..platform.faults import durable
from ..platform.refusals import storing_in
from ..platform.storage import publish, sync_file


@contextmanager
def leaving(path: Path, step: str) -> Generator[Path]:
    """Give a place to write at; the file gets its name once the body has ended well.

    Args:
        path: the name.
        step: what the durable steps are called, for tests that kill at them.

    Raises:
        StorageError: the disk says no.
    """
    with storing_in(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        with durable(f"{step}/write"):
            yield unfinished
            sync_file(unfinished)
        publish(unfinished, path, step)
