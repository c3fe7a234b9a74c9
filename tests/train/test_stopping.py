"""How a command ends that was stopped: what it says, its exit status, and what the store knows."""

import os
import shlex
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cytolake.corpus.store import Corpus
from cytolake.platform.configuration import flat
from cytolake.platform.errors import TrackingError
from cytolake.platform.settings import Settings
from cytolake.platform.tracking import MemoryTracker
from cytolake.train import job
from cytolake.train.retention import checkpoints_in

from .corpora import small_corpus
from .tiny_runs import TABLES, Go, recipe, runner

Run = Callable[..., tuple[int, str, str]]  # `run` of the tests' conftest.py


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("stopping") / "corpus")


@pytest.fixture
def go(corpus: Corpus, tmp_path: Path) -> Go:
    return runner(corpus, tmp_path)


def write_recipe(path: Path) -> None:
    tables: dict[str, dict[str, object]] = {
        **TABLES,
        "training": {**TABLES["training"], "steps": 3000, "log_seconds": 0.5},
        "checkpoints": {"every_steps": 20},
    }
    lines = ["name = 'small'"]
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{key} = {value!r}" for key, value in values.items())]
    path.write_text("\n".join(lines))


def signal_soon(folder: Path, number: int) -> threading.Thread:
    """Send a signal to this process when there is one more checkpoint."""
    before = {place.name for place in checkpoints_in(folder)}

    def wait() -> None:
        while not {place.name for place in checkpoints_in(folder)} - before:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.timeout(300)
def test_a_stopped_command_says_its_own_line_and_why_it_ended(
    run: Run, corpus: Corpus, tmp_path: Path
):
    from mlflow import MlflowClient

    write_recipe(tmp_path / "small recipe.toml")
    words = ["pretrain", "small recipe.toml", "--corpus", str(corpus.folder)]
    folder = tmp_path / "home" / "runs" / "small"
    for number, expected in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        sender = signal_soon(folder / "checkpoints", number)
        status, shown, _ = run(*words)
        sender.join()
        assert status == expected
        assert f"to go on: {shlex.join(['cytolake', *words])}" in shown
    late = [*words, "--set", "training.max_hours=1e-9"]
    status, shown, _ = run(*late)
    assert status == 75
    assert "training.max_hours = 1e-09 hours are over" in shown
    assert f"to go on: {shlex.join(['cytolake', *late])}" in shown

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/home/mlflow.db")
    [found] = client.search_runs(["1"])
    assert found.info.status == "KILLED"
    assert found.data.tags["changed"].endswith("training.max_hours None -> 1e-09")
    assert [item.path for item in client.list_artifacts(found.info.run_id, "plots")] == [
        "plots/training.png"
    ]
    status, _, said = run(*words, "--set", "training.steps=7")
    assert status == 1 and "give it another name" in said


def test_the_command_of_a_job_is_its_senders(monkeypatch: pytest.MonkeyPatch):
    from cytolake.options import COMMAND, command_line

    monkeypatch.setattr("sys.argv", ["/a/b/__main__.py", "pretrain", "my recipe.toml"])
    assert command_line() == "cytolake pretrain 'my recipe.toml'"
    monkeypatch.setenv(COMMAND, "cytolake submit -- pretrain small.toml")
    assert command_line() == "cytolake submit -- pretrain small.toml"


def interrupt_preparing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while cells and genes are being looked at."""

    def prepare(*_: object, **__: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
        raise AssertionError("no signal came")

    monkeypatch.setattr(job, "prepare", prepare)


def test_a_start_that_is_interrupted_while_it_prepares_leaves_no_run_behind(
    corpus: Corpus, tmp_path: Path
):
    from mlflow import MlflowClient

    settings = Settings(home=tmp_path)

    def go() -> job.PretrainResult:
        return job.pretrain(str(corpus.folder), recipe(training={"steps": 2}), settings)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_preparing(patch)
        go()
    client = MlflowClient(tracking_uri=settings.tracking_uri)
    assert client.search_runs([e.experiment_id for e in client.search_experiments()]) == []
    result = go()
    [found] = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert (found.info.run_id, found.info.status) == (result.run_id, "FINISHED")
    names = {item.path for item in client.list_artifacts(result.run_id, "model")}
    assert result.checkpoint is not None
    kept = {f"model/{path.name}" for path in result.checkpoint.iterdir()}
    assert names == kept - {"model/training.safetensors"}
    place = client.download_artifacts(result.run_id, "model", str(tmp_path))
    from cytolake.train.checkpoints import load_checkpoint

    assert load_checkpoint(place).info == load_checkpoint(result.run_folder).info


def test_a_tracker_that_was_given_is_told_of_an_interrupt(
    go: Go, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    interrupt_preparing(monkeypatch)
    tracker = MemoryTracker()
    with pytest.raises(KeyboardInterrupt):
        job.pretrain(str(corpus.folder), recipe(), Settings(home=tmp_path), tracker=tracker)
    assert tracker.status == "KILLED"


def test_a_second_interrupt_is_sharp_and_the_run_is_marked(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from cytolake.train import telling

    folder = job.run_folder_of(Settings(home=tmp_path), "small")
    given = recipe(training={"steps": 100_000}, checkpoints={"every_steps": 50})
    sender = signal_soon(folder / "checkpoints", signal.SIGINT)
    look = telling.Watching.look

    def again(watching: telling.Watching) -> None:
        look(watching)
        if (folder / "stop").exists():  # the worker is asked; nobody waits for it
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(telling.Watching, "look", again)
    tracker = MemoryTracker()
    with pytest.raises(KeyboardInterrupt):
        job.pretrain(str(corpus.folder), given, Settings(home=tmp_path), tracker=tracker)
    sender.join()
    assert tracker.status == "KILLED"


def test_settings_of_a_launch_are_told_once_and_a_change_as_a_tag(go: Go):
    _, tracker = go(recipe(training={"steps": 3, "max_hours": 1e-9}))
    assert tracker.parameters["training.max_hours"] == 1e-9
    assert set(flat(recipe().model_dump(mode="json"))) <= set(tracker.parameters)
    assert "changed" not in tracker.tags


def test_a_store_that_refuses_files_knows_that_the_run_is_finished(go: Go, tmp_path: Path):
    class NoFiles(MemoryTracker):
        def log_folder(self, path: Path, folder: str) -> None:
            raise TrackingError("no room for files")

    result, tracker = go(recipe(training={"steps": 2}))
    from cytolake.train.runs import RunFolder
    from cytolake.train.telling import Sender

    folder, refusing = RunFolder(result.run_folder), NoFiles()
    folder.owe("FINISHED")
    left = Sender(folder, refusing, goes_on=False).finish()
    assert left is not None and "no room for files" in left
    assert refusing.status == "FINISHED" and folder.owed() == "FINISHED"
    assert Sender(folder, tracker, goes_on=False).finish() is None
    assert folder.owed() is None
