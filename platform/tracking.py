"""Tracker: where a run's parameters, metrics and files go. Knows no model and no corpus.

MLflow for real, memory for tests: both speak the same few verbs.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from .session import be_quiet

Status = Literal["FINISHED", "FAILED", "KILLED"]
EXPERIMENT = "cytolake"


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

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log what the run measured, at a step."""
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
    datasets: list[dict[str, object]] = field(default_factory=lambda: [])
    tags: dict[str, str] = field(default_factory=lambda: {})
    status: str = "RUNNING"

    def log_parameters(self, parameters: Mapping[str, object]) -> None:
        """Keep the parameters."""
        self.parameters.update(parameters)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Keep the metrics with their step."""
        self.metrics.append((step, dict(metrics)))

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
        """Keep the path."""
        self.files.append((path, folder))

    def log_dataset(
        self, *, name: str, source: str, digest: str, context: str, n_rows: int
    ) -> None:
        """Keep the note."""
        note = {"name": name, "source": source, "digest": digest, "context": context}
        self.datasets.append({**note, "n_rows": n_rows})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Keep the tags."""
        self.tags.update(tags)

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
        """Log parameters in one batch; a parameter that the run holds already is left as it is."""
        from mlflow.entities import Param

        held = self._client.get_run(self._run_id).data.params
        fresh = [
            Param(key, str(value)[:6000]) for key, value in parameters.items() if key not in held
        ]
        for begin in range(0, len(fresh), 100):  # MLflow takes 100 parameters a batch
            self._client.log_batch(self._run_id, params=fresh[begin : begin + 100])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics in one batch."""
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [Metric(key, float(value), now, step) for key, value in metrics.items()]
        self._client.log_batch(self._run_id, metrics=batch)

    def log_text(self, text: str, name: str) -> None:
        """Keep a text as an artifact."""
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
        self._client.log_artifact(self._run_id, str(path), folder or None)

    def log_folder(self, path: Path, folder: str) -> None:
        """Keep a folder as artifacts."""
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
        self._client.log_inputs(self._run_id, [DatasetInput(dataset, tags)])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tag the run."""
        for key, value in tags.items():
            self._client.set_tag(self._run_id, key, value)

    def finish(self, status: Status = "FINISHED") -> None:
        """End the run."""
        self._client.set_terminated(self._run_id, status)


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
    """
    be_quiet()
    import logging

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    from mlflow import MlflowClient
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    client = MlflowClient(tracking_uri=uri)
    if run_id is not None:
        client.update_run(run_id, status="RUNNING")
        return MLflowTracker(client, uri, run_id)
    all_tags = {**(tags or {}), **({MLFLOW_PARENT_RUN_ID: parent} if parent else {})}
    run = client.create_run(_experiment_id(client, uri, experiment), run_name=name, tags=all_tags)
    return MLflowTracker(client, uri, run.info.run_id)


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
