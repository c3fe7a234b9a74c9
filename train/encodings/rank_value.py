"""Cells to tokens by rank. Knows the vocabulary and the medians; knows no model.

Array suffixes: c cell, g gene, n stored non-zero, t token position.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from ...corpus.cells import CellBatch
from ...corpus.medians import MediansSet
from ...corpus.vocabularies import Vocabulary
from ...platform.errors import VocabularyError
from .tokens import TokenBatch

_BEGIN, _END = "<cls>", "<eos>"
_TokensOfList = tuple[NDArray[np.int32], bool]


class RankValueEncoding:
    """Order each cell's expressed genes by how unusual their expression is.

    A count is measured against the gene's own median over the corpus, so that a housekeeping
    gene sinks and a telling one rises; the most telling genes come first. Source: Theodoris et
    al. 2023, Methods: count / n_counts x 10,000 / median, descending. The cell's total is left
    out on purpose: it divides every gene alike, and ranks do not see it. Keys are float64; equal
    keys are ordered by ascending token (the official sort leaves their order undefined).

    A vocabulary with `<cls>` and `<eos>` (Geneformer V2) puts them around each cell's genes.
    """

    def __init__(self, vocabulary: Vocabulary, medians: MediansSet, length: int) -> None:
        """Bind a vocabulary to its medians.

        Args:
            vocabulary: which genes are tokens; its id mapping is applied, counts of ids that
                meet in one token are summed.
            medians: each gene's non-zero median; genes without one are left out.
            length: the most tokens a cell gets, special ones included.

        Raises:
            VocabularyError: no gene of the vocabulary has a median, or `length` leaves no room.
        """
        self.vocabulary, self.medians, self.length = vocabulary, medians, length
        special = {name: token for token, name in enumerate(vocabulary.special)}
        self._begin, self._end = special.get(_BEGIN, -1), special.get(_END, -1)
        n_around = (self._begin >= 0) + (self._end >= 0)
        if length <= n_around:
            raise VocabularyError(
                f"encoding length is {length}, expected more than the {n_around} special tokens "
                "that a cell gets"
            )
        self._n_genes = length - n_around
        median_of_gene = medians.of(vocabulary.gene_ids)
        if np.isnan(median_of_gene).all():
            raise VocabularyError(
                f"none of the {len(vocabulary.gene_ids)} genes of the vocabulary has a median in "
                f"the medians set {medians.digest:.12}: they do not belong together"
            )
        none = np.full(len(vocabulary.special), np.nan)
        self._median_of_token = np.concatenate([none, median_of_gene])
        self._tokens_of_list: dict[tuple[str, ...], _TokensOfList] = {}
        self._last_list: tuple[NDArray[np.object_], _TokensOfList] | None = None

    def encode(self, batch: CellBatch) -> TokenBatch:
        """Encode cells. A cell without a gene of the vocabulary comes out without gene tokens."""
        tokens_g, distinct = self._tokens_of(batch.gene_ids)
        lengths_c = np.minimum(np.diff(batch.indptr), self._n_genes) + (self.length - self._n_genes)
        places_c = np.concatenate([[0], np.cumsum(lengths_c)]).astype(np.int64)
        tokens_t, used_c = _rank(
            batch.indptr,
            batch.indices,
            batch.counts,
            tokens_g,
            self._median_of_token,
            places_c,
            self._n_genes,
            self._begin,
            self._end,
            distinct,
        )
        if not np.array_equal(used_c, lengths_c):
            kept = np.arange(len(tokens_t)) - np.repeat(places_c[:-1], lengths_c)
            tokens_t = tokens_t[kept < np.repeat(used_c, lengths_c)]
        ids = batch.obs.column("cell_id") if "cell_id" in batch.obs.column_names else None
        return TokenBatch(
            tokens=tokens_t,
            offsets=np.concatenate([[0], np.cumsum(used_c)]).astype(np.int64),
            keys=batch.content_keys,
            cell_ids=np.full(batch.n_cells, -1, dtype=np.int64)
            if ids is None
            else ids.to_numpy().astype(np.int64),
        )

    def coverage(self, batch: CellBatch) -> tuple[float, float]:
        """How well cells and vocabulary fit.

        Returns:
            The share of the stored counts that fall on genes of the vocabulary, and the share of
            the vocabulary's genes that the cells' gene list has.
        """
        tokens_g, _ = self._tokens_of(batch.gene_ids)
        inside = tokens_g[batch.indices] >= 0
        total = int(batch.counts.sum(dtype=np.int64))
        on_vocabulary = int(batch.counts[inside].sum(dtype=np.int64)) / total if total else 0.0
        measured = len(np.unique(tokens_g[tokens_g >= 0]))
        return on_vocabulary, measured / int((~np.isnan(self._median_of_token)).sum())

    def _tokens_of(self, gene_ids: NDArray[np.object_]) -> _TokensOfList:
        """The token of each gene of a list, -1 for a gene without token or median.

        And whether no token stands there twice.
        """
        last = self._last_list
        if last is not None and last[0] is gene_ids:  # a stream has one list: no need to look
            return last[1]
        names = tuple(gene_ids.tolist())
        known = self._tokens_of_list.get(names)
        if known is None:
            tokens_g = self.vocabulary.tokens_of(names)
            tokens_g[np.isnan(self._median_of_token[tokens_g])] = -1
            used = tokens_g[tokens_g >= 0]
            known = tokens_g, len(np.unique(used)) == len(used)
            if len(self._tokens_of_list) >= 64:  # a corpus has few gene lists, but not one
                self._tokens_of_list.clear()
            self._tokens_of_list[names] = known
        self._last_list = gene_ids, known
        return known


@numba.njit(cache=True, nogil=True)
def _rank(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    counts: NDArray[np.uint32],
    tokens_g: NDArray[np.int32],
    median_of_token: NDArray[np.float64],
    places_c: NDArray[np.int64],
    n_genes: int,
    begin: int,
    end: int,
    distinct: bool,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:  # pragma: no cover - compiled
    """Write each cell's tokens at its place; return them and each cell's number of tokens.

    `distinct` says that no two genes of the list have one token, so that none need be summed.
    """
    n_cells = len(indptr) - 1
    out = np.empty(places_c[-1], dtype=np.int32)
    used_c = np.zeros(n_cells, dtype=np.int64)
    slot_of_token = np.full(len(median_of_token), -1, dtype=np.int64)
    longest = 0
    for cell in range(n_cells):
        longest = max(longest, indptr[cell + 1] - indptr[cell])
    tokens = np.empty(longest, dtype=np.int32)
    keys = np.empty(longest, dtype=np.float64)
    high = np.empty(longest, dtype=np.uint32)
    tally = np.empty((3, _DIGITS), dtype=np.int64)
    order = np.empty(longest, dtype=np.int32)
    spare = np.empty(longest, dtype=np.int32)
    for cell in range(n_cells):
        n = 0
        genes = indices[indptr[cell] : indptr[cell + 1]]
        found = counts[indptr[cell] : indptr[cell + 1]]
        if distinct:
            for i in range(len(genes)):
                token = tokens_g[genes[i]]
                if token >= 0 and found[i] != 0:
                    tokens[n] = token
                    keys[n] = np.float64(found[i]) / median_of_token[token]
                    n += 1
        else:
            for i in range(len(genes)):
                token = tokens_g[genes[i]]
                if token < 0 or found[i] == 0:
                    continue
                slot = slot_of_token[token]
                if slot < 0:
                    slot_of_token[token] = n
                    tokens[n] = token
                    keys[n] = np.float64(found[i])
                    n += 1
                else:  # two ids of the source meet in one token: their counts are summed
                    keys[slot] += np.float64(found[i])
            for i in range(n):
                slot_of_token[tokens[i]] = -1
                keys[i] /= median_of_token[tokens[i]]
        _sort_by_high_words(keys, n, high, tally, order, spare)
        _sort_ties(keys, tokens, n, high, order)
        write = places_c[cell]
        if begin >= 0:
            out[write] = begin
            write += 1
        for i in range(min(n, n_genes)):
            out[write] = tokens[order[i]]
            write += 1
        if end >= 0:
            out[write] = end
            write += 1
        used_c[cell] = write - places_c[cell]
    return out, used_c


_DIGITS = 1 << 11
_FEW = 32


@numba.njit(cache=True, nogil=True)
def _sort_by_high_words(
    keys: NDArray[np.float64],
    n: int,
    high: NDArray[np.uint32],
    tally: NDArray[np.int64],
    order: NDArray[np.int32],
    spare: NDArray[np.int32],
) -> None:  # pragma: no cover - compiled
    """Order keys > 0, descending, by the first 32 of their 64 bits: a radix sort in three passes.

    The bits of doubles above 0 ascend as the doubles do; a million keys differ in the first 32 as
    soon as they differ by 1e-6 of themselves. `high` gets these bits, inverted.
    """
    words = keys.view(np.uint64)
    tally[:] = 0
    for i in range(n):
        word = ~np.uint32(words[i] >> np.uint64(32))
        high[i] = word
        tally[0, word & np.uint32(_DIGITS - 1)] += 1
        tally[1, (word >> np.uint32(11)) & np.uint32(_DIGITS - 1)] += 1
        tally[2, word >> np.uint32(22)] += 1
    for turn in range(3):
        before = 0
        for digit in range(_DIGITS):
            here = tally[turn, digit]
            tally[turn, digit] = before
            before += here
    low, middle, top = tally[0], tally[1], tally[2]
    for i in range(n):
        digit = high[i] & np.uint32(_DIGITS - 1)
        order[np.uint64(low[digit])] = i
        low[digit] += 1
    for i in range(n):
        digit = (high[np.uint64(order[i])] >> np.uint32(11)) & np.uint32(_DIGITS - 1)
        spare[np.uint64(middle[digit])] = order[i]
        middle[digit] += 1
    for i in range(n):
        digit = high[np.uint64(spare[i])] >> np.uint32(22)
        order[np.uint64(top[digit])] = spare[i]
        top[digit] += 1


@numba.njit(cache=True, nogil=True)
def _sort_ties(
    keys: NDArray[np.float64],
    tokens: NDArray[np.int32],
    n: int,
    high: NDArray[np.uint32],
    order: NDArray[np.int32],
) -> None:  # pragma: no cover - compiled
    """Order what has equal high words by the whole key, descending, then by token, ascending."""
    first = 0
    while first < n:
        last = first + 1
        while last < n and high[order[last]] == high[order[first]]:
            last += 1
        if last - first > _FEW:
            run = order[first:last]
            run = run[np.argsort(tokens[run])]
            order[first:last] = run[np.argsort(-keys[run], kind="mergesort")]
        else:
            for i in range(first + 1, last):
                moving = order[i]
                at = i
                while at > first and (
                    keys[order[at - 1]] < keys[moving]
                    or (
                        keys[order[at - 1]] == keys[moving]
                        and tokens[order[at - 1]] > tokens[moving]
                    )
                ):
                    order[at] = order[at - 1]
                    at -= 1
                order[at] = moving
        first = last
