"""Metrics: arrays in, numbers out, and the interval around a number. Knows no model and no file.

Array suffixes: m scored position or cell, k class (for masked genes: token).
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..platform.errors import EvaluationError
from .scores import Score

FEW_UNITS = 20
"""Under so many units a percentile bootstrap is too narrow (five donors: about 80 % coverage
instead of 95 %), and the jackknife with Student's t takes its place."""

N_RESAMPLES = 1000
CONFIDENCE = 0.95


def ranks_of_truth(
    scores_mk: NDArray[np.floating], truth_m: NDArray[np.integer]
) -> NDArray[np.int64]:
    """How many classes stand before the true one, when classes are sorted by falling score.

    Equal scores are ordered by class number, so that a baseline that gives many classes the
    same score gains nothing by it. Top-k is then `ranks < k`.

    Args:
        scores_mk: any monotone score of each class (logits, probabilities). Shape (m, k).
        truth_m: the true classes, 0 to k - 1. Shape (m,).

    Returns:
        Shape (m,), 0 where the true class comes first.
    """
    _check_truth(scores_mk, truth_m)
    own_m1 = scores_mk[np.arange(len(truth_m)), truth_m][:, None]
    ranks_m = np.count_nonzero(scores_mk > own_m1, axis=1).astype(np.int64)
    equal_mk = scores_mk == own_m1
    for row in np.flatnonzero(np.count_nonzero(equal_mk, axis=1) > 1):
        ranks_m[row] += np.count_nonzero(equal_mk[row, : truth_m[row]])
    return ranks_m


def cross_entropies(
    logits_mk: NDArray[np.floating], truth_m: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Cross-entropy of each position in nats, computed in float64.

    Args:
        logits_mk: unnormalised log-probabilities, or log-probabilities. Shape (m, k).
        truth_m: the true classes. Shape (m,).

    Returns:
        -log softmax(logits)[truth]. Shape (m,).
    """
    _check_truth(logits_mk, truth_m)
    wide_mk = logits_mk.astype(np.float64)
    own_m = wide_mk[np.arange(len(truth_m)), truth_m]
    largest_m = wide_mk.max(axis=1)
    # In place: logits are the largest array of an evaluation.
    np.exp(np.subtract(wide_mk, largest_m[:, None], out=wide_mk), out=wide_mk)
    return np.log(wide_mk.sum(axis=1)) + largest_m - own_m


def places_and_losses(
    chances_mk: NDArray[np.floating], truth_m: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What guesses are worth: the places of the true classes and their cross-entropies in nats.

    Args:
        chances_mk: probabilities, each row of which sums to 1. Shape (m, k).
        truth_m: the true classes. Shape (m,).

    Returns:
        As `ranks_of_truth` gives them, and -log of the truth's probability. Shapes (m,).
    """
    own_m = chances_mk[np.arange(len(truth_m)), truth_m]
    return ranks_of_truth(chances_mk, truth_m), -np.log(own_m.astype(np.float64))


def macro_f1(truth_m: NDArray[np.integer], predicted_m: NDArray[np.integer]) -> float:
    """Mean over classes of F1 = 2 tp / (2 tp + fp + fn).

    The classes are those that occur in either array: a class that is predicted though no cell
    has it counts as 0 (as scikit-learn's `f1_score(average="macro")` has it).
    """
    if not len(truth_m) or len(truth_m) != len(predicted_m):
        raise EvaluationError(
            f"macro-F1 of {len(truth_m)} labels and {len(predicted_m)} predictions: "
            "expected as many of one as of the other, and at least one"
        )
    n_classes = int(max(truth_m.max(), predicted_m.max())) + 1
    hits = np.bincount(truth_m[truth_m == predicted_m], minlength=n_classes)
    # 2 tp + fp + fn is the number of times a class occurs in both arrays together.
    both = np.bincount(truth_m, minlength=n_classes) + np.bincount(predicted_m, minlength=n_classes)
    seen = both > 0
    return float(np.mean(2.0 * hits[seen] / both[seen]))


def one_vs_rest_auc(truth_m: NDArray[np.integer], scores_mk: NDArray[np.floating]) -> float:
    """Mean over classes of the area under the ROC curve of that class against all others.

    The area is the Mann-Whitney statistic: the chance that a cell of the class scores higher
    than one of another class, ties counting half. Only classes with a cell inside and a cell
    outside have an area; NaN where there is no such class.

    Args:
        truth_m: the true classes. Shape (m,).
        scores_mk: a score of each class. Shape (m, k).
    """
    _check_truth(scores_mk, truth_m)
    inside_mk = truth_m[:, None] == np.arange(scores_mk.shape[1])[None, :]
    n_inside = inside_mk.sum(axis=0)
    n_outside = len(truth_m) - n_inside
    usable = (n_inside > 0) & (n_outside > 0)
    if not usable.any():
        return float("nan")
    ranks = np.asarray(stats.rankdata(scores_mk[:, usable], axis=0))
    rank_sums = (ranks * inside_mk[:, usable]).sum(axis=0)
    n_in, n_out = n_inside[usable], n_outside[usable]
    return float(np.mean((rank_sums - n_in * (n_in + 1) / 2) / (n_in * n_out)))


def spearman(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Spearman's rank correlation; NaN where either side is constant or shorter than 3."""
    if len(first) != len(second):
        raise EvaluationError(f"Spearman of {len(first)} and {len(second)} values: not paired")
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    ranks = np.asarray(stats.rankdata(np.stack([first, second]), axis=1))
    return float(np.corrcoef(ranks)[0, 1])


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    n_units: int,
    *,
    name: str,
    model: str,
    unit: str,
    seed: int,
    n_resamples: int = N_RESAMPLES,
) -> Score:
    """Put a 95 % interval around one statistic; see `bootstrap_together`."""

    def one(units: NDArray[np.int64]) -> list[float]:
        return [statistic(units)]

    return bootstrap_together(
        one, n_units, names=[(name, model)], unit=unit, seed=seed, n_resamples=n_resamples
    )[0]


def bootstrap_together(
    statistics: Callable[[NDArray[np.int64]], Sequence[float]],
    n_units: int,
    *,
    names: Sequence[tuple[str, str]],
    unit: str,
    seed: int,
    n_resamples: int = N_RESAMPLES,
    few_units: int = FEW_UNITS,
) -> list[Score]:
    """Put a 95 % interval around each of several statistics, resampling units that are independent.

    With 20 or more units: the percentile bootstrap. With 2 to 19: the delete-one jackknife
    with Student's t on n - 1 degrees of freedom (Tukey), for a mean the classical t interval.
    With one unit there is no interval, and the score says so.

    Args:
        statistics: units (positions 0 to n_units - 1, some repeated) -> numbers.
        n_units: how many independent units there are.
        names: name and model of each number.
        unit: what the units are, in the plural.
        seed: of the resampling: the same seed gives the same bits.
        n_resamples: how many bootstrap samples.
        few_units: under so many units the jackknife is taken. With 2 it is the bootstrap always:
            to be shown beside the jackknife, not instead of it.

    Raises:
        EvaluationError: there is no unit.
    """
    if n_units < 1:
        raise EvaluationError(f"{names[0][0]}: no {unit} to score; widen `where` or the part")
    everyone = np.arange(n_units, dtype=np.int64)
    values = np.array(statistics(everyone), dtype=np.float64)
    low = high = np.full(len(values), np.nan)
    if n_units == 1:
        method = "no interval: one unit"
    elif n_units < few_units:
        method = f"jackknife over {unit}, Student's t"
        without = np.array([statistics(np.delete(everyone, u)) for u in everyone])
        spread = np.sum((without - without.mean(axis=0)) ** 2, axis=0)
        error = np.sqrt((n_units - 1) / n_units * spread)
        reach = stats.t.ppf(0.5 + CONFIDENCE / 2, n_units - 1) * error
        low, high = values - reach, values + reach
    else:
        method = f"bootstrap over {unit}, {n_resamples} resamples"
        draws = np.random.default_rng(seed).integers(0, n_units, size=(n_resamples, n_units))
        drawn = np.array([statistics(draw) for draw in draws], dtype=np.float64)
        tail = (1.0 - CONFIDENCE) / 2.0
        known = np.isfinite(values)
        low, high = low.copy(), high.copy()
        low[known], high[known] = np.nanquantile(drawn[:, known], [tail, 1.0 - tail], axis=0)
    return [
        Score(
            name=name,
            model=model,
            value=float(values[place]),
            low=float(low[place]),
            high=float(high[place]),
            unit=unit,
            n=n_units,
            method=method if np.isfinite(values[place]) else "no interval: the value is not finite",
        )
        for place, (name, model) in enumerate(names)
    ]


def ratio_score(
    sums_u: NDArray[np.floating],
    counts_u: NDArray[np.integer],
    *,
    name: str,
    model: str,
    unit: str,
    seed: int,
) -> Score:
    """Score a mean over many positions that come in units: sum of sums over sum of counts.

    Args:
        sums_u: sum of the positions' values in each unit. Shape (n_units,).
        counts_u: number of positions in each unit, > 0. Shape (n_units,).
        name: the score's name.
        model: who is scored.
        unit: what the units are, in the plural.
        seed: of the bootstrap.
    """

    def ratio(units: NDArray[np.int64]) -> float:
        return float(sums_u[units].sum() / counts_u[units].sum())

    return bootstrap(ratio, len(sums_u), name=name, model=model, unit=unit, seed=seed)


def sums_by_unit(
    values_m: NDArray[np.floating], unit_m: NDArray[np.integer], n_units: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum and count the values of each unit: what `ratio_score` wants.

    Args:
        values_m: one value a position. Shape (m,).
        unit_m: the unit of each position, 0 to n_units - 1. Shape (m,).
        n_units: how many units.
    """
    sums = np.bincount(unit_m, weights=values_m.astype(np.float64), minlength=n_units)
    return sums.astype(np.float64), np.bincount(unit_m, minlength=n_units).astype(np.int64)


def _check_truth(scores_mk: NDArray[np.floating], truth_m: NDArray[np.integer]) -> None:
    if scores_mk.ndim != 2 or len(scores_mk) != len(truth_m):
        raise EvaluationError(
            f"scores of shape {scores_mk.shape} for {len(truth_m)} labels: expected one row a label"
        )
    if len(truth_m) and not 0 <= truth_m.min() <= truth_m.max() < scores_mk.shape[1]:
        raise EvaluationError(
            f"labels run from {truth_m.min()} to {truth_m.max()}, "
            f"expected 0 to {scores_mk.shape[1] - 1}"
        )
