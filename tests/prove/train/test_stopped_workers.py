"""SIGTERM of a driver with Ray's workers: a checkpoint, KILLED, and the bits of one left alone."""

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

pytestmark = [pytest.mark.prove, pytest.mark.timeout(900)]

STEPS = 150


def test_two_workers_that_are_stopped_go_on_as_if_they_had_not_been(tmp_path: Path) -> None:
    run = runner(small_corpus(tmp_path / "corpus"), tmp_path)
    given = recipe(engine=DEEPSPEED, training={"steps": STEPS})

    def stop_at_a_checkpoint() -> None:
        while not checkpoints_in(tmp_path / "runs" / "cut" / "checkpoints"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    with ray_session(n_cpus=2):
        whole, _ = run(given, "whole")
        stopper = threading.Thread(target=stop_at_a_checkpoint, daemon=True)
        stopper.start()
        cut, tracker = run(given, "cut")
        stopper.join()
        assert (cut.status, cut.exit_status, tracker.status) == ("stopped", 143, "KILLED")
        assert 6 <= cut.step < STEPS and cut.checkpoint is not None
        again, _ = run(given, "cut")
    assert again.status == "finished"
    assert {record["resumed_at_step"] for record in again.records} == {cut.step}
    assert [m["loss"] for m in again.metrics] == [m["loss"] for m in whole.metrics]
    expected = kept(whole)
    for name, value in kept(again).items():
        assert torch.equal(value, expected[name]), name
