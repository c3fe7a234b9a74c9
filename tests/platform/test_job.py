"""Jobs: a verb on a real cluster of one machine, with a token; refusals before anything runs."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from cytolake.platform.errors import SettingsError
from cytolake.platform.job import submit
from cytolake.platform.settings import Settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A head node with a job server on loopback that wants a token."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a-token-for-this-test-alone")
    server, port = free_port(), free_port()
    words = ["--head", "--block", f"--port={port}", f"--dashboard-port={server}", "--num-cpus=2"]
    # Another Ray of this machine may hold the agent's usual port: no job would ever be taken.
    words += ["--dashboard-agent-listen-port=0", f"--ray-client-server-port={free_port()}"]
    words += [f"--temp-dir={tempfile.mkdtemp(prefix='ray')}"]  # short: sockets have short names
    ray = Path(sys.executable).with_name("ray")
    # A node's `python` is the one that Ray runs in, as in an image or an activated venv.
    path = f"{ray.parent}{os.pathsep}{os.environ['PATH']}"
    log = (tmp_path / "head.log").open("w")
    head = subprocess.Popen(
        [str(ray), "start", *words, "--dashboard-host=127.0.0.1", "--disable-usage-stats"],
        stdout=log,
        stderr=log,
        start_new_session=True,
        env={**os.environ, "PATH": path, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"},
    )
    address = f"http://127.0.0.1:{server}"
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=2)
            break
        except urllib.error.HTTPError:
            break  # it answers, and wants a token
        except OSError:
            assert time.monotonic() < deadline, (tmp_path / "head.log").read_text()
            time.sleep(0.3)
    yield address
    os.killpg(head.pid, signal.SIGKILL)
    head.wait()
    log.close()


def cytolake(home: Path, *words: str) -> tuple[int, str]:
    """A command in a process of its own: Ray reads a token once a process."""
    done = subprocess.run(
        [sys.executable, "-m", "cytolake", *words],
        env={**os.environ, "CYTOLAKE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_verb_runs_as_a_job_and_its_log_and_status_come_back(
    cluster: str, tmp_path: Path
) -> None:
    words = ["recipes", "show", "geneformer-tiny"]
    status, said = cytolake(tmp_path, "submit", "--address", cluster, "--", *words)
    assert status == 0 and "SUCCEEDED" in said and "[model]" in said, said
    words = ["corpus", "log", "--corpus", str(tmp_path / "nothing")]
    status, said = cytolake(tmp_path, "submit", "--address", cluster, "--", *words)
    assert status == 1 and "FAILED" in said and "error: " in said, said


def test_no_cluster_at_the_address_is_said_in_a_few_words(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with pytest.raises(SettingsError, match="the job was not taken"):
        submit(["recipes", "list"], settings, address=f"http://127.0.0.1:{free_port()}")


def test_a_cluster_elsewhere_refuses_a_tracking_file_of_this_machine(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="CYTOLAKE_TRACKING"):
        submit(["corpus", "log"], Settings(home=tmp_path), address="http://head.example:8265")


def test_a_cluster_elsewhere_refuses_a_corpus_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path, tracking="http://track:5000", corpus=str(tmp_path / "lake"))
    with pytest.raises(SettingsError, match="CYTOLAKE_SHARED_FOLDERS"):
        submit(["corpus", "log"], settings, address="http://head.example:8265")
