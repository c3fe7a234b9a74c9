"""Cross-entropy straight from hidden states, a few rows at a time. Knows no token and no model.

Scores of a whole vocabulary for all masked rows of a pack are the largest thing in a step by far.
Here a chunk of rows is scored, its loss and gradients are taken, and its scores are forgotten:
what is kept has the size of the hidden states and of the decoder. The idea is that of Liger's and
Apple's fused kernels (arXiv 2410.10989, 2411.09009); the arithmetic is torch's. Array suffixes:
m scored row, d width, v vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch

Graded = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def linear_cross_entropy(
    hidden_md: torch.Tensor,
    weight_vd: torch.Tensor,
    bias_v: torch.Tensor,
    labels_m: torch.Tensor,
    *,
    chunk: int = 256,
    half: bool = False,
    grade: "Callable[[torch.Tensor, torch.Tensor], Graded] | None" = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The summed cross-entropy of `hidden @ weight.T + bias`, and which rows are right.

    The gradients are made together with the loss, so a backward pass only scales them; they may
    be asked for once.

    Args:
        hidden_md: what the decoder reads. Shape (n_rows, d).
        weight_vd: the decoder's weight. Shape (v, d).
        bias_v: its bias. Shape (v,).
        labels_m: the right column of each row; below 0 for a row that does not count.
        chunk: rows that are scored together.
        half: score in bfloat16; losses and sums stay in fp32.
        grade: `graded`, perhaps compiled.

    Returns:
        The summed loss, fp32, shape (); and of each row whether its label scores highest, False
        for a row that does not count. Shape (n_rows,), bool.
    """
    return _LinearCrossEntropy.apply(
        hidden_md, weight_vd, bias_v, labels_m, chunk, half, grade or graded
    )  # pyright: ignore[reportReturnType] - torch types `apply` as anything


def graded(logits_mv: torch.Tensor, labels_m: torch.Tensor) -> Graded:
    """The summed loss of a chunk, which rows are right, and the loss's gradient by the scores.

    Args:
        logits_mv: the scores; may be overwritten.
        labels_m: as in `linear_cross_entropy`.

    Returns:
        Shapes (), (m,) and (m, v); fp32, bool and the dtype of the scores.
    """
    counts = labels_m >= 0
    label_m1 = labels_m.clamp(min=0)[:, None]
    scores = logits_mv.float()
    picked = scores.gather(-1, label_m1)[:, 0]
    top = scores.max(dim=-1)
    powers = (scores - top.values[:, None]).exp_()
    total = powers.sum(dim=-1)
    losses = top.values + total.log() - picked
    right_m = top.indices == labels_m
    gradient = powers.mul_((counts / total)[:, None])
    gradient.scatter_add_(-1, label_m1, -counts[:, None].float())
    return torch.where(counts, losses, 0.0).sum(), right_m, gradient.to(logits_mv.dtype)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_md: torch.Tensor,
        weight_vd: torch.Tensor,
        bias_v: torch.Tensor,
        labels_m: torch.Tensor,
        chunk: int,
        half: bool,
        grade: Callable[[torch.Tensor, torch.Tensor], Graded],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        dtype = torch.bfloat16 if half else weight_vd.dtype
        weight, bias = weight_vd.to(dtype), bias_v.to(dtype)
        wanted = any(ctx.needs_input_grad[:3])
        loss = weight_vd.new_zeros((), dtype=torch.float32)
        right_m = torch.empty_like(labels_m, dtype=torch.bool)
        by_hidden = torch.empty_like(hidden_md) if wanted else None
        by_weight = torch.zeros_like(weight_vd) if wanted else None
        by_bias = torch.zeros_like(bias_v) if wanted else None
        with torch.autocast(hidden_md.device.type, enabled=False):
            for begin in range(0, len(labels_m), chunk):
                hidden = hidden_md[begin : begin + chunk].to(dtype)
                labels = labels_m[begin : begin + chunk]
                scores = torch.addmm(bias, hidden, weight.T)
                one, right_m[begin : begin + chunk], by_logits = grade(scores, labels)
                loss += one
                if by_hidden is not None and by_weight is not None and by_bias is not None:
                    by_hidden[begin : begin + chunk] = by_logits @ weight
                    if half:
                        by_weight += by_logits.T @ hidden
                    else:
                        by_weight.addmm_(by_logits.T, hidden)
                    by_bias += by_logits.sum(dim=0, dtype=by_bias.dtype)
        if by_hidden is not None and by_weight is not None and by_bias is not None:
            ctx.save_for_backward(by_hidden, by_weight, by_bias)
        ctx.mark_non_differentiable(right_m)
        return loss, right_m

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scale = gradients[0]
        by_hidden, by_weight, by_bias = ctx.saved_tensors
        # They are made anew for each forward pass: scaled where they are, once.
        scaled = (by_hidden.mul_(scale), by_weight.mul_(scale), by_bias.mul_(scale))
        return *scaled, None, None, None, None
