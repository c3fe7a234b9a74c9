"""Scrublet on the counts of one sample: scores, and the score that parts doublets from cells.

Knows scanpy, once it is asked; knows no source and no file.
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from .rules import DoubletRules


def scrublet(
    matrix: sparse.csr_matrix, rules: DoubletRules
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of some cells and of doublets simulated from them.

    Neighbours are searched exactly: the approximate search is not the same on every machine.

    Args:
        matrix: counts of one sample, cells x genes.
        rules: the settings.

    Returns:
        The cells' scores, NaN where a cell has under 3 genes, shape (n_cells,); those of the
        simulated doublets, shape (2 n_cells,).

    Raises:
        ValueError: the counts do not vary enough.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scanpy's and anndata's own, which a user cannot mend
        import scanpy
        from anndata import AnnData

        cells: Any = AnnData(matrix.astype(np.float32))
        scanpy.pp.scrublet(
            cells,
            expected_doublet_rate=rules.expected_rate,
            threshold=1.0,  # ours is found by `valley`: theirs needs scikit-image
            use_approx_neighbors=False,
            random_state=rules.seed,
            verbose=False,
        )
    scores = cells.obs["doublet_score"].to_numpy(dtype=np.float64)
    return scores, np.asarray(cells.uns["scrublet"]["doublet_scores_sim"], dtype=np.float64)


def valley(scores: NDArray[np.float64]) -> float | None:
    """The least frequent score between the two modes, None where there are not two.

    Minimum method (Prewitt and Mendelsohn 1966, doi:10.1111/j.1749-6632.1965.tb11715.x), which
    Scrublet uses: a histogram of 256 bins is smoothed by a running mean of 3 until two peaks are
    left.

    Args:
        scores: of simulated doublets. Shape (n_scores,).
    """
    counts, edges = np.histogram(scores, bins=256)
    smooth = counts.astype(np.float32)
    for _ in range(10_000):
        smooth = ndimage.uniform_filter1d(smooth, 3)
        peaks = _peaks(smooth)
        if len(peaks) < 3:
            break
    else:
        return None
    if len(peaks) != 2:
        return None
    lowest = peaks[0] + int(np.argmin(smooth[peaks[0] : peaks[1] + 1]))
    return float((edges[lowest] + edges[lowest + 1]) / 2)


def _peaks(heights: NDArray[Any]) -> list[int]:
    """Where heights turn from rising to falling; of a flat top its end. The first rise counts."""
    found: list[int] = []
    rising = True
    for place, step in enumerate(np.diff(heights)):
        if rising and step < 0:
            rising = False
            found.append(place)
        elif not rising and step > 0:
            rising = True
    return found
