"""Runs one command of the table in a process of its own: recorded, or to its death.

`python -m cytolake.tests.faults.child COMMAND FOLDER [POINT NTH | --same-names]`.
Knows nothing of what is checked afterwards.
"""

import json
import os
import random
import secrets
import sys
import uuid
from pathlib import Path

from cytolake.platform.faults import death, watching
from cytolake.tests.faults.commands import COMMANDS


def main(name: str, folder: Path, *words: str) -> None:
    """Run a command; say as JSON which points it reached.

    Args:
        name: of the table.
        folder: the corpus.
        words: nothing; or a point and a number, where to die; or `--same-names`.
    """
    points: list[str] = []
    watcher = points.append
    if words == ("--same-names",):
        _repeat_names()
    elif words:
        watcher = death(words[0], int(words[1]))
    with watching(watcher):
        COMMANDS[name].run(folder)
    print(json.dumps(points))


def _repeat_names() -> None:
    """Draw the same names in every run, so that a system call is found again by its path.

    The process is called by a number that the system gives to none.
    """
    draw = random.Random(0)
    uuid.uuid4 = lambda: uuid.UUID(int=draw.getrandbits(128), version=4)
    secrets.token_hex = lambda nbytes=None: draw.randbytes(nbytes or 32).hex()
    secrets.randbits = draw.getrandbits
    os.getpid = lambda: 1 << 22


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
