"""How long after a kill -9 of everything the same command has done its first step.

    python -m benchmarks.restart_time [--folder FOLDER] [--times 3]

pbmc3k, geneformer-v1-10m with 24 cells a step, DeepSpeed's ZeRO 1 on two workers of Ray Train.
Driver, Ray and workers are killed together; the clock runs from the command to the first new line
in `metrics.jsonl`, so it holds Python, Ray, imports, the corpus, the checkpoint and one whole step.
Needs CYTOLAKE_RESOURCES.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

RUN = "restarted"
RECIPE = "geneformer-v1-10m"
SETTINGS = (
    f"name={RUN}",
    "training.cells_per_step=24",
    "training.log_seconds=0.001",
)
CHECKPOINT = "checkpoints.every_steps=2"
"""Of the first start; those after it save, and so validate, later than the step that is timed."""


class Pretraining:
    """A pretraining that is started, killed and started again."""

    def __init__(self, folder: Path) -> None:
        """Ingest pbmc3k, unless the folder has it."""
        from cytolake.platform.settings import load_settings

        resources = load_settings().resources
        if not resources:
            raise SystemExit("needs CYTOLAKE_RESOURCES, the folder with the real data")
        self._lake, self._run = folder / "lake", folder / "home" / "runs" / RUN
        self._log = folder / "log.txt"
        self._environment = os.environ | {"CYTOLAKE_HOME": str(folder / "home")}
        source = resources[0] / "pbmc3k_10x" / "pbmc3k_filtered_gene_bc_matrices.tar.gz"
        if not self._lake.exists():
            self._started("ingest", str(source)).wait()

    def _started(self, *words: str) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "cytolake", *words, "--corpus", str(self._lake)],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def steps(self) -> list[dict[str, Any]]:
        """What was told of steps so far."""
        path = self._run / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [row for row in map(json.loads, lines) if "loss" in row]

    def has_checkpoint(self) -> bool:
        """Whether a complete one is there."""
        return any((self._run / "checkpoints").glob("step-*/checkpoint.json"))

    def killed_when(self, is_enough: Callable[[], bool], *more: str) -> float:
        """Start, wait, kill all of it; seconds from the start until it was enough."""
        settings = [word for setting in (*SETTINGS, *more) for word in ("--set", setting)]
        began = time.monotonic()
        driver = self._started("pretrain", RECIPE, *settings)
        while not is_enough():
            time.sleep(0.05)
            if driver.poll() is not None:
                raise SystemExit(f"the pretraining ended with {driver.returncode}: see {self._log}")
        seconds = time.monotonic() - began
        everything = psutil.Process(driver.pid).children(recursive=True)
        for process in [psutil.Process(driver.pid), *everything]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        driver.wait()
        psutil.wait_procs(everything, timeout=30)
        return seconds


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print a line a restart."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--folder", type=Path, help="where corpus and run go; a new one if not")
    parser.add_argument("--times", type=int, default=3)
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        pretraining = Pretraining((asked.folder or Path(folder)).absolute())
        seconds = pretraining.killed_when(pretraining.has_checkpoint, CHECKPOINT)
        print(f"first start to first checkpoint: {seconds:.1f} s", flush=True)
        for _ in range(asked.times):
            before = time.time()
            seconds = pretraining.killed_when(
                lambda since=before: any(row["time"] > since for row in pretraining.steps())
            )
            first = next(row for row in pretraining.steps() if row["time"] > before)
            step = first["n_cells"] / first["cells_per_s"]
            print(
                f"restart to step {first['step']} done: {seconds:.1f} s, {step:.1f} of it the step"
            )


if __name__ == "__main__":
    main()
