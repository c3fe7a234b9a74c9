"""A checkpoint as those need it who only use its model. Knows no model and no store.

Two thirds of a checkpoint's bytes are the optimizer's moments, which nobody but its own run needs.
"""

import json
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

MOMENTS = "training.safetensors"


@contextmanager
def without_moments(place: Path) -> Generator[Path]:
    """A folder, gone afterwards, with a checkpoint's files but its moments.

    Files are linked and not copied. The list of files leaves the moments out, too, so that the
    folder is a checkpoint of its own, which is loaded and checked like any other.
    """
    with tempfile.TemporaryDirectory(prefix="cytolake-") as parent:
        folder = Path(parent) / place.name
        folder.mkdir()
        for path in place.iterdir():
            if path.name not in (MOMENTS, "checkpoint.json"):
                (folder / path.name).symlink_to(path.absolute())
        listed = json.loads((place / "checkpoint.json").read_text(encoding="utf-8"))
        listed["files"].pop(MOMENTS, None)
        (folder / "checkpoint.json").write_text(json.dumps(listed, indent=2), encoding="utf-8")
        yield folder
