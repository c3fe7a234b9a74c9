import json
from pathlib import Path
from typing import Any

import pytest
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import TrainingError
from cytolake.tests.faults.commands import ingest_source
from cytolake.train.cell_dataset import CellDataset
from torch.utils.data import DataLoader


@pytest.fixture
def two(tmp_path: Path) -> Corpus:
    """Two sources of two segments of 24 cells each."""
    corpus = Corpus.create(tmp_path / "corpus")
    for name in ("blood", "lung"):
        ingest_source(corpus, name)
    return Corpus.open(tmp_path / "corpus")


def cells_of(corpus: Corpus, **options: Any) -> CellDataset:
    return CellDataset(corpus, seed=5, block=2, prepare=ids_of, **options)


def ids_of(batch: Any) -> list[int]:
    return batch.obs.column("cell_id").to_pylist()


def test_a_loader_gives_every_cell_once_an_epoch(two: Corpus):
    cells = cells_of(two, cells_per_batch=10)
    epochs = [list(DataLoader(cells, batch_size=None)) for _ in range(2)]
    cells.close()
    everything = sorted(two.select().cell_id.tolist())
    seen = [sorted(cell for batch in batches for cell in batch) for batches in epochs]
    assert seen == [everything, everything]
    assert epochs[0] != epochs[1]
    assert len(epochs[0]) == cells.n_batches


def test_without_a_prepare_a_batch_is_raw_counts(two: Corpus):
    cells = CellDataset(two, "source_id = 'lung'", cells_per_batch=8, columns=["donor_id"])
    batch = next(iter(cells))
    cells.close()
    assert batch.to_csr().shape == (8, len(batch.gene_ids))
    assert batch.obs.column_names == ["cell_id", "donor_id"]


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_ranks_share_the_batches_of_one(two: Corpus, n_ranks: int, even: bool):
    alone = cells_of(two, cells_per_batch=5)
    expected = list(alone)
    alone.close()
    ranks = [
        cells_of(two, cells_per_batch=5, rank=rank, n_ranks=n_ranks, even=even)
        for rank in range(n_ranks)
    ]
    found = [list(cells) for cells in ranks]
    assert [len(batches) for batches in found] == [cells.n_batches for cells in ranks]
    for cells in ranks:
        cells.close()
    n_rounds = len(expected) // n_ranks
    if even:
        expected = expected[: n_rounds * n_ranks]
    merged = [found[place % n_ranks][place // n_ranks] for place in range(len(expected))]
    assert merged == expected
    assert sum(len(batches) for batches in found) == len(expected)


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_state_goes_on_with_another_number_of_ranks(two: Corpus, stop: int):
    alone = cells_of(two, cells_per_batch=5)
    expected = list(alone) + list(alone)
    alone.close()
    first = cells_of(two, cells_per_batch=5, rank=1, n_ranks=2)
    batches = iter(first)
    for _ in range(stop):
        next(batches)
    state = json.loads(json.dumps(first.state_dict()))
    first.close()
    second = cells_of(two, cells_per_batch=5)
    second.load_state_dict(state)
    found = list(second) + list(second)
    second.close()
    assert found == expected[2 * stop :]


def test_a_state_of_other_cells_is_refused(two: Corpus):
    first, other = cells_of(two), cells_of(two, where="source_id = 'lung'")
    with pytest.raises(TrainingError, match="the state has selection"):
        other.load_state_dict(first.state_dict())
    first.close()
    other.close()


def test_a_workers_question_is_refused(two: Corpus, monkeypatch: pytest.MonkeyPatch):
    cells = cells_of(two)
    monkeypatch.setattr("cytolake.train.cell_dataset.get_worker_info", lambda: object())
    with pytest.raises(TrainingError, match="num_workers=0"):
        next(iter(cells))
    cells.close()


def test_a_rank_that_is_none_is_refused(two: Corpus):
    with pytest.raises(TrainingError, match="rank is 2 of 2"):
        cells_of(two, rank=2, n_ranks=2)
