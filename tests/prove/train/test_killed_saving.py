"""A process that dies while a checkpoint is written: the one before counts; the same bits."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cytolake.platform.faults import DEAD
from cytolake.tests.train.corpora import small_corpus
from cytolake.tests.train.tiny_runs import kept, recipe, runner

pytestmark = pytest.mark.prove

DIE_ELSEWHERE = """
import sys
from pathlib import Path
from cytolake.platform.faults import death, watching
from cytolake.platform.settings import Settings
from cytolake.platform.tracking import MemoryTracker
from cytolake.train.job import pretrain
from cytolake.train.recipe import PretrainRecipe

corpus, home, text, point, nth = sys.argv[1:]
recipe = PretrainRecipe.model_validate_json(text)
folder = Path(home) / "runs" / "cut"
with watching(death(point, int(nth))):
    pretrain(corpus, recipe, Settings(home=home), tracker=MemoryTracker(), run_folder=folder)
"""


@pytest.mark.parametrize(
    ("point", "resumed_at"),
    [
        ("after checkpoint/write", 6),  # the files are there, their list is not
        ("before checkpoint/rename", 6),
        ("after checkpoint/rename", 12),  # whole; the best is not named yet
    ],
)
def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before_and_the_same_bits(
    tmp_path: Path, point: str, resumed_at: int
) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    run = runner(corpus, tmp_path)
    tables = {
        "split": {"kind": "donors", "fractions": {"learn": 0.5, "look": 0.5}},
        "data": {"part": "learn"},
        "validation": {"part": "look"},
    }
    given = recipe(**tables)
    whole, _ = run(given, "whole")
    words = [str(corpus.folder), str(tmp_path), given.model_dump_json(), point, "2"]
    done = subprocess.run([sys.executable, "-c", DIE_ELSEWHERE, *words], check=False)
    assert done.returncode == DEAD
    again, _ = run(given, "cut")
    assert (again.status, again.records[0]["resumed_at_step"]) == ("finished", resumed_at)
    expected = kept(whole)
    for name, value in kept(again).items():
        assert torch.equal(value, expected[name]), name
    told = ["loss", "validation_loss"]
    numbers = [[[m.get(name) for name in told] for m in r.metrics] for r in (again, whole)]
    assert numbers[0] == numbers[1]
    notes = [(r.run_folder / "checkpoints/best.json").read_text() for r in (again, whole)]
    assert notes[0] == notes[1]
