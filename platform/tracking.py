"""Tracker: where a run's parameters, metrics and files go. Knows no model and no corpus.

MLflow for real, memory for tests: both speak the same few verbs. A verb may be said again with the
same words: the store then holds what it held.
"""

import json
import os
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from .errors import TrackingError
from .session import be_quiet

Status = Literal["FINISHED", "FAILED", "KILLED"]
EXPERIMENT = "cytolake"
_IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",  # seconds, to connect and to read
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


class Tracker(Protocol):
    """What a run can be told."""

    @property
    def run_id(self) -> str:
        """The run's id in the tracking store."""
        ...

    @property
    def uri(self) -> str:
        """The tracking store."""
        ...

    def log_parameters(self, parameters: Mapping[str, object]) -> None:
        """Log what decides the run, flat: dotted names to values."""
        ...

    def log_metrics(
        self, metrics: Mapping[str, float], step: int = 0, when: float | None = None
    ) -> None:
        """Log what the run measured, at a step; `when` in seconds of the wall clock, or now."""
        ...

    def last_step(self, metric: str) -> int:
        """The last step that the store has of a metric; 0 for none."""
        ...

    def log_text(self, text: str, name: str) -> None:
        """Keep a text under `name`."""
        ...

    def log_figure(self, figure: Any, name: str) -> None:
        """Keep a matplotlib figure under `name`."""
        ...

    def log_file(self, path: Path, folder: str = "") -> None:
        """Keep a file in `folder` of the run."""
        ...

    def log_folder(self, path: Path, folder: str) -> None:
        """Keep a folder's files in `folder` of the run."""
        ...

    def log_dataset(
        self, *, name: str, source: str, digest: str, context: str, n_rows: int
    ) -> None:
        """Note the cells that the run read: snapshot and query as source, list as digest."""
        ...

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tag the run."""
        ...

    def resume(self) -> None:
        """Say that the run goes on."""
        ...

    def finish(self, status: Status = "FINISHED") -> None:
        """End the run."""
        ...


@dataclass(slots=True)
class MemoryTracker:
    """A tracker that keeps everything in reach of a test."""

    run_id: str = "memory"
    uri: str = "memory:"
    parameters: dict[str, object] = field(default_factory=lambda: {})
    metrics: list[tuple[int, dict[str, float]]] = field(default_factory=lambda: [])
    texts: dict[str, str] = field(default_factory=lambda: {})
    figures: dict[str, Any] = field(default_factory=lambda: {})
    files: list[tuple[Path, str]] = field(default_factory=lambda: [])
    folders: dict[str, list[str]] = field(default_factory=lambda: {})
    datasets: list[dict[str, object]] = field(default_factory=lambda: [])
    tags: dict[str, str] = field(default_factory=lambda: {})
    status: str = "RUNNING"

    def log_parameters(self, parameters: Mapping[str, object]) -> None:
        """Keep the parameters."""
        self.parameters.update(parameters)

    def log_metrics(
        self, metrics: Mapping[str, float], step: int = 0, when: float | None = None
    ) -> None:
        """Keep the metrics with their step."""
        self.metrics.append((step, dict(metrics)))

    def last_step(self, metric: str) -> int:
        """The last step of a metric; 0 for none."""
        return max((step for step, values in self.metrics if metric in values), default=0)

    def log_text(self, text: str, name: str) -> None:
        """Keep the text."""
        self.texts[name] = text

    def log_figure(self, figure: Any, name: str) -> None:
        """Keep the figure."""
        self.figures[name] = figure

    def log_file(self, path: Path, folder: str = "") -> None:
        """Keep the path."""
        self.files.append((path, folder))

    def log_folder(self, path: Path, folder: str) -> None:
        """Keep the names of the files."""
        self.folders[folder] = sorted(str(file.relative_to(path)) for file in path.rglob("*"))

    def log_dataset(
        self, *, name: str, source: str, digest: str, context: str, n_rows: int
    ) -> None:
        """Keep the note."""
        note = {"name": name, "source": source, "digest": digest, "context": context}
        self.datasets.append({**note, "n_rows": n_rows})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Keep the tags."""
        self.tags.update(tags)

    def resume(self) -> None:
        """Keep the status."""
        self.status = "RUNNING"

    def finish(self, status: Status = "FINISHED") -> None:
        """Keep the status."""
        self.status = status


class MLflowTracker:
    """A run in an MLflow store, written through the client: no global active run is touched."""

    def __init__(self, client: Any, uri: str, run_id: str) -> None:
        """Wrap an open run; use `open_run` to make one."""
        self._client, self._uri, self._run_id = client, uri, run_id

    @property
    def run_id(self) -> str:
        """The run's id in the tracking store."""
        return self._run_id

    @property
    def uri(self) -> str:
        """The tracking store."""
        return self._uri

    def log_parameters(self, parameters: Mapping[str, object]) -> None:
        """Log parameters in batches; a parameter that the run holds already is left as it is."""
        from mlflow.entities import Param

        with _reaching(self._uri):
            held = self._client.get_run(self._run_id).data.params
            fresh = [Param(key, str(v)[:6000]) for key, v in parameters.items() if key not in held]
            for begin in range(0, len(fresh), 100):  # MLflow takes 100 parameters a batch
                self._client.log_batch(self._run_id, params=fresh[begin : begin + 100])

    def log_metrics(
        self, metrics: Mapping[str, float], step: int = 0, when: float | None = None
    ) -> None:
        """Log metrics in one batch; with the same `when`, what is there already stays once."""
        from mlflow.entities import Metric

        now = int((time.time() if when is None else when) * 1000)
        batch = [Metric(key, float(value), now, step) for key, value in metrics.items()]
        with _reaching(self._uri):
            self._client.log_batch(self._run_id, metrics=batch)

    def last_step(self, metric: str) -> int:
        """The last step that the store has of a metric; 0 for none."""
        with _reaching(self._uri):
            history = self._client.get_metric_history(self._run_id, metric)
        return max((int(point.step) for point in history), default=0)

    def log_text(self, text: str, name: str) -> None:
        """Keep a text as an artifact."""
        with _reaching(self._uri):
            self._client.log_text(self._run_id, text, name)

    def log_figure(self, figure: Any, name: str) -> None:
        """Keep a figure as an artifact; the ending of `name` decides its format."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            figure.savefig(path, dpi=144, bbox_inches="tight")
            parent = str(Path(name).parent)
            self.log_file(path, "" if parent == "." else parent)

    def log_file(self, path: Path, folder: str = "") -> None:
        """Keep a file as an artifact."""
        with _reaching(self._uri):
            self._client.log_artifact(self._run_id, str(path), folder or None)

    def log_folder(self, path: Path, folder: str) -> None:
        """Keep a folder as artifacts."""
        with _reaching(self._uri):
            self._client.log_artifacts(self._run_id, str(path), folder)

    def log_dataset(
        self, *, name: str, source: str, digest: str, context: str, n_rows: int
    ) -> None:
        """Note the cells as an MLflow dataset input."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=name,
            digest=digest[:36],
            source_type="cytolake",
            source=json.dumps({"uri": source}),
            profile=json.dumps({"n_cells": n_rows}),
        )
        tags = [InputTag("mlflow.data.context", context)]
        with _reaching(self._uri):
            self._client.log_inputs(self._run_id, [DatasetInput(dataset, tags)])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tag the run."""
        with _reaching(self._uri):
            for key, value in tags.items():
                self._client.set_tag(self._run_id, key, value)

    def resume(self) -> None:
        """Say that the run goes on."""
        with _reaching(self._uri):
            self._client.update_run(self._run_id, status="RUNNING")

    def finish(self, status: Status = "FINISHED") -> None:
        """End the run."""
        with _reaching(self._uri):
            self._client.set_terminated(self._run_id, status)


@contextmanager
def impatient() -> Generator[None]:
    """Let MLflow's requests fail within seconds in the body: for callers that try again themselves.

    By itself MLflow 3.17 waits 120 s for an answer and tries 7 times, for minutes. A variable that
    is set already is left alone.
    """
    given = {name: value for name, value in _IMPATIENT.items() if name not in os.environ}
    os.environ.update(given)
    try:
        yield
    finally:
        for name in given:
            os.environ.pop(name, None)


@contextmanager
def _reaching(uri: str) -> Generator[None]:
    """Tell what a store or the way to it has to say as an error of ours."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:  # OSError: requests' errors, a full disk
        said = " ".join(str(error).split())
        raise TrackingError(
            f"the tracking store {uri} cannot be told: {said:.300}; is it there, and is "
            "CYTOLAKE_TRACKING right? Without that setting a file of this machine is used"
        ) from error


def open_run(
    uri: str,
    name: str,
    *,
    experiment: str = EXPERIMENT,
    parent: str | None = None,
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> MLflowTracker:
    """Open a run in an MLflow store.

    Args:
        uri: the store, for example `sqlite:////home/me/.cytolake/mlflow.db`.
        name: what the run is called.
        experiment: the experiment that holds it; made where it does not exist.
        parent: id of the run this one is nested in.
        run_id: an id to go on in, after a restart, instead of a new run.
        tags: more tags.

    Raises:
        TrackingError: the store cannot be reached.
    """
    if run_id is not None:
        tracker = known_run(uri, run_id)
        tracker.resume()
        return tracker
    client = _client(uri)
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    all_tags = {**(tags or {}), **({MLFLOW_PARENT_RUN_ID: parent} if parent else {})}
    with _reaching(uri):
        place = _experiment_id(client, uri, experiment)
        run = client.create_run(place, run_name=name, tags=all_tags)
    return MLflowTracker(client, uri, run.info.run_id)


def refuse_unreachable(uri: str) -> None:
    """Ask a store anything, before work is done for it.

    Raises:
        TrackingError: the store cannot be reached.
    """
    client = _client(uri)
    with _reaching(uri):
        client.get_experiment_by_name(EXPERIMENT)


def known_run(uri: str, run_id: str) -> MLflowTracker:
    """A run that was opened before; the store is not asked, and may be out of reach."""
    return MLflowTracker(_client(uri), uri, run_id)


def _client(uri: str) -> Any:
    be_quiet()
    import logging

    for chatty in ("mlflow", "alembic", "urllib3"):  # what they warn of is told as an error of ours
        logging.getLogger(chatty).setLevel(logging.ERROR)
    from mlflow import MlflowClient

    with _reaching(uri):
        return MlflowClient(tracking_uri=uri)


def _experiment_id(client: Any, uri: str, name: str) -> str:
    known = client.get_experiment_by_name(name)
    if known is not None:
        return str(known.experiment_id)
    place = None
    if uri.startswith("sqlite:///"):
        folder = Path(uri.removeprefix("sqlite:///")).parent
        folder.mkdir(parents=True, exist_ok=True)
        place = (folder / "artifacts").as_uri()
    return str(client.create_experiment(name, artifact_location=place))
