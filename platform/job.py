"""A command of ours on a Ray cluster: `ray job submit` with our own code, out of its wheel.

Knows no verb: it carries words, the files they name, and the settings of their sender. The wheel
is unpacked into the job's working folder: Ray would install it with all its dependencies anew.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlparse

from .errors import SettingsError
from .session import QUIET
from .settings import Settings

_ROOT = Path(__file__).resolve().parents[1]
_NOT_CODE = (".*", "build", "*.egg-info", "__pycache__", "tests", "docs", "cytolake-demo")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_AGENTS_COME_WITHIN = 60.0
_NO_AGENT = "No available agent"
_PATIENT = {"RAY_JOB_STOP_WAIT_TIME_S": "120"}
"""Seconds from SIGTERM to SIGKILL when a job is stopped: Ray's 3 are too few for a checkpoint."""


def submit(
    words: Sequence[str],
    settings: Settings,
    *,
    address: str,
    n_verb_words: int = 1,
    follow: Callable[[str], None] | None = None,
    variables: Mapping[str, str] | None = None,
) -> tuple[str, str]:
    """Run `cytolake <words>` as a job of a cluster.

    Files among the words (recipes, sources.toml) travel with the job. The cluster authenticates
    with Ray's own token (`RAY_AUTH_MODE=token`), which Ray reads by itself.

    Args:
        words: the verb and its arguments.
        settings: where corpus, home and tracking are: the cluster's nodes must reach them.
        address: the job server, for example `http://127.0.0.1:8265`.
        n_verb_words: how many of the first words are the verb: these name no file.
        follow: called with each new piece of the job's log until it ends; where None, the job is
            left running.
        variables: more of the job's environment.

    Returns:
        The submission id, and the job's last known status.

    Raises:
        SettingsError: the cluster is out of reach, or would not reach what the settings name.
    """
    _refuse_unreachable(settings, address)
    from ray.job_submission import JobSubmissionClient

    with tempfile.TemporaryDirectory() as folder:
        carried = Path(folder) / "carried"
        carried.mkdir()
        _unpack_own_wheel(Path(folder), carried)
        verb, arguments = list(words[:n_verb_words]), words[n_verb_words:]
        rewritten = verb + _carry_files(arguments, carried)
        environment: dict[str, object] = {
            "working_dir": str(carried),
            "env_vars": {**_environment(settings), **(variables or {})},
        }
        command = shlex.join(["python", "-m", "cytolake", *rewritten])
        try:
            client = JobSubmissionClient(address)
            job = _when_there_is_an_agent(
                lambda: client.submit_job(entrypoint=command, runtime_env=environment)
            )
        except (ConnectionError, RuntimeError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise SettingsError(
                f"{address}: the job was not taken: {reason}. {_way_out(reason)}"
            ) from error
    status = _follow(client, job, follow) if follow else str(client.get_job_status(job).value)
    return job, status


def _when_there_is_an_agent(submit_job: Callable[[], str]) -> str:
    """Submit; a cluster that has just been started answers before its agents have come."""
    deadline = time.monotonic() + _AGENTS_COME_WITHIN
    while True:
        try:
            return submit_job()
        except RuntimeError as error:
            if _NO_AGENT not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def _way_out(reason: str) -> str:
    if _NO_AGENT in reason:
        return (
            "The head's agent takes no jobs: another Ray on that machine may hold its port "
            "(52365); start the head with `ray start --head --dashboard-agent-listen-port 0`"
        )
    return (
        "Is a cluster's job server there, and does RAY_AUTH_MODE=token need a token "
        "(`ray get-auth-token --generate`)?"
    )


def _follow(client: object, job: str, follow: Callable[[str], None]) -> str:
    from ray.job_submission import JobSubmissionClient

    assert isinstance(client, JobSubmissionClient)  # narrows the type for the checker
    seen = 0
    while True:
        status = client.get_job_status(job)
        log = client.get_job_logs(job)
        if len(log) > seen:
            follow(log[seen:])
            seen = len(log)
        if status.is_terminal():
            return str(status.value)
        time.sleep(1.0)


def _refuse_unreachable(settings: Settings, address: str) -> None:
    host = urlparse(address if "://" in address else f"http://{address}").hostname
    if host in _LOOPBACK:
        return
    if settings.tracking_uri.startswith("sqlite"):
        raise SettingsError(
            f"{address} is another machine and tracking is {settings.tracking_uri}: its nodes "
            "cannot write there. Run `mlflow server` and set CYTOLAKE_TRACKING to its URL"
        )
    if settings.corpus and "://" not in settings.corpus and not _is_shared(settings.corpus):
        raise SettingsError(
            f"{address} is another machine and the corpus is the local path {settings.corpus}. "
            "Put it where every node sees it and set CYTOLAKE_SHARED_FOLDERS to that mount"
        )


def _is_shared(path: str) -> bool:
    shared = os.environ.get("CYTOLAKE_SHARED_FOLDERS", "")
    places = [Path(place).resolve() for place in shared.split(os.pathsep) if place]
    return any(Path(path).resolve().is_relative_to(place) for place in places)


def _carry_files(words: Sequence[str], folder: Path) -> list[str]:
    """Copy the TOML files that words name; other places they name become absolute paths."""
    rewritten: list[str] = []
    for number, word in enumerate(words):
        path = Path(word)
        if path.suffix == ".toml" and path.is_file():
            copy = folder / f"{number}-{path.name}"
            copy.write_bytes(path.read_bytes())
            rewritten.append(copy.name)
        else:
            rewritten.append(str(path.resolve()) if path.exists() else word)
    return rewritten


def _environment(settings: Settings) -> dict[str, str]:
    known = {
        "CYTOLAKE_HOME": str(settings.home),
        "CYTOLAKE_TRACKING": settings.tracking_uri,
        "CYTOLAKE_RESOURCES": os.pathsep.join(str(place) for place in settings.resources),
        "CYTOLAKE_CORPUS": settings.corpus or "",
        "CYTOLAKE_ADDRESS": "auto",
    }
    return {**QUIET, **_PATIENT, **{name: value for name, value in known.items() if value}}


def _unpack_own_wheel(folder: Path, carried: Path) -> None:
    """Put this checkout's code where the job starts; an installed cytolake is on the nodes too."""
    if not (_ROOT / "pyproject.toml").is_file():
        return
    source = folder / "source"  # a build leaves its traces where it runs
    shutil.copytree(_ROOT, source, ignore=shutil.ignore_patterns(*_NOT_CODE))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--wheel-dir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("cytolake-*.whl"))
    if done.returncode or not wheels:
        reason = done.stderr.strip()[-400:]
        raise SettingsError(f"the wheel of {_ROOT} could not be built: {reason}")
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extractall(carried)
