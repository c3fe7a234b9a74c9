"""How near two sources are, in a handful of figures. Knows their statistics; knows no cell."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from cytolake.platform.errors import SourceError
from numpy.typing import NDArray
from scipy import stats

from benchmarks.source_statistics import Statistics

MANY_COUNTS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Likeness:
    """How near two sources of the same genes are.

    Attributes:
        detection_rank: Spearman's correlation of the genes' share of cells, over the genes that
            the first source saw.
        profile: Pearson's correlation of the log shares of counts, over the same genes.
        marker_rank: the mean over types of Spearman's correlation of how far each gene of at least
            200 counts departs from all cells, on a log scale.
        counts_ratio: mean counts a cell, second by first.
        nonzeros_ratio: mean genes seen a cell, second by first.
        nonzeros_spread: the same of the range from the 5 % to the 95 % quantile.
        dispersion_ratio: median dispersion of genes of at least 200 counts, second by first.
    """

    detection_rank: float
    profile: float
    marker_rank: float
    counts_ratio: float
    nonzeros_ratio: float
    nonzeros_spread: float
    dispersion_ratio: float

    def rows(self) -> list[dict[str, object]]:
        """The figures as a table."""
        return [{"likeness": name, "value": value} for name, value in asdict(self).items()]


def likeness(first: Statistics, second: Statistics) -> Likeness:
    """Hold the numbers of one source against those of another.

    Raises:
        SourceError: their genes differ.
    """
    if first.gene_ids != second.gene_ids:
        raise SourceError("the two sources have different genes: compare like with like")
    seen = first.detected_g > 0
    pooled = [np.asarray(s.totals_kg.sum(axis=0), dtype=np.float64) for s in (first, second)]
    many = np.minimum(*pooled) >= MANY_COUNTS
    logs = [np.log1p(pool[seen] / pool.sum() * 1e6) for pool in pooled]
    shared = [name for name in first.cell_types if name in second.cell_types]
    markers = [
        _rank_correlation(_departure(first, name)[many], _departure(second, name)[many])
        for name in shared
        if len(first.cell_types) > 1
    ]
    spread = [s.nonzeros_q[95] - s.nonzeros_q[5] for s in (first, second)]
    usual = [float(np.median(s.dispersion_g[many])) for s in (first, second)]
    return Likeness(
        detection_rank=_rank_correlation(first.detected_g[seen], second.detected_g[seen]),
        profile=float(np.corrcoef(*logs)[0, 1]),
        marker_rank=float(np.mean(markers)) if markers else float("nan"),
        counts_ratio=second.mean_counts / first.mean_counts,
        nonzeros_ratio=second.mean_nonzeros / first.mean_nonzeros,
        nonzeros_spread=float(spread[1] / spread[0]),
        dispersion_ratio=usual[1] / usual[0],
    )


def _departure(statistics: Statistics, cell_type: str) -> NDArray[np.float64]:
    profiles_kg = statistics.profiles()
    all_g = statistics.totals_kg.sum(axis=0) / statistics.totals_kg.sum()
    one_g = profiles_kg[statistics.cell_types.index(cell_type)]
    return np.asarray(np.log(one_g + 1e-7) - np.log(all_g + 1e-7))


def _rank_correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    found: Any = stats.spearmanr(first, second)
    return float(found.statistic)
