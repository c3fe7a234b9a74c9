"""A run of three launches on two workers, one, and two again, beside one that was left alone."""

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from cytolake.corpus.store import Corpus
from cytolake.train.checkpoints import load_moments
from cytolake.train.retention import checkpoints_in
from cytolake.train.runs import RunFolder

from .tiny_runs import recipe, runner
from .work_child import fed, launch

EPOCHS, STEPS_AN_EPOCH = 3, 6
TRAINING = {"steps": EPOCHS * STEPS_AN_EPOCH}
CUTS = (7, 13)
"""The last steps (from 0) of the first two launches: inside an epoch."""


def begun(corpus: Corpus, home: Path, name: str, **tables: Any) -> RunFolder:
    """A run that was prepared, and stopped before its first step."""
    given = recipe(**{**tables, "training": {**TRAINING, "max_hours": 1e-9}})
    result, _ = runner(corpus, home)(given, name)
    assert (result.status, result.step) == ("stopped", 0)
    return RunFolder(result.run_folder)


def changed_on_the_way(
    corpus: Corpus, home: Path, engine: dict[str, Any]
) -> tuple[list[float], list[float]]:
    """Losses of every step: of the run on changing numbers of workers, and of the other."""
    alone = {"kind": "torch", "workers": 1}
    kept = {"keep": 9}
    one, two = (
        recipe(training=TRAINING, engine=each, checkpoints=kept) for each in (alone, engine)
    )
    whole, cut = (begun(corpus, home, name) for name in ("whole", "cut"))
    for name, folder, plan in (
        ("whole", whole, [(two, None)]),
        ("cut", cut, [(two, CUTS[0]), (one, CUTS[1]), (two, None)]),
    ):
        notes = home / f"notes-{name}"
        notes.mkdir()
        for given, last in plan:
            ranks = launch(folder, given, notes, stop_after=last)
            assert [rank.exitcode for rank in ranks] == [0] * len(ranks), folder.failure()
            restored = folder.records()[0]["resumed_at_step"]
            if restored:
                same_moments(folder, notes, restored)
            end = folder.end()
            assert end is not None
            assert end["step"] == (TRAINING["steps"] if last is None else last + 1)
        steps = fed(notes)
        known = Counter(corpus.sql("SELECT cell_id FROM cells").column("cell_id").to_pylist())
        for epoch in range(EPOCHS):
            of_epoch = range(epoch * STEPS_AN_EPOCH, (epoch + 1) * STEPS_AN_EPOCH)
            assert Counter(cell for step in of_epoch for cell in steps[step]) == known, epoch
    assert [each["changed"].get("engine.workers") for each in cut.launches()][-2:] == [
        [2, 1],
        [1, 2],
    ]
    told = [[m["loss"] for m in folder.metrics()] for folder in (cut, whole)]
    assert [m["step"] for m in cut.metrics()] == list(range(1, TRAINING["steps"] + 1))
    return told[0], told[1]


def same_moments(folder: RunFolder, notes: Path, step: int) -> None:
    """What an engine had after it was restored is what the checkpoint holds, to the bit."""
    [place] = [p for p in checkpoints_in(folder.checkpoints) if p.name.endswith(f"{step:08d}")]
    from safetensors.torch import load_file

    found, expected = load_file(notes / f"restored-{step}.safetensors"), load_moments(place)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
