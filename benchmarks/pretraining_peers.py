"""What the pretraining benchmarks share: cells in memory, and the stock trainer as their peer.

Needs torch, transformers, numpy, scipy, numba and pyarrow alone, so that a bare GPU machine runs
it. The peer is stock `BertForMaskedLM` over padded batches with SDPA attention, its own loss over
every position and fused AdamW: what Hugging Face's trainer runs for Geneformer, without its own
overheads. Both sides see the same tokens and the same masks.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]


def make_importable() -> None:
    """Let `import cytolake` find this checkout where nothing is installed."""
    try:
        __import__("cytolake")
    except ImportError:
        folder = Path(tempfile.mkdtemp())
        (folder / "cytolake").symlink_to(ROOT)
        sys.path.insert(0, str(folder))


@dataclass(frozen=True, kw_only=True, slots=True)
class Adam:
    """The optimizer's settings, on both sides: those published for Geneformer V1."""

    peak_lr: float = 1e-3
    schedule: str = "linear"
    warmup_steps: int = 100
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.001
    clip: float = 1.0

    def warmup(self, n_steps: int) -> int:
        """Steps of warm-up, however many there are."""
        del n_steps
        return self.warmup_steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A model's shape, by the names of `train.models.bert.bert_config`."""

    vocabulary_size: int
    length: int
    layers: int
    width: int
    heads: int
    feed_forward: int
    hidden_dropout: float = 0.02

    def config(self) -> Any:
        """The configuration, with no attention dropout: the same on both sides."""
        from cytolake.train.models.bert import bert_config

        names = ("vocabulary_size", "length", "layers", "width", "heads", "feed_forward")
        return bert_config(
            **{name: getattr(self, name) for name in names}, hidden_dropout=self.hidden_dropout
        )

    def cost(self) -> Any:
        """The shape as `train/flops.py` counts it."""
        from cytolake.train.flops import BertShape

        return BertShape(**{each.name: getattr(self, each.name) for each in fields(BertShape)})


V1_10M = Shape(vocabulary_size=25_426, length=2048, layers=6, width=256, heads=4, feed_forward=512)
V2_104M = Shape(
    vocabulary_size=20_275,
    length=4096,
    layers=12,
    width=768,
    heads=12,
    feed_forward=3072,
    hidden_dropout=0.1,
)


def paper_lengths(n_cells: int, length: int, seed: int) -> NDArray[np.int64]:
    """Genes a cell like those of the paper's corpus: 7 % of them reach 2,048.

    Lognormal, median 880, sigma 0.58, for 2,048 positions; stretched with the positions. Chosen to
    meet the paper's 93 % of cells that 2,048 tokens hold whole; the true histogram is not public.
    """
    draw = np.random.default_rng(seed)
    drawn = np.exp(draw.normal(np.log(880 * length / 2048), 0.58, n_cells))
    return np.clip(drawn.round(), 1, length).astype(np.int64)


def cells_of(lengths: NDArray[np.int64], n_genes: int, seed: int) -> Any:
    """A `CellBatch` whose cells express so many of the genes, with counts of 1 to 20."""
    import pyarrow as pa
    from cytolake.corpus.cells import CellBatch

    draw = np.random.default_rng(seed)
    indices = np.concatenate(
        [np.sort(draw.choice(n_genes, n, replace=False)) for n in lengths.tolist()]
    )
    counts = draw.integers(1, 21, len(indices)).astype(np.uint32)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return CellBatch(
        gene_ids=np.array(gene_names(n_genes), dtype=object),
        indptr=indptr,
        indices=indices.astype(np.int32),
        counts=counts,
        n_counts=np.add.reduceat(counts.astype(np.int64), indptr[:-1]),
        content_keys=draw.integers(0, 2**63, len(lengths)).astype(np.uint64),
        obs=pa.table({"cell_id": np.arange(len(lengths))}),
    )


def gene_names(n_genes: int) -> list[str]:
    """Names that look like Ensembl's."""
    return [f"ENSG{number:011d}" for number in range(1, n_genes + 1)]


def encoding_of(shape: Shape) -> Any:
    """A rank-value encoding of as many genes as the shape's vocabulary has."""
    from cytolake.corpus.medians import MediansSet
    from cytolake.corpus.vocabularies import Vocabulary
    from cytolake.train.encodings.rank_value import RankValueEncoding

    genes = tuple(gene_names(shape.vocabulary_size - 2))
    drawn = np.random.default_rng(0).uniform(0.5, 5, len(genes))
    medians = MediansSet(gene_ids=genes, medians=drawn)
    return RankValueEncoding(Vocabulary(gene_ids=genes), medians, shape.length)


class CellsInMemory:
    """Groups of cells for a feed, made once: all of a run but reading from a disk."""

    def __init__(self, groups: Sequence[Any]) -> None:
        """Keep the cells, one batch a group."""
        self._groups = list(groups)

    @property
    def n_groups(self) -> int:
        """Groups in an epoch."""
        return len(self._groups)

    def group(self, epoch: int, index: int) -> list[Any]:
        """The cells of one group, the same in every epoch."""
        del epoch
        return [self._groups[index]]


def drawn_cells(shape: Shape, n_groups: int, cells_per_group: int) -> CellsInMemory:
    """Groups of cells with lengths like the paper's."""
    n_genes = shape.vocabulary_size - 2
    return CellsInMemory(
        [
            cells_of(paper_lengths(cells_per_group, shape.length, seed), n_genes, seed)
            for seed in range(n_groups)
        ]
    )


# ------------------------------------------------------------------------- the stock peer


def batches(
    lengths: NDArray[np.int64], rows: int, *, grouped: bool, seed: int
) -> list[NDArray[np.int64]]:
    """Which cells make which padded batch.

    Args:
        lengths: each cell's number of tokens.
        rows: cells of a batch.
        grouped: as Geneformer's trainer does it: a random order, mega-batches of at most 1,000
            batches and at most a quarter of the cells, each sorted by length.
        seed: of the order.
    """
    order = np.random.default_rng(seed).permutation(len(lengths))
    if grouped:
        mega = rows * max(1, min(len(lengths) // (4 * rows), 1000))
        order = np.concatenate(
            [
                part[np.argsort(-lengths[part], kind="stable")]
                for part in np.split(order, range(mega, len(order), mega))
            ]
        )
    return [order[first : first + rows] for first in range(0, len(order) - rows + 1, rows)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Padded:
    """A padded batch with its masks: what the stock collator would hand over."""

    inputs: torch.Tensor
    attention: torch.Tensor
    labels: torch.Tensor
    n_tokens: int

    def to(self, device: torch.device) -> "Padded":
        """The same on a device."""
        return Padded(
            inputs=self.inputs.to(device),
            attention=self.attention.to(device),
            labels=self.labels.to(device),
            n_tokens=self.n_tokens,
        )


def padded(tokens: Any, rows: NDArray[np.int64], objective: Any, epoch: int) -> Padded:
    """Some cells as a padded batch, with the masks that our objective gives them."""
    from cytolake.train.packing import pack_of

    masked = objective.prepare(pack_of(tokens, rows.tolist()), epoch)
    pack = masked.pack
    lengths = torch.tensor(pack.lengths)
    cell = torch.repeat_interleave(lengths)
    inputs = torch.zeros((len(lengths), int(lengths.max())), dtype=torch.int64)
    labels = torch.full_like(inputs, -100)
    flat = torch.full((pack.n_tokens,), -100)
    flat[masked.rows] = masked.labels
    inputs[cell, pack.positions], labels[cell, pack.positions] = pack.tokens, flat
    attention = (torch.arange(inputs.shape[1])[None] < lengths[:, None]).long()
    return Padded(inputs=inputs, attention=attention, labels=labels, n_tokens=pack.n_tokens)


def stock_model(shape: Shape, device: torch.device) -> Any:
    """Stock `BertForMaskedLM` with SDPA attention, the weights that our model begins with."""
    from cytolake.train.models.bert import fresh_bert
    from transformers import BertForMaskedLM

    config = shape.config()
    state = fresh_bert(config, 0).state_dict()
    stock = BertForMaskedLM(config)
    stock.set_attn_implementation("sdpa")
    stock.load_state_dict(state)
    return stock.to(device).train()


def stock_step(model: Any, optimizer: torch.optim.Optimizer, half: bool) -> Callable[[Padded], Any]:
    """One stock step over one batch: forward, backward, clip, update."""
    kind = next(model.parameters()).device.type

    def step(batch: Padded) -> torch.Tensor:
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=half):
            loss = model(
                input_ids=batch.inputs, attention_mask=batch.attention, labels=batch.labels
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def timed(
    step: Callable[[Any], Any], made: Sequence[Any], *, warm: int, wait: Callable[[], None]
) -> Iterator[float]:
    """Seconds of each step after the first `warm`; `wait` waits for the device."""
    for number, batch in enumerate(made):
        wait()
        began = time.perf_counter()
        step(batch)
        wait()
        if number >= warm:
            yield time.perf_counter() - began
