"""A run's folder: what it was started with, where it stands, what it has said so far.

    run.json                          recipe, corpus, snapshot, tracking id, state
    vocabulary.json, medians.json     frozen at the first start
    checkpoints/step-*                see `checkpoints.py`
    metrics.jsonl                     one line a report, each step once
    left-out.jsonl                    steps that updated nothing, and the cells that they had
    record-0.json, record-1.json ...  what each worker says it is
    launch.json                       when the last launch began
    end.json, failure.json            how it ended
    stop                              there while the workers are asked to stop
    system-NODE.jsonl                 what each node was doing
    opening.json, owed.json           what the tracking store has still to be told of start and end
    told.json                         how far it was told of what lies between

Knows no Ray, no torch and no model: driver and workers meet here and nowhere else.
"""

import fcntl
import json
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..corpus.medians import MediansSet
from ..corpus.vocabularies import Vocabulary
from ..platform.configuration import flat, parse_values
from ..platform.errors import TrainingError
from ..platform.refusals import storing_in
from ..platform.storage import write_durably
from .recipe import PretrainRecipe

State = Literal["running", "stopped", "finished"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What a run was started with, and its state.

    Attributes:
        name: of the run and its folder.
        recipe: the recipe, whole.
        corpus_uri: the corpus.
        corpus_uuid: the corpus, whatever its place.
        snapshot: the snapshot read; pinned at the first start.
        selection_digest: hash of the list of cells.
        n_cells: number of cells in the list.
        run_id: the run in the tracking store.
        state: where it stands.
        groups_per_step: groups of cells in one optimizer step; 0 in runs begun before it was kept.
        tokens_per_cell: the measured mean that decided them; 0 where the recipe says cells.
        origin: whose weights it began with; empty for fresh ones. See `starting.py`.
        precision: what the recipe's came to at the first launch; empty before it.
    """

    name: str
    recipe: dict[str, Any]
    corpus_uri: str
    corpus_uuid: str
    snapshot: int
    selection_digest: str
    n_cells: int
    run_id: str
    state: State = "running"
    groups_per_step: int = 0
    tokens_per_cell: float = 0.0
    origin: dict[str, Any] = field(default_factory=dict[str, Any])
    precision: str = ""

    @property
    def step_groups(self) -> int:
        """Groups of cells in one optimizer step."""
        return self.groups_per_step or self.pretrain_recipe.training.groups_per_step or 1

    @property
    def pretrain_recipe(self) -> PretrainRecipe:
        """The recipe, parsed."""
        return parse_values(self.recipe, PretrainRecipe, origin=f"recipe of run {self.name}")

    def refuse_other_recipe(self, recipe: PretrainRecipe) -> None:
        """Refuse to go on with another recipe; what `--plan` reckons with is not part of it.

        Raises:
            TrainingError: a setting differs from the one that the run was begun with.
        """
        # Both are parsed by the code of today: settings that came since then have their defaults.
        given, begun = (
            flat(each.model_dump(mode="json", exclude={"plan"}))
            for each in (recipe, self.pretrain_recipe)
        )
        differing = sorted(key for key in given | begun if given.get(key) != begun.get(key))
        if differing:
            key = differing[0]
            raise TrainingError(
                f"the run {self.name} was begun with {key} = {begun.get(key)!r}, the recipe now "
                f"says {given.get(key)!r} ({len(differing)} settings differ); give it another name"
            )


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is made."""
        self.path = path

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def left_out(self) -> Path:
        """The file of steps that updated nothing."""
        return self.path / "left-out.jsonl"

    def read(self) -> Run | None:
        """What the run was started with; None before its first start.

        Raises:
            TrainingError: run.json is something else.
        """
        path = self.path / "run.json"
        if not path.exists():
            return None
        try:
            return Run(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise TrainingError(
                f"{path}: {error}; remove {self.path} to start this run anew"
            ) from error

    def write(self, run: Run) -> None:
        """Write what the run was started with."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._write_json("run.json", asdict(run))

    def set_state(self, state: State) -> None:
        """Write where the run stands."""
        if (run := self.read()) is not None:
            self.write(replace(run, state=state))

    def set_precision(self, precision: str) -> None:
        """Write what the recipe's precision came to, for every launch after this one."""
        if (run := self.read()) is not None:
            self.write(replace(run, precision=precision))

    def freeze_genes(self, vocabulary: Vocabulary, medians: MediansSet) -> None:
        """Keep vocabulary and medians for every launch of the run."""
        write_durably(self.path / "vocabulary.json", vocabulary.to_json().encode())
        write_durably(self.path / "medians.json", medians.to_json().encode())

    def genes(self) -> tuple[Vocabulary, MediansSet]:
        """The frozen vocabulary and medians."""
        vocabulary = (self.path / "vocabulary.json").read_text(encoding="utf-8")
        medians = (self.path / "medians.json").read_text(encoding="utf-8")
        return Vocabulary.from_json(vocabulary), MediansSet.from_json(medians)

    # ------------------------------------------------------------- one launch

    def begin_launch(self) -> None:
        """Forget how the launch before ended."""
        for path in (*self.path.glob("record-*.json"), *self._flags()):
            path.unlink(missing_ok=True)
        self._write_json("launch.json", {"time": time.time()})

    def launched_at(self) -> float:
        """When the launch began, in seconds of the wall clock; now, where nobody launched it."""
        launch = self._read_json("launch.json")
        return float(launch["time"]) if launch else time.time()

    def ask_to_stop(self) -> None:
        """Ask the workers to stop after the step they are in."""
        (self.path / "stop").touch()

    def is_asked_to_stop(self) -> bool:
        """Whether the workers are asked to stop."""
        return (self.path / "stop").exists()

    def write_record(self, rank: int, record: Mapping[str, object]) -> None:
        """Keep what a worker says it is."""
        self._write_json(f"record-{rank}.json", record)

    def records(self) -> list[dict[str, Any]]:
        """What the workers of the last launch say they are, by rank."""
        paths = sorted(self.path.glob("record-*.json"), key=lambda p: int(p.stem.split("-")[1]))
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]

    def write_end(self, step: int, why: str) -> None:
        """Say how the launch ended."""
        self._write_json("end.json", {"step": step, "why": why})

    def end(self) -> dict[str, Any] | None:
        """How the last launch ended; None where it did not end by itself."""
        return self._read_json("end.json")

    def write_failure(self, kind: str, message: str) -> None:
        """Keep an error of ours for the driver: the first one is the cause."""
        if not (self.path / "failure.json").exists():
            self._write_json("failure.json", {"kind": kind, "message": message})

    def failure(self) -> dict[str, Any] | None:
        """The first error of ours in the last launch."""
        return self._read_json("failure.json")

    # --------------------------------------------------------------- metrics

    def add_metrics(self, metrics: Mapping[str, float]) -> None:
        """Add a report."""
        path = self.path / "metrics.jsonl"
        with storing_in(self.path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")

    def metrics(self) -> list[dict[str, float]]:
        """All reports so far, each step once; a line cut short by a crash is left out."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def add_left_out(self, steps: Sequence[int], cell_ids: Sequence[int]) -> None:
        """Note steps that updated nothing, and the cells of the packs whose loss was not finite."""
        note = {"steps": list(steps), "cell_ids": list(cell_ids)}
        with self.left_out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(note) + "\n")

    def forget_metrics_after(self, step: int) -> None:
        """Drop the reports of steps that will be done again."""
        kept = [m for m in self.metrics() if m["step"] <= step]
        text = "".join(json.dumps(m) + "\n" for m in kept)
        write_durably(self.path / "metrics.jsonl", text.encode())

    def told(self) -> dict[str, int]:
        """How far the tracking store was told: `step`, and lines of each file of samples."""
        return self._read_json("told.json") or {}

    def set_told(self, told: Mapping[str, int]) -> None:
        """Note how far the tracking store was told."""
        self._write_json("told.json", told)

    def add_sample(self, node: str, sample: Mapping[str, float]) -> None:
        """Add what a node is doing."""
        path = self.path / f"system-{node}.jsonl"
        with storing_in(self.path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(sample) + "\n")

    # -------------------------------------------------- what the tracking store is owed

    def write_opening(self, opening: Mapping[str, object]) -> None:
        """Keep what the tracking store is to be told of the run's start."""
        self._write_json("opening.json", opening)

    def opening(self) -> dict[str, Any] | None:
        """What the tracking store has still to be told of the start; None once it was."""
        return self._read_json("opening.json")

    def forget_opening(self) -> None:
        """Note that the tracking store was told of the start."""
        (self.path / "opening.json").unlink(missing_ok=True)

    def owe(self, status: str) -> None:
        """Note how the launch ended, until the tracking store was told."""
        self._write_json("owed.json", {"status": status})

    def owed(self) -> Any:
        """The status that the tracking store has still to be told; None where it was."""
        owed = self._read_json("owed.json")
        return owed["status"] if owed else None

    def settle(self) -> None:
        """Note that the tracking store was told of the end."""
        (self.path / "owed.json").unlink(missing_ok=True)

    # --------------------------------------------------------------- one at a time

    @contextmanager
    def held(self) -> Generator[None]:
        """Hold the run for one command; another command with the same name is refused.

        Raises:
            TrainingError: another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise TrainingError(
                    f"the run {self.path.name} is being trained by another process; wait for it, "
                    "or give this one another name"
                ) from error
            yield

    def _flags(self) -> list[Path]:
        return [self.path / name for name in ("end.json", "failure.json", "stop", "owed.json")]

    def _write_json(self, name: str, values: Mapping[str, object]) -> None:
        write_durably(self.path / name, json.dumps(values, indent=2).encode())

    def _read_json(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
