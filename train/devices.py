"""Which device a worker has, and what arithmetic it can do. Knows no model and no Ray.

What cannot work is refused here, by name and with the way out, before anything is compiled.
"""

from typing import TYPE_CHECKING

import torch
from torch import distributed

from ..platform.errors import RecipeError, TrainingError
from .engines import n_ranks
from .peak import Precision

if TYPE_CHECKING:
    from .recipe import PretrainRecipe

_BF16_SINCE = (8, 0)
"""The compute capability from which on tensor cores take bf16 (NVIDIA's programming guide)."""
_HEAD_MULTIPLE, _HEAD_MOST = 8, 256
"""Head widths that torch's varlen kernel takes: multiples of the first, up to the second."""


def device_here() -> torch.device:
    """The device of a plain process: the GPU in use, where there is one."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def gpus_expected(address: str | None) -> bool:
    """Whether a training may have GPUs: this machine's, or those of a cluster that is not asked."""
    return address is not None or torch.cuda.is_available()


def wants_gpus(n_gpus: int, n_workers: int) -> bool:
    """Whether workers are to have a GPU each.

    Args:
        n_gpus: GPUs that Ray, or this machine, has to give.
        n_workers: of the recipe.

    Raises:
        RecipeError: there are GPUs, but not one for each worker.
    """
    if 0 < n_gpus < n_workers:
        raise RecipeError(
            f"engine.workers = {n_workers}, but there are GPUs for {n_gpus}: two workers on one "
            f"GPU would only wait for each other. Take --set engine.workers={n_gpus}, or hide the "
            'GPUs (CUDA_VISIBLE_DEVICES="") to train on processors'
        )
    return n_gpus > 0


def refuse_on_this_machine(recipe: "PretrainRecipe", *, in_process: bool) -> None:
    """Refuse what this machine's devices cannot do, before a run is begun.

    Args:
        recipe: of the run.
        in_process: whether it trains in this process; else in Ray's workers on this machine.

    Raises:
        RecipeError: too few GPUs for its workers, or bf16 where it cannot be done.
    """
    n_gpus = torch.cuda.device_count()
    if not in_process:
        wants_gpus(n_gpus, recipe.engine.workers)
    if n_gpus:
        refuse_unable(recipe, torch.device("cuda", 0))


def refuse_unable(recipe: "PretrainRecipe", device: torch.device) -> None:
    """Refuse a recipe that says bf16 where the device, or its attention, cannot do it.

    Raises:
        RecipeError: a GPU without bf16, or a head width that the varlen kernel does not take.
    """
    if recipe.training.precision == "bf16" and (why := _why_not_bf16(recipe, device)):
        raise RecipeError(
            f'training.precision = "bf16", but {why}. Take --set training.precision=auto, which '
            "is bf16 only where it can be, or fp32"
        )


def settled_precision(recipe: "PretrainRecipe", device: torch.device, frozen: str) -> Precision:
    """What a run's precision comes to, the same on all ranks; every rank must call it.

    `auto` is bf16 where every rank has a GPU that does it, else fp32, at the first launch; later
    ones keep what it came to, whatever they run on: other arithmetic would be another run.

    Args:
        recipe: of the run.
        device: this rank's.
        frozen: what `auto` came to at the first launch; empty before.

    Raises:
        RecipeError: the recipe says bf16, and this device cannot do it.
        TrainingError: the run was begun in bf16, and this device cannot do it.
    """
    wanted = recipe.training.precision
    if wanted != "auto":
        refuse_unable(recipe, device)
        return wanted
    why_not = _why_not_bf16(recipe, device)
    can = _everywhere(device.type == "cuda" and not why_not)
    if not frozen:
        return "bf16" if can else "fp32"
    if frozen == "bf16" and why_not:
        raise TrainingError(
            f'training.precision = "auto" came to bf16 when the run was begun, but {why_not}: go '
            "on where it can be done, or begin under another name"
        )
    return "bf16" if frozen == "bf16" else "fp32"


def _why_not_bf16(recipe: "PretrainRecipe", device: torch.device) -> str:
    """What stands against bf16 on a device; empty where nothing does. A CPU does it, slowly."""
    if device.type != "cuda":
        return ""
    capability = torch.cuda.get_device_capability(device)
    if capability < _BF16_SINCE:
        return (
            f"{torch.cuda.get_device_name(device)} has compute capability {capability[0]}."
            f"{capability[1]}, expected {_BF16_SINCE[0]}.{_BF16_SINCE[1]} or more"
        )
    model = recipe.model
    width = model.width // model.heads
    if recipe.training.layout == "packed" and (width % _HEAD_MULTIPLE or width > _HEAD_MOST):
        return (
            f"model.width / model.heads = {width}, and packed attention on a GPU takes multiples "
            f"of {_HEAD_MULTIPLE} up to {_HEAD_MOST}"
        )
    return ""


def _everywhere(mine: bool) -> bool:
    """Whether something holds on every rank."""
    if n_ranks() == 1:
        return mine
    least = torch.tensor([int(mine)])
    distributed.all_reduce(least, op=distributed.ReduceOp.MIN)
    return bool(least)
