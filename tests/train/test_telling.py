"""Telling: the tracking store may go away; nothing waits for it, nothing is told twice or lost."""

import io
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import TrackingError, TrainingError
from cytolake.platform.progress import progress
from cytolake.platform.settings import Settings
from cytolake.platform.tracking import MemoryTracker
from cytolake.train import telling
from cytolake.train.engines import TorchEngine
from cytolake.train.job import PretrainResult, pretrain
from cytolake.train.lines import Tail
from cytolake.train.runs import RunFolder
from cytolake.train.telling import Sender, Watching, note_of
from rich.console import Console

from .corpora import small_corpus
from .tiny_runs import recipe

STEPS = list(range(1, 21))
ROW = {
    "loss": 2.5,
    "accuracy": 0.25,
    "mask_accuracy": 0.125,
    "cells_per_s": 10.0,
    "tokens_per_s": 12345.6,
    "data_wait": 0.01,
    "learning_rate": 1e-3,
    "gradient_norm": 0.5,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("telling") / "corpus")


@dataclass(slots=True)
class FarTracker(MemoryTracker):
    """A store that some calls do not reach: those whose number, from 1, is among them."""

    lost: range = field(default_factory=lambda: range(0))
    n_calls: int = 0

    def _call(self) -> None:
        self.n_calls += 1
        if self.n_calls in self.lost:
            raise TrackingError("the tracking store memory: cannot be told: nobody is there")

    def log_parameters(self, parameters: Mapping[str, object]) -> None:
        self._call()
        MemoryTracker.log_parameters(self, parameters)

    def log_metrics(
        self, metrics: Mapping[str, float], step: int = 0, when: float | None = None
    ) -> None:
        self._call()
        assert when is not None and abs(time.time() - when) < 600
        MemoryTracker.log_metrics(self, metrics, step)

    def resume(self) -> None:
        self._call()
        MemoryTracker.resume(self)

    def finish(self, status: str = "FINISHED") -> None:
        self._call()
        self.status = status


def train(corpus: Corpus, home: Path, tracker: MemoryTracker | None, **more: str) -> PretrainResult:
    return pretrain(
        str(corpus.folder),
        recipe(),
        Settings(home=home, **more),
        tracker=tracker,
        run_folder=home / "runs" / "run",
    )


def test_a_store_that_is_away_for_a_while_is_told_all_in_order_and_once(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(telling, "_INTERVAL_S", 0.01)
    tracker = FarTracker(lost=range(4, 9))
    result = train(corpus, tmp_path, tracker)
    assert [step for step, _ in tracker.metrics] == STEPS
    assert [values["loss"] for _, values in tracker.metrics] == [m["loss"] for m in result.metrics]
    assert tracker.status == "FINISHED" and "not told" not in result.message
    assert tracker.parameters["peak.origin"] and "cytolake.code" in tracker.tags


def test_a_store_that_stays_away_is_told_by_the_same_command_later(corpus: Corpus, tmp_path: Path):
    tracker = FarTracker(lost=range(1, 10_000))
    result = train(corpus, tmp_path, tracker)
    assert (result.status, result.step, len(result.metrics)) == ("finished", 20, 20)
    assert "20 reports after step 0 and the end, with model and curves" in result.message
    assert "nobody is there" in result.message and "the same command tells it" in result.message
    assert (tracker.status, tracker.metrics, tracker.parameters) == ("RUNNING", [], {})

    tracker.lost = range(0)
    again = train(corpus, tmp_path, tracker)
    assert again.status == "already finished" and "was told the rest" in again.message
    assert [step for step, _ in tracker.metrics] == STEPS
    assert tracker.status == "FINISHED" and len(tracker.datasets) == 1
    assert tracker.parameters["training.cells_per_step"] == 20
    assert result.checkpoint is not None
    names = {path.name for path in result.checkpoint.iterdir()}
    assert set(tracker.folders["model"]) == names - {"training.safetensors"}
    assert "plots/training.png" in tracker.figures
    n_calls = tracker.n_calls
    assert train(corpus, tmp_path, tracker).message.endswith("is trained already")
    assert tracker.n_calls == n_calls


def test_a_step_that_was_told_but_not_noted_is_not_told_again(tmp_path: Path):
    folder = RunFolder(tmp_path)
    tracker = MemoryTracker(metrics=[(step, {"loss": 1.0}) for step in (1, 2, 3)])
    for step in (1, 2, 3, 4):
        folder.add_metrics({"step": step, "loss": 1.0, "time": time.time()})
    folder.set_told({"step": 2})  # a kill came between telling the third and noting it
    assert Sender(folder, tracker).finish() is None
    assert [step for step, _ in tracker.metrics] == [1, 2, 3, 4]
    assert folder.told()["step"] == 4


def test_samples_of_every_node_are_told_once_each(tmp_path: Path):
    folder, tracker = RunFolder(tmp_path), MemoryTracker()
    for node in ("a", "b"):
        for value in (10.0, 20.0):
            folder.add_sample(node, {f"system/{node}/cpu": value, "time": time.time()})
    assert Sender(folder, tracker).finish() is None
    assert Sender(folder, tracker).finish() is None
    told = [(step, *values.items()) for step, values in tracker.metrics]
    assert told == [
        (number, (f"system/{node}/cpu", value))
        for node in ("a", "b")
        for number, value in enumerate((10.0, 20.0))
    ]


def test_a_torn_sample_is_left_out_and_the_others_keep_their_numbers(tmp_path: Path):
    folder, tracker = RunFolder(tmp_path), MemoryTracker()
    folder.add_sample("a", {"cpu": 10.0, "time": 1.0})
    with (tmp_path / "system-a.jsonl").open("a") as file:
        file.write('{"cpu": 2')
    sender = Sender(folder, tracker)
    folder.add_sample("a", {"cpu": 30.0, "time": 1.0})
    folder.add_metrics({"step": 1, "loss": 1.0})
    folder.owe("FINISHED")
    assert sender.finish() is None
    assert tracker.metrics == [(1, {"loss": 1.0}), (0, {"cpu": 10.0}), (2, {"cpu": 30.0})]
    assert tracker.status == "FINISHED"


def test_cells_are_told_once_though_reports_fall_on_other_steps_the_second_time(
    corpus: Corpus, tmp_path: Path
):
    tracker, place = MemoryTracker(), tmp_path / "runs" / "run"

    def go(**training: float) -> PretrainResult:
        given, settings = recipe(training=training), Settings(home=tmp_path)
        return pretrain(str(corpus.folder), given, settings, tracker=tracker, run_folder=place)

    step, n_steps = TorchEngine.step, 0

    def lost(engine: TorchEngine, learning_rate: float) -> object:
        nonlocal n_steps
        n_steps += 1
        if n_steps == 17:
            raise RuntimeError("the machine is gone")
        return step(engine, learning_rate)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(TrainingError, match="is gone"):
        patch.setattr(TorchEngine, "step", lost)
        go(log_seconds=0)
    assert [number for number, _ in tracker.metrics] == list(range(1, 17))
    result = go(log_seconds=1e9)
    assert result.records[0]["resumed_at_step"] == 12
    steps = [*range(1, 17), 18, 20]
    assert [number for number, _ in tracker.metrics] == steps
    assert [m["step"] for m in result.metrics] == steps
    for reports in ([values for _, values in tracker.metrics], result.metrics):
        assert sum(report["n_cells"] for report in reports) == 20 * 20


def test_a_file_is_read_as_it_grows_and_anew_where_it_was_written_anew(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.lines() == []
    path.write_text('{"step": 1}\n{"st')
    assert tail.lines() == [{"step": 1}]
    with path.open("a") as file:
        file.write('ep": 2}\n')
    assert tail.lines() == [{"step": 2}]
    assert tail.lines() == []
    anew = tmp_path / "anew"
    anew.write_text('{"step": 9}\n')
    anew.rename(path)
    assert tail.lines() == [{"step": 9}]


def test_a_terminal_sees_the_numbers_the_passed_over_checkpoint_and_the_outage(tmp_path: Path):
    folder, tracker = RunFolder(tmp_path), MemoryTracker()
    sender, screen = Sender(folder, tracker), io.StringIO()
    console = Console(file=screen, force_terminal=True, width=260)
    folder.write_record(0, {"rank": 0, "resumed_at_step": 8, "passed_over": ["step-9 was cut"]})
    folder.add_metrics({**ROW, "step": 8, "loss": 7.0})
    folder.add_metrics({**ROW, "step": 10, "mfu": 0.314, "validation_loss": 2.75})
    with progress("pretrain", 20, "steps", console=console) as bar:
        watching = Watching(folder, bar, sender)
        sender.trouble = "the store is gone"
        watching.look()
        sender.trouble = None
        watching.look()
    seen = screen.getvalue()
    assert "10/20" in seen and "loss 2.500 (held out 2.750)" in seen and "MFU 31.4 %" in seen
    assert "filled" not in seen
    assert "filled 73 %" in note_of({**ROW, "filled": 0.731})
    assert "12,346 tokens/s" in seen and "lr 1.0e-03" in seen and "wait 1.0 %" in seen
    assert "step-9 was cut" in seen and "loss 7.000" not in seen
    assert "the store is gone; training goes on" in seen and "is told again" in seen


def test_a_note_leaves_out_what_was_not_measured():
    assert note_of({**ROW, "memory_gb": 0.0}).endswith("norm 0.50")
    assert "MFU" not in note_of(ROW)
    assert "<mask> 12.5 %  chosen 25.0 %" in note_of(ROW)
    older = {name: value for name, value in ROW.items() if name != "mask_accuracy"}
    assert "<mask>" not in note_of(older)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_store_out_of_reach_at_the_first_start_ends_it_before_anything_begins(
    corpus: Corpus, tmp_path: Path
):
    began = time.monotonic()
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1.*cannot be told.*CYTOLAKE_TRACKING"):
        train(corpus, tmp_path, None, tracking=f"http://127.0.0.1:{free_port()}")
    assert time.monotonic() - began < 60
    assert not (tmp_path / "runs" / "run" / "run.json").exists()
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
