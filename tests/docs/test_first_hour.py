"""docs/first-hour.md: every block runs, in order, as a reader would type it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "first-hour.md"
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```$", PAGE.read_text(), flags=re.M | re.S)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_block_of_the_first_hour_runs(tmp_path: Path) -> None:
    scripts = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": scripts + os.pathsep + os.environ["PATH"],
        "CYTOLAKE_HOME": str(tmp_path / "home"),
    }
    assert len(BLOCKS) >= 8
    for language, block in BLOCKS:
        words = ["bash", "-euc", block] if language == "bash" else [sys.executable, "-c", block]
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr
    assert (tmp_path / "mine-embedded.h5ad").is_file()


def test_the_page_has_no_word_of_ray() -> None:
    assert not re.search(r"\bray\b", PAGE.read_text(), flags=re.I)
