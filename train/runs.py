"""A run's folder: what it was started with, where it stands, what it has said so far.

    run.json                          recipe, corpus, snapshot, tracking id, state
    vocabulary.json, medians.json     frozen at the first start
    checkpoints/step-*                see `checkpoints.py`
    metrics.jsonl                     one line a report, each step once
    left-out.jsonl                    steps that updated nothing, and the cells that they had
    record-0.json, record-1.json ...  what each worker says it is
    launch.json                       the last launch: its id, and when it began
    launches.jsonl                    every launch, and the settings that it had otherwise
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
import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..corpus.medians import MediansSet
from ..corpus.vocabularies import Vocabulary
from ..platform.configuration import parse_values
from ..platform.errors import TrainingError, VocabularyError
from ..platform.storage import write_durably
from .launches import MAY_CHANGE, Changes, changes
from .lines import add_line, rows_of
from .recipe import PretrainRecipe

State = Literal["running", "stopped", "finished"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What a run was started with, and its state.

    Attributes:
        name: of the run and its folder.
        recipe: the recipe, whole, as the last launch had it.
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
        vocabulary_digest: the vocabulary it was begun with; empty in runs begun before it was kept.
        medians_digest: the medians, likewise.
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
    vocabulary_digest: str = ""
    medians_digest: str = ""

    @property
    def step_groups(self) -> int:
        """Groups of cells in one optimizer step."""
        return self.groups_per_step or self.pretrain_recipe.training.groups_per_step or 1

    @property
    def pretrain_recipe(self) -> PretrainRecipe:
        """The recipe, parsed."""
        return parse_values(self.recipe, PretrainRecipe, origin=f"recipe of run {self.name}")

    def going_on_with(self, recipe: PretrainRecipe) -> tuple["Run", Changes]:
        """The run under a recipe that differs in what may change, and how it differs.

        Raises:
            TrainingError: a setting differs that decides cells, order or loss; or there are more
                workers than groups in a step.
        """
        differing = changes(self.pretrain_recipe, recipe)
        refused = [key for key in differing if key not in MAY_CHANGE]
        if refused:
            key, (before, now) = refused[0], differing[refused[0]]
            raise TrainingError(
                f"the run {self.name} was begun with {key} = {before!r}, the recipe now "
                f"says {now!r} ({len(refused)} settings differ that decide what is learnt); "
                "give it another name"
            )
        if recipe.engine.workers > self.step_groups:
            raise TrainingError(
                f"a step of the run {self.name} is {self.step_groups} groups of cells, and "
                f"{recipe.engine.workers} workers need one each; expected engine.workers = "
                f"{self.step_groups} or fewer"
            )
        return replace(self, recipe=recipe.model_dump(mode="json")), differing

    def refuse_other_genes(self, folder: Path, vocabulary: Vocabulary, medians: MediansSet) -> None:
        """Refuse genes that are not those the run was begun with.

        Raises:
            VocabularyError: the digest of one of the two is another.
        """
        for name, found, begun in (
            ("vocabulary", vocabulary.digest, self.vocabulary_digest),
            ("medians", medians.digest, self.medians_digest),
        ):
            if begun and found != begun:
                raise VocabularyError(
                    f"{folder / name}.json: holds {found:.12}, the run {self.name} was begun with "
                    f"{begun:.12}; put the file of before back, or remove {folder} to begin anew"
                )


class RunFolder:
    """The files of one run.

    A worker of a launch that is over may live on where its driver was lost. It says by which
    launch it was started, and is refused whatever it would write once there is a later one.
    """

    def __init__(self, path: Path, launch: str | None = None) -> None:
        """Name the folder; nothing is made. `launch`: whose worker this is; None for no worker."""
        self.path, self.worker_of = path, launch

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
        self.refuse_other_launch()
        if (run := self.read()) is not None:
            self.write(replace(run, precision=precision))

    def freeze_genes(self, vocabulary: Vocabulary, medians: MediansSet) -> None:
        """Keep vocabulary and medians for every launch of the run."""
        write_durably(self.path / "vocabulary.json", vocabulary.to_json().encode())
        write_durably(self.path / "medians.json", medians.to_json().encode())

    def genes(self) -> tuple[Vocabulary, MediansSet]:
        """The frozen vocabulary and medians."""
        return genes_in(self.path)

    # ------------------------------------------------------------- one launch

    def begin_launch(self, changed: Changes | None = None) -> str:
        """Forget how the launch before ended; gives the new one's id.

        Args:
            changed: the settings that the launch before had otherwise.
        """
        launch = {"id": uuid.uuid4().hex[:12], "time": time.time()}
        self._write_json("launch.json", launch)
        for path in (*self.path.glob("record-*.json"), *self._flags()):
            path.unlink(missing_ok=True)
        add_line(self.path / "launches.jsonl", {**launch, "changed": changed or {}})
        return str(launch["id"])

    def launches(self) -> list[dict[str, Any]]:
        """Every launch: `id`, `time`, and `changed`: the settings it had otherwise, with both."""
        return rows_of(self.path / "launches.jsonl")

    def launch(self) -> str | None:
        """The id of the last launch; None before the first one."""
        launch = self._read_json("launch.json")
        return launch.get("id") if launch else None

    def refuse_other_launch(self) -> None:
        """Refuse to write for a launch that is over.

        Raises:
            TrainingError: the run was launched again since this worker began.
        """
        if self.worker_of is not None and (newest := self.launch()) != self.worker_of:
            raise TrainingError(
                f"the run {self.path.name} was launched again ({newest}): this worker is of the "
                f"launch {self.worker_of} before it, ends here and writes nothing more"
            )

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
        self.refuse_other_launch()
        self._write_json(f"record-{rank}.json", record)

    def records(self) -> list[dict[str, Any]]:
        """What the workers of the last launch say they are, by rank."""
        paths = sorted(self.path.glob("record-*.json"), key=lambda p: int(p.stem.split("-")[1]))
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]

    def write_end(self, step: int, why: str) -> None:
        """Say how the launch ended."""
        self.refuse_other_launch()
        self._write_json("end.json", {"step": step, "why": why})

    def end(self) -> dict[str, Any] | None:
        """How the last launch ended; None where it did not end by itself."""
        return self._read_json("end.json")

    def write_failure(self, kind: str, message: str) -> None:
        """Keep an error of ours for the driver: the first one is the cause."""
        self.refuse_other_launch()
        if not (self.path / "failure.json").exists():
            self._write_json("failure.json", {"kind": kind, "message": message})

    def failure(self) -> dict[str, Any] | None:
        """The first error of ours in the last launch."""
        return self._read_json("failure.json")

    # --------------------------------------------------------------- metrics

    def add_metrics(self, metrics: Mapping[str, float]) -> None:
        """Add a report."""
        self.refuse_other_launch()
        add_line(self.path / "metrics.jsonl", metrics)

    def metrics(self) -> list[dict[str, float]]:
        """All reports so far, each step once; a line cut short by a crash is left out."""
        return rows_of(self.path / "metrics.jsonl")

    def add_left_out(self, steps: Sequence[int], cell_ids: Sequence[int]) -> None:
        """Note steps that updated nothing, and the cells of the packs whose loss was not finite."""
        self.refuse_other_launch()
        note = {"steps": list(steps), "cell_ids": list(cell_ids)}
        add_line(self.left_out, note)

    def forget_after(self, step: int) -> frozenset[int]:
        """Drop what was said of steps that will be done again.

        Returns:
            The later steps at which there was a report: where it was kept, or the tracking store
            was told of it.
        """
        self.refuse_other_launch()
        metrics = self.metrics()
        _write_lines(self.path / "metrics.jsonl", [m for m in metrics if m["step"] <= step])
        if self.left_out.exists():  # notes end where checkpoints do: none has steps on both sides
            kept = [note for note in rows_of(self.left_out) if max(note["steps"]) <= step]
            _write_lines(self.left_out, kept)
        reported = {int(m["step"]) for m in metrics} | {self.told().get("step", 0)}
        return frozenset(number for number in reported if number > step)

    def told(self) -> dict[str, int]:
        """How far the tracking store was told: `step`, and lines of each file of samples."""
        return self._read_json("told.json") or {}

    def set_told(self, told: Mapping[str, int]) -> None:
        """Note how far the tracking store was told."""
        self._write_json("told.json", told)

    def add_sample(self, node: str, sample: Mapping[str, float]) -> None:
        """Add what a node is doing."""
        self.refuse_other_launch()
        add_line(self.path / f"system-{node}.jsonl", sample)

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


def genes_in(folder: Path) -> tuple[Vocabulary, MediansSet]:
    """The vocabulary and medians that lie in a run's or checkpoint's folder."""
    vocabulary = (folder / "vocabulary.json").read_text(encoding="utf-8")
    medians = (folder / "medians.json").read_text(encoding="utf-8")
    return Vocabulary.from_json(vocabulary), MediansSet.from_json(medians)


def _write_lines(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    write_durably(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
