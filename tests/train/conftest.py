"""Small random cells for the tests of train: no corpus, no file."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from cytolake.corpus.cells import CellBatch
from cytolake.corpus.medians import MediansSet
from cytolake.corpus.vocabularies import Vocabulary

N_GENES = 60

torch.set_num_threads(1)  # tiny matrices: a second thread only waits for the first


def gene_names(n_genes: int = N_GENES) -> list[str]:
    return [f"ENSG{number:011d}" for number in range(1, n_genes + 1)]


def random_cells(n_cells: int, *, seed: int = 0, n_genes: int = N_GENES) -> CellBatch:
    """Cells with two hidden programmes, so that there is something to learn."""
    draw = np.random.default_rng(seed)
    programme = draw.integers(0, 2, n_cells)
    rate = np.where(np.arange(n_genes) % 2 == programme[:, None], 2.0, 0.4)
    counts = draw.poisson(rate)
    counts[:, 0] += 1
    rows, genes = np.nonzero(counts)
    return CellBatch(
        gene_ids=np.array(gene_names(n_genes), dtype=object),
        indptr=np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_cells))]),
        indices=genes.astype(np.int32),
        counts=counts[rows, genes].astype(np.uint32),
        n_counts=counts.sum(axis=1),
        content_keys=draw.integers(0, 2**63, n_cells).astype(np.uint64),
        obs=pa.table({"cell_id": np.arange(n_cells)}),
    )


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary(gene_ids=tuple(gene_names()))


@pytest.fixture
def medians() -> MediansSet:
    values = np.random.default_rng(5).uniform(0.5, 3, N_GENES).round(1)
    return MediansSet(gene_ids=tuple(gene_names()), medians=values)


class RandomStream:
    """Groups of random cells, the same for every epoch but in another order."""

    def __init__(self, n_cells: int, cells_per_group: int, *, n_genes: int = N_GENES) -> None:
        self._batches = [
            random_cells(min(cells_per_group, n_cells - first), seed=first, n_genes=n_genes)
            for first in range(0, n_cells, cells_per_group)
        ]

    @property
    def n_groups(self) -> int:
        return len(self._batches)

    def group(self, epoch: int, index: int) -> list[CellBatch]:
        return [self._batches[(index * 7 + epoch) % self.n_groups]]
