"""What steps add up on their device, read by the host only when a report is due. Knows no pack.

Every pack's loss and every step's gradient norm stay where they were made until `read` takes them
over in one copy: no step waits for a number that nobody looks at yet.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

Place = tuple[int, int, int]
"""A pack: its step, counted from 0, its group and its number in the group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What this rank's steps since the last reading came to.

    Attributes:
        loss: summed over chosen tokens of packs whose loss is finite.
        right: chosen tokens guessed right, of the same packs.
        masked: chosen tokens of the same packs.
        mask_right: those that show `<mask>` and were guessed right, of the same packs.
        mask_asked: chosen tokens that show `<mask>`, of the same packs.
        cells: cells of all packs.
        tokens: their tokens.
        laid: tokens that the model ran over: with those that fill or pad.
        sum_squares: the sum of the cells' squared numbers of tokens.
        norm: of the last step's gradient, before clipping; the same on all ranks.
        steps: the steps, from 0.
        skipped: those whose gradient was not finite; they updated nothing.
        bad_packs: the packs whose loss was not finite.
    """

    loss: float
    right: float
    masked: float
    mask_right: float
    mask_asked: float
    cells: float
    tokens: float
    laid: float
    sum_squares: float
    norm: float
    steps: tuple[int, ...]
    skipped: tuple[int, ...]
    bad_packs: tuple[Place, ...]


class Tally:
    """The sums of some steps."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._losses: list[torch.Tensor] = []
        self._guesses: list[torch.Tensor] = []
        self._packs: list[tuple[Place, int]] = []
        self._norms: list[torch.Tensor] = []
        self._steps: list[int] = []
        self._cells = self._tokens = self._laid = self._sum_squares = 0

    def add_pack(
        self, place: Place, loss: torch.Tensor, guesses: torch.Tensor, n_masked: int
    ) -> None:
        """Note what the objective gives of a pack: its summed loss and its counts of guesses."""
        self._packs.append((place, n_masked))
        self._losses.append(loss.detach())
        self._guesses.append(guesses.detach())

    def add_step(
        self,
        step: int,
        norm: torch.Tensor,
        *,
        n_cells: int,
        n_tokens: int,
        n_laid: int,
        sum_squares: int,
    ) -> None:
        """Note a step's gradient norm, shape (), and the sizes of its cells."""
        self._steps.append(step)
        self._norms.append(norm)
        self._cells += n_cells
        self._tokens += n_tokens
        self._laid += n_laid
        self._sum_squares += sum_squares

    def read(self) -> Reading:
        """All since the last reading; the host waits for the device here, and nowhere else."""
        losses, guesses = _values(self._losses), _values(self._guesses)
        norms = _values(self._norms)
        finite = [math.isfinite(loss) for loss in losses]
        kept = [i for i, is_finite in enumerate(finite) if is_finite]
        right, mask_right, mask_asked = (sum(guesses[i][kind] for i in kept) for kind in range(3))
        reading = Reading(
            loss=math.fsum(losses[i] for i in kept),
            right=right,
            masked=sum(self._packs[i][1] for i in kept),
            mask_right=mask_right,
            mask_asked=mask_asked,
            cells=self._cells,
            tokens=self._tokens,
            laid=self._laid,
            sum_squares=self._sum_squares,
            norm=norms[-1] if norms else math.nan,
            steps=tuple(self._steps),
            skipped=tuple(
                s for s, n in zip(self._steps, norms, strict=True) if not math.isfinite(n)
            ),
            bad_packs=tuple(p for (p, _), ok in zip(self._packs, finite, strict=True) if not ok),
        )
        self.__init__()
        return reading


def _values(tensors: list[torch.Tensor]) -> list[Any]:
    """Tensors of one shape and device as numbers, in one copy."""
    return torch.stack([x.double() for x in tensors]).tolist() if tensors else []
