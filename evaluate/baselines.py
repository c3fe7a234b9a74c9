"""What a model has to beat: gene frequencies, by rank, and logistic regression. Knows no model.

Array suffixes: b rank bin, v token of the vocabulary, m masked position, c cell, g gene, k class.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..platform.errors import EvaluationError

BIN_GROWTH = 1.25
"""Rank bins widen by this factor: rank 0 alone, then ever more ranks that look alike."""

_STRENGTHS = 10.0 ** np.arange(0, 6)


@dataclass(frozen=True, kw_only=True, slots=True)
class RankUnigram:
    """How often each gene stands at a rank, in the pretraining cells.

    Attributes:
        edges: first rank of each bin; the last bin has no end. Shape (n_bins,), begins with 0.
        unigram_v: probability of each token at any rank. Shape (v,); 0 for special tokens.
        bins_bv: probability of each token in each bin. Shape (n_bins, v).
        places_bv: each token's place in each bin by falling probability, equals by token.
            Shape (n_bins, v).
        strength: how many tokens' worth of the unigram each bin was smoothed with.
        n_tokens: how many tokens were counted.
    """

    edges: NDArray[np.int64]
    unigram_v: NDArray[np.float64]
    bins_bv: NDArray[np.float64]
    places_bv: NDArray[np.int64]
    strength: float
    n_tokens: int

    def bins_of(self, ranks_m: NDArray[np.integer]) -> NDArray[np.int64]:
        """The bin of each rank."""
        return np.searchsorted(self.edges, ranks_m, side="right").astype(np.int64) - 1

    def at_ranks(self, ranks_m: NDArray[np.integer]) -> NDArray[np.float64]:
        """Probabilities of every token at each rank. Shape (m, v)."""
        return self.bins_bv[self.bins_of(ranks_m)]

    def guess(
        self, ranks_m: NDArray[np.integer], truth_m: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The place of the true gene (0 is first) and its cross-entropy in nats. Shapes (m,)."""
        bins_m = self.bins_of(ranks_m)
        return self.places_bv[bins_m, truth_m], -np.log(self.bins_bv[bins_m, truth_m])

    def guess_anywhere(
        self, truth_m: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """As `guess`, from the unigram alone: the rank is not looked at."""
        places_v = _places(self.unigram_v[None, :])[0]
        return places_v[truth_m], -np.log(self.unigram_v[truth_m])

    def guess_unseen(
        self,
        ranks_m: NDArray[np.integer],
        truth_m: NDArray[np.integer],
        visible: NDArray[np.integer],
        *,
        false_share: float,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """As `guess`, for one cell whose visible tokens are known.

        A gene stands in a cell once, so one that is seen is not under a mask. But a few of the
        visible tokens are not the cell's own (the objective put a random one there), so each is
        struck down to that share and not to zero, and the rest is scaled up to sum to 1.

        Only the visible tokens are looked at: the others keep their order, so a place is that of
        the whole bin, less the visible that stood before, and with those that still do.

        Args:
            ranks_m: the masked ranks of the cell. Shape (m,).
            truth_m: the genes that stood there. Shape (m,).
            visible: the tokens that are seen. Shape (n_visible,).
            false_share: which share of the visible tokens is not the cell's own, > 0.

        Returns:
            Places and cross-entropies. Shapes (m,).
        """
        seen_s = np.unique(visible)
        bins_m = self.bins_of(ranks_m)
        own_m = self.bins_bv[bins_m, truth_m]
        seen_ms = self.bins_bv[bins_m][:, seen_s] if len(seen_s) else np.zeros((len(own_m), 0))
        left_m = 1.0 - (1.0 - false_share) * seen_ms.sum(axis=1)
        places_m = self.places_bv[bins_m, truth_m].copy()
        is_seen_m = np.isin(truth_m, seen_s)
        own_m = np.where(is_seen_m, own_m * false_share, own_m)
        before_ms = self.places_bv[bins_m][:, seen_s] < places_m[:, None]
        struck_ms = seen_ms * false_share
        still_ms = (struck_ms > own_m[:, None]) | (
            (struck_ms == own_m[:, None]) & (seen_s[None, :] < truth_m[:, None])
        )
        places_m += still_ms.sum(axis=1) - before_ms.sum(axis=1)
        for row in np.flatnonzero(is_seen_m):  # a random token that is the answer elsewhere: rare
            weights_v = self.bins_bv[bins_m[row]].copy()
            weights_v[seen_s] *= false_share
            places_m[row] = _places(weights_v[None, :])[0, truth_m[row]]
        return places_m, np.log(left_m) - np.log(own_m)


def rank_bins(length: int) -> NDArray[np.int64]:
    """The first rank of each bin of ranks that look alike, for cells of at most `length` genes."""
    edges = [0]
    width = 1.0
    while edges[-1] + round(width) < length:
        edges.append(edges[-1] + round(width))
        width = max(width * BIN_GROWTH, 1.0)
    return np.array(edges, dtype=np.int64)


def fit_rank_unigram(
    tokens: NDArray[np.integer],
    ranks: NDArray[np.integer],
    *,
    n_tokens: int,
    n_special: int,
    length: int,
) -> RankUnigram:
    """Count which gene stands where, and smooth.

    Each gene is added one to for the unigram (Laplace). Each rank bin is smoothed with the
    unigram; how strongly is chosen from powers of ten by the leave-one-out likelihood of the
    counted tokens, so that the baseline is as good as its cells allow.

    Args:
        tokens: genes of the pretraining cells, special tokens already left out. Shape (n,).
        ranks: rank of each in its cell. Shape (n,).
        n_tokens: size of the vocabulary, special tokens included.
        n_special: how many special tokens it begins with.
        length: the most genes a cell has: bins reach up to there.

    Raises:
        EvaluationError: no token, or one outside the genes of the vocabulary.
    """
    if not len(tokens):
        raise EvaluationError("no token of the pretraining part to count genes in")
    if tokens.min() < n_special or tokens.max() >= n_tokens:
        raise EvaluationError(
            f"tokens run from {tokens.min()} to {tokens.max()}, "
            f"expected genes, {n_special} to {n_tokens - 1}"
        )
    edges = rank_bins(length)
    bins = np.searchsorted(edges, ranks, side="right") - 1
    n_genes = n_tokens - n_special
    flat = bins.astype(np.int64) * n_genes + (tokens.astype(np.int64) - n_special)
    counts_bg = np.bincount(flat, minlength=len(edges) * n_genes).reshape(len(edges), n_genes)
    unigram_g = _unigram(counts_bg)
    strength = _best_strength(counts_bg, unigram_g)
    bins_bv = np.zeros((len(edges), n_tokens))
    bins_bv[:, n_special:] = smoothed_bins(counts_bg, strength)
    unigram_v = np.concatenate([np.zeros(n_special), unigram_g])
    return RankUnigram(
        edges=edges,
        unigram_v=unigram_v,
        bins_bv=bins_bv,
        places_bv=_places(bins_bv),
        strength=strength,
        n_tokens=len(tokens),
    )


def smoothed_bins(
    counts_bg: NDArray[np.integer] | NDArray[np.floating], strength: float
) -> NDArray[np.float64]:
    """How often each gene stands in a rank bin, smoothed with how often it stands anywhere.

    Args:
        counts_bg: how often it was seen there. Shape (b, n_genes).
        strength: how many genes' worth of the unigram each bin is smoothed with.

    Returns:
        Probabilities. Shape (b, n_genes).
    """
    totals_b1 = counts_bg.sum(axis=1, keepdims=True)
    return (counts_bg + strength * _unigram(counts_bg)) / (totals_b1 + strength)


def logistic_regression(
    train_cg: sparse.csr_matrix,
    train_labels: NDArray[np.integer],
    test_cg: sparse.csr_matrix,
    *,
    n_classes: int,
) -> NDArray[np.float64]:
    """Class probabilities of new cells by multinomial logistic regression (scikit-learn).

    scikit-learn's defaults (L2, C = 1), more iterations: the baseline anyone would write first.

    Args:
        train_cg: log-normalised expression. Shape (n_train, g).
        train_labels: classes, 0 to n_classes - 1, at least two of them. Shape (n_train,).
        test_cg: the same genes in the cells to classify. Shape (n_test, g).
        n_classes: how many classes there are in all.

    Returns:
        Shape (n_test, n_classes); 0 for classes that no training cell has.
    """
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(train_labels)) < 2:
        raise EvaluationError(
            "logistic regression needs training cells of at least 2 labels, found "
            f"{len(np.unique(train_labels))}"
        )
    model = LogisticRegression(max_iter=1000)
    model.fit(train_cg, train_labels)
    found = model.predict_proba(test_cg)
    probabilities = np.zeros((len(found), n_classes))
    probabilities[:, model.classes_] = found
    return probabilities


def log_normalised(
    counts_cg: sparse.csr_matrix, n_counts: NDArray[np.integer]
) -> sparse.csr_matrix:
    """log(1 + count / n_counts x 10,000), sparse as the counts are.

    Args:
        counts_cg: raw counts. Shape (c, g).
        n_counts: each cell's total over the source's raw matrix. Shape (c,).
    """
    scaled = sparse.diags_array(1e4 / np.maximum(n_counts, 1)) @ counts_cg.astype(np.float64)
    logs = sparse.csr_matrix(scaled)
    logs.data = np.log1p(logs.data)
    return logs


def _unigram(counts_bg: NDArray[np.integer] | NDArray[np.floating]) -> NDArray[np.float64]:
    counts_g = counts_bg.sum(axis=0)
    return (counts_g + 1.0) / (counts_g.sum() + len(counts_g))


def _places(weights_bv: NDArray[np.float64]) -> NDArray[np.int64]:
    """Each column's place in its row by falling value; equals in the order of columns."""
    order_bv = np.argsort(-weights_bv, axis=1, kind="stable")
    places_bv = np.empty_like(order_bv)
    np.put_along_axis(places_bv, order_bv, np.arange(weights_bv.shape[1])[None, :], axis=1)
    return places_bv.astype(np.int64)


def _best_strength(counts_bg: NDArray[np.int64], unigram_g: NDArray[np.float64]) -> float:
    totals_b1 = counts_bg.sum(axis=1, keepdims=True)
    rows, columns = np.nonzero(counts_bg)
    own = counts_bg[rows, columns]
    rest = totals_b1[rows, 0] - 1
    likelihoods = [
        float(np.sum(own * np.log((own - 1 + strength * unigram_g[columns]) / (rest + strength))))
        for strength in _STRENGTHS
    ]
    return float(_STRENGTHS[int(np.argmax(likelihoods))])
