"""Ray Train: a recipe and a corpus in, a checkpoint and a tracked run out. Knows no model.

The driver prepares the run's folder, starts the workers, passes their reports on to tracker and
terminal, and turns SIGINT and SIGTERM into a checkpoint. The same call again goes on where the
newest complete checkpoint stands, also after kill -9. One worker with the plain torch engine runs
in this process, without Ray.
"""

import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from rich.console import Console

from ..corpus.store import Corpus
from ..platform import errors
from ..platform.errors import CytolakeError, TrackingError, TrainingError
from ..platform.places import absolute_uri
from ..platform.progress import progress
from ..platform.screen import remarks
from ..platform.session import ray_session
from ..platform.settings import Settings
from ..platform.tracking import Tracker, impatient, known_run, open_run, refuse_unreachable
from .advice import advice_of
from .checkpoints import read_info
from .devices import gpus_expected, refuse_on_this_machine, wants_gpus
from .feeding import plan_for
from .filling import may_be_static
from .launches import Changes
from .opening import opening_of
from .preparing import Prepared, prepare
from .recipe import PretrainRecipe
from .retention import newest_checkpoint
from .runs import Run, RunFolder
from .starting import keep_start
from .telling import Sender, Watching, in_background
from .validation import validation_selection
from .worker import selection_of, work


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainResult:
    """How a pretraining ended.

    Attributes:
        status: `finished`, `stopped` (asked to, with a checkpoint where a step was done), or
            `already finished` (by an earlier call; nothing was done).
        run_id: the run in the tracking store.
        run_folder: the run's folder.
        checkpoint: the newest checkpoint; None where a run was stopped before its first step.
        step: optimizer steps done.
        metrics: all reports, oldest first: see `loop.Metrics`.
        records: what each worker said it is: pid, engine, ZeRO stage, ...
        message: one line for the terminal; for a stopped run, how it goes on.
        exit_status: what a command that ends so says: 0, or why it was stopped, as
            docs/compatibility.md lists it.
    """

    status: Literal["finished", "stopped", "already finished"]
    run_id: str
    run_folder: Path
    checkpoint: Path | None
    step: int
    metrics: list[dict[str, float]]
    records: list[dict[str, Any]]
    message: str
    exit_status: int


_GO_ON_LATER = 75
"""The exit status of a run that stopped without a signal: EX_TEMPFAIL of sysexits.h."""


def run_folder_of(settings: Settings, name: str) -> Path:
    """Where a run of that name lives."""
    return settings.home / "runs" / name


def previous_run_id(run_folder: Path) -> str | None:
    """The tracking id of a run that was begun and not finished: go on in it, with `open_run`."""
    run = RunFolder(run_folder).read()
    return run.run_id if run is not None and run.state != "finished" else None


def pretrain(
    corpus_uri: str,
    recipe: PretrainRecipe,
    settings: Settings,
    *,
    tracker: Tracker | None = None,
    run_folder: Path | None = None,
    parent: str | None = None,
    snapshot: int | str | None = None,
    console: Console | None = None,
    command: str = "the same command",
) -> PretrainResult:
    """Pretrain a model as a recipe says, or go on with it.

    Args:
        corpus_uri: the corpus.
        recipe: all that decides the run.
        settings: where resources are found and runs live.
        tracker: an open run, told everything and finished here; where None a new one, or the one
            that was begun before.
        run_folder: the run's own folder, its name the run's; by the recipe's name where None.
        parent: id of the run that a new one is nested in.
        snapshot: its number or tag; where None the newest, or that of the run begun before.
        console: where progress is shown.
        command: what the user would type to resume.

    Raises:
        RecipeError: the devices cannot do what the recipe asks.
        TrainingError: the folder holds another run, another process trains it, workers are lost
            more often than the recipe allows, or the loss is no number.
        CytolakeError: whatever corpus, vocabulary and checkpoints have to say.
    """
    corpus_uri = absolute_uri(corpus_uri)  # workers have other working folders
    place = (run_folder or run_folder_of(settings, recipe.name)).absolute()
    folder = RunFolder(place)
    with folder.held(), impatient():
        begun = folder.read()
        if begun is None and tracker is None:
            refuse_unreachable(settings.tracking_uri)
        if begun is not None:
            begun.going_on_with(recipe)  # or it is refused, before anything is touched
            _refuse_other_cells(begun, corpus_uri, snapshot)
            if begun.state == "finished":
                return _tell_the_rest(folder, begun, settings, tracker)
            tracker = tracker or known_run(settings.tracking_uri, begun.run_id)
        if settings.address is None:
            refuse_on_this_machine(recipe, in_process=_in_this_process(recipe))
        try:
            run = begun or _begin(folder, corpus_uri, recipe, settings, snapshot)
            if tracker is None:  # opened last: nobody has to end it if preparing is cut short
                tracker = open_run(settings.tracking_uri, place.name, parent=parent)
            if begun is None:
                run = replace(run, run_id=tracker.run_id)
                folder.write(run)  # from here on the run can be gone on with
            run, changed = run.going_on_with(recipe)
            return _launch(folder, run, changed, settings, tracker, console, command)
        except BaseException as error:
            if tracker is not None:
                with suppress(TrackingError):  # the next launch says RUNNING in any case
                    tracker.finish("FAILED" if isinstance(error, Exception) else "KILLED")
            raise


def _tell_the_rest(
    folder: RunFolder, run: Run, settings: Settings, tracker: Tracker | None
) -> PretrainResult:
    """Of a finished run: tell the tracking store what it could not be told before."""
    message = f"{folder.path} is trained already"
    if folder.owed() is not None:
        known = tracker or known_run(settings.tracking_uri, run.run_id)
        left = Sender(folder, known, goes_on=False).finish()
        message += f"; {left or 'the tracking store was told the rest'}"
    return _result(folder, "already finished", message)


def _begin(
    folder: RunFolder,
    corpus_uri: str,
    recipe: PretrainRecipe,
    settings: Settings,
    snapshot: int | str | None,
) -> Run:
    """Prepare a run's folder, but for run.json; in the tracking store nothing is begun yet."""
    corpus = Corpus.open(corpus_uri, snapshot=snapshot)
    selection = selection_of(recipe, corpus)
    on_gpus = gpus_expected(settings.address)
    prepared = prepare(
        recipe, corpus, selection, settings, measure=on_gpus and may_be_static(recipe)
    )
    vocabulary, medians, start = prepared.vocabulary, prepared.medians, prepared.start
    if (measured := prepared.measured) is not None and measured.share < 1:
        remarks().print(measured.text, markup=False, soft_wrap=True)
    _advise(recipe, selection.n_cells, prepared, on_gpus=on_gpus)
    folder.freeze_genes(vocabulary, medians)
    moments = recipe.start.moments
    run = Run(
        name=folder.path.name,
        recipe=recipe.model_dump(mode="json"),
        corpus_uri=corpus_uri,
        corpus_uuid=corpus.uuid,
        snapshot=corpus.snapshot,
        selection_digest=selection.digest,
        n_cells=selection.n_cells,
        run_id="",
        groups_per_step=prepared.groups_per_step,
        tokens_per_cell=prepared.lengths.mean if prepared.lengths else 0.0,
        origin=keep_start(start, folder.path, moments=moments) if start else {},
        vocabulary_digest=vocabulary.digest,
        medians_digest=medians.digest,
    )
    data, uri = recipe.data, str(folder.path)
    held_out = validation_selection(recipe, corpus)
    folder.write_opening(opening_of(run, recipe, vocabulary, medians, held_out, prepared.remarks))
    corpus.record_use("pretrain", run.name, where=data.where, part=data.part, uri=uri)
    return run


def _advise(recipe: PretrainRecipe, n_cells: int, prepared: Prepared, *, on_gpus: bool) -> None:
    plan = plan_for(recipe.training, n_cells, prepared.groups_per_step)
    lengths = prepared.lengths.cells if prepared.lengths and on_gpus else ()
    for remark in advice_of(recipe, plan.n_steps, lengths):
        remarks().print(remark, markup=False, soft_wrap=True)


def _refuse_other_cells(run: Run, corpus_uri: str, snapshot: int | str | None) -> None:
    now = Corpus.open(corpus_uri, snapshot)
    if now.uuid != run.corpus_uuid or (snapshot is not None and now.snapshot != run.snapshot):
        raise TrainingError(
            f"the run {run.name} was begun on snapshot {run.snapshot} of {run.corpus_uri}, not on "
            f"snapshot {snapshot} of {corpus_uri}; give it another name"
        )


def _launch(
    folder: RunFolder,
    run: Run,
    changed: Changes,
    settings: Settings,
    tracker: Tracker,
    console: Console | None,
    command: str,
) -> PretrainResult:
    launch = folder.begin_launch(changed)
    folder.write(replace(run, state="running"))
    recipe = run.pretrain_recipe
    training = recipe.training
    plan = plan_for(training, run.n_cells, run.step_groups)
    sender = Sender(folder, tracker)
    sender.start()
    try:
        with (
            _stopping(folder) as heard,
            progress(f"pretrain {run.name}", plan.n_steps, "steps", console=console) as bar,
        ):
            work_of_all = _workers(folder, recipe, settings, launch)
            error = in_background(work_of_all, Watching(folder, bar, sender))
        end = folder.end()
        if end is None:
            raise _cause(folder, run, error)
    except CytolakeError:
        sender.finish()
        raise
    status: Literal["finished", "stopped"] = "finished" if end["why"] == "finished" else "stopped"
    folder.owe("FINISHED" if status == "finished" else "KILLED")
    folder.set_state(status)
    if status == "finished":
        message = f"{plan.n_steps} steps; model in {folder.path}"
    else:
        why = ""
        if end["why"] == "out of time":
            why = f": training.max_hours = {training.max_hours} hours are over"
        message = f"stopped at step {end['step']} of {plan.n_steps}{why}; to go on: {command}"
    if (left := sender.finish()) is not None:
        message += f"; {left}; the same command tells it"
    for remark in folder.records()[0]["passed_over"]:
        message += f"; {remark}"
    exit_status = 128 + heard[-1] if heard else _GO_ON_LATER
    return _result(folder, status, message, 0 if status == "finished" else exit_status)


def _workers(
    folder: RunFolder, recipe: PretrainRecipe, settings: Settings, launch: str
) -> Callable[[], object]:
    """What trains: this process, or Ray's workers."""
    if _in_this_process(recipe):
        return lambda: work(folder.path, launch)

    def fit() -> None:
        with ray_session(settings.address, n_cpus=None):
            _fit(folder.path, recipe, launch)

    return fit


def _in_this_process(recipe: PretrainRecipe) -> bool:
    return recipe.engine.kind == "torch" and recipe.engine.workers == 1


def _fit(folder: Path, recipe: PretrainRecipe, launch: str) -> None:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    n_workers = recipe.engine.workers
    has_gpus = wants_gpus(int(ray.cluster_resources().get("GPU", 0)), n_workers)
    trainer = TorchTrainer(
        _train_function,
        train_loop_config={"folder": str(folder), "launch": launch},
        scaling_config=ScalingConfig(
            num_workers=n_workers,
            use_gpu=has_gpus,
            resources_per_worker=None if has_gpus else {"CPU": 1},
        ),
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if has_gpus else "gloo"),
        run_config=RunConfig(
            # Ray resumes a run of a known name by itself: ours has its own checkpoints.
            name=f"{folder.name}-{uuid.uuid4().hex[:8]}",
            storage_path=str(folder / "ray"),
            failure_config=FailureConfig(max_failures=recipe.engine.retries),
        ),
    )
    try:
        trainer.fit()
    finally:
        shutil.rmtree(folder / "ray", ignore_errors=True)  # Ray's notes; nothing is resumed there


def _train_function(config: dict[str, str]) -> None:
    """What each of Ray's workers runs, on the device that Ray gave it."""
    from ray.train.torch import get_device

    from .worker import work

    work(Path(config["folder"]), config["launch"], get_device())


@contextmanager
def _stopping(folder: RunFolder) -> Generator[list[int]]:
    """SIGINT and SIGTERM ask the workers for a checkpoint and an end; a second SIGINT is sharp.

    Gives the numbers of the signals that were heard.
    """
    heard: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return

    def ask(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and folder.is_asked_to_stop():
            raise KeyboardInterrupt
        heard.append(number)
        folder.ask_to_stop()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _cause(folder: RunFolder, run: Run, error: Exception | None) -> CytolakeError:
    """Why the workers ended without an end: an error of ours, or what Ray says."""
    if isinstance(error, CytolakeError):
        return error
    failure = folder.failure()
    if failure is not None:
        kind = getattr(errors, failure["kind"], TrainingError)
        return kind(failure["message"])
    said = str(error).strip().splitlines() or ["the workers ended without a word"]
    failure = TrainingError(
        f"the run {run.name} lost its workers: {said[-1]:.300}; its checkpoints are kept, the same "
        "command goes on"
    )
    failure.__cause__ = error
    return failure


def _result(
    folder: RunFolder,
    status: Literal["finished", "stopped", "already finished"],
    message: str,
    exit_status: int = 0,
) -> PretrainResult:
    run = folder.read()
    if run is None:
        raise TrainingError(f"{folder.path}: run.json is gone")
    try:
        checkpoint = newest_checkpoint(folder.path)
        step = read_info(checkpoint).step
    except errors.CheckpointError:
        checkpoint, step = None, 0
    return PretrainResult(
        status=status,
        run_id=run.run_id,
        run_folder=folder.path,
        checkpoint=checkpoint,
        step=step,
        metrics=folder.metrics(),
        records=folder.records(),
        message=message,
        exit_status=exit_status,
    )
