"""A real MLflow server that is killed in the middle of a run and comes back after its end."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from cytolake.platform.settings import Settings
from cytolake.tests.train.corpora import small_corpus
from cytolake.tests.train.tiny_runs import recipe
from cytolake.train.job import PretrainResult, pretrain
from cytolake.train.recipe import PretrainRecipe
from cytolake.train.runs import RunFolder

pytestmark = [pytest.mark.prove, pytest.mark.timeout(600)]

ALONE = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""No telemetry, and none of the eight processes that a server starts for jobs."""


class Server:
    """A real MLflow server in a process of its own, that can be killed and come back."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, _free_port()
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        words = ["server", "--port", str(self._port), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        words += ["--artifacts-destination", str(self._folder / "artifacts")]
        with (self._folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *words],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **ALONE},
            )
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2)
                return
            except (urllib.error.URLError, OSError):
                gone = self._process.poll() is not None
                if gone or time.monotonic() > deadline:
                    self.kill()
                    pytest.fail((self._folder / "server.log").read_text())
                time.sleep(0.2)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_killed_and_comes_back_has_every_step_once(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    corpus = small_corpus(tmp_path / "corpus")
    server = Server(tmp_path)
    server.start()
    folder = RunFolder(tmp_path / "runs" / "run")
    given: PretrainRecipe = recipe(training={"steps": 100}, checkpoints={"every_steps": 50})

    def go() -> PretrainResult:
        settings = Settings(home=tmp_path, tracking=server.uri)
        return pretrain(str(corpus.folder), given, settings, run_folder=folder.path)

    def kill_when_told() -> None:
        while folder.told().get("step", 0) < 5:
            time.sleep(0.01)
        server.kill()

    killer = threading.Thread(target=kill_when_told, daemon=True)
    killer.start()
    result = go()
    killer.join()
    assert (result.status, len(result.metrics)) == ("finished", 100)
    told = folder.told()["step"]
    assert 5 <= told < 100 and f"{100 - told} reports after step {told}" in result.message
    assert json.loads((folder.path / "owed.json").read_text()) == {"status": "FINISHED"}

    server.start()
    try:
        assert "was told the rest" in go().message
        client = MlflowClient(tracking_uri=server.uri)
        run = client.get_run(result.run_id)
        history = client.get_metric_history(result.run_id, "loss")
        assert sorted(point.step for point in history) == list(range(1, 101))
        times = [point.timestamp for point in sorted(history, key=lambda point: point.step)]
        assert times == sorted(times) and times[-1] == int(result.metrics[-1]["time"] * 1000)
        assert run.info.status == "FINISHED"
        assert run.data.params["training.steps"] == "100"
        assert "cytolake.code" in run.data.tags
        names = {item.path for item in client.list_artifacts(result.run_id)}
        assert names == {"recipe.json", "vocabulary.json", "medians.json", "model", "plots"}
    finally:
        server.kill()
