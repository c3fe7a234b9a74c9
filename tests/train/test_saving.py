"""Saving beside the training: one write at a time, and errors are told at the next report."""

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CheckpointError
from cytolake.platform.faults import watching
from cytolake.train.checkpoints import check_files
from cytolake.train.retention import checkpoints_in
from cytolake.train.runs import RunFolder
from cytolake.train.saving import Saver

from .corpora import small_corpus
from .tiny_runs import Go, kept, recipe, runner


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("saving") / "corpus")


@pytest.fixture
def run(corpus: Corpus, tmp_path: Path) -> Go:
    return runner(corpus, tmp_path)


def test_a_save_goes_on_in_the_background_and_the_next_one_waits_for_it():
    saver, may_end, done = Saver(), threading.Event(), list[int]()

    def write(number: int) -> None:
        assert may_end.wait(30)
        done.append(number)

    saver.save(lambda: write(1))
    assert done == []  # the training goes on
    threading.Timer(0.1, may_end.set).start()
    saver.save(lambda: write(2))
    assert done[:1] == [1]
    saver.wait()
    saver.close()
    assert done == [1, 2]


def test_an_error_is_told_once_by_whoever_comes_next():
    saver = Saver()

    def fail() -> None:
        raise CheckpointError("the disk is full")

    saver.save(fail)
    with pytest.raises(CheckpointError, match="disk is full"):
        saver.save(lambda: None)
    saver.save(fail)
    with pytest.raises(CheckpointError, match="disk is full"):
        saver.wait()
    saver.wait()
    saver.close()


def test_whoever_asks_in_between_is_told_an_error_and_waits_for_nothing():
    saver, may_end = Saver(), threading.Event()

    def fail() -> None:
        assert may_end.wait(30)
        raise CheckpointError("the disk is full")

    saver.check()
    saver.save(fail)
    saver.check()  # under way: nothing to tell yet
    may_end.set()
    with pytest.raises(CheckpointError, match="disk is full"):
        while True:
            saver.check()
    saver.check()
    saver.close()


def full_disk(at: str, nth: int) -> Callable[[str], None]:
    """A watcher under which the disk is full at the nth time a point is reached."""
    reached = 0

    def watch(point: str) -> None:
        nonlocal reached
        reached += point == at
        if point == at and reached == nth:
            raise OSError(errno.ENOSPC, "No space left on device")

    return watch


@pytest.mark.parametrize(
    ("at", "nth"),
    [
        ("before checkpoint/write", 2),
        ("before checkpoint/list/write", 2),
        ("before checkpoint/rename", 2),
        ("before checkpoint/write", 4),  # the last: nobody saves after it
    ],
)
def test_a_full_disk_is_told_and_the_checkpoint_before_it_is_gone_on_from(
    run: Go, tmp_path: Path, at: str, nth: int
):
    whole, _ = run(recipe(), "whole")
    with pytest.raises(CheckpointError, match=r"cannot be written.*(No space|disk is full)"):
        with watching(full_disk(at, nth)):
            run(recipe(), "full")
    folder = tmp_path / "runs" / "full" / "checkpoints"
    assert [path.name for path in folder.glob(".*.making")] == []
    for place in checkpoints_in(folder):
        check_files(place)
    again, _ = run(recipe(), "full")
    assert again.records[0]["resumed_at_step"] == {2: 6, 4: 18}[nth]
    expected = kept(whole)
    for name, value in kept(again).items():
        assert torch.equal(value, expected[name]), name


def test_a_full_disk_is_told_at_the_next_report_and_not_at_the_next_save(
    run: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    add_metrics = RunFolder.add_metrics

    def slowly(folder: RunFolder, metrics: dict[str, float]) -> None:
        add_metrics(folder, metrics)
        if metrics["step"] > 6:  # the write of step 6 fails beside it
            time.sleep(0.2)

    monkeypatch.setattr(RunFolder, "add_metrics", slowly)
    with pytest.raises(CheckpointError, match=r"cannot be written"):
        with watching(full_disk("before checkpoint/write", 1)):
            run(recipe(), "told")
    reported = RunFolder(tmp_path / "runs" / "told").metrics()
    assert 6 <= reported[-1]["step"] < 12
    assert checkpoints_in(tmp_path / "runs" / "told" / "checkpoints") == []
