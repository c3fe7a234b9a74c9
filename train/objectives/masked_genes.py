"""Guess the genes that were masked. Knows packs and tokens; knows no gene and no engine.

Source: Devlin et al. 2019 and Theodoris et al. 2023: 15 % of a cell's tokens are chosen; of these
80 % become `<mask>`, 10 % another gene, 10 % stay. Special tokens are never chosen, and another
gene is drawn among genes only (the official collator draws specials too, and may choose
`<cls>` and `<eos>`).

What is chosen comes from an integer hash (`hashed_masks.py`). Array suffixes: t token position,
m masked row, v vocabulary.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional

from ..models.bert import PackedBert
from ..packing import Pack
from .hashed_masks import hide, rule_of

PAD, MASK = 0, 1


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedPack:
    """A pack with some tokens hidden, and what they were.

    Attributes:
        pack: the pack with its tokens replaced.
        rows: places of the chosen tokens. Shape (n_masked,), int64.
        labels: the tokens that stood there. Shape (n_masked,), int64.
    """

    pack: Pack
    rows: torch.Tensor
    labels: torch.Tensor

    @property
    def n_masked(self) -> int:
        """Number of chosen tokens: the weight of this pack in a step's loss."""
        return len(self.labels)

    def to(self, device: torch.device) -> "MaskedPack":
        """The same on a device; itself where it is there already."""
        if self.labels.device == device:
            return self
        pack, rows, labels = self.pack.to(device), self.rows.to(device), self.labels.to(device)
        return MaskedPack(pack=pack, rows=rows, labels=labels)


class MaskedGenes(nn.Module):
    """The objective: a model's cross-entropy at chosen tokens."""

    def __init__(
        self,
        model: PackedBert,
        *,
        n_special: int,
        seed: int,
        share: float = 0.15,
        masked: float = 0.8,
        random: float = 0.1,
        half: bool = False,
    ) -> None:
        """Bind a model; `half` runs it in bfloat16; see `mask_pack` for the rest."""
        super().__init__()
        self._half = half
        self.model = model
        self._n_special, self._seed = n_special, seed
        self._share, self._masked, self._random = share, masked, random

    def prepare(self, pack: Pack, epoch: int) -> MaskedPack:
        """Choose and hide a pack's tokens for an epoch."""
        return mask_pack(
            pack,
            seed=self._seed,
            epoch=epoch,
            n_special=self._n_special,
            vocabulary_size=self.model.config.vocab_size,
            share=self._share,
            masked=self._masked,
            random=self._random,
        )

    def forward(self, masked: MaskedPack) -> tuple[torch.Tensor, torch.Tensor]:
        """The summed loss over the chosen tokens, and how many were guessed right.

        Both are sums, so that a step over many packs can divide by ITS number of chosen tokens.
        A pack without any gives zero, and zero gradients.
        """
        device = self.model.device
        masked = masked.to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self._half):
            hidden_td = self.model.hidden_states(masked.pack)
            logits_mv = self.model.logits(hidden_td[masked.rows])
        logits_mv = logits_mv.float()
        loss = functional.cross_entropy(logits_mv, masked.labels, reduction="sum")
        right = (logits_mv.detach().argmax(dim=-1) == masked.labels).sum()
        return loss, right


def mask_pack(
    pack: Pack,
    *,
    seed: int,
    epoch: int,
    n_special: int,
    vocabulary_size: int,
    share: float = 0.15,
    masked: float = 0.8,
    random: float = 0.1,
) -> MaskedPack:
    """Choose and hide tokens; pure.

    Args:
        pack: the cells.
        seed: another seed, other masks.
        epoch: another epoch, other masks.
        n_special: tokens below this one are special: never chosen, never drawn.
        vocabulary_size: one above the largest token.
        share: the share of tokens that is chosen.
        masked: of these, the share that becomes `<mask>`.
        random: of these, the share that becomes another gene; the rest stays.
    """
    hidden, rows, labels = hide(
        pack.tokens,
        pack.positions,
        pack.keys,
        rule_of(
            seed=seed,
            epoch=epoch,
            n_special=n_special,
            vocabulary_size=vocabulary_size,
            share=share,
            masked=masked,
            random=random,
            mask=MASK,
        ),
    )
    return MaskedPack(pack=replace(pack, tokens=hidden), rows=rows, labels=labels)
