"""What the checks and timings of `gpu.py` share: a report, our objective, our trainer in memory.

Knows no bound and no clock but the report's own. Needs what `pretraining_peers` needs.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.pretraining_peers import Adam, Shape, drawn_cells, encoding_of, paper_lengths

Found = TypeVar("Found")


class CheckFailedError(Exception):
    """What was found lies outside what is allowed."""


class Report:
    """What was found, written down as it is found."""

    def __init__(self, folder: Path, seconds: float) -> None:
        """Begin with nothing; parts are begun for so many seconds."""
        self.folder = folder
        self._end = time.monotonic() + seconds
        folder.mkdir(parents=True, exist_ok=True)
        self._found: dict[str, Any] = {}
        self.failed: list[str] = []
        """The parts that failed."""
        self.left_out: list[str] = []
        """The parts that the time was up for."""

    def tell(self, name: str, **found: Any) -> None:
        """Print and keep."""
        self._found[name] = found
        shown = ", ".join(
            f"{key} {value:,.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in found.items()
        )
        print(f"{name}: {shown}", flush=True)
        (self.folder / "gpu.json").write_text(json.dumps(self._found, indent=1))

    def hold(self, name: str, **found: tuple[float, float]) -> None:
        """Tell numbers with the most that each may be, then refuse those that are more.

        Raises:
            CheckFailedError: a number is above its bound, or is none.
        """
        self.tell(name, **{key: value for key, (value, _) in found.items()})
        over = [
            f"{key} is {value:.4g}, expected at most {bound:.4g}"
            for key, (value, bound) in found.items()
            if not value <= bound
        ]
        if over:
            raise CheckFailedError(f"{name}: {'; '.join(over)}")

    def run(self, name: str, part: Callable[[], Found]) -> Found | None:
        """A part that may fail without ending the others; it is left out when time is up.

        Returns:
            What the part gives; None where it failed or was left out.
        """
        if time.monotonic() >= self._end:
            self.left_out.append(name)
            self.tell(f"{name} LEFT OUT", why="no time left")
            return None
        torch.compiler.reset()  # one part's graphs are not counted as another's recompiles
        try:
            return part()
        except Exception as error:  # the parts after it are worth their time
            self.failed.append(name)
            self.tell(f"{name} FAILED", error=f"{type(error).__name__}: {error}"[:2000])
            return None


def objective_of(shape: Shape, device: torch.device, *, tokens: int = 0, **more: Any) -> Any:
    """Our objective on a device, with packs of a static shape where `tokens` says how large."""
    from cytolake.train.models.bert import fresh_bert
    from cytolake.train.objectives.masked_genes import MaskedGenes
    from cytolake.train.static_packs import static_shape

    packs = static_shape(pack_tokens=tokens, length=shape.length, share=0.15) if tokens else None
    model = torch.nn.Module.to(fresh_bert(shape.config(), 0).train(), device)
    return MaskedGenes(model, n_special=2, seed=1, shape=packs, **more)


class Trainer:
    """Our trainer over cells in memory, with whatever the device offers."""

    def __init__(
        self,
        shape: Shape,
        device: torch.device,
        *,
        tokens: int,
        packs: int = 1,
        cells_per_group: int = 0,
        groups_per_step: int = 1,
        half: bool,
        compiled: bool,
    ) -> None:
        """Make a trainer of fresh weights.

        Args:
            shape: the model's.
            device: where it learns.
            tokens: the most tokens of a pack.
            packs: packs that a group of cells fills, where `cells_per_group` is 0.
            cells_per_group: cells of a group; 0 for as many as fill the packs.
            groups_per_step: groups of a step.
            half: in bfloat16.
            compiled: with the model's pass compiled.
        """
        from cytolake.train.engines import TorchEngine

        self.shape, self.device, self.tokens, self.half = shape, device, tokens, half
        self.objective = objective_of(shape, device, tokens=tokens, half=half, compiled=compiled)
        self.adam: Any = Adam()
        self.engine = TorchEngine(self.objective, self.adam)
        self.groups_per_step = groups_per_step
        n_cells = cells_per_group or _cells_that_fill(packs * tokens, shape.length)
        n_groups = max(6, 2 * groups_per_step)  # more groups than a step has: two steps or more
        self.stream = drawn_cells(shape, n_groups, n_cells)
        self.encoding = encoding_of(shape)
        self.step = 0

    def feed(self, n_steps: int) -> tuple[Any, Any]:
        """A feed up to `n_steps` and its plan; the caller closes it."""
        from cytolake.train.feeding import Feed, plan_of

        plan = plan_of(
            self.stream.n_groups, groups_per_step=self.groups_per_step, epochs=1, steps=n_steps
        )
        return (
            Feed(self.stream, self.encoding, self.objective, plan, pack_tokens=self.tokens),
            plan,
        )

    def go(self, n_steps: int) -> Any:
        """So many steps through the trainer's own loop; the metrics of all of them."""
        from cytolake.train.loop import train

        feed, plan = self.feed(self.step + n_steps)
        reports: list[Any] = []
        try:
            train(
                self.engine,
                feed,
                plan,
                self.adam,
                seed=1,
                start=self.step,
                log_seconds=1e9,
                report=reports.append,
            )
        finally:
            feed.close()
        self.step += n_steps
        (metrics,) = reports
        return metrics

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the weights."""
        return {name: value.clone() for name, value in self.objective.state_dict().items()}


def _cells_that_fill(n_tokens: int, length: int) -> int:
    """As many cells as fill so many tokens, and seldom more."""
    drawn = paper_lengths(10_000, length, 0)
    n_cells = n_tokens / drawn.mean()
    n_cells -= 2 * math.sqrt(n_cells) * drawn.std() / drawn.mean()
    return max(2, int(n_cells))
