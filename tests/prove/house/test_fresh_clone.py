"""The newcomer's walk: a fresh clone, a fresh venv, two commands, a wheel outside the clone."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = [pytest.mark.prove, pytest.mark.timeout(3000)]

ROOT = Path(__file__).resolve().parents[3]


def run(words: Sequence[str], folder: Path, *, resources: str | None = None) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CYTOLAKE_")}
    environment.pop("PYTHONPATH", None)
    if resources:
        environment["CYTOLAKE_RESOURCES"] = resources
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the last commit whose venv was made by `make`."""
    folder = tmp_path_factory.mktemp("fresh") / "cytolake"
    run(["git", "clone", "--quiet", str(ROOT), str(folder)], ROOT)
    run(["make", ".venv/.installed"], folder)
    return folder


def demo(clone: Path, resources: str | None) -> str:
    """What the demo says; how long it took is told, for it depends on what else is running."""
    began = time.monotonic()
    shown = run(["make", "demo"], clone, resources=resources)
    print(f"the demo took {time.monotonic() - began:.0f} s")
    assert "cytolake ui" in shown
    return shown


def test_the_poorest_demo_needs_no_resources_folder(clone: Path) -> None:
    shown = demo(clone, None)
    assert "panel" in shown and "cells, not donors: optimistic" in shown
    run(["rm", "-rf", "cytolake-demo"], clone)


def test_the_richer_demo_tells_the_same_story(clone: Path) -> None:
    resources = os.environ.get("CYTOLAKE_RESOURCES")
    if not resources:
        pytest.skip("CYTOLAKE_RESOURCES is not set: the richer data are not at hand")
    shown = demo(clone, resources)
    assert "mutational_burden" in shown and "cells, not donors" not in shown


def test_installing_again_does_nothing(clone: Path) -> None:
    assert "Nothing to be done" in run(["make", "-n", ".venv/.installed"], clone) or (
        "up to date" in run(["make", ".venv/.installed"], clone)
    )


def test_the_wheel_works_outside_the_clone(clone: Path, tmp_path: Path) -> None:
    run([".venv/bin/python", "-m", "build", "--wheel", "--outdir", str(tmp_path)], clone)
    (wheel,) = tmp_path.glob("cytolake-*.whl")
    run([sys.executable, "-m", "venv", "venv"], tmp_path)
    run(["venv/bin/pip", "install", "--quiet", "--no-deps", str(wheel)], tmp_path)
    # The libraries come from the clone's venv, cytolake itself from the wheel alone.
    (libraries,) = (clone / ".venv" / "lib").glob("python3.*/site-packages")
    code = (
        "import cytolake, platform; from pathlib import Path; "
        "from cytolake.platform.resources import catalogue; "
        "from cytolake.platform.recipes import shipped; from cytolake import Corpus, embed; "
        "print(cytolake.__file__, platform.system(), len(catalogue()), sorted(shipped()))"
    )
    words = ["env", f"PYTHONPATH={libraries}", "venv/bin/python", "-c", code]
    shown = run(words, tmp_path)
    assert str(tmp_path) in shown and "finetune" in shown
    run(["env", f"PYTHONPATH={libraries}", "venv/bin/cytolake", "--help"], tmp_path)
