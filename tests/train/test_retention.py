"""Retention: the newest stay, the best stays besides, and a kill leaves nothing half removed."""

import json
import math
from pathlib import Path

import pytest
from cytolake.platform.errors import CheckpointError
from cytolake.platform.faults import watching
from cytolake.train.retention import (
    best_checkpoint,
    best_in,
    checkpoint_at,
    checkpoints_in,
    loss_of,
    retain,
    set_aside,
    sweep,
)


def made(folder: Path, step: int, loss: float | None = None) -> Path:
    place = folder / f"step-{step:08d}"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_text("weights")
    (place / "checkpoint.json").write_text("{}")
    if loss is not None:
        scores = {"validation_loss": loss, "validation_accuracy": 0.5}
        (place / "validation.json").write_text(json.dumps(scores))
    return place


def steps(folder: Path) -> list[int]:
    return [int(path.name[-8:]) for path in checkpoints_in(folder)]


def test_the_newest_and_the_best_stay(tmp_path: Path):
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 1.0), (5, 4.0), (6, None)):
        made(tmp_path, step, loss)
    retain(tmp_path, 2, keep_best=True)
    assert steps(tmp_path) == [2, 5, 6]  # of equals the earliest
    named = json.loads((tmp_path / "best.json").read_text())
    assert named == {
        "checkpoint": "step-00000002",
        "step": 2,
        "validation_loss": 1.0,
        "validation_accuracy": 0.5,
    }
    retain(tmp_path, 2, keep_best=False)
    assert steps(tmp_path) == [5, 6]
    assert not (tmp_path / "best.json").exists()


@pytest.mark.parametrize("text", ["", "{}", '{"validation_loss": null}', "[1]"])
def test_a_score_that_cannot_be_read_is_never_the_best(tmp_path: Path, text: str):
    place = made(tmp_path, 1)
    (place / "validation.json").write_text(text)
    assert loss_of(place) == math.inf
    made(tmp_path, 2, math.nan)
    assert best_in(tmp_path) is None
    made(tmp_path, 3, 9.0)
    assert best_in(tmp_path) == tmp_path / "step-00000003"


def test_a_name_with_best_after_it_means_the_best(tmp_path: Path):
    run = tmp_path / "my-run"
    best, newest = made(run / "checkpoints", 1, 1.0), made(run / "checkpoints", 2, 2.0)
    assert checkpoint_at(tmp_path / "my-run@best") == best_checkpoint(run) == best
    assert checkpoint_at(run) == newest
    assert checkpoint_at(best) == best
    made(tmp_path / "blind" / "checkpoints", 1)
    with pytest.raises(CheckpointError, match=r"blind@best.*\[validation\]"):
        checkpoint_at(tmp_path / "blind@best")


class Death(Exception):
    """What stands for a kill."""


POINTS = (
    "before best/write",
    "before best/rename",
    "after best/rename",
    "before checkpoint/hide",
    "after checkpoint/hide",
    "before checkpoint/remove",
    "after checkpoint/remove",
)


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_anywhere_leaves_the_best_and_the_newest_and_the_next_call_ends_it(
    tmp_path: Path, point: str
):
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 4.0)):
        made(tmp_path, step, loss)

    def die(reached: str) -> None:
        if reached == point:
            raise Death

    with pytest.raises(Death), watching(die):
        retain(tmp_path, 1, keep_best=True)
    assert {2, 4} <= set(steps(tmp_path))
    for place in checkpoints_in(tmp_path):  # what looks complete is
        assert (place / "model.safetensors").exists()
    (tmp_path / ".step-00000005.making").mkdir()
    sweep(tmp_path)
    retain(tmp_path, 1, keep_best=True)
    names = ["best.json", "step-00000002", "step-00000004"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_damaged_checkpoint_is_set_aside_and_counts_no_more(tmp_path: Path):
    made(tmp_path, 1, 2.0)
    set_aside(made(tmp_path, 2, 1.0))
    aside = set_aside(made(tmp_path, 2, 1.0))  # takes the place of the other one
    retain(tmp_path, 1, keep_best=True)
    assert steps(tmp_path) == [1]
    assert (aside / "model.safetensors").exists()
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 1
