"""A run whose gradients are not finite: what is kept, what is told, and what is asked for."""

import json
from pathlib import Path

import pytest
import torch
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import StorageError, TrainingError
from cytolake.train.checkpoints import load_checkpoint
from cytolake.train.engines import TorchEngine
from cytolake.train.retention import checkpoints_in
from cytolake.train.runs import RunFolder

from .corpora import small_corpus
from .tiny_runs import kept, recipe, runner


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return small_corpus(tmp_path / "corpus")


def spoil_from(monkeypatch: pytest.MonkeyPatch, first: int, last: int) -> None:
    """Make the loss of some steps infinite, as an overflow does."""
    done = {"steps": 0}
    forward, step = TorchEngine.forward, TorchEngine.step

    def spoiled(engine: TorchEngine, prepared: object) -> tuple[torch.Tensor, torch.Tensor]:
        loss, right = forward(engine, prepared)
        return (loss * torch.inf if first <= done["steps"] + 1 <= last else loss), right

    def counted(engine: TorchEngine, learning_rate: float) -> torch.Tensor:
        done["steps"] += 1
        return step(engine, learning_rate)

    monkeypatch.setattr(TorchEngine, "forward", spoiled)
    monkeypatch.setattr(TorchEngine, "step", counted)


def notes(folder: Path) -> list[dict[str, list[int]]]:
    lines = (folder / "left-out.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_too_many_bad_steps_in_a_row_end_the_run_with_its_last_good_checkpoint(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    go = runner(corpus, tmp_path)
    spoil_from(monkeypatch, 8, 99)
    given = recipe(training={"bad_steps": 4})
    with pytest.raises(
        TrainingError, match=r"4 steps in a row, up to 11; packs .* 11/.*/left-out\.jsonl"
    ):
        go(given)
    folder = tmp_path / "runs" / "run"
    assert [place.name for place in checkpoints_in(folder / "checkpoints")] == ["step-00000006"]
    weights = load_checkpoint(folder).model.state_dict()
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    known = set(corpus.sql("SELECT cell_id FROM cells").column("cell_id").to_pylist())
    told = notes(folder)
    assert [step for note in told for step in note["steps"]] == [8, 9, 10, 11]
    assert all(note["cell_ids"] and set(note["cell_ids"]) <= known for note in told)


def test_a_bad_step_in_between_is_told_and_the_run_goes_on(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spoil_from(monkeypatch, 9, 10)
    result, tracker = runner(corpus, tmp_path)(recipe(training={"bad_steps": 3}))
    assert result.status == "finished"
    assert {step: m["skipped"] for step, m in tracker.metrics if m["skipped"]} == {9: 1, 10: 1}
    assert float(kept(result)["optimizer/n_updates"]) == 18
    assert [note["steps"] for note in notes(result.run_folder)] == [[9], [10]]


def test_notes_of_steps_that_are_done_again_are_there_once(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    go = runner(corpus, tmp_path)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(TrainingError):
        spoil_from(patch, 5, 99)
        go(recipe(training={"bad_steps": 4}))
    folder = tmp_path / "runs" / "run"
    assert [note["steps"] for note in notes(folder)] == [[5], [6], [7], [8]]
    spoil_from(monkeypatch, 2, 2)  # the second step after the checkpoint at 6
    go(recipe(training={"bad_steps": 4}))
    assert [note["steps"] for note in notes(folder)] == [[5], [6], [8]]


def test_a_disk_that_is_full_when_a_note_is_made_is_told(tmp_path: Path):
    folder = RunFolder(tmp_path)
    (tmp_path / "left-out.jsonl").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="the disk is full"):
        folder.add_left_out([1], [2])
