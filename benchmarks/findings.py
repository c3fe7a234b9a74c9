"""What is a small model's pretraining worth? Three sizes at equal tokens, on held-out donors.

    CYTOLAKE_RESOURCES=/data python -m benchmarks.findings --folder findings --epochs 2

Pretrains on three donors of Kang 2018 and asks the five others: `<mask>` cross-entropy beside
gene frequencies and cell kNN, and whether a gene's states tell the cell type or the batch, beside
the untrained model. Then another study, pbmc3k. Plain torch in this process, without Ray; only the
ingest uses it. Runs and answers are kept in `--folder`: the same command goes on where it was
stopped, and other settings want another folder. `--only "2 x 64"` trains one size and no more, so
that sizes can be trained side by side. Writes docs/findings.md and docs/findings.png.
"""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from cytolake.corpus.splits import Split
from cytolake.corpus.store import Corpus
from cytolake.evaluate.job import evaluate
from cytolake.platform.configuration import parse_values
from cytolake.platform.settings import Settings, load_settings
from cytolake.platform.storage import write_durably
from cytolake.platform.tracking import MemoryTracker
from cytolake.train.job import pretrain
from cytolake.train.recipe import PretrainRecipe
from cytolake.train.worker import versions

from benchmarks.findings_asked import Asking, question_of
from benchmarks.findings_data import (
    BOTH_STUDIES,
    HELD_OUT,
    LEARNT,
    OTHER_STUDY,
    SPLIT,
    corpus_of_findings,
)
from benchmarks.findings_note import write_note

SIZES = {"1 x 32": (1, 32), "2 x 64": (2, 64), "4 x 128": (4, 128)}
"""Layers and width; feed-forward is twice the width, a head 32 wide."""

PEAK_LR = 2e-3
"""For every size. Of 1e-3 and 3e-3 the larger had the lower TRAINING loss after 250 steps of the
middle size (6.46 against 6.73); a little less, for the deeper one."""

CURVE_POINTS = 8
SEED = 42


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All that decides the findings; another plan wants another folder.

    Attributes:
        epochs: passes over the pretraining cells, the same for every size.
        length: the most tokens of a cell.
        cells_per_step: the global batch.
        n_cells: held-out cells that are asked in the end, of each study.
        n_curve_cells: held-out cells that every checkpoint is asked.
        n_learnt: the most pretraining cells that the baselines use.
        threads: arithmetic threads.
        sizes: which of `SIZES`.
        split: the corpus's parts.
        part: of the donors that are held out.
        other: of another study; empty for none.
        both: a WHERE clause of the cells that are compared across studies; empty for none.
    """

    epochs: float
    length: int = 128
    cells_per_step: int = 16
    n_cells: int = 1000
    n_curve_cells: int = 300
    n_learnt: int = 20_000
    threads: int = 2
    sizes: dict[str, tuple[int, int]]
    split: dict[str, Any]
    part: str = HELD_OUT
    other: str = OTHER_STUDY
    both: str = BOTH_STUDIES


class Answers:
    """What was found so far, kept in a file; what is there is not done again."""

    def __init__(self, path: Path, plan: Plan) -> None:
        """Go on with a file, or begin one."""
        self._path = path
        words = json.loads(json.dumps(asdict(plan)))
        self.values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        if self.values.setdefault("plan", words) != words:
            raise SystemExit(f"{path} holds the answers to another plan: give another folder")

    def get(self, name: str, find: Callable[[], Any]) -> Any:
        """An answer, found now if it was not before."""
        if name not in self.values:
            began, cpu = time.perf_counter(), time.process_time()
            found = find()
            spent = {"s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
            self.values[name] = json.loads(json.dumps({"found": found, **spent}))
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(self._path, json.dumps(self.values, indent=1).encode())
        return self.values[name]["found"]


def pretrain_recipe(plan: Plan, name: str, *, n_steps: int) -> PretrainRecipe:
    """The recipe of one size; only the shape differs from one size to another."""
    layers, width = plan.sizes[name]
    values = {
        "name": f"findings-{layers}x{width}",
        "data": {"part": LEARNT},
        "split": plan.split,
        "encoding": {"length": plan.length},
        "model": {
            "layers": layers,
            "width": width,
            "heads": max(1, width // 32),
            "feed_forward": 2 * width,
        },
        "training": {
            "seed": SEED,
            "epochs": plan.epochs,
            "cells_per_step": plan.cells_per_step,
            "cells_per_group": plan.cells_per_step // 2,
            "pack_tokens": max(2048, plan.length),
            "log_seconds": 5,
        },
        "optimizer": {
            "peak_lr": PEAK_LR,
            "schedule": "cosine",
            "warmup_steps": min(100, n_steps // 4),
        },
        "engine": {"kind": "torch", "workers": 1, "threads": plan.threads},
        "checkpoints": {"every_steps": max(1, n_steps // CURVE_POINTS), "keep": 1000},
    }
    return parse_values(values, PretrainRecipe, origin="findings")


def find_out(
    corpus_uri: str, plan: Plan, folder: Path, settings: Settings, *, only: str | None = None
) -> dict[str, Any]:
    """Train and ask; answers that are in the folder are taken from there.

    Args:
        corpus_uri: the corpus.
        plan: all that decides the answers.
        folder: where answers are kept.
        settings: where runs live.
        only: train this size and ask nothing.
    """
    torch.set_num_threads(plan.threads)
    corpus = Corpus.open(corpus_uri)
    n_learnt = corpus.select(
        None, split=parse_values(plan.split, Split, origin="findings"), part=LEARNT
    ).n_cells
    n_groups = -(-n_learnt // (plan.cells_per_step // 2))
    n_steps = max(1, round(plan.epochs * -(-n_groups // 2)))
    places: dict[str, Path] = {}
    trained: dict[str, Any] = {}
    for name in [only] if only else plan.sizes:
        recipe = pretrain_recipe(plan, name, n_steps=n_steps)
        places[name] = settings.home / "runs" / recipe.name
        own = Answers(folder / f"{recipe.name}.json", plan)  # sizes may be trained side by side
        own.get(f"training/{name}", lambda r=recipe: _train(corpus_uri, r, settings))
        trained |= own.values
    if only:
        return trained
    answers = Answers(folder / "answers.json", plan)
    answers.values |= trained
    answers.get("machine", _machine)
    asking = Asking(
        corpus_uri=corpus_uri,
        places=places,
        seed=SEED,
        n_cells=plan.n_cells,
        n_curve_cells=plan.n_curve_cells,
        n_learnt=plan.n_learnt,
    )
    answers.get("cells", asking.counts)
    answers.get("baselines", asking.settings_of_baselines)
    for name in plan.sizes:
        answers.get(f"curve/{name}", lambda n=name: asking.curve(n, plan.part))
    answers.get("curve/baselines", lambda: asking.baselines_of_curve(plan.part))
    answers.get("masked", lambda: asking.masked(plan.part))
    for name in plan.sizes:
        answers.get(
            f"contexts/{name}",
            lambda n=name: _contexts(corpus_uri, places[n], settings, part=plan.part),
        )
    if plan.other:
        answers.get("masked/other", lambda: asking.masked(plan.other))
    if plan.both:
        for name in plan.sizes:
            answers.get(
                f"contexts/studies/{name}",
                lambda n=name: _contexts(
                    corpus_uri, places[n], settings, batch="source_id", part=None, where=plan.both
                ),
            )
    return answers.values


def _train(corpus_uri: str, recipe: PretrainRecipe, settings: Settings) -> dict[str, Any]:
    run = pretrain(corpus_uri, recipe, settings, tracker=MemoryTracker())
    if run.status == "stopped":
        raise SystemExit(f"{recipe.name}: {run.message}")
    cells = sum(report["n_cells"] for report in run.metrics)
    seconds = sum(report["n_cells"] / report["cells_per_s"] for report in run.metrics)
    tokens = sum(
        report["tokens_per_s"] * report["n_cells"] / report["cells_per_s"] for report in run.metrics
    )
    last = run.metrics[-1]
    return {
        "steps": run.step,
        "cells": cells,
        "tokens": tokens,
        "train_s": seconds,
        "loss": last["loss"],
        "recipe": recipe.model_dump(mode="json"),
        "whole": run.status == "finished" and run.records[0]["resumed_at_step"] == 0,
    }


def _contexts(
    corpus_uri: str, place: Path, settings: Settings, *, batch: str = "donor_id", **asked: Any
) -> dict[str, Any]:
    # The last layer: the last but one of a model of one layer is its embeddings, without context.
    settled = {"model": str(place), "contexts": {"batch": batch, "layer": -1}, **asked}
    recipe = question_of("contexts", SEED, **settled)
    result = evaluate(corpus_uri, recipe, settings, tracker=MemoryTracker())
    return {
        "scores": [asdict(score) for score in result.scores],
        "verdict": result.verdict,
        "bootstrap": result.tables["bootstrap"].to_pylist() if "bootstrap" in result.tables else [],
        "notes": list(result.notes),
    }


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    processor = f"{os.cpu_count()} cores {models[0] if models else platform.machine()}"
    return {
        "machine": f"{processor}, {gigabytes:.0f} GiB",
        "versions": versions(),
        "date": date.today().isoformat(),
    }


def main(
    folder: Annotated[Path, typer.Option(help="Corpus, runs and answers; kept.")] = Path(
        "findings"
    ),
    epochs: Annotated[float, typer.Option(help="Passes over the pretraining cells.")] = 2.0,
    threads: Annotated[int, typer.Option(help="Arithmetic threads.")] = 2,
    only: Annotated[str | None, typer.Option(help="Train one size and ask nothing.")] = None,
    corpus: Annotated[str | None, typer.Option(help="A corpus with both studies.")] = None,
    docs: Annotated[Path, typer.Option(help="Where the note goes.")] = Path("docs"),
) -> None:
    """Find out, and write it down."""
    folder = folder.absolute()
    settings = load_settings().model_copy(update={"home": folder, "tracking": None})
    lake = corpus or corpus_of_findings(folder, settings)
    plan = Plan(epochs=epochs, threads=threads, sizes=SIZES, split=SPLIT)
    if only is not None and only not in SIZES:
        raise SystemExit(f"--only {only!r}, expected one of {', '.join(SIZES)}")
    answers = find_out(lake, plan, folder, settings, only=only)
    if only is not None:
        return
    command = f"python -m benchmarks.findings --folder findings --epochs {epochs:g}"
    write_note(answers, docs, command=command if threads == 2 else f"{command} --threads {threads}")


if __name__ == "__main__":
    typer.run(main)
