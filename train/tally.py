"""What steps add up on their device, read by the host only when a report is due. Knows no pack.

Every pack's loss and every step's gradient norm stay where they were made until `read` takes them
over in one copy: no step waits for a number that nobody looks at yet.
"""

import math
from dataclasses import dataclass

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
        cells: cells of all packs.
        tokens: their tokens.
        sum_squares: the sum of the cells' squared numbers of tokens.
        norm: of the last step's gradient, before clipping; the same on all ranks.
        steps: the steps, from 0.
        skipped: those whose gradient was not finite; they updated nothing.
        bad_packs: the packs whose loss was not finite.
    """

    loss: float
    right: float
    masked: float
    cells: float
    tokens: float
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
        self._rights: list[torch.Tensor] = []
        self._packs: list[tuple[Place, int]] = []
        self._norms: list[torch.Tensor] = []
        self._steps: list[int] = []
        self._cells = self._tokens = self._sum_squares = 0

    def add_pack(
        self, place: Place, loss: torch.Tensor, right: torch.Tensor, n_masked: int
    ) -> None:
        """Note a pack's summed loss and number of right guesses, both of shape ()."""
        self._packs.append((place, n_masked))
        self._losses.append(loss.detach())
        self._rights.append(right.detach())

    def add_step(
        self, step: int, norm: torch.Tensor, *, n_cells: int, n_tokens: int, sum_squares: int
    ) -> None:
        """Note a step's gradient norm, shape (), and the sizes of its cells."""
        self._steps.append(step)
        self._norms.append(norm)
        self._cells += n_cells
        self._tokens += n_tokens
        self._sum_squares += sum_squares

    def read(self) -> Reading:
        """All since the last reading; the host waits for the device here, and nowhere else."""
        losses, rights = _values(self._losses), _values(self._rights)
        norms = _values(self._norms)
        finite = [math.isfinite(loss) for loss in losses]
        kept = [i for i, is_finite in enumerate(finite) if is_finite]
        reading = Reading(
            loss=math.fsum(losses[i] for i in kept),
            right=sum(rights[i] for i in kept),
            masked=sum(self._packs[i][1] for i in kept),
            cells=self._cells,
            tokens=self._tokens,
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


def _values(scalars: list[torch.Tensor]) -> list[float]:
    """Scalars of one device as numbers, in one copy."""
    return torch.stack([x.double() for x in scalars]).tolist() if scalars else []
