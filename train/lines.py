"""Files of one JSON object a line, that grow while others read them. Knows no run and no step.

A kill or a full disk may tear a line. What is added after it begins on a line of its own; whoever
reads passes the torn line over, but counts it, so that every other line keeps its number.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..platform.refusals import storing_in

Row = dict[str, Any]


def add_line(path: Path, values: Mapping[str, object]) -> None:
    """Add a line to a file, which is made where it is not there.

    Raises:
        StorageError: the disk says no.
    """
    with storing_in(path.parent), path.open("ab+") as file:
        is_torn = False
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            is_torn = file.read(1) != b"\n"
        file.write(b"\n" * is_torn + json.dumps(values).encode() + b"\n")


def rows_of(path: Path) -> list[Row]:
    """All whole lines of a file, parsed; none where there is no file."""
    return [row for row in Tail(path).lines() if row is not None]


class Tail:
    """New lines of a file that grows; one that was written anew is read from its start."""

    def __init__(self, path: Path) -> None:
        """The file may not be there yet."""
        self._path, self._inode, self._place = path, -1, 0

    def lines(self) -> list[Row | None]:
        """Lines that were ended since the last call, parsed; None for one that was torn."""
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._place:
                    self._inode, self._place = status.st_ino, 0
                file.seek(self._place)
                ended, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self._place += len(ended) + len(newline)
        return [_parsed(line) for line in (ended + newline).split(b"\n")[:-1]]


def _parsed(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
