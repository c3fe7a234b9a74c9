"""What the long proofs share: a real source that every machine has, and killed commands."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run `cytolake WORDS`; with `kill_after`, kill -9 it after so many seconds, if it still runs.

    With `all_of_it` its children and theirs are killed, too.

    Gives the exit status (-9 where it was killed) and all that it said.
    """
    environment = {**os.environ, "CYTOLAKE_HOME": str(tmp_path / "home")}

    def run(
        *words: object,
        kill_after: float | None = None,
        when: Callable[[], bool] | None = None,
        more: Mapping[str, str] | None = None,
        all_of_it: bool = False,
    ) -> tuple[int, str]:
        log = tmp_path / f"log-{time.monotonic_ns()}.txt"
        with log.open("w") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "cytolake", *map(str, words)],
                cwd=tmp_path,
                env={**environment, **(more or {})},
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            began = time.monotonic()
            while process.poll() is None:
                late = kill_after is not None and time.monotonic() - began >= kill_after
                if late or (when is not None and when()):
                    others = psutil.Process(process.pid).children(recursive=True)
                    os.kill(process.pid, signal.SIGKILL)
                    for other in others if all_of_it else []:
                        with suppress(psutil.NoSuchProcess):
                            other.kill()
                    process.wait()
                    break
                time.sleep(0.02)
        return process.returncode, log.read_text()

    return run


@pytest.fixture
def pbmc_sources(tmp_path: Path) -> Path:
    """A sources.toml over the 700 PBMC that scanpy ships, in small units: there are many."""
    from importlib.util import find_spec

    spec = find_spec("scanpy")
    assert spec is not None and spec.submodule_search_locations
    file = Path(spec.submodule_search_locations[0]) / "datasets" / "10x_pbmc68k_reduced.h5ad"
    lines: Sequence[str] = [
        "unit_cells = 100",
        "[[source]]",
        'name = "pbmc"',
        f'path = "{file}"',
        'recover = "log1p_cp10k"',
        'panel = "use"',
        'columns = { cell_type = "bulk_labels" }',
    ]
    path = tmp_path / "sources.toml"
    path.write_text("\n".join(lines))
    return path
