"""Tiny models and random tokens for the tests of models and objectives: no corpus, no file."""

import numpy as np
from cytolake.train.encodings.tokens import TokenBatch
from cytolake.train.models.bert import PackedBert, bert_config, fresh_bert


def tiny_model(
    seed: int = 0,
    *,
    vocabulary: int = 64,
    length: int = 24,
    layers: int = 2,
    width: int = 16,
    heads: int = 2,
    feed_forward: int = 32,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
) -> PackedBert:
    config = bert_config(
        vocabulary_size=vocabulary,
        length=length,
        layers=layers,
        width=width,
        heads=heads,
        feed_forward=feed_forward,
        hidden_dropout=dropout,
        attention_dropout=attention_dropout,
    )
    return fresh_bert(config, seed)


def cells_of(
    n_cells: int, seed: int, *, vocabulary: int, length: int, shortest: int = 1
) -> TokenBatch:
    """Cells of random genes, each once, from token 2 on; `shortest` to `length` of them."""
    draw = np.random.default_rng(seed)
    tokens = [
        draw.permutation(np.arange(2, vocabulary))[: draw.integers(shortest, length + 1)]
        for _ in range(n_cells)
    ]
    keys = draw.integers(0, 2**63, n_cells).astype(np.uint64)
    return TokenBatch.of_cells([cell.astype(np.int32) for cell in tokens], keys=keys)
