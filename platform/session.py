"""A Ray session, opened and closed: the only file that starts Ray. Knows no job.

Ray's telemetry is off, its logs are quiet, and its workers use one thread each for arithmetic,
so that as many workers as cores do not fight.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
}


def be_quiet() -> None:
    """Turn telemetry and chatter off; call it before Ray, MLflow or Hugging Face is imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def ray_session(address: str | None = None, *, n_cpus: int | None = None) -> Generator[None]:
    """Open a Ray session for the body, and close it after.

    A session that is open already is used and left open, so that a caller can hold one over
    several jobs.

    Args:
        address: a cluster to join, for example `auto`; a session on this machine where None.
        n_cpus: cores to offer on this machine; all where None, and at least two, so that two
            workers always fit.
    """
    be_quiet()
    import ray

    if ray.is_initialized():
        yield
        return
    workers = {"env_vars": {**QUIET, **_ONE_THREAD}}
    if address:
        ray.init(address=address, runtime_env=workers, logging_level=logging.WARNING)
    else:
        with _environment(workers["env_vars"] | {"PYTHONPATH": _python_path()}):
            ray.init(
                address="local",  # not whatever cluster somebody has started here
                num_cpus=n_cpus or max(os.cpu_count() or 2, 2),
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                _temp_dir=str(Path(tempfile.gettempdir()) / "ray"),
            )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _environment(values: dict[str, str]) -> Generator[None]:
    """Set variables for the body alone: a Ray that starts in it hands them down to its workers.

    Given as a runtime environment they would do the same, but no worker could be started before
    the first task asks for one.
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _python_path() -> str:
    """The driver's import path, less the working folder: it may shadow `platform`."""
    here = {"", str(Path.cwd())}
    places = [place for place in sys.path if place not in here and Path(place).is_dir()]
    return os.pathsep.join(places)
