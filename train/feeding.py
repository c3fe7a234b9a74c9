"""A step's packs, made ready while the step before runs. Knows groups and ranks; no engine.

A step is a fixed list of groups of cells, dealt to the ranks in turn. Packing and masking happen
inside a group, so a step holds the same packs on any number of ranks.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Protocol

from ..corpus.cells import CellBatch
from ..corpus.rooms import Rooms
from ..platform.errors import NoCellsError
from .encodings.rank_value import RankValueEncoding
from .encodings.tokens import TokenBatch

if TYPE_CHECKING:
    from .recipe import TrainingRecipe

_GROUPS_KEPT = 32
"""Groups whose packs' memory waits to be used again, at most: more than two steps often have."""


class CellStream(Protocol):
    """Numbered groups of an epoch's cells; `corpus.stream.Stream` is one."""

    @property
    def n_groups(self) -> int:
        """Groups in an epoch."""
        ...

    def group(self, epoch: int, index: int) -> list[CellBatch]:
        """The cells of one group."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Which groups make which step.

    Attributes:
        n_groups: groups in an epoch.
        groups_per_step: groups of one step; the last step of an epoch may have fewer.
        n_steps: steps of the whole run.
    """

    n_groups: int
    groups_per_step: int
    n_steps: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch."""
        return ceil(self.n_groups / self.groups_per_step)

    def groups_of(self, step: int) -> tuple[int, range]:
        """The epoch of a step (from 0) and its groups in that epoch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        first = place * self.groups_per_step
        return epoch, range(first, min(first + self.groups_per_step, self.n_groups))


def plan_of(
    n_groups: int, *, groups_per_step: int, epochs: float, steps: int | None = None
) -> Plan:
    """Lay out a run; `steps` decides where it is given, else `epochs`.

    Raises:
        NoCellsError: there is no group.
    """
    if n_groups < 1:
        raise NoCellsError("there are no cells to learn from: widen data.where or the split's part")
    per_epoch = ceil(n_groups / groups_per_step)
    n_steps = steps if steps is not None else max(1, round(epochs * per_epoch))
    return Plan(n_groups=n_groups, groups_per_step=groups_per_step, n_steps=n_steps)


def plan_for(training: "TrainingRecipe", n_cells: int, groups_per_step: int) -> Plan:
    """The plan of a recipe over so many cells; see `plan_of`."""
    return plan_of(
        ceil(n_cells / training.cells_per_group),
        groups_per_step=groups_per_step,
        epochs=training.epochs,
        steps=training.steps,
    )


class PreparedPack(Protocol):
    """A pack as an objective reads it."""

    @property
    def n_masked(self) -> int:
        """Tokens that are chosen: the pack's weight in a step's loss."""
        ...

    @property
    def lengths(self) -> tuple[int, ...]:
        """Each cell's number of tokens."""
        ...

    @property
    def n_laid(self) -> int:
        """Tokens that the model runs over: those of the cells, and what fills or pads."""
        ...

    @property
    def cell_rows(self) -> tuple[int, ...]:
        """Each cell's row among the cells of its group; none for a pack of weight 0."""
        ...


class Packer(Protocol):
    """What makes packs of cells; an objective is one."""

    def packs(
        self, tokens: TokenBatch, budget: int, epoch: int, rooms: Rooms | None
    ) -> Sequence[PreparedPack]:
        """Some cells' packs of at most `budget` tokens, as the objective reads them."""
        ...

    def nothing(self, epoch: int) -> PreparedPack:
        """A pack of weight 0, for a rank that has no cells in a step."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StepWork:
    """What one rank does in one step.

    Attributes:
        packs: the rank's packs, never none: a rank without cells gets one of weight 0.
        places: each pack's (group, number in the group): what its dropout is drawn from.
        n_masked: masked tokens of these packs.
        n_cells: their cells.
        n_tokens: their tokens.
        n_laid: tokens that the model runs over: with those that fill or pad.
        sum_squares: the sum of the cells' squared numbers of tokens: what attention costs.
    """

    packs: tuple[PreparedPack, ...]
    places: tuple[tuple[int, int], ...]
    n_masked: int
    n_cells: int
    n_tokens: int
    n_laid: int
    sum_squares: int


class Feed:
    """A rank's work, step by step, one step ahead in threads of its own."""

    def __init__(
        self,
        stream: CellStream,
        encoding: RankValueEncoding,
        packer: Packer,
        plan: Plan,
        *,
        pack_tokens: int,
        rank: int = 0,
        n_ranks: int = 1,
    ) -> None:
        """Bind a stream to an encoding and a rank.

        Args:
            stream: where groups come from.
            encoding: what turns cells into tokens.
            packer: what makes packs of them: the objective.
            plan: which groups make which step.
            pack_tokens: the most tokens of a pack.
            rank: this rank.
            n_ranks: number of ranks.
        """
        self._stream, self._encoding, self._packer, self._plan = stream, encoding, packer, plan
        self._pack_tokens, self._rank, self._n_ranks = pack_tokens, rank, n_ranks
        self._rooms = Rooms(kept=_GROUPS_KEPT)
        self._ahead: dict[int, Future[StepWork]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cytolake-feed")
        self._encoders = ThreadPoolExecutor(
            min(4, os.cpu_count() or 1), thread_name_prefix="cytolake-encode"
        )
        self.waited_s = 0.0
        """Seconds that steps had to wait for their packs so far."""

    def work(self, step: int) -> StepWork:
        """This rank's packs of a step; the next step's are begun."""
        began = time.perf_counter()
        begun = self._ahead.pop(step, None) or self._thread.submit(self._make, step)
        if step + 1 < self._plan.n_steps and step + 1 not in self._ahead:
            self._ahead[step + 1] = self._thread.submit(self._make, step + 1)
        work = begun.result()
        self.waited_s += time.perf_counter() - began
        return work

    def close(self) -> None:
        """Let the threads go."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._encoders.shutdown(wait=True, cancel_futures=True)

    def _make(self, step: int) -> StepWork:
        epoch, step_groups = self._plan.groups_of(step)
        # Cells are taken in order, here; what is made of them is made group by group, side by side.
        begun: list[tuple[int, Future[Sequence[PreparedPack]]]] = []
        for group in step_groups[self._rank :: self._n_ranks]:
            cells = self._stream.group(epoch, group)
            begun.append((group, self._encoders.submit(self._packs_of, cells, epoch)))
        packs: list[PreparedPack] = []
        places: list[tuple[int, int]] = []
        for group, made in begun:
            for number, pack in enumerate(made.result()):
                packs.append(pack)
                places.append((group, number))
        lengths = [length for pack in packs for length in pack.lengths]
        if not packs:
            packs, places = [self._packer.nothing(epoch)], [(-1, 0)]
        return StepWork(
            packs=tuple(packs),
            places=tuple(places),
            n_masked=sum(pack.n_masked for pack in packs),
            n_cells=len(lengths),
            n_tokens=sum(lengths),
            n_laid=sum(pack.n_laid for pack in packs),
            sum_squares=sum(length * length for length in lengths),
        )

    def _packs_of(self, batches: Sequence[CellBatch], epoch: int) -> Sequence[PreparedPack]:
        return self._packer.packs(self._tokens_of(batches), self._pack_tokens, epoch, self._rooms)

    def _tokens_of(self, batches: Sequence[CellBatch]) -> TokenBatch:
        return TokenBatch.concatenate([self._encoding.encode(batch) for batch in batches])

    def cell_ids_of(self, step: int, group: int, number: int) -> list[int]:
        """The ids of the cells of one pack, read and packed anew."""
        epoch, _ = self._plan.groups_of(step)
        tokens = self._tokens_of(self._stream.group(epoch, group))
        pack = self._packer.packs(tokens, self._pack_tokens, epoch, None)[number]
        return tokens.cell_ids[list(pack.cell_rows)].tolist()
