"""What turns losses into steps: one small seam, plain torch behind it. Knows no pack and no cell.

DeepSpeed's side of the seam is in `deepspeed_engine.py`. A step's loss is a SUM over all ranks'
packs, divided by the global number of masked tokens before `backward`; an engine adds gradients
over ranks and never averages them.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import distributed, nn

if TYPE_CHECKING:
    from .recipe import OptimizerRecipe

MOMENTS = ("exp_avg", "exp_avg_sq")
"""The names AdamW gives its two moments."""

UPDATES = "optimizer/n_updates"
"""Under which name the number of updates lies beside the moments."""


class Engine(Protocol):
    """Gradients in, steps out."""

    @property
    def name(self) -> str:
        """The class that does the work, as logged with the run."""
        ...

    @property
    def zero_stage(self) -> int:
        """DeepSpeed's ZeRO stage; 0 for plain torch."""
        ...

    def forward(self, prepared: object) -> tuple[torch.Tensor, torch.Tensor]:
        """The objective's summed loss of one pack, and its counts of guesses."""
        ...

    def backward(self, loss: torch.Tensor) -> None:
        """Add a loss's gradients to this rank's."""
        ...

    def step(self, learning_rate: float) -> torch.Tensor:
        """Add gradients over ranks, clip, update, forget them; the norm before clipping.

        Where the norm is not finite nothing is updated. It stays on the device, shape ().
        """
        ...

    def moments(self) -> dict[str, torch.Tensor]:
        """Both moments of every parameter, whole, as `name/moment`. All ranks must call it."""
        ...

    def restore(self, moments: Mapping[str, torch.Tensor], n_steps: int) -> None:
        """Take on moments that `moments` gave after `n_steps` steps."""
        ...


class TorchEngine:
    """The seam in plain torch: gradients of all ranks are added in one all-reduce."""

    zero_stage = 0

    def __init__(self, objective: nn.Module, recipe: "OptimizerRecipe") -> None:
        """Wrap an objective that holds the model."""
        self._objective = objective
        self._optimizer = adamw(objective, recipe)
        self._optimizer.clip = recipe.clip

    @property
    def name(self) -> str:
        """The class that does the work."""
        return type(self).__name__

    def forward(self, prepared: object) -> tuple[torch.Tensor, torch.Tensor]:
        """The objective's summed loss of one pack, and its counts of guesses."""
        return self._objective(prepared)

    def backward(self, loss: torch.Tensor) -> None:
        """Add a loss's gradients to this rank's."""
        loss.backward()

    def step(self, learning_rate: float) -> torch.Tensor:
        """Add gradients over ranks, clip, update, forget them; the norm before clipping."""
        parameters = [p for _, p in trained(self._objective)]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        if n_ranks() > 1:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            distributed.all_reduce(flat)
            summed = flat.split([p.numel() for p in parameters])
            gradients = [part.view_as(p) for part, p in zip(summed, parameters, strict=True)]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        set_learning_rate(self._optimizer, learning_rate)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return self._optimizer.norm

    def moments(self) -> dict[str, torch.Tensor]:
        """Both moments of every parameter."""
        return moments_in(self._objective, self._optimizer)

    def restore(self, moments: Mapping[str, torch.Tensor], n_steps: int) -> None:
        """Take on moments that `moments` gave after `n_steps` steps."""
        restore_in(self._objective, self._optimizer, moments, n_steps)


def trained(objective: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that learn, each once, with their names."""
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            yield name, parameter


class GuardedAdamW(torch.optim.AdamW):
    """AdamW that clips, and leaves everything as it is where a gradient is not finite.

    Whether one is, is found and used on the device: the host reads nothing. torch's fused kernel
    offers this for scaled gradients, under the names used here.
    """

    clip: float = 0.0
    """Largest global norm of the gradients that `step` takes as they are; 0 for any."""
    found_inf: torch.Tensor
    norm: torch.Tensor
    """Of the gradients of the last step, before clipping. Shape ()."""

    def step(self, closure: Any = None) -> Any:
        """Clip and update, or neither."""
        parameters = [
            p for group in self.param_groups for p in group["params"] if p.grad is not None
        ]
        self.norm = nn.utils.get_total_norm([p.grad for p in parameters])
        if self.clip:
            nn.utils.clip_grads_with_norm_(parameters, self.clip, self.norm)
        self.found_inf = (~torch.isfinite(self.norm)).float()
        return super().step(closure)


def adamw(objective: nn.Module, recipe: "OptimizerRecipe") -> GuardedAdamW:
    """AdamW with decay on matrices only: biases and layer norms do not decay.

    Source: the trainer of the published pretraining (Hugging Face) leaves those out too.
    """
    matrices = [p for _, p in trained(objective) if p.ndim >= 2]
    vectors = [p for _, p in trained(objective) if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return GuardedAdamW(
        groups, lr=recipe.peak_lr, betas=recipe.betas, eps=recipe.epsilon, fused=True
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def moments_in(objective: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Both moments of every parameter that an optimizer holds whole; none before its first step."""
    held = {
        f"{name}/{moment}": optimizer.state[parameter][moment].detach().clone()
        for name, parameter in trained(objective)
        for moment in MOMENTS
        if moment in optimizer.state[parameter]
    }
    return held | updates_in(optimizer) if held else {}


def updates_in(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """How many updates an optimizer has made: fewer than steps where some were left out."""
    steps = [state["step"] for state in optimizer.state.values() if "step" in state]
    return {UPDATES: torch.tensor([float(steps[0])])} if steps else {}


def updates_of(moments: Mapping[str, torch.Tensor], n_steps: int) -> torch.Tensor:
    """The number of updates that `moments` tell of; that of steps where they do not. Shape ()."""
    return moments.get(UPDATES, torch.tensor([float(n_steps)])).reshape(()).float()


def restore_in(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    moments: Mapping[str, torch.Tensor],
    n_steps: int,
) -> None:
    """Give an optimizer that holds parameters whole its moments back."""
    n_updates = updates_of(moments, n_steps)
    for name, parameter in trained(objective):
        state: dict[str, torch.Tensor] = {"step": n_updates.to(parameter.device, copy=True)}
        for moment in MOMENTS:
            state[moment] = moments[f"{name}/{moment}"].to(parameter).clone()
        optimizer.state[parameter] = state


def n_ranks() -> int:
    """Number of ranks of this run; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def this_rank() -> int:
    """This process's rank; 0 without a process group."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def sum_over_ranks(values: list[float]) -> list[float]:
    """Add values over ranks; they travel as float64, so counts stay exact."""
    if n_ranks() == 1:
        return values
    summed = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(summed)
    return summed.tolist()
