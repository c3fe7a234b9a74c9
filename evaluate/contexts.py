"""Is a gene's state about the cell type or about the batch? Cosines of its occurrences, matched.

Two occurrences of one gene are compared only in one rank bin: states carry their position, and a
type may rank a gene higher. States are centred per gene, over all its occurrences that were
chosen: what the gene always says is taken off. Two kinds of pairs:

    same label, other batch     what is shared by a cell type, whatever the batch
    same batch, other label     what is shared by a batch, whatever the cell type

Each gene at each rank bin (a stratum) that has both kinds counts once, so that both means are over
the same genes and ranks. Knows no model and no corpus. Array suffixes: o occurrence, d width,
s stratum, u unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..platform.errors import EvaluationError
from .metrics import FEW_UNITS, bootstrap_together
from .scores import Score

SAME_LABEL = "cosine across batches"
SAME_BATCH = "cosine across labels"
DIFFERENCE = "label over batch"
GAIN = "label over batch gained by training"
"""Names of scores: the mean cosine of the first kind of pairs, of the second, their difference,
and how much more that is than the untrained model's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Occurrences:
    """Genes in cells. All of shape (o,).

    Attributes:
        gene_o: which gene.
        bin_o: the rank bin in which it stands in its cell.
        rank_o: the rank itself.
        label_o: its cell's label, such as a cell type, as a number.
        batch_o: its cell's batch, as a number.
        unit_o: its cell's independent unit, 0 to n_units - 1.
        n_units: how many units.
    """

    gene_o: NDArray[np.int64]
    bin_o: NDArray[np.int64]
    rank_o: NDArray[np.int64]
    label_o: NDArray[np.int64]
    batch_o: NDArray[np.int64]
    unit_o: NDArray[np.int64]
    n_units: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PairSums:
    """One kind of pairs, summed by stratum and by the two units of a pair (the lower first).

    Attributes:
        cosines: sums of cosines. Shape (s, u x u).
        numbers: numbers of pairs. Shape (s, u x u).
        gaps: sums of differences in rank. Shape (s, u x u).
    """

    cosines: sparse.csr_matrix
    numbers: sparse.csr_matrix
    gaps: sparse.csr_matrix

    def means(self, weight_uu: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean cosine of each stratum, pairs weighted by their units. NaN where none. (s,)."""
        return _ratio(self.cosines, self.numbers, weight_uu)

    def mean_gaps(self, weight_uu: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean difference in rank of each stratum. Shape (s,)."""
        return _ratio(self.gaps, self.numbers, weight_uu)


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextPairs:
    """Both kinds of pairs in the strata that have both.

    Attributes:
        same_label: pairs of one label and two batches.
        same_batch: pairs of one batch and two labels.
        bin_s: each stratum's rank bin. Shape (s,).
        gene_s: each stratum's gene. Shape (s,).
        n_units: how many units.
    """

    same_label: PairSums
    same_batch: PairSums
    bin_s: NDArray[np.int64]
    gene_s: NDArray[np.int64]
    n_units: int

    def means(
        self, units: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean cosines by stratum: same label, same batch; NaN in strata that lack either.

        Args:
            units: a draw of units, some of them repeated; all of them once where None. A pair of
                two units counts once for each pair of their copies, a pair inside a unit once for
                each copy: copies of one unit are not held against each other.
        """
        weight_uu = _weights(self.n_units, units)
        label_s, batch_s = self.same_label.means(weight_uu), self.same_batch.means(weight_uu)
        lacking = np.isnan(label_s) | np.isnan(batch_s)
        return np.where(lacking, np.nan, label_s), np.where(lacking, np.nan, batch_s)

    def mean_gaps(self) -> tuple[float, float]:
        """The mean difference in rank inside the pairs of both kinds: how well ranks match."""
        weight_uu = _weights(self.n_units, None)
        gaps = self.same_label.mean_gaps(weight_uu), self.same_batch.mean_gaps(weight_uu)
        return float(np.mean(gaps[0])), float(np.mean(gaps[1]))


def context_pairs(states_od: NDArray[np.floating], found: Occurrences) -> ContextPairs:
    """Compare all occurrences of a gene in a rank bin, two by two.

    Args:
        states_od: hidden states of the occurrences. Shape (o, d).
        found: what they are.

    Raises:
        EvaluationError: no gene has both kinds of pairs in one rank bin.
    """
    n_units = found.n_units
    unit_od, has_direction = _directions(states_od, found.gene_o)
    order = np.lexsort((found.bin_o, found.gene_o))
    order = order[has_direction[order]]  # a state that IS its gene's mean points nowhere
    key = np.stack([found.gene_o[order], found.bin_o[order]])
    begins = np.flatnonzero(np.any(np.diff(key, prepend=key[:, :1] - 1), axis=0))
    rows: dict[str, list[NDArray[np.float64]]] = {"label": [], "batch": []}
    places: dict[str, list[NDArray[np.int64]]] = {"label": [], "batch": []}
    strata: list[tuple[int, int]] = []
    for members in np.split(order, begins[1:]):
        label, batch = found.label_o[members], found.batch_o[members]
        is_label = label[:, None] == label[None, :]
        is_batch = batch[:, None] == batch[None, :]
        kinds = {"label": is_label & ~is_batch, "batch": is_batch & ~is_label}
        if not all(kind.any() for kind in kinds.values()):
            continue
        cosine_oo = unit_od[members] @ unit_od[members].T
        rank = found.rank_o[members].astype(np.float64)
        gap_oo = np.abs(rank[:, None] - rank[None, :])
        units, local = np.unique(found.unit_o[members], return_inverse=True)
        member_ou = (local[:, None] == np.arange(len(units))[None, :]).astype(np.float64)
        upper = np.triu_indices(len(units))
        flat = units[upper[0]] * n_units + units[upper[1]]
        for name, kind in kinds.items():
            summed = [
                _by_units(member_ou, np.where(kind, values, 0.0))[upper]
                for values in (cosine_oo, np.ones_like(gap_oo), gap_oo)
            ]
            rows[name].append(np.stack(summed))
            places[name].append(flat)
        strata.append((int(found.gene_o[members[0]]), int(found.bin_o[members[0]])))
    if not strata:
        raise EvaluationError(
            "no gene stands at one rank in two batches of one label and in two labels of one "
            "batch: ask more cells (contexts.cells_per_group), other labels or other batches"
        )
    both = np.array(strata, dtype=np.int64)
    shape = (len(strata), n_units * n_units)
    return ContextPairs(
        same_label=_sparse(rows["label"], places["label"], shape),
        same_batch=_sparse(rows["batch"], places["batch"], shape),
        gene_s=both[:, 0],
        bin_s=both[:, 1],
        n_units=n_units,
    )


def context_scores(
    pairs: Mapping[str, ContextPairs],
    *,
    untrained: str,
    unit: str,
    seed: int,
    few_units: int = FEW_UNITS,
) -> list[Score]:
    """Score each model's two cosines and their difference, and the gain over the untrained model.

    A stratum counts once; intervals are over units, all models on the same draws. The centres of
    the genes stay where they are in a draw.

    Args:
        pairs: each model's pairs, of the same occurrences.
        untrained: which of the models is untrained.
        unit: what the units are, in the plural.
        seed: of the bootstrap.
        few_units: under so many units the jackknife is taken; see `bootstrap_together`.
    """
    others = [model for model in pairs if model != untrained]
    names = [(name, m) for m in pairs for name in (SAME_LABEL, SAME_BATCH, DIFFERENCE)]
    names += [(GAIN, model) for model in others]

    def statistics(units: NDArray[np.int64]) -> list[float]:
        values: list[float] = []
        differences: dict[str, float] = {}
        for model, found in pairs.items():
            label_s, batch_s = found.means(units)
            label, batch = _mean(label_s), _mean(batch_s)
            differences[model] = label - batch
            values += [label, batch, label - batch]
        return values + [differences[model] - differences[untrained] for model in others]

    n_units = next(iter(pairs.values())).n_units
    return bootstrap_together(
        statistics, n_units, names=names, unit=unit, seed=seed, few_units=few_units
    )


def _directions(
    states_od: NDArray[np.floating], gene_o: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """States less their gene's mean, scaled to length 1, and which have a length at all."""
    genes, place_o = np.unique(gene_o, return_inverse=True)
    n_o = np.bincount(place_o, minlength=len(genes))
    mean_od = sparse.csr_matrix(
        (1.0 / n_o[place_o], (place_o, np.arange(len(place_o)))), shape=(len(genes), len(place_o))
    )
    wide_od = np.asarray(states_od, dtype=np.float64)
    wide_od = wide_od - np.asarray(mean_od @ wide_od)[place_o]
    length_o = np.linalg.norm(wide_od, axis=1)
    # Rounding leaves some length where there is none: told by the length before.
    has_direction = length_o > 1e-9 * np.maximum(np.linalg.norm(states_od, axis=1), 1e-300)
    wide_od /= np.where(has_direction, length_o, 1.0)[:, None]
    return wide_od, has_direction


def _by_units(
    member_ou: NDArray[np.float64], values_oo: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sums over unordered pairs by their units; read above and on the diagonal. Shape (u, u)."""
    summed_uu = member_ou.T @ values_oo @ member_ou
    summed_uu[np.diag_indices(len(summed_uu))] /= 2  # each pair inside a unit was met twice
    return summed_uu


def _sparse(
    rows: list[NDArray[np.float64]], places: list[NDArray[np.int64]], shape: tuple[int, int]
) -> PairSums:
    indptr = np.concatenate([[0], np.cumsum([len(place) for place in places])])
    values, columns = np.concatenate(rows, axis=1), np.concatenate(places)
    cosines, numbers, gaps = (
        sparse.csr_matrix((value, columns, indptr), shape=shape) for value in values
    )
    return PairSums(cosines=cosines, numbers=numbers, gaps=gaps)


def _ratio(
    sums: sparse.csr_matrix, numbers: sparse.csr_matrix, weight_uu: NDArray[np.float64]
) -> NDArray[np.float64]:
    n_s = np.asarray(numbers @ weight_uu.ravel())
    ratio_s = np.asarray(sums @ weight_uu.ravel()) / np.where(n_s > 0, n_s, 1.0)
    return np.where(n_s > 0, ratio_s, np.nan)


def _weights(n_units: int, units: NDArray[np.int64] | None) -> NDArray[np.float64]:
    taken = np.arange(n_units) if units is None else units
    copies_u = np.bincount(taken, minlength=n_units).astype(np.float64)
    weight_uu = np.outer(copies_u, copies_u)
    np.fill_diagonal(weight_uu, copies_u)
    return weight_uu


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
