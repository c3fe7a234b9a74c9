"""Compaction through Ray: the same result as in one process, and errors that keep their kind."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cytolake.corpus.store import Corpus
from cytolake.corpus.upkeep.job import carry_out, compact
from cytolake.corpus.upkeep.remaking import Prepared
from cytolake.platform.errors import DamageError
from cytolake.platform.session import ray_session
from cytolake.platform.settings import Settings
from cytolake.tests.faults.killing import state_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    with ray_session(n_cpus=2):
        yield


def test_a_compaction_through_ray_keeps_every_cell(two: Corpus, tmp_path: Path) -> None:
    before = state_of(two)
    done = compact(str(two.folder), Settings(home=tmp_path), cells_per_segment=50)
    after = Corpus.open(two.folder)
    assert (done.n_before, done.n_after, done.n_cells) == (4, 2, 96)
    assert after.verify(deep=True) == []
    assert state_of(after).ids == before.ids and state_of(after).counts == before.counts
    again = compact(str(two.folder), Settings(home=tmp_path), cells_per_segment=50)
    assert again.snapshot is None


def test_damage_that_a_worker_finds_is_damage_for_the_caller(two: Corpus, tmp_path: Path) -> None:
    path = two.segments_folder / "lung-0" / "obs.parquet"
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamageError, match="lung-0"):
        compact(str(two.folder), Settings(home=tmp_path), cells_per_segment=100)
    assert Corpus.open(two.folder).snapshot == two.snapshot


def test_a_task_is_answered_with_small_values_alone(two: Corpus) -> None:
    task = {"corpus": str(two.folder), "segments": ["blood-0", "lung-0"]}
    answer = json.loads(carry_out({"task": json.dumps(task)})["result"])
    prepared = Prepared.from_values(answer["prepared"])
    assert set(prepared.inputs) == {"blood-0", "lung-0"} and prepared.n_cells == 48
    task["segments"] = ["gone"]
    assert json.loads(carry_out({"task": json.dumps(task)})["result"]) == {"prepared": None}
