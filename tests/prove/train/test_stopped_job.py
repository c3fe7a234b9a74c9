"""`ray job stop` of a pretraining: a checkpoint, KILLED in the store, and the same bits."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from cytolake.tests.platform.test_job import cluster as cluster
from cytolake.tests.train.corpora import small_corpus
from cytolake.tests.train.tiny_runs import TABLES
from cytolake.train.retention import checkpoints_in
from safetensors.numpy import load_file

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1800)]

STEPS = 1500


def toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    lines = ['name = "small"']
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines)


def test_a_stopped_job_leaves_a_checkpoint_and_the_same_command_ends_with_the_same_bits(
    cluster: str, tmp_path: Path
) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    tables = {**TABLES, "checkpoints": {"every_steps": 20}}
    tables["training"] = {**TABLES["training"], "steps": STEPS, "log_seconds": 0.5}
    (tmp_path / "small.toml").write_text(toml(tables))

    def call(home: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            env={**os.environ, "CYTOLAKE_HOME": str(tmp_path / home)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    cytolake = [sys.executable, "-m", "cytolake"]
    verb = ["pretrain", "small.toml", "--corpus", str(corpus.folder)]
    sent = ["submit", "--address", cluster, "--no-wait", "--", *verb]
    said = call("cut", *cytolake, *sent)
    assert said.returncode == 0, said.stdout + said.stderr
    [job] = re.findall(r"raysubmit_\w+", said.stderr)
    run = tmp_path / "cut" / "runs" / "small"
    ray = [str(Path(sys.executable).with_name("ray")), "job"]
    deadline = time.monotonic() + 300
    while not checkpoints_in(run / "checkpoints"):
        if time.monotonic() > deadline:
            pytest.fail(call("cut", *ray, "logs", job, "--address", cluster).stdout)
        time.sleep(0.05)
    stopped = call("cut", *ray, "stop", job, "--address", cluster)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    begun = json.loads((run / "run.json").read_text())
    assert begun["state"] == "stopped"
    step = json.loads((run / "end.json").read_text())["step"]
    assert 0 < step < STEPS
    assert checkpoints_in(run / "checkpoints")[-1].name == f"step-{step:08d}"
    assert not (run / "owed.json").exists()
    log = call("cut", *ray, "logs", job, "--address", cluster).stdout
    line = " ".join(["cytolake", *sent])
    assert f"stopped at step {step} of {STEPS}; to go on: {line}" in log, log

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/cut/mlflow.db")
    assert client.get_run(begun["run_id"]).info.status == "KILLED"

    again = [word for word in sent if word != "--no-wait"]  # the line, and somebody who waits
    done = call("cut", *cytolake, *again)
    assert done.returncode == 0 and "SUCCEEDED" in done.stderr, done.stdout + done.stderr
    done = call("whole", *cytolake, *verb)
    assert done.returncode == 0, done.stdout + done.stderr
    last = [
        checkpoints_in(tmp_path / home / "runs/small/checkpoints")[-1] for home in ("cut", "whole")
    ]
    assert [place.name for place in last] == [f"step-{STEPS:08d}"] * 2
    for file in ("model.safetensors", "training.safetensors"):
        found, expected = (load_file(place / file) for place in last)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            assert values.tobytes() == found[name].tobytes(), f"{file}: {name}"
