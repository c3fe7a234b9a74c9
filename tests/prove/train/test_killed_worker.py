"""kill -9 of one of two workers under DeepSpeed: the run goes on by itself, bit for bit."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from cytolake.platform.session import ray_session
from cytolake.tests.train.corpora import small_corpus
from cytolake.tests.train.tiny_runs import DEEPSPEED, kept, recipe, runner
from cytolake.train.retention import checkpoints_in
from cytolake.train.runs import RunFolder

pytestmark = [pytest.mark.prove, pytest.mark.timeout(900)]


def test_a_run_whose_worker_is_killed_ends_as_one_that_was_left_alone(tmp_path: Path) -> None:
    run = runner(small_corpus(tmp_path / "corpus"), tmp_path)
    with ray_session(n_cpus=2):
        whole, _ = run(recipe(engine=DEEPSPEED), "whole")
        killer = kill_a_worker_when_a_checkpoint_is_there(tmp_path / "runs" / "killed")
        killed, told = run(recipe(engine=DEEPSPEED), "killed")
        killer.join()
    assert killed.status == "finished"
    assert {record["resumed_at_step"] for record in killed.records} <= {6, 12, 18}
    assert [m["loss"] for m in killed.metrics] == [m["loss"] for m in whole.metrics]
    assert [step for step, some in told.metrics if "loss" in some] == list(range(1, 21))
    expected = kept(whole)
    for name, value in kept(killed).items():
        assert torch.equal(value, expected[name]), name


def kill_a_worker_when_a_checkpoint_is_there(folder: Path) -> threading.Thread:
    def wait() -> None:
        while not checkpoints_in(folder / "checkpoints"):
            time.sleep(0.01)
        os.kill(RunFolder(folder).records()[1]["pid"], signal.SIGKILL)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread
