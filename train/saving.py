"""Checkpoints written beside the training: copied by it, written by a thread. Knows no format.

The training thread copies what is to be kept, which takes as long as copying memory; a thread of
this file's own hashes, writes and syncs. One write at a time: the next waits for the one before,
and an error is told to whoever asks next. Price: one more copy of weights and moments in the
host's memory.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Saver:
    """Writes one thing at a time, in the background."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="cytolake-save")
        self._under_way: Future[object] | None = None

    def save(self, write: Callable[[], object]) -> None:
        """Begin a write once the one before it is done.

        Args:
            write: told to write what it holds: copies that nobody else changes.

        Raises:
            CytolakeError: what the write before this one had to say.
        """
        self.wait()
        self._under_way = self._pool.submit(write)

    def check(self) -> None:
        """Tell the error of a write that has ended with one; waits for nothing.

        Raises:
            CytolakeError: what the write had to say; it is told once.
        """
        if self._under_way is not None and self._under_way.done():
            self.wait()

    def wait(self) -> None:
        """Wait until all is written.

        Raises:
            CytolakeError: what the write had to say; it is told once.
        """
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def close(self) -> None:
        """Let the thread go after what it has begun; errors are told by `wait` alone."""
        self._pool.shutdown(wait=True)
