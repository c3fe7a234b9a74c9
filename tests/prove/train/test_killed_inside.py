"""kill -9 inside an accumulation, and inside a save beside the training, under DeepSpeed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from cytolake.platform.faults import DEAD
from cytolake.tests.train.corpora import small_corpus
from cytolake.tests.train.tiny_runs import DEEPSPEED, recipe
from cytolake.tests.train.work_child import launch
from cytolake.tests.train.world_sizes import TRAINING, begun
from cytolake.train.checkpoints import load_checkpoint, load_moments
from cytolake.train.retention import newest_checkpoint
from cytolake.train.runs import RunFolder

pytestmark = [pytest.mark.prove, pytest.mark.timeout(900)]


def bits(folder: RunFolder) -> dict[str, torch.Tensor]:
    newest = newest_checkpoint(folder.path)
    return {**load_checkpoint(newest).model.state_dict(), **load_moments(newest)}


def test_a_kill_inside_a_step_or_a_save_leaves_the_bits_of_a_run_left_alone(
    tmp_path: Path,
) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    given = recipe(training=TRAINING, engine=DEEPSPEED)
    whole = begun(corpus, tmp_path, "whole")
    assert [rank.exitcode for rank in launch(whole, given, tmp_path)] == [0, 0]
    expected = bits(whole)
    orders: dict[str, tuple[dict[str, Any], int, int, int]] = {
        # who dies, and at which step the next launch begins
        "step": ({"kill_inside": 9}, 1, -9, 6),
        "write": ({"die_at": ("after checkpoint/write", 2)}, 0, DEAD, 6),
        "rename": ({"die_at": ("after checkpoint/rename", 2)}, 0, DEAD, 12),
    }
    for name, (order, rank, status, resumed_at) in orders.items():
        cut = begun(corpus, tmp_path, name)
        assert launch(cut, given, tmp_path, **order)[rank].exitcode == status, name
        assert cut.end() is None
        assert [each.exitcode for each in launch(cut, given, tmp_path)] == [0, 0]
        assert {record["resumed_at_step"] for record in cut.records()} == {resumed_at}
        for key, value in bits(cut).items():
            assert torch.equal(value, expected[key]), f"{name}: {key}"
        assert [m["step"] for m in cut.metrics()] == list(range(1, TRAINING["steps"] + 1))
        assert [m["loss"] for m in cut.metrics()] == [m["loss"] for m in whole.metrics()]
