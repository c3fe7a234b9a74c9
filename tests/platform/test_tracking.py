"""Tracking: what a run is told is found again in the MLflow store."""

import os
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from cytolake.platform.errors import TrackingError
from cytolake.platform.tracking import MemoryTracker, Tracker, impatient, known_run, open_run


@pytest.mark.slow
def test_a_run_is_found_again_with_all_that_it_was_told(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/home/mlflow.db"
    parent = open_run(uri, "demo")
    child: Tracker = open_run(uri, "pretrain", parent=parent.run_id, tags={"kind": "pretrain"})
    child.log_parameters({"training.seed": 7})
    child.log_parameters({"training.seed": 8, "more": "x"})  # a restart logs again: the first stays
    child.log_metrics({"loss": 2.5}, step=3)
    child.log_text("recipe", "recipe.toml")
    figure, _ = plt.subplots()
    child.log_figure(figure, "plots/loss.png")
    plt.close(figure)
    child.log_dataset(name="corpus", source="/c@3", digest="ab" * 32, context="pretrain", n_rows=9)
    child.finish("KILLED")

    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(child.run_id)
    assert run.info.status == "KILLED"
    assert run.data.tags["mlflow.parentRunId"] == parent.run_id
    assert run.data.params == {"training.seed": "7", "more": "x"}
    assert [(m.step, m.value) for m in client.get_metric_history(child.run_id, "loss")] == [
        (3, 2.5)
    ]
    assert {item.path for item in client.list_artifacts(child.run_id)} == {"recipe.toml", "plots"}
    assert run.inputs is not None
    assert run.inputs.dataset_inputs[0].dataset.digest == ("ab" * 32)[:36]

    for _ in range(2):  # the reply may be lost: the same again is there once
        child.log_metrics({"loss": 2.0}, step=4, when=1_700_000_000.25)
    history = client.get_metric_history(child.run_id, "loss")
    assert sorted((m.step, m.value) for m in history) == [(3, 2.5), (4, 2.0)]
    assert (child.last_step("loss"), child.last_step("nothing")) == (4, 0)

    again = open_run(uri, "pretrain", run_id=child.run_id)
    assert client.get_run(again.run_id).info.status == "RUNNING"


def test_the_memory_tracker_speaks_the_same_verbs() -> None:
    tracker: Tracker = MemoryTracker()
    tracker.log_metrics({"loss": 1.0}, step=2)
    tracker.finish()
    assert isinstance(tracker, MemoryTracker)
    assert tracker.metrics == [(2, {"loss": 1.0})] and tracker.status == "FINISHED"


def test_a_run_that_the_store_does_not_know_is_told_as_an_error_of_ours(tmp_path: Path) -> None:
    tracker = known_run(f"sqlite:///{tmp_path}/mlflow.db", "0" * 32)
    with pytest.raises(TrackingError, match=r"cannot be told: .*CYTOLAKE_TRACKING"):
        tracker.log_metrics({"loss": 1.0})


def test_impatience_ends_with_its_body_and_leaves_what_was_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "99")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with impatient():
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "99"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "99"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
