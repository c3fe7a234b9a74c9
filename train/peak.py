"""What a device could do at best, and which share of it a training uses (MFU). Knows no loop.

Peaks of known GPUs are those of NVIDIA's data sheets, dense, without sparsity; any other device is
measured by a matrix product, which says what this machine does today, not what it was sold as.
"""

import time
from dataclasses import dataclass
from typing import Literal

import torch

from .flops import BertShape

Precision = Literal["fp32", "bf16"]

KNOWN: tuple[tuple[str, float, float], ...] = (
    # part of the device's name, TFLOP/s in half precision (tensor cores), TFLOP/s in fp32
    ("H200", 989.0, 67.0),
    ("H100 PCIe", 756.0, 51.0),
    ("H100 NVL", 835.0, 60.0),
    ("H100", 989.0, 67.0),
    ("A100", 312.0, 19.5),
    ("V100-PCIE", 112.0, 14.0),
    ("V100", 125.0, 15.7),
)
"""The first row whose name is in the device's decides."""

_MEASURED_S = 0.2
_SIDE = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Peak:
    """The most a device does in a second.

    Attributes:
        flops: operations a second; a multiplication with its addition counts as two.
        origin: where the number comes from, for the run's parameters.
    """

    flops: float
    origin: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Roof:
    """What a model's training costs, and what all ranks together could do.

    Attributes:
        shape: the model's.
        flops: the peak of all ranks together, operations a second.
    """

    shape: BertShape
    flops: float

    def utilisation(
        self, *, n_tokens: float, sum_squares: float, n_scored: float, seconds: float
    ) -> float:
        """MFU: training FLOPs of the real tokens over what the peak allows in that time.

        `3 x forward_flops(n_tokens, sum_squares, n_scored) / (seconds x peak of all ranks)`, with
        `BertShape.forward_flops`: attention counts each cell's squared length, the head counts
        masked rows alone. Nothing is added for padding, recomputation or filled-up packs.
        """
        done = self.shape.training_flops(
            n_tokens=n_tokens, sum_squares=sum_squares, n_scored=n_scored
        )
        return done / (seconds * self.flops)


def peak_of(device: torch.device, precision: Precision) -> Peak:
    """The peak of a device at a precision: from the table, else measured for `_MEASURED_S`."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    known = known_peak(name, precision)
    return known if known is not None else _measured(device, precision)


def known_peak(name: str, precision: Precision) -> Peak | None:
    """The peak of a GPU by its name; None for one that is not in the table, or a slice of one."""
    if " MIG " in name:
        return None
    for part, half, single in KNOWN:
        if part in name:
            teraflops = half if precision == "bf16" else single
            return Peak(flops=teraflops * 1e12, origin=f"data sheet of {part}, {precision} dense")
    return None


def _measured(device: torch.device, precision: Precision) -> Peak:
    """The best of some products of two square matrices, with the threads that training has."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.ones(_SIDE, _SIDE, device=device, dtype=dtype)
    product = torch.empty_like(matrix)
    torch.mm(matrix, matrix, out=product)  # the first one also starts threads and loads kernels
    _wait_for(device)
    began, best = time.perf_counter(), float("inf")
    while time.perf_counter() - began < _MEASURED_S:
        before = time.perf_counter()
        torch.mm(matrix, matrix, out=product)
        _wait_for(device)
        best = min(best, time.perf_counter() - before)
    return Peak(
        flops=2 * _SIDE**3 / best,
        origin=f"measured at start: {precision} product of {_SIDE} x {_SIDE} matrices",
    )


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
