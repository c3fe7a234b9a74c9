"""BERT over packed cells: Hugging Face's weights and names, our packed attention and thin head.

Knows tokens and positions; knows no gene. The state dict is that of stock `BertForMaskedLM`, and
a checkpoint of one loads as the other. The head is asked for masked rows only: the rows are
gathered BEFORE the transform and the decoder, which gives the stock loss at 15 % of its price.
Cells lie end to end; the padded layout, one cell a row, is what that is held against, and what
the paper's attention dropout needs. Array suffixes: c cell, t token position, m masked row,
d width, v vocabulary.
"""

from typing import Any

import torch
from transformers import BertConfig, BertForMaskedLM

from ...platform.errors import TrainingError
from ..packing import Pack
from .packed_attention import PACKED, register_packed_attention


class PackedBert(BertForMaskedLM):
    """Stock `BertForMaskedLM` that also reads packs."""

    def __init__(self, config: BertConfig) -> None:
        """Fresh weights from torch's current random state."""
        register_packed_attention()
        super().__init__(config)
        self.set_attn_implementation(PACKED)

    def hidden_states(self, pack: Pack, layer: int = -1, *, padded: bool = False) -> torch.Tensor:
        """Hidden states of a pack's tokens; layers above the one asked for are not run.

        Args:
            pack: the cells.
            layer: which of the `num_hidden_layers + 1` states, as Hugging Face counts them: 0 is
                the embeddings' output, -1 the last layer's, -2 the one before.
            padded: run one cell a row, with padding and a mask; the same states, and attention
                dropout in training.

        Returns:
            Shape (n_tokens, d).

        Raises:
            TrainingError: there is no such layer, a cell is longer than the positions, or a pack
                is to be learnt from with attention dropout.
        """
        n_run = self._n_run(layer)
        longest = self.config.max_position_embeddings
        if max(pack.lengths) > longest:
            raise TrainingError(
                f"a cell has {max(pack.lengths)} tokens, the model has {longest} positions"
            )
        if padded:
            return self._padded_states(pack, n_run)
        hidden = self.bert.embeddings(
            input_ids=pack.tokens[None], position_ids=pack.positions[None]
        )
        return self._run(hidden, n_run, offsets=pack.offsets, lengths=pack.lengths)[0]

    def static_states(
        self, tokens: torch.Tensor, positions: torch.Tensor, offsets: torch.Tensor, longest: int
    ) -> torch.Tensor:
        """The last layer's states of a static pack, with nothing read by the host. Shape (t, d).

        Args:
            tokens: Shape (t,), int64, as are `positions`.
            positions: each token's place in its own cell.
            offsets: where each cell begins and ends. Shape (n_cells + 1,), int32.
            longest: the most tokens of a cell, the same for all packs.
        """
        hidden = self.bert.embeddings(input_ids=tokens[None], position_ids=positions[None])
        return self._run(hidden, self._n_run(-1), offsets=offsets, longest=longest)[0]

    def _padded_states(self, pack: Pack, n_run: int) -> torch.Tensor:
        device = pack.tokens.device
        lengths = torch.tensor(pack.lengths, device=device)
        cell_t = torch.repeat_interleave(lengths, output_size=pack.n_tokens)
        padded = pack.tokens.new_zeros((len(lengths), max(pack.lengths)))
        padded[cell_t, pack.positions] = pack.tokens
        is_real = torch.arange(padded.shape[1], device=device)[None] < lengths[:, None]
        mask = is_real[:, None, None, :]
        hidden = self._run(self.bert.embeddings(input_ids=padded), n_run, attention_mask=mask)
        return hidden[cell_t, pack.positions]

    def _run(
        self,
        hidden: torch.Tensor,
        n_run: int,
        attention_mask: torch.Tensor | None = None,
        **packed: Any,
    ) -> torch.Tensor:
        for block in list(self.bert.encoder.layer)[:n_run]:
            hidden = block(hidden, attention_mask, **packed)
        return hidden

    def _n_run(self, layer: int) -> int:
        n_layers = len(self.bert.encoder.layer)
        n_run = layer if layer >= 0 else n_layers + 1 + layer
        if not 0 <= n_run <= n_layers:
            raise TrainingError(
                f"layer {layer} of {n_layers + 1}, expected {-n_layers - 1} to {n_layers}"
            )
        return n_run

    def scored(self, hidden_td: torch.Tensor) -> torch.Tensor:
        """What the decoder reads of the given rows. Shape (n_rows, d)."""
        return self.cls.predictions.transform(hidden_td)

    @property
    def decoder(self) -> torch.nn.Linear:
        """The tied decoder: weight of shape (v, d), bias of shape (v,)."""
        return self.cls.predictions.decoder

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
