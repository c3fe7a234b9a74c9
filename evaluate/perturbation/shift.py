"""Shift: how far a cell state moved, as half the squared distance of unit vectors. Knows no model.

Half the squared distance of unit vectors is 1 - cosine, written so that a small move keeps its
digits: shifts are often 1e-5, where 1 - cosine in float32 holds two of them. Pools and
comparisons are float64. Array suffixes: t token position, d width, s deletion.
"""

import numpy as np
from numpy.typing import NDArray

from ...platform.errors import EvaluationError


def shift(before_sd: NDArray[np.floating], after_sd: NDArray[np.floating]) -> NDArray[np.float64]:
    """How far each cell state moved: 0 not at all, 1 to a right angle, 2 to its opposite.

    Args:
        before_sd: cell states. Shape (n, d).
        after_sd: the same cells' states after the perturbation. Shape (n, d).

    Returns:
        |u - v|^2 / 2 of the unit vectors u, v. Shape (n,).

    Raises:
        EvaluationError: shapes differ, or a state is zero or not finite.
    """
    if before_sd.shape != after_sd.shape or before_sd.ndim != 2:
        raise EvaluationError(
            f"states of shape {before_sd.shape} and {after_sd.shape}: expected two equal (n, d)"
        )
    between_sd = _unit(before_sd) - _unit(after_sd)
    return np.asarray(0.5 * np.einsum("sd,sd->s", between_sd, between_sd), dtype=np.float64)


def pools_without_each(
    hidden_td: NDArray[np.floating], left_out: NDArray[np.int64], pooled: NDArray[np.int64]
) -> NDArray[np.float64]:
    """A cell's state with one gene left out of the mean, for each gene of `left_out`.

    Leaving the deleted gene out of the pool before as well as after makes the shift the move of
    the OTHER genes; else the loss of the gene's own vector would be most of what is seen.

    Args:
        hidden_td: the whole cell's hidden states. Shape (n_tokens, d).
        left_out: positions to leave out, one at a time; each is also in `pooled`. Shape (s,).
        pooled: positions that are pooled, the genes. Shape (n_genes,), n_genes >= 2.

    Returns:
        Shape (s, d).
    """
    if len(pooled) < 2:
        raise EvaluationError(f"{len(pooled)} genes are pooled: expected at least 2")
    genes_td = hidden_td[pooled].astype(np.float64)
    total_d = genes_td.sum(axis=0)
    return (total_d - hidden_td[left_out].astype(np.float64)) / (len(pooled) - 1)


def _unit(state_sd: NDArray[np.floating]) -> NDArray[np.float64]:
    wide_sd = state_sd.astype(np.float64)
    # Divided by the largest entry first, so that squares neither overflow nor vanish.
    largest_s1 = np.abs(wide_sd).max(axis=1, keepdims=True, initial=0.0)
    if not np.isfinite(largest_s1).all() or (largest_s1 == 0).any():
        bad = int(np.flatnonzero(~np.isfinite(largest_s1) | (largest_s1 == 0))[0])
        raise EvaluationError(
            f"cell state {bad} is zero or not finite: it has no direction to compare"
        )
    scaled_sd = wide_sd / largest_s1
    return scaled_sd / np.linalg.norm(scaled_sd, axis=1, keepdims=True)
