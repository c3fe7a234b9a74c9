"""The engine's seam over DeepSpeed with ZeRO 0 or 1. The only file that knows DeepSpeed.

It is imported inside functions: its import looks for accelerators and compilers. DeepSpeed
divides gradients by the number of ranks; that is undone here, for losses come in as sums that
were divided by the global number of masked tokens already. Its own checkpoints are pickled and
not used: moments are gathered whole, so that they load on any number of ranks.
"""

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..platform.errors import TrainingError
from .engines import (
    MOMENTS,
    adamw,
    moments_in,
    n_ranks,
    restore_in,
    set_learning_rate,
    trained,
    updates_in,
    updates_of,
)
from .recipe import OptimizerRecipe


class DeepSpeedStepper:
    """A DeepSpeed engine behind the seam."""

    def __init__(self, objective: nn.Module, recipe: OptimizerRecipe, zero_stage: int) -> None:
        """Start DeepSpeed on the process group that is open, or on a group of one."""
        deepspeed = _import_deepspeed(device_of(objective))
        self._objective, self._rank_scale = objective, float(n_ranks())
        configuration = {
            "train_micro_batch_size_per_gpu": 1,
            # Ranks may hold unequal numbers of packs: `step` is the boundary, not a counter.
            "managed_gradient_accumulation": False,
            # Without ZeRO DeepSpeed clips too, but tells no norm: there the optimizer does it.
            "gradient_clipping": recipe.clip if zero_stage else 0.0,
            "zero_optimization": {"stage": zero_stage, "overlap_comm": False},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": sys.maxsize,
        }
        self._optimizer = adamw(objective, recipe)
        if not zero_stage:
            self._optimizer.clip = recipe.clip
        engine, _, _, _ = deepspeed.initialize(
            model=objective, optimizer=self._optimizer, config=configuration
        )
        self._engine: Any = engine

    @property
    def name(self) -> str:
        """The class that does the work."""
        return type(self._engine).__name__

    @property
    def zero_stage(self) -> int:
        """DeepSpeed's ZeRO stage."""
        return int(self._engine.zero_optimization_stage())

    def forward(self, prepared: object) -> tuple[torch.Tensor, torch.Tensor]:
        """The objective's summed loss of one pack, and its counts of guesses."""
        return self._engine(prepared)

    def backward(self, loss: torch.Tensor) -> None:
        """Add a loss's gradients to this rank's; DeepSpeed's mean over ranks is undone."""
        self._engine.backward(loss * self._rank_scale, scale_wrt_gas=False)

    def step(self, learning_rate: float) -> torch.Tensor:
        """Add gradients over ranks, clip, update, forget them; the norm before clipping.

        ZeRO 1 looks at the norm itself, on the host, and leaves a step out where it is not finite.
        """
        set_learning_rate(self._base, learning_rate)
        self._engine.step()
        norm = self._engine.get_global_grad_norm() if self.zero_stage else self._optimizer.norm
        return norm_on(device_of(self._objective), norm)

    def moments(self) -> dict[str, torch.Tensor]:
        """Both moments of every parameter, gathered from all ranks."""
        if not self.zero_stage:
            return moments_in(self._objective, self._base)
        from deepspeed.utils import safe_get_full_optimizer_state

        if not self._base.state:
            return {}
        self._tie_moments()
        gathered: dict[str, torch.Tensor] = {}
        for name, parameter in trained(self._objective):
            for moment in MOMENTS:
                value = safe_get_full_optimizer_state(parameter, moment)
                if value is None:
                    raise TrainingError(f"DeepSpeed gave no {moment} of {name}; expected a tensor")
                gathered[f"{name}/{moment}"] = value.clone()
        return gathered | updates_in(self._base)

    def restore(self, moments: Mapping[str, torch.Tensor], n_steps: int) -> None:
        """Take on moments that `moments` gave after `n_steps` steps, on any number of ranks."""
        if not self.zero_stage:
            restore_in(self._objective, self._base, moments, n_steps)
            return
        from deepspeed.utils import safe_set_full_optimizer_state

        zero, n_updates = self._engine.optimizer, updates_of(moments, n_steps)
        for partition in zero.single_partition_of_fp32_groups:
            state = {moment: torch.zeros_like(partition.data) for moment in MOMENTS}
            count = n_updates.to(partition.device, copy=True)
            zero.optimizer.state[partition] = {"step": count, **state}
        self._tie_moments()
        for name, parameter in trained(self._objective):
            for moment in MOMENTS:
                safe_set_full_optimizer_state(parameter, moments[f"{name}/{moment}"], moment)

    def _tie_moments(self) -> None:
        """Tie every parameter to its place in the moments, as DeepSpeed does.

        DeepSpeed 0.19 does it once, after the FIRST group's first step, when the second group
        has no moments yet: its parameters stay untied.
        """
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        zero = self._engine.optimizer
        for group, partition in zip(
            zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True
        ):
            lazy_init_hp_params_optimizer_state(group, partition, zero.optimizer.state)

    @property
    def _base(self) -> torch.optim.Optimizer:
        """The torch optimizer inside DeepSpeed's wrappers."""
        optimizer = self._engine.optimizer
        return optimizer if isinstance(optimizer, torch.optim.Optimizer) else optimizer.optimizer


def device_of(objective: nn.Module) -> torch.device:
    """Where an objective's weights are."""
    return next(objective.parameters()).device


def norm_on(device: torch.device, norm: torch.Tensor | float) -> torch.Tensor:
    """A gradient norm where losses are: of a step it leaves out DeepSpeed tells a plain number."""
    return torch.as_tensor(norm, device=device)


def name_accelerator(device: torch.device) -> None:
    """Tell DeepSpeed which kind of device to use, before its import looks for all there are.

    It moves the model to the kind that is named, whatever was asked for before: what a parent
    process, or the user's shell, has set counts for nothing here.
    """
    os.environ["DS_ACCELERATOR"] = device.type


def _import_deepspeed(device: torch.device) -> Any:
    name_accelerator(device)
    os.environ.setdefault("DS_LOG_LEVEL", "warning")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if device.type == "cpu":
        # Which ops a compiler could build is probed at first use, and the shared-memory op is
        # then built for about 40 s; only inference uses it. None is offered, none is built.
        deepspeed.ops.__dict__["__compatible_ops__"] = {}
    return deepspeed
