"""`ray job stop` of a pretraining: a checkpoint, KILLED in the store, and the same bits."""

import json
import os
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

pytestmark = [pytest.mark.prove, pytest.mark.timeout(900)]

STEPS = 4000


def toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    lines = ['name = "small"']
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines)


def test_a_stopped_job_leaves_a_checkpoint_and_the_same_command_ends_with_the_same_bits(
    cluster: str, tmp_path: Path
) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    tables = {**TABLES, "checkpoints": {"every_steps": 50}}
    tables["training"] = {**TABLES["training"], "steps": STEPS, "log_seconds": 0.5}
    (tmp_path / "small.toml").write_text(toml(tables))

    def cytolake(home: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cytolake", *words],
            env={**os.environ, "CYTOLAKE_HOME": str(tmp_path / home)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    verb = ["pretrain", "small.toml", "--corpus", str(corpus.folder)]
    said = cytolake("cut", "submit", "--address", cluster, "--no-wait", "--", *verb)
    assert said.returncode == 0, said.stdout + said.stderr
    job = said.stderr.split(":")[0].split()[-1]
    run = tmp_path / "cut" / "runs" / "small"
    deadline = time.monotonic() + 120
    while not checkpoints_in(run / "checkpoints"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ray = [str(Path(sys.executable).with_name("ray")), "job", "stop", job, "--address", cluster]
    stopped = subprocess.run(ray, capture_output=True, text=True, check=False)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    begun = json.loads((run / "run.json").read_text())
    assert begun["state"] == "stopped"
    step = json.loads((run / "end.json").read_text())["step"]
    assert 0 < step < STEPS
    assert checkpoints_in(run / "checkpoints")[-1].name == f"step-{step:08d}"
    assert not (run / "owed.json").exists()

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/cut/mlflow.db")
    assert client.get_run(begun["run_id"]).info.status == "KILLED"

    for home in ("cut", "whole"):
        done = cytolake(home, *verb)
        assert done.returncode == 0, done.stdout + done.stderr
    last = [
        checkpoints_in(tmp_path / home / "runs/small/checkpoints")[-1] for home in ("cut", "whole")
    ]
    for file in ("model.safetensors", "training.safetensors"):
        found, expected = (load_file(place / file) for place in last)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            assert values.tobytes() == found[name].tobytes(), f"{file}: {name}"
