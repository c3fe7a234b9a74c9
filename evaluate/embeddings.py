"""Cells to cell states: the mean of a layer's hidden states over a cell's genes.

Knows checkpoints and batches, from a corpus or straight from a file; knows no task. The default
layer is the last but one, which is less bound to the pretraining's own question than the last
(Theodoris et al. 2023). Array suffixes: c cell, t token position, d width.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..corpus.cells import CellBatch
from ..platform.errors import EvaluationError
from ..train.checkpoints import Checkpoint
from ..train.encodings.tokens import TokenBatch
from ..train.models.bert import PackedBert
from ..train.packing import Pack, pack_cells

LAYER = -2
PACK_TOKENS = 8192
LEAST_COVERAGE = 0.5
"""Under this share of counts on vocabulary genes a cell state says little about the cell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """How well cells and a model's vocabulary fit.

    Attributes:
        n_cells: number of cells.
        n_empty: cells that express no gene of the vocabulary: they get no state.
        counts_share: the share of the cells' counts that falls on genes of the vocabulary.
        vocabulary_share: the share of the vocabulary's genes that the cells' source measures.
    """

    n_cells: int
    n_empty: int
    counts_share: float
    vocabulary_share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedding:
    """Cell states and what they stand on.

    Attributes:
        states_cd: one state a cell, in the order of the cells; NaN for a cell without a gene of
            the vocabulary. Shape (n_cells, d), float32.
        coverage: how well cells and vocabulary fit.
    """

    states_cd: NDArray[np.float32]
    coverage: Coverage


def cell_states(
    checkpoint: Checkpoint,
    batches: Iterable[CellBatch],
    *,
    layer: int = LAYER,
    pack_tokens: int = PACK_TOKENS,
    advance: Callable[[int], object] | None = None,
) -> NDArray[np.float32]:
    """The state of each cell; see `Embedding.states_cd`.

    Args:
        checkpoint: the model and its encoding.
        batches: the cells.
        layer: which hidden states, as Hugging Face counts them: -1 is the last.
        pack_tokens: the most tokens that go through the model at a time.
        advance: told the number of cells done, now and then.
    """
    tokens = TokenBatch.concatenate([checkpoint.encoding.encode(batch) for batch in batches])
    return states_of_tokens(
        checkpoint.model,
        tokens,
        n_special=len(checkpoint.vocabulary.special),
        layer=layer,
        pack_tokens=pack_tokens,
        advance=advance,
    )


def embed_batches(
    checkpoint: Checkpoint,
    batches: Iterable[CellBatch],
    *,
    layer: int = LAYER,
    pack_tokens: int = PACK_TOKENS,
    allow_low_coverage: bool = False,
    advance: Callable[[int], object] | None = None,
) -> Embedding:
    """Embed cells and say how well they fit the model.

    All cells are encoded before the first goes through the model, so that cells that do not fit
    are refused early; price: 4 bytes a token of memory.

    Args:
        checkpoint: the model and its encoding.
        batches: the cells.
        layer: which hidden states.
        pack_tokens: the most tokens that go through the model at a time.
        allow_low_coverage: embed also when under half of the counts are on vocabulary genes.
        advance: told the number of cells done, now and then.

    Raises:
        EvaluationError: no cell, or low coverage that was not allowed.
    """
    encoded: list[TokenBatch] = []
    tally = _CoverageTally(checkpoint)
    for batch in batches:
        encoded.append(checkpoint.encoding.encode(batch))
        tally.add(batch)
    tokens = TokenBatch.concatenate(encoded)
    if not tokens.n_cells:
        raise EvaluationError("there are no cells to embed")
    n_special = len(checkpoint.vocabulary.special)
    gene_counts = _genes_of_cells(tokens, n_special)
    coverage = tally.result(tokens.n_cells, int((gene_counts == 0).sum()))
    if coverage.counts_share < LEAST_COVERAGE and not allow_low_coverage:
        raise EvaluationError(
            f"{coverage.counts_share:.1%} of the counts fall on the model's vocabulary "
            f"({coverage.vocabulary_share:.1%} of which is measured), expected at least "
            f"{LEAST_COVERAGE:.0%}: check species and gene names, or allow low coverage"
        )
    states_cd = states_of_tokens(
        checkpoint.model,
        tokens,
        n_special=n_special,
        layer=layer,
        pack_tokens=pack_tokens,
        advance=advance,
    )
    return Embedding(states_cd=states_cd, coverage=coverage)


def states_of_tokens(
    model: PackedBert,
    tokens: TokenBatch,
    *,
    n_special: int,
    layer: int = LAYER,
    pack_tokens: int = PACK_TOKENS,
    advance: Callable[[int], object] | None = None,
) -> NDArray[np.float32]:
    """The state of each encoded cell: the mean over its genes, special tokens left out.

    Returns:
        Shape (n_cells, d); NaN for a cell without genes.
    """
    width = int(model.config.hidden_size)
    states_cd = np.full((tokens.n_cells, width), np.nan, dtype=np.float32)
    longest = int(tokens.lengths.max(initial=1))
    for pack in pack_cells(tokens, max(pack_tokens, longest)):
        with torch.inference_mode():
            on_device = pack.to(model.device)
            hidden_td = model.hidden_states(on_device, layer)
            pooled_cd = mean_of_genes(hidden_td, on_device, n_special)
        states_cd[list(pack.rows)] = pooled_cd.float().cpu().numpy()
        if advance is not None:
            advance(pack.n_cells)
    return states_cd


@contextmanager
def arithmetic_threads(number: int) -> Generator[None]:
    """Let torch use so many threads for the body. On small models one is fastest."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def mean_of_genes(hidden_td: torch.Tensor, pack: Pack, n_special: int) -> torch.Tensor:
    """Pool a pack's hidden states by cell, special tokens left out. Shape (n_cells, d).

    A cell without genes comes out as NaN.
    """
    is_gene = pack.tokens >= n_special
    lengths = torch.tensor(pack.lengths, device=hidden_td.device)
    cell_t = torch.repeat_interleave(
        torch.arange(len(pack.lengths), device=hidden_td.device), lengths
    )[is_gene]
    sums_cd = hidden_td.new_zeros((len(pack.lengths), hidden_td.shape[1]))
    sums_cd = sums_cd.index_add(0, cell_t, hidden_td[is_gene])
    n_genes_c = torch.bincount(cell_t, minlength=len(pack.lengths))
    return sums_cd / n_genes_c[:, None]


class _CoverageTally:
    """Coverage over several batches whose gene lists may differ."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._vocabulary = checkpoint.vocabulary
        has_median = np.isfinite(checkpoint.medians.of(checkpoint.vocabulary.gene_ids))
        self._known = np.concatenate([np.zeros(len(self._vocabulary.special), bool), has_median])
        self._measured = np.zeros_like(self._known)
        self._inside = self._total = 0

    def add(self, batch: CellBatch) -> None:
        tokens_g = self._vocabulary.tokens_of(batch.gene_ids)
        known_g = (tokens_g >= 0) & self._known[tokens_g]
        self._measured[tokens_g[known_g]] = True
        self._inside += int(batch.counts[known_g[batch.indices]].sum(dtype=np.int64))
        self._total += int(batch.counts.sum(dtype=np.int64))

    def result(self, n_cells: int, n_empty: int) -> Coverage:
        return Coverage(
            n_cells=n_cells,
            n_empty=n_empty,
            counts_share=self._inside / self._total if self._total else 0.0,
            vocabulary_share=float(self._measured.sum() / max(self._known.sum(), 1)),
        )


def _genes_of_cells(tokens: TokenBatch, n_special: int) -> NDArray[np.int64]:
    """How many genes each cell's tokens hold."""
    running = np.concatenate([[0], np.cumsum(tokens.tokens >= n_special)])
    return running[tokens.offsets[1:]] - running[tokens.offsets[:-1]]
