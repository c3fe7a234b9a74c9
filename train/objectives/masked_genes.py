"""Guess the genes that were masked. Knows packs and tokens; knows no gene and no engine.

Source: Devlin et al. 2019 and Theodoris et al. 2023: 15 % of a cell's tokens are chosen; of these
80 % become `<mask>`, 10 % another gene, 10 % stay. Special tokens are never chosen, and another
gene is drawn among genes only (the official collator draws specials too, and may choose
`<cls>` and `<eos>`).

What is chosen comes from an integer hash of (seed, epoch, content key of the cell, position), in
int64 arithmetic that wraps: the same bits on any device, for any packing, in any corpus that holds
the same cells. Array suffixes: t token position, m masked row, v vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from ..models.bert import PackedBert
from ..packing import Pack

PAD, MASK = 0, 1
_SCALE = 1 << 30


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
    begin = _mix_int(_mix_int(seed) + epoch)
    # An odd multiplier keeps positions apart; _mix then spreads them over all bits.
    draw = _mix(_mix(pack.keys ^ begin) + pack.positions * 0x9E3779B97F4A7C1 + 1)
    fate = _mix(draw + 2)
    chosen = (draw & (_SCALE - 1)) < round(share * _SCALE)
    chosen &= pack.tokens >= n_special
    fate = fate & (_SCALE - 1)
    is_masked = chosen & (fate < round(masked * _SCALE))
    is_random = chosen & ~is_masked & (fate < round((masked + random) * _SCALE))
    others = (_mix(draw + 3) & (2**62 - 1)) % (vocabulary_size - n_special) + n_special
    tokens = torch.where(is_masked, MASK, torch.where(is_random, others, pack.tokens))
    rows = torch.nonzero(chosen).flatten()
    hidden = Pack(
        tokens=tokens,
        positions=pack.positions,
        offsets=pack.offsets,
        lengths=pack.lengths,
        keys=pack.keys,
        rows=pack.rows,
    )
    return MaskedPack(pack=hidden, rows=rows, labels=pack.tokens[rows])


def _mix(x: torch.Tensor) -> torch.Tensor:
    """SplitMix64's finaliser over int64 two's complement. Source: Steele et al. 2014."""
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _shift(x: torch.Tensor, n: int) -> torch.Tensor:
    """A logical shift to the right: torch's own keeps the sign."""
    return (x >> n) & ((1 << (64 - n)) - 1)


def _mix_int(x: int) -> int:
    """`_mix` of one Python integer."""
    x &= 2**64 - 1
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return _signed(x ^ (x >> 31))


def _signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x
