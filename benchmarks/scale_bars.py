"""A quarter of a million cells and a million: what each stage costs, and what that makes of more.

    python -m benchmarks.scale_bars --folder scale [--rebuild] [--stage NAME]

Knows stages as processes (`scale_stages`); knows no corpus from inside. Builds both corpora once in
FOLDER and leaves them there; each size's stages then run one after the other, each in a process of
its own, on a copy made of hard links, so that a second run finds the same corpus. Writes the dated
note.
"""

import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from cytolake import __version__
from cytolake.corpus.store import Corpus

from benchmarks.log_growth import GROWING, measured
from benchmarks.scale_note import Figures, note
from benchmarks.scale_stages import STAGES, base_sources

HERE = Path(__file__).parent
SIZES = (250_000, 1_000_000)
IN_TURN = [name for name in STAGES if name not in ("build", "commit-all")]
Answer = dict[str, Any]


def started(stage: str, folder: Path, *numbers: int) -> "subprocess.Popen[str]":
    """A stage in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.scale_stages", stage, folder, *numbers]
    return subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)


def answer_of(child: "subprocess.Popen[str]") -> Answer:
    """What a stage says.

    Raises:
        SystemExit: it failed.
    """
    said, _ = child.communicate()
    if child.returncode:
        raise SystemExit(f"{child.args} ended with {child.returncode}")
    return json.loads(said.splitlines()[-1])


def built(folder: Path, n_cells: int, workers: int) -> Answer:
    """The corpus of so many cells in FOLDER, made if it is not there; what making it took."""
    told = folder.with_suffix(".json")
    if told.exists():
        return json.loads(told.read_text())
    shutil.rmtree(folder, ignore_errors=True)  # a building that was ended
    folder.parent.mkdir(parents=True, exist_ok=True)
    Corpus.create(folder)
    began, numbers = time.perf_counter(), range(len(base_sources(n_cells)))
    workers = min(workers, len(numbers))
    children = [
        started("build", folder, n_cells, *numbers[worker::workers]) for worker in range(workers)
    ]
    parts = [answer_of(child) for child in children]
    commits = answer_of(started("commit-all", folder, n_cells))
    answer = {
        "seconds": time.perf_counter() - began,
        "workers": workers,
        "writing_seconds": sum(part["seconds"] for part in parts),
        "writing_cpu_seconds": sum(part["cpu_seconds"] for part in parts),
        "peak_mb": max(part["peak_mb"] for part in parts),
        "commits": commits,
        "load": os.getloadavg()[0],
    }
    told.write_text(json.dumps(answer))
    return answer


def linked_copy(folder: Path, target: Path) -> None:
    """A copy to change: what is written once is linked, all else copied."""

    def copy(source: str, place: str) -> str:
        if os.stat(source).st_mode & stat.S_IWUSR:
            return str(shutil.copy2(source, place))
        os.link(source, place)
        return place

    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target, copy_function=copy)


def bytes_of(folder: Path) -> Answer:
    """Bytes of the parts of all segments and of the rows, and the non-zeros."""
    state = Corpus.open(folder).state
    parts: dict[str, int] = {}
    for entry in state.segments.values():
        for name, size in entry.n_bytes.items():
            parts[name] = parts.get(name, 0) + size
    return {
        "parts": parts,
        "rows": sum(state.files.values()),
        "n_nonzero": sum(entry.n_nonzero for entry in state.segments.values()),
        "n_segments": len(state.segments),
        "n_commits": state.version + 1,
    }


def measured_stages(lake: Path, names: Sequence[str]) -> dict[str, Answer]:
    """Stages in turn, on a copy that goes when they are done."""
    copy = lake.with_name(f"{lake.name}-changed")
    linked_copy(lake, copy)
    stages: dict[str, Answer] = {}
    for name in names:
        stages[name] = answer_of(started(name, copy))
        print(f"{lake.name} cells, {name}: {stages[name]}", flush=True)
    shutil.rmtree(copy)
    return stages


def measured_log(folder: Path) -> list[Answer]:
    """What a long log costs; see `log_growth`."""
    rows: list[Answer] = []
    for kind in GROWING:
        place = folder / f"log-{kind}"
        shutil.rmtree(place, ignore_errors=True)
        rows += measured(kind, place)
        shutil.rmtree(place)
        print(rows[-1], flush=True)
    return rows


def main(
    folder: Annotated[Path, typer.Option(help="Where the corpora are made, once.")],
    workers: Annotated[int, typer.Option(help="Processes that build.")] = 2,
    rebuild: Annotated[bool, typer.Option(help="Build the corpora anew.")] = False,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure this stage alone (may be repeated); the last run's others stay."
        ),
    ] = None,
) -> None:
    """Measure every stage at both sizes, and the log."""
    told, load = folder / "figures.json", os.getloadavg()[0]
    last: Answer = json.loads(told.read_text()) if stage and told.exists() else {}
    found: list[Figures] = []
    for place, n_cells in enumerate(SIZES):
        lake = folder / str(n_cells)
        if rebuild:
            lake.with_suffix(".json").unlink(missing_ok=True)
        building = built(lake, n_cells, workers)
        print(f"{n_cells:,} cells built: {building}", flush=True)
        before: dict[str, Answer] = last["found"][place]["stages"] if last else {}
        now = measured_stages(lake, [name for name in IN_TURN if name in (stage or IN_TURN)])
        stages = {name: now.get(name, before.get(name, {})) for name in IN_TURN}
        found.append(
            Figures(n_cells=n_cells, building=building, stages=stages, stored=bytes_of(lake))
        )
    grown = last["grown"] if last else measured_log(folder)
    told.write_text(json.dumps({"found": [asdict(one) for one in found], "grown": grown}))
    used = ("deltalake", "duckdb", "numba", "numcodecs", "pyarrow", "zarr")
    said = [
        f"cytolake {__version__}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in used),
        f"{os.cpu_count()} cores, load {load:.1f} at the start and {os.getloadavg()[0]:.1f} at the "
        f"end, at nice {os.nice(0)}",
    ]
    path = HERE / f"{date.today()}-scale.md"
    path.write_text(note(found, grown, said))
    print(path)


if __name__ == "__main__":
    typer.run(main)
