"""The golden corpus of format 1, lifted, killed and looked at. Shared by tests and proofs."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cytolake.corpus.change.upgrade import upgrade
from cytolake.corpus.store import Corpus
from cytolake.platform.faults import watching
from deltalake import DeltaTable

GOLDEN = Path(__file__).parents[1] / "golden" / "format-1"
N_SNAPSHOTS = 5  # created, blood, lung, the column `age`, skin

DYING = """
import sys
from pathlib import Path
from cytolake.corpus.change.upgrade import upgrade
from cytolake.platform.faults import death, watching
with watching(death(sys.argv[2], int(sys.argv[3]))):
    upgrade(Path(sys.argv[1]))
"""


def old_cells(version: int | None = None) -> list[dict[str, object]]:
    """The cells of the corpus of format 1, by cell_id."""
    table = DeltaTable(GOLDEN / "cells", version=version).to_pyarrow_table()
    return sorted(table.to_pylist(), key=lambda row: row["cell_id"])


def new_cells(folder: Path, snapshot: int | None = None) -> list[dict[str, object]]:
    """The cells of a corpus of today's format, by cell_id."""
    corpus = Corpus.open(folder, snapshot)
    return corpus.sql("SELECT * EXCLUDE is_primary FROM cells ORDER BY cell_id").to_pylist()


def points() -> list[tuple[str, int]]:
    """Every point that one upgrade reaches, once a time it is reached."""
    reached: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(GOLDEN, Path(place) / "corpus"))
        with watching(reached.append):
            upgrade(folder)
    return [(point, reached[: i + 1].count(point)) for i, point in enumerate(reached)]


def die(folder: Path, point: str, nth: int) -> int:
    """Kill an upgrade at one of its points; its exit status."""
    words = [sys.executable, "-c", DYING, str(folder), point, str(nth)]
    return subprocess.run(words, check=False).returncode


def is_lifted_whole(folder: Path) -> bool:
    """Whether the corpus holds the old one's cells, nothing damaged and nothing left over."""
    if {path.name for path in folder.iterdir()} != {"cells", "sources", "segments"}:
        return False
    return Corpus.open(folder).verify(deep=True) == [] and new_cells(folder) == old_cells()
