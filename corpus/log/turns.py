"""Whose turn it is to commit: the writer's that has lost most. A courtesy, never a lock.

Knows a folder and the clock; whether a commit is right never depends on it. A turn whose taker has
died is over after some seconds.
"""

import time
import uuid
from pathlib import Path

_SECONDS = 20.0
"""A turn that was taken or renewed longer ago is of a dead writer."""


class Turn:
    """A file that says whose turn it is to commit: the writer's that has lost most."""

    def __init__(self, folder: Path) -> None:
        """Prepare; nobody waits yet."""
        self._path = folder / ".turn"
        self._name = uuid.uuid4().hex

    def take(self) -> None:
        """Take the turn, or renew it, where no other living writer has it."""
        if self._holder() in (None, self._name):
            temporary = self._path.with_name(f".turn.{self._name}")
            temporary.write_text(self._name)
            temporary.replace(self._path)

    def wait_for_others(self) -> None:
        """Wait while a living writer other than this one has the turn."""
        while self._holder() not in (None, self._name):
            time.sleep(0.02)

    def give_back(self) -> None:
        """Let the turn go."""
        if self._holder() == self._name:
            self._path.unlink(missing_ok=True)

    def _holder(self) -> str | None:
        try:
            age = time.time() - self._path.stat().st_mtime
            return self._path.read_text() if -_SECONDS < age < _SECONDS else None
        except OSError:
            return None
