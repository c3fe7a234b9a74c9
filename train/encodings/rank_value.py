"""Cells to tokens by rank. Knows the vocabulary and the medians; knows no model.

Array suffixes: c cell, g gene, n stored non-zero, t token position.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from ...corpus.cells import CellBatch
from ...corpus.medians import MediansSet
from ...corpus.rooms import Rooms
from ...corpus.vocabularies import Vocabulary
from ...platform.errors import VocabularyError
from .tokens import TokenBatch

_BEGIN, _END = "<cls>", "<eos>"
_TokensOfList = tuple[NDArray[np.int32], NDArray[np.float64], bool]


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
        self._token_rooms, self._sorting_rooms = Rooms(kept=16), Rooms(kept=4)

    def encode(self, batch: CellBatch) -> TokenBatch:
        """Encode cells. A cell without a gene of the vocabulary comes out without gene tokens."""
        tokens_g, medians_g, distinct = self._tokens_of(batch.gene_ids)
        stored_c = np.diff(batch.indptr)
        n_around = self.length - self._n_genes
        most = int(np.minimum(stored_c, self._n_genes).sum()) + batch.n_cells * n_around
        longest = int(stored_c.max(initial=0))
        tokens_t = self._token_rooms.empty(most, np.int32)
        offsets_c = np.zeros(batch.n_cells + 1, dtype=np.int64)
        _rank(
            batch.indptr,
            batch.indices,
            batch.counts,
            tokens_g,
            medians_g,
            self._sorting_rooms.empty(_WORDS_A_GENE * longest, np.uint64),
            tokens_t,
            offsets_c,
            len(self._median_of_token),
            self._n_genes,
            self._begin,
            self._end,
            distinct,
        )
        ids = batch.obs.column("cell_id") if "cell_id" in batch.obs.column_names else None
        return TokenBatch(
            tokens=tokens_t[: offsets_c[-1]],
            offsets=offsets_c,
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
        tokens_g, _, _ = self._tokens_of(batch.gene_ids)
        inside = tokens_g[batch.indices] >= 0
        total = int(batch.counts.sum(dtype=np.int64))
        on_vocabulary = int(batch.counts[inside].sum(dtype=np.int64)) / total if total else 0.0
        measured = len(np.unique(tokens_g[tokens_g >= 0]))
        return on_vocabulary, measured / int((~np.isnan(self._median_of_token)).sum())

    def _tokens_of(self, gene_ids: NDArray[np.object_]) -> _TokensOfList:
        """The token of each gene of a list, -1 for a gene without token or median; its median.

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
            medians_g = self._median_of_token[tokens_g]  # of what has no token never looked at
            known = tokens_g, medians_g, len(np.unique(used)) == len(used)
            if len(self._tokens_of_list) >= 64:  # a corpus has few gene lists, but not one
                self._tokens_of_list.clear()
            self._tokens_of_list[names] = known
        self._last_list = gene_ids, known
        return known


_LOW, _HIGH = 10, 11
"""Bits of the two digits that keys are sorted by: their tallies and a cell stay in L1."""
_FEW = 32
_WORDS_A_GENE = 5
_PLACE = np.uint64(2**32 - 1)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _rank(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    counts: NDArray[np.uint32],
    tokens_g: NDArray[np.int32],
    medians_g: NDArray[np.float64],
    room: NDArray[np.uint64],
    out: NDArray[np.int32],
    offsets_c: NDArray[np.int64],
    n_tokens: int,
    n_genes: int,
    begin: int,
    end: int,
    distinct: bool,
) -> None:  # pragma: no cover - compiled
    """Write the cells' tokens one after the other to `out`, and where each one's end.

    `room` has `_WORDS_A_GENE` words for each gene of the longest cell. `distinct` says that no two
    genes of the list have one token, so that none need be summed. Indices are unsigned: of a signed
    one numba asks each time whether it counts from the end.
    """
    longest = len(room) // _WORDS_A_GENE
    keys = room[:longest].view(np.float64)
    medians = room[longest : 2 * longest].view(np.float64)
    words, spare = room[2 * longest : 3 * longest], room[3 * longest : 4 * longest]
    narrow = room[4 * longest :].view(np.uint32)
    high, tokens = narrow[:longest], narrow[longest:].view(np.int32)
    low_tally = np.empty(1 << _LOW, dtype=np.uint32)
    high_tally = np.empty(1 << _HIGH, dtype=np.uint32)
    slot_of_token = np.full(0 if distinct else n_tokens, -1, dtype=np.int32)
    write = 0
    for cell in range(len(indptr) - 1):
        genes = indices[indptr[cell] : indptr[cell + 1]]
        found = counts[indptr[cell] : indptr[cell + 1]]
        n = np.uint64(0)
        if distinct:
            for i in range(len(genes)):  # no branch: whether a gene counts cannot be foretold
                gene = np.uint64(genes[i])
                tokens[n] = tokens_g[gene]
                medians[n] = medians_g[gene]
                keys[n] = found[i]
                n += np.uint64((tokens_g[gene] >= 0) & (found[i] != 0))
        else:
            for i in range(len(genes)):
                token = tokens_g[genes[i]]
                if token < 0 or found[i] == 0:
                    continue
                slot = slot_of_token[token]
                if slot < 0:
                    slot_of_token[token] = n
                    tokens[n] = token
                    medians[n] = medians_g[genes[i]]
                    keys[n] = found[i]
                    n += np.uint64(1)
                else:  # two ids of the source meet in one token: their counts are summed
                    keys[slot] += found[i]
            for token in tokens[:n]:
                slot_of_token[token] = -1
        mine, by = keys[:n], medians[:n]
        for i in range(len(mine)):
            mine[i] /= by[i]
        order = _sorted(mine, tokens[:n], high[:n], words[:n], spare[:n], low_tally, high_tally)
        if begin >= 0:
            out[write] = begin
            write += 1
        kept = out[write : write + min(np.int64(n), n_genes)]
        for i in range(len(kept)):
            kept[i] = tokens[order[i] & _PLACE]
        write += len(kept)
        if end >= 0:
            out[write] = end
            write += 1
        offsets_c[cell + 1] = write


@numba.njit(cache=True, nogil=True)
def _sorted(
    keys: NDArray[np.float64],
    tokens: NDArray[np.int32],
    high: NDArray[np.uint32],
    words: NDArray[np.uint64],
    spare: NDArray[np.uint64],
    low_tally: NDArray[np.uint32],
    high_tally: NDArray[np.uint32],
) -> NDArray[np.uint64]:  # pragma: no cover - compiled
    """Places of keys >= 0, descending, then by token: a radix sort in two passes, then ties.

    The bits of doubles from 0 up ascend as the doubles do. Of each key's first 32 the distance from
    the largest is taken, and of that so many bits as two digits have: what a cell's keys have in
    common costs no pass.

    Returns:
        Words whose lower halves are the places. Shape (n,); in the memory of `words`.
    """
    largest, smallest = np.uint32(0), np.uint32(2**32 - 1)
    bits = keys.view(np.uint64)
    for i in range(len(bits)):
        word = np.uint32(bits[i] >> np.uint64(32))
        high[i] = word
        largest, smallest = max(largest, word), min(smallest, word)
    span = np.uint64(largest - smallest) if len(keys) else np.uint64(0)
    shift = np.uint64(0)
    while (span >> shift) >> np.uint64(_LOW + _HIGH):
        shift += np.uint64(1)
    low_tally[:] = 0
    high_tally[:] = 0
    for i in range(len(high)):
        digits = np.uint64(largest - high[i]) >> shift
        low_tally[digits & np.uint64((1 << _LOW) - 1)] += np.uint32(1)
        high_tally[digits >> np.uint64(_LOW)] += np.uint32(1)
    _add_up(low_tally, 1 << _LOW)
    _add_up(high_tally, int((span >> shift) >> np.uint64(_LOW)) + 1)
    for i in range(len(high)):
        below = np.uint64(largest - high[i])
        digit = (below >> shift) & np.uint64((1 << _LOW) - 1)
        spare[np.uint64(low_tally[digit])] = (below << np.uint64(32)) | np.uint64(i)
        low_tally[digit] += np.uint32(1)
    to_digit = np.uint64(32 + _LOW) + shift
    for i in range(len(spare)):
        digit = spare[i] >> to_digit
        words[np.uint64(high_tally[digit])] = spare[i]
        high_tally[digit] += np.uint32(1)
    _sort_ties(words, np.uint64(32) + shift, keys, tokens)
    return words


@numba.njit(cache=True, nogil=True)
def _add_up(tally: NDArray[np.uint32], n_digits: int) -> None:  # pragma: no cover - compiled
    """Of how often each digit comes, where its first goes."""
    before = np.uint32(0)
    for digit in range(n_digits):
        here = tally[digit]
        tally[digit] = before
        before += here


@numba.njit(cache=True, nogil=True)
def _sort_ties(
    words: NDArray[np.uint64],
    to_digits: np.uint64,
    keys: NDArray[np.float64],
    tokens: NDArray[np.int32],
) -> None:  # pragma: no cover - compiled
    """Order what has equal digits by the whole key, descending, then by token, ascending.

    Few have equal digits, so that the loop looks at pairs: to count lengths takes twice as long.
    """
    for i in range(1, len(words)):
        if (words[i] ^ words[i - 1]) >> to_digits != 0:
            continue
        first, last = i - 1, i + 1
        if first and (words[first] ^ words[first - 1]) >> to_digits == 0:
            continue  # ordered with the run's first two
        while last < len(words) and (words[last] ^ words[first]) >> to_digits == 0:
            last += 1
        if last - first > _FEW:
            run = (words[first:last] & _PLACE).astype(np.int64)
            run = run[np.argsort(tokens[run])]
            run = run[np.argsort(-keys[run], kind="mergesort")]
            words[first:last] = (words[first] & ~_PLACE) | run.astype(np.uint64)
            continue
        for next_one in range(first + 1, last):
            moving, at = words[next_one], next_one
            key, token = keys[moving & _PLACE], tokens[moving & _PLACE]
            while at > first:
                above = words[at - 1] & _PLACE
                if keys[above] > key or (keys[above] == key and tokens[above] < token):
                    break
                words[at] = words[at - 1]
                at -= 1
            words[at] = moving
