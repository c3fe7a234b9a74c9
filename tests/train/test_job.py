import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import (
    CheckpointError,
    CorpusError,
    NoCellsError,
    TrainingError,
)
from cytolake.platform.settings import Settings
from cytolake.platform.tracking import MemoryTracker
from cytolake.train import loop
from cytolake.train.checkpoints import load_checkpoint
from cytolake.train.job import PretrainResult, pretrain, previous_run_id
from cytolake.train.retention import checkpoints_in
from transformers import BertForMaskedLM

from .corpora import small_corpus
from .tiny_runs import DEEPSPEED, Go, kept, recipe, runner


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("train") / "corpus")


@pytest.fixture
def run(corpus: Corpus, tmp_path: Path) -> Go:
    return runner(corpus, tmp_path)


def test_a_run_in_this_process_ends_in_a_checkpoint_and_a_full_record(run: Go, corpus: Corpus):
    result, tracker = run(recipe())
    assert (result.status, result.step, tracker.status) == ("finished", 20, "FINISHED")
    assert result.checkpoint is not None
    checkpoint = load_checkpoint(result.run_folder)
    assert checkpoint.info.corpus_uuid == corpus.uuid
    assert checkpoint.info.snapshot == corpus.snapshot
    assert checkpoint.info.n_cells == 120
    assert checkpoint.info.pretrain_recipe == recipe()
    assert checkpoint.vocabulary.size == 2 + 50  # coding genes only; lncRNA have medians too
    assert len(checkpoint.medians.gene_ids) == 60
    assert [step for step, told in tracker.metrics if "loss" in told] == list(range(1, 21))
    wanted = {"loss", "accuracy", "cells_per_s", "tokens_per_s", "data_wait", "learning_rate"}
    assert wanted | {"gradient_norm", "mask_accuracy", "eta_s"} <= set(tracker.metrics[0][1])
    assert tracker.parameters["training.cells_per_step"] == 20
    assert tracker.parameters["medians.digest"] == checkpoint.medians.digest
    assert tracker.datasets[0]["digest"] == checkpoint.info.selection_digest
    assert "model.safetensors" in tracker.folders["model"]
    assert result.records[0]["pid"] == os.getpid()
    assert result.records[0]["engine"] == "TorchEngine"
    here = {name: result.records[0][name] for name in ("device", "attention", "precision")}
    assert here == {"device": "cpu", "attention": "sdpa a cell", "precision": "fp32"}
    assert {metrics["filled"] for _, metrics in tracker.metrics if "loss" in metrics} == {1.0}


def test_a_run_is_on_record_in_the_corpus_once_however_often_it_is_called(run: Go, corpus: Corpus):
    corpus.tag("for-one-run")
    given = recipe(training={"steps": 2})
    for snapshot in ("for-one-run", "for-one-run", corpus.snapshot):
        result, _ = run(given, name="recorded", snapshot=snapshot)
    [use] = [use for use in corpus.uses() if use.name == "recorded"]
    assert (use.kind, use.snapshot, use.uri) == (
        "pretrain",
        corpus.snapshot,
        str(result.run_folder),
    )


def test_the_same_command_again_says_that_it_is_finished(run: Go):
    first, _ = run(recipe())
    again, tracker = run(recipe())
    assert again.status == "already finished"
    assert again.metrics == first.metrics
    assert tracker.metrics == []
    assert previous_run_id(first.run_folder) is None


def test_another_recipe_under_the_same_name_is_refused(run: Go):
    run(recipe())
    with pytest.raises(TrainingError, match=r"training\.seed = 42.*7.*another name"):
        run(recipe(training={"seed": 7}))


def test_no_cells_are_refused_and_the_run_is_marked(corpus: Corpus, tmp_path: Path):
    tracker = MemoryTracker()
    given, home = recipe(data={"where": "tissue = 'moon'"}), tmp_path / "home"
    with pytest.raises(NoCellsError):
        pretrain(str(corpus.folder), given, Settings(home=home), tracker=tracker)
    assert tracker.status == "FAILED"
    assert not (home / "runs" / "small" / "run.json").exists()


def test_a_part_of_the_split_is_all_that_is_seen(run: Go):
    split = {"kind": "donors", "fractions": {"pretrain": 0.5, "evaluate": 0.5}}
    result, _ = run(recipe(split=split, data={"part": "pretrain"}))
    info = load_checkpoint(result.run_folder).info
    assert info.n_cells == 60
    assert info.part == "pretrain"
    assert info.split is not None
    assert info.split.names == ["pretrain", "evaluate"]


def test_a_corpus_that_is_gone_is_named_and_nothing_is_lost(tmp_path: Path):
    corpus = small_corpus(tmp_path / "corpus", n_cells=40)
    run = runner(corpus, tmp_path)
    out_of_time = {"training": {"steps": 3, "max_hours": 1e-9}}
    begun, _ = run(recipe(**out_of_time))
    assert begun.status == "stopped"
    corpus.folder.rename(tmp_path / "elsewhere")
    with pytest.raises(CorpusError, match=str(corpus.folder)):
        run(recipe(**out_of_time))
    assert previous_run_id(begun.run_folder) == "memory"
    (tmp_path / "elsewhere").rename(corpus.folder)
    assert run(recipe(**out_of_time))[0].status == "stopped"


def test_a_launch_out_of_time_stops_with_a_checkpoint_and_the_next_one_goes_on(
    run: Go, monkeypatch: pytest.MonkeyPatch
):
    hours = {"training": {"max_hours": 0.5}}
    whole, _ = run(recipe(**hours), "whole")
    began, steps = time.monotonic(), 0

    class Clock:
        """A clock on which each look at it is two minutes later."""

        perf_counter = staticmethod(time.perf_counter)

        @staticmethod
        def monotonic() -> float:
            nonlocal steps
            steps += 1
            return began + 120 * steps

    monkeypatch.setattr(loop, "time", Clock)
    cut, tracker = run(recipe(**hours), "cut")
    assert (cut.status, tracker.status) == ("stopped", "KILLED")
    assert 0 < cut.step < 20 and cut.checkpoint is not None
    assert "training.max_hours = 0.5 hours are over; to go on: the same command" in cut.message
    steps = -10_000
    again, _ = run(recipe(**hours), "cut")
    assert (again.status, again.records[0]["resumed_at_step"]) == ("finished", cut.step)
    expected = kept(whole)
    for name, value in kept(again).items():
        assert torch.equal(value, expected[name]), name


def test_a_run_that_was_begun_goes_on_while_the_tracking_store_is_away(
    corpus: Corpus, tmp_path: Path
):
    place = tmp_path / "runs" / "run"
    local = Settings(home=tmp_path)
    given = recipe(training={"steps": 3, "max_hours": 1e-9})
    begun = pretrain(str(corpus.folder), given, local, tracker=MemoryTracker(), run_folder=place)
    assert begun.status == "stopped"
    away = Settings(home=tmp_path, tracking="http://127.0.0.1:9")  # nobody listens there
    again = pretrain(str(corpus.folder), given, away, run_folder=place)
    assert again.status == "stopped" and "the same command tells it" in again.message


def stop_when_a_checkpoint_is_there(folder: Path) -> threading.Thread:
    def wait() -> None:
        while not checkpoints_in(folder / "checkpoints"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_sigterm_leaves_a_checkpoint_and_the_same_command_ends_with_the_same_bits(
    run: Go, tmp_path: Path
):
    long = {"steps": 200}
    whole, _ = run(recipe(training=long), "whole")
    stopper = stop_when_a_checkpoint_is_there(tmp_path / "runs" / "cut")
    cut, tracker = run(recipe(training=long), "cut")
    stopper.join()
    assert (cut.status, tracker.status) == ("stopped", "KILLED")
    assert 6 <= cut.step < 200
    assert "to go on: the same command" in cut.message
    assert previous_run_id(cut.run_folder) == "memory"
    resumed, later = run(recipe(training=long), "cut")
    assert resumed.status == "finished"
    assert resumed.records[0]["resumed_at_step"] == cut.step
    expected = kept(whole)
    for name, value in kept(resumed).items():
        assert torch.equal(value, expected[name]), name
    losses = [(m["step"], m["loss"]) for m in resumed.metrics]
    assert losses == [(m["step"], m["loss"]) for m in whole.metrics]
    told = tracker.metrics + later.metrics  # and samples of the machine, where it took long
    steps = [step for step, metrics in told if "loss" in metrics]
    assert steps == list(range(1, 201))


def unfinished_with_damage(result: PretrainResult, steps: list[int]) -> None:
    """The run as a crash would leave it, with the weights of some checkpoints cut short."""
    run_file = result.run_folder / "run.json"
    run_file.write_text(run_file.read_text().replace("finished", "running"))
    for step in steps:
        weights = result.run_folder / f"checkpoints/step-{step:08d}/model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])


def test_a_checkpoint_cut_short_is_passed_over_and_said_and_the_bits_are_the_same(run: Go):
    whole, _ = run(recipe())
    expected = kept(whole)
    unfinished_with_damage(whole, [20])
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*expected .* bytes"):
        load_checkpoint(whole.run_folder)
    again, _ = run(recipe())
    assert (again.status, again.records[0]["resumed_at_step"]) == ("finished", 18)
    [said] = again.records[0]["passed_over"]
    assert said.startswith("step-00000020 was passed over") and "model.safetensors" in said
    for name, value in kept(again).items():
        assert torch.equal(value, expected[name]), name
    assert (again.run_folder / "checkpoints/damaged-step-00000020").is_dir()


def test_no_sound_checkpoint_is_an_error_and_never_a_new_beginning(run: Go):
    whole, _ = run(recipe())
    unfinished_with_damage(whole, [18, 20])
    with pytest.raises(CheckpointError, match="none of 2 checkpoints is sound"):
        run(recipe())
    assert len(checkpoints_in(whole.run_folder / "checkpoints")) == 2


def test_two_processes_cannot_train_one_run(run: Go, tmp_path: Path):
    import fcntl

    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TrainingError, match="another process"):
            run(recipe())


@pytest.fixture
def a_ray_session():
    from cytolake.platform.session import ray_session

    with ray_session(n_cpus=2):
        yield


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("a_ray_session")
def test_two_workers_under_deepspeed_train_what_one_process_trains(run: Go):
    # Dropout is on: it is drawn from the step and the pack, whoever holds it.
    one, _ = run(recipe(), "one")
    two, tracker = run(recipe(engine=DEEPSPEED), "two")
    pids = {record["pid"] for record in two.records}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert {record["engine"] for record in two.records} == {"DeepSpeedEngine"}
    assert {record["zero_stage"] for record in two.records} == {1}
    assert {record["backend"] for record in two.records} == {"gloo"}
    assert {record["device"] for record in two.records} == {"cpu"}
    assert tracker.tags["engine"] == "DeepSpeedEngine"
    assert len(tracker.tags["pids"].split()) == 2
    assert len(two.metrics) == len(one.metrics) == 20
    for ours, theirs in zip(two.metrics, one.metrics, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-4)
        assert ours["n_cells"] == theirs["n_cells"]
    stock = BertForMaskedLM.from_pretrained(two.checkpoint)
    assert stock.config.hidden_size == 16


TRAIN_ELSEWHERE = """
import sys
from pathlib import Path
from cytolake.platform.settings import Settings
from cytolake.platform.tracking import MemoryTracker
from cytolake.train.job import pretrain
from cytolake.train.recipe import PretrainRecipe

corpus, home, text = sys.argv[1:]
recipe = PretrainRecipe.model_validate_json(text)
folder = Path(home) / "runs" / "cut"
pretrain(corpus, recipe, Settings(home=home), tracker=MemoryTracker(), run_folder=folder)
"""


@pytest.mark.slow
def test_the_same_command_goes_on_after_kill_9_with_the_same_bits(
    run: Go, corpus: Corpus, tmp_path: Path
):
    long = recipe(training={"steps": 200})
    whole, _ = run(long, "whole")
    command = subprocess.Popen(
        [
            *(sys.executable, "-c", TRAIN_ELSEWHERE),
            *(str(corpus.folder), str(tmp_path), long.model_dump_json()),
        ]
    )
    while not checkpoints_in(tmp_path / "runs" / "cut" / "checkpoints"):
        assert command.poll() is None
        time.sleep(0.01)
    command.kill()
    command.wait()
    resumed, _ = run(long, "cut")
    assert resumed.status == "finished"
    assert 6 <= resumed.records[0]["resumed_at_step"] < 200
    assert [m["loss"] for m in resumed.metrics] == [m["loss"] for m in whole.metrics]
    expected = kept(whole)
    for name, value in kept(resumed).items():
        assert torch.equal(value, expected[name]), name
