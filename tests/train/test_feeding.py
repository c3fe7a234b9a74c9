import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cytolake.corpus.store import Corpus
from cytolake.tests.faults.commands import ingest_source

from .fed_child import feeds_of, told


def fed_by(n_ranks: int, uri: str) -> list[list[list[object]]]:
    """The packs of every step over all ranks, in this process."""
    feeds, n_steps = feeds_of(uri, n_ranks)
    steps = [told([feed.work(step) for feed in feeds]) for step in range(n_steps)]
    for feed in feeds:
        feed.close()
    return steps


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two sources of two segments of 24 cells each, some of them deleted."""
    folder = tmp_path_factory.mktemp("corpus") / "corpus"
    corpus = Corpus.create(folder)
    for name in ("blood", "lung"):
        ingest_source(corpus, name)
    Corpus.open(folder).delete("row % 7 = 3")
    return str(folder)


@pytest.fixture(scope="module")
def alone(uri: str) -> list[list[list[object]]]:
    return fed_by(1, uri)


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_any_number_of_ranks_is_fed_the_same_packs(
    uri: str, alone: list[list[list[object]]], n_ranks: int
):
    assert len(alone) > 10
    assert all(packs for packs in alone)
    assert fed_by(n_ranks, uri) == alone


@pytest.mark.slow
def test_ranks_that_are_killed_go_on_as_another_number_of_ranks(
    uri: str, alone: list[list[list[object]]], tmp_path: Path
):
    """Killed at a moment of its own each time; what was written down whole is what counts."""
    draw = random.Random(time.time_ns())  # any moment must do
    out = tmp_path / "fed.jsonl"
    out.touch()
    for n_ranks in (2, 3, 1):
        lines = out.read_text().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        out.write_text("".join(whole))
        words = [uri, str(n_ranks), str(len(whole)), str(out)]
        child = subprocess.Popen(
            [sys.executable, "-m", "cytolake.tests.train.fed_child", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdin is not None and child.stdout is not None
        last = draw.randint(0, 4) if n_ranks > 1 else len(alone)
        for n_seen, _ in enumerate(child.stdout):
            child.stdin.write("\n")
            child.stdin.flush()
            if n_seen == last:
                break
        if n_ranks > 1:
            time.sleep(draw.uniform(0, 0.02))
            child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
        assert (child.returncode == 0) == (n_ranks == 1)
    fed = [json.loads(line) for line in out.read_text().splitlines()]
    assert [step["step"] for step in fed] == list(range(len(alone)))
    assert [step["packs"] for step in fed] == alone
