"""BERT over packed cells: Hugging Face's weights and names, our packed attention and thin head.

Knows tokens and positions; knows no gene. The state dict is that of stock `BertForMaskedLM`, and
a checkpoint of one loads as the other. The head is asked for masked rows only: the rows are
gathered BEFORE the transform and the decoder, which gives the stock loss at 15 % of its price.
Array suffixes: c cell, t token position, m masked row, d width, v vocabulary.
"""

import torch
from transformers import BertConfig, BertForMaskedLM

from ...platform.errors import TrainingError
from ..packing import Pack
from .packed_attention import PACKED, register_packed_attention


class PackedBert(BertForMaskedLM):
    """Stock `BertForMaskedLM` that also reads packs."""

    def __init__(self, config: BertConfig) -> None:
        """Fresh weights from torch's current random state.

        Raises:
            TrainingError: the configuration has attention dropout, which packs cannot have.
        """
        if config.attention_probs_dropout_prob:
            raise TrainingError(
                f"attention_dropout is {config.attention_probs_dropout_prob}, expected 0: packed "
                "attention has no dropout, and would otherwise leave it out silently"
            )
        register_packed_attention()
        super().__init__(config)
        self.set_attn_implementation(PACKED)

    def hidden_states(self, pack: Pack, layer: int = -1) -> torch.Tensor:
        """Hidden states of a pack's tokens; layers above the one asked for are not run.

        Args:
            pack: the cells.
            layer: which of the `num_hidden_layers + 1` states, as Hugging Face counts them: 0 is
                the embeddings' output, -1 the last layer's, -2 the one before.

        Returns:
            Shape (n_tokens, d).

        Raises:
            TrainingError: there is no such layer, or a cell is longer than the positions.
        """
        layers = self.bert.encoder.layer
        n_run = layer if layer >= 0 else len(layers) + 1 + layer
        if not 0 <= n_run <= len(layers):
            raise TrainingError(
                f"layer {layer} of {len(layers) + 1}, expected {-len(layers) - 1} to {len(layers)}"
            )
        longest = self.config.max_position_embeddings
        if max(pack.lengths) > longest:
            raise TrainingError(
                f"a cell has {max(pack.lengths)} tokens, the model has {longest} positions"
            )
        hidden = self.bert.embeddings(
            input_ids=pack.tokens[None], position_ids=pack.positions[None]
        )
        for block in list(layers)[:n_run]:
            hidden = block(hidden, None, offsets=pack.offsets, lengths=pack.lengths)
        return hidden[0]

    def logits(self, hidden_td: torch.Tensor) -> torch.Tensor:
        """Scores of every token of the vocabulary for the given rows. Shape (n_rows, v)."""
        return self.cls(hidden_td)


def bert_config(
    *,
    vocabulary_size: int,
    length: int,
    layers: int,
    width: int,
    heads: int,
    feed_forward: int,
    activation: str = "relu",
    hidden_dropout: float = 0.02,
    attention_dropout: float = 0.0,
    initializer_range: float = 0.02,
    layer_norm_eps: float = 1e-12,
) -> BertConfig:
    """The configuration of a Geneformer-like BERT; defaults as published for Geneformer V1-10M."""
    return BertConfig(
        vocab_size=vocabulary_size,
        max_position_embeddings=length,
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=feed_forward,
        hidden_act=activation,
        hidden_dropout_prob=hidden_dropout,
        attention_probs_dropout_prob=attention_dropout,
        initializer_range=initializer_range,
        layer_norm_eps=layer_norm_eps,
        type_vocab_size=2,
        pad_token_id=0,
        tie_word_embeddings=True,
        architectures=["BertForMaskedLM"],
    )


def fresh_bert(config: BertConfig, seed: int) -> PackedBert:
    """A model of new weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PackedBert(config)
