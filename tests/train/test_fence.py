"""A worker whose launch is over writes nothing more, whatever it was about to do."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CytolakeError, TrainingError
from cytolake.platform.faults import watching
from cytolake.train.retention import checkpoints_in
from cytolake.train.runs import RunFolder
from cytolake.train.worker import work

from .corpora import small_corpus
from .tiny_runs import Go, recipe, runner

OVER = r"was launched again \(\w+\): this worker is of the launch \w+ before it"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("fence") / "corpus")


@pytest.fixture
def run(corpus: Corpus, tmp_path: Path) -> Go:
    return runner(corpus, tmp_path)


WRITES: dict[str, Callable[[RunFolder], object]] = {
    "a record": lambda folder: folder.write_record(0, {"rank": 0}),
    "a report": lambda folder: folder.add_metrics({"step": 1}),
    "a note": lambda folder: folder.add_left_out([1], [2]),
    "a sample": lambda folder: folder.add_sample("here", {"time": 1.0}),
    "an end": lambda folder: folder.write_end(1, "finished"),
    "a failure": lambda folder: folder.write_failure("TrainingError", "lost"),
    "what is done again": lambda folder: folder.forget_after(0),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_whatever_it_writes_is_refused_and_the_folder_stays(
    tmp_path: Path, write: Callable[[RunFolder], object]
):
    driver = RunFolder(tmp_path)
    old = RunFolder(tmp_path, driver.begin_launch())
    write(old)
    new = RunFolder(tmp_path, driver.begin_launch())
    new.add_metrics({"step": 7})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TrainingError, match=OVER):
        write(old)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    write(new)


def begun(run: Go) -> RunFolder:
    result, _ = run(recipe(training={"max_hours": 1e-9, "steps": 20}))
    folder = RunFolder(result.run_folder)
    folder.write(folder.read().going_on_with(recipe())[0])  # type: ignore[union-attr]
    return folder


def test_a_launch_in_the_middle_of_a_save_is_not_overtaken_by_the_one_before(run: Go):
    folder = begun(run)
    old = folder.begin_launch()
    newer: list[str] = []

    def relaunch(point: str) -> None:
        """Another driver begins when the second checkpoint is about to get its name."""
        if point == "after checkpoint/list/rename" and len(checkpoints_in(folder.checkpoints)) == 1:
            newer.append(folder.begin_launch())

    with pytest.raises(TrainingError, match=OVER), watching(relaunch):
        work(folder.path, old)
    assert [place.name for place in checkpoints_in(folder.checkpoints)] == ["step-00000006"]
    assert folder.end() is None and folder.failure() is None
    assert work(folder.path, newer[0]).step == 20
    assert [m["step"] for m in folder.metrics()] == list(range(1, 21))


def test_a_launch_that_sweeps_what_the_one_before_makes_is_told_as_such(run: Go):
    folder = begun(run)
    old = folder.begin_launch()

    def relaunch(point: str) -> None:
        if point == "before checkpoint/list/write":
            folder.begin_launch()
            for making in folder.checkpoints.glob(".*.making"):
                making.rename(making.with_suffix(".gone"))

    with pytest.raises(CytolakeError, match=OVER), watching(relaunch):
        work(folder.path, old)
    assert checkpoints_in(folder.checkpoints) == []


def test_a_worker_that_has_long_nothing_to_write_ends_all_the_same(
    run: Go, monkeypatch: pytest.MonkeyPatch
):
    folder = begun(run)
    launch = folder.begin_launch()
    from cytolake.train import loop, worker

    learn = loop.__dict__["learn"]
    steps: list[int] = []

    def slow(*given: object, **more: object) -> None:
        learn(*given, **more)
        if not steps:
            folder.begin_launch()
        steps.append(1)
        time.sleep(0.02)

    run_file = folder.read()
    assert run_file is not None
    monkeypatch.setattr(worker, "_STOP_INTERVAL_S", 0.0)
    monkeypatch.setattr(loop, "learn", slow)
    quiet = recipe(training={"log_seconds": 1e9}, checkpoints={"every_steps": 1000})
    folder.write(run_file.going_on_with(quiet)[0])
    with pytest.raises(TrainingError, match=OVER):
        work(folder.path, launch)
    assert len(steps) == 1


def test_a_worker_of_an_old_launch_that_comes_late_touches_nothing(run: Go):
    folder = begun(run)
    old = folder.begin_launch()
    folder.begin_launch()
    making = folder.checkpoints / ".step-00000006.other.making"
    making.mkdir(parents=True)
    with pytest.raises(TrainingError, match=OVER):
        work(folder.path, old)
    assert making.is_dir() and not list(folder.path.glob("record-*.json"))
