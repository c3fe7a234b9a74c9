"""Cells of a corpus for a PyTorch loop of one's own. Knows streams and ranks; knows no model.

    from cytolake.train.cell_dataset import CellDataset
    cells = CellDataset(Corpus.open("corpus/"), "tissue = 'blood'", cells_per_batch=256)
    for batch in torch.utils.data.DataLoader(cells, batch_size=None): ...

The stream has threads of its own and hands out whole batches, so a DataLoader has nothing left to
do: `batch_size=None`, no workers.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from ..corpus.cells import CellBatch
from ..corpus.order import BLOCK
from ..corpus.splits import Split
from ..corpus.store import Corpus
from ..corpus.stream import Stream
from ..platform.errors import TrainingError


class CellDataset(IterableDataset[Any]):
    """Shuffled batches of raw counts, or what `prepare` makes of them; an iteration is an epoch.

    All ranks walk through one list of batches, a round at a time: each takes one of `n_ranks`
    neighbours. So the same cells come in the same batches on any number of ranks, and a state goes
    on where it was on any other number. Each iteration goes on where the one before it stopped.
    """

    def __init__(
        self,
        corpus: Corpus,
        where: str | None = None,
        *,
        cells_per_batch: int = 256,
        seed: int = 0,
        prepare: Callable[[CellBatch], Any] | None = None,
        columns: Sequence[str] = (),
        split: Split | None = None,
        part: str | None = None,
        block: int = BLOCK,
        rank: int | None = None,
        n_ranks: int | None = None,
        even: bool = True,
    ) -> None:
        """Choose cells; nothing of their counts is read yet.

        Args:
            corpus: an open snapshot.
            where: a bare condition over `cells`; None for all.
            cells_per_batch: cells in a batch; the last of an epoch may have fewer.
            seed: another seed, another order.
            prepare: what becomes of a batch, an encoding's `encode` for one; None leaves it.
            columns: columns of `cells` that a batch's `obs` carries beside `cell_id`.
            split: how the snapshot is cut into parts.
            part: the part wanted.
            block: neighbouring cells that travel together: 1 is a true shuffle; see `epoch_order`.
            rank: this process's number; that of `torch.distributed` where None, 0 without one.
            n_ranks: how many share the batches; likewise.
            even: leave out an epoch's last round where it has no batch for every rank: ranks that
                wait for each other would wait for ever.

        Raises:
            NoCellsError: no cell is chosen.
            TrainingError: there is no such rank.
        """
        super().__init__()
        spread = torch.distributed.is_available() and torch.distributed.is_initialized()
        if rank is None:
            rank = torch.distributed.get_rank() if spread else 0
        if n_ranks is None:
            n_ranks = torch.distributed.get_world_size() if spread else 1
        if not 0 <= rank < n_ranks:
            raise TrainingError(f"rank is {rank} of {n_ranks}, expected 0 to {n_ranks - 1}")
        self._rank, self._n_ranks, self._even = rank, n_ranks, even
        self._prepare = prepare
        self.selection = corpus.select(where, split=split, part=part)
        self._stream = Stream(
            corpus,
            self.selection,
            seed=seed,
            cells_per_group=cells_per_batch,
            columns=columns,
            block=block,
        )
        self._identity = {
            "selection": self.selection.digest,
            "seed": seed,
            "cells_per_batch": cells_per_batch,
            "block": block,
        }
        self._epoch = self._done = 0

    @property
    def n_batches(self) -> int:
        """Batches that this rank gets in a whole epoch."""
        n_groups = self._stream.n_groups
        if self._even:
            return n_groups // self._n_ranks
        return len(range(self._rank, n_groups, self._n_ranks))

    def __iter__(self) -> Iterator[Any]:
        """What is left of the epoch; the next iteration begins the next one.

        Raises:
            TrainingError: a DataLoader's worker asks.
        """
        if get_worker_info() is not None:
            raise TrainingError(
                "a CellDataset reads with threads of its own and keeps the place in one process: "
                "expected DataLoader(..., batch_size=None, num_workers=0)"
            )
        n_groups = self._stream.n_groups
        while self._done < n_groups:
            first = self._done
            if self._even and first + self._n_ranks > n_groups:
                break
            self._done = min(first + self._n_ranks, n_groups)  # a state taken now has this batch
            if first + self._rank < n_groups:
                [batch] = self._stream.group(self._epoch, first + self._rank)
                yield batch if self._prepare is None else self._prepare(batch)
        self._epoch, self._done = self._epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the dataset stands after the batch that was handed out last; the same on all ranks.

        JSON can hold it.
        """
        return {**self._identity, "epoch": self._epoch, "batches_done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken, on any number of ranks.

        Raises:
            TrainingError: it was taken of other cells, or of another order of them.
        """
        for name, value in self._identity.items():
            if state.get(name) != value:
                raise TrainingError(
                    f"the state has {name} {state.get(name)!r}, the dataset {value!r}: make it as "
                    "it was when the state was taken"
                )
        self._epoch, self._done = int(state["epoch"]), int(state["batches_done"])

    def close(self) -> None:
        """Let the reading threads go."""
        self._stream.close()
