"""Guess the genes that were masked. Knows packs and tokens; knows no gene and no engine.

Source: Devlin et al. 2019 and Theodoris et al. 2023: 15 % of a cell's tokens are chosen; of these
80 % become `<mask>`, 10 % another gene, 10 % stay. Special tokens are never chosen, and another
gene is drawn among genes only (the official collator draws specials too, and may choose
`<cls>` and `<eos>`).

What is chosen comes from an integer hash (`hashed_masks.py`). Array suffixes: t token position,
m masked row, v vocabulary.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ...corpus.rooms import Rooms
from ..encodings.tokens import TokenBatch
from ..models.bert import PackedBert
from ..models.packed_attention import cell_of, kernel_for
from ..packing import Pack, empty_pack, packs_of, padded_packs_of
from ..peak import Precision
from ..static_packs import StaticPack, StaticShape, static_pack
from .hashed_masks import Rule, count_hidden, hide, hide_within, rule_of
from .linear_cross_entropy import graded, linear_cross_entropy

PAD, MASK = 0, 1

ROWS_ON_CPU, ROWS_ON_GPU = 256, 4096
"""Rows that are scored together: a CPU keeps a chunk's scores near."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskRules:
    """What decides which tokens are hidden, in any epoch; see `mask_pack`."""

    seed: int
    n_special: int
    vocabulary_size: int
    share: float
    masked: float
    random: float

    def at(self, epoch: int) -> Rule:
        """The rule of an epoch."""
        return rule_of(
            seed=self.seed,
            epoch=epoch,
            n_special=self.n_special,
            vocabulary_size=self.vocabulary_size,
            share=self.share,
            masked=self.masked,
            random=self.random,
            mask=MASK,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedPack:
    """A pack with some tokens hidden, and what they were.

    Attributes:
        pack: the pack with its tokens replaced.
        rows: places of the chosen tokens. Shape (n_masked,), int64.
        labels: the tokens that stood there. Shape (n_masked,), int64.
        padded: whether the model runs over it one cell a row, each as long as the longest.
    """

    pack: Pack
    rows: torch.Tensor
    labels: torch.Tensor
    padded: bool = False

    @property
    def n_masked(self) -> int:
        """Number of chosen tokens: the weight of this pack in a step's loss."""
        return len(self.labels)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.pack.n_cells

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return self.pack.n_tokens

    @property
    def n_laid(self) -> int:
        """Number of tokens that the model runs over: with padding."""
        return self.n_cells * max(self.lengths) if self.padded else self.n_tokens

    @property
    def lengths(self) -> tuple[int, ...]:
        """Each cell's number of tokens."""
        return self.pack.lengths

    @property
    def cell_rows(self) -> tuple[int, ...]:
        """Each cell's row in the TokenBatch that was packed."""
        return self.pack.rows

    def to(self, device: torch.device) -> "MaskedPack":
        """The same on a device; itself where it is there already."""
        if self.labels.device == device:
            return self
        pack, rows, labels = self.pack.to(device), self.rows.to(device), self.labels.to(device)
        return replace(self, pack=pack, rows=rows, labels=labels)


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
        padded: bool = False,
        shape: StaticShape | None = None,
        compiled: bool = False,
    ) -> None:
        """Bind a model.

        Args:
            model: what is trained.
            n_special: see `mask_pack`, as for `seed`, `share`, `masked` and `random`.
            seed: see `n_special`.
            share: see `n_special`.
            masked: see `n_special`.
            random: see `n_special`.
            half: run the model in bfloat16; weights and losses stay in fp32.
            padded: one cell a row with padding: the parity layout.
            shape: of packs that are all alike and whose masks are made on the device; None for
                packs as they come, whose masks are made on the host.
            compiled: let torch compile the model's pass, of static packs only.
        """
        super().__init__()
        self._half, self._padded, self._shape = half, padded, shape
        self.model = model
        self._rules = MaskRules(
            seed=seed,
            n_special=n_special,
            vocabulary_size=model.config.vocab_size,
            share=share,
            masked=masked,
            random=random,
        )
        self._static_rule = self._rules.at(0)  # all of it but `begin` is the same in every epoch
        self._static_pass, self._grade = self._static, graded
        if compiled:
            self._static_pass = torch.compile(self._static, fullgraph=True, dynamic=False)
            self._grade = torch.compile(graded, fullgraph=True, dynamic=False)

    @property
    def precision(self) -> Precision:
        """The precision of the model's arithmetic."""
        return "bf16" if self._half else "fp32"

    @property
    def attention(self) -> str:
        """Which attention serves its packs, in words."""
        if self._padded:
            return "padded sdpa"
        kernel = kernel_for(self.model.device, torch.bfloat16 if self._half else self.model.dtype)
        if self._shape is None:
            return kernel
        return f"{kernel if kernel == 'varlen' else 'sdpa of whole packs'}, static packs"

    def packs(self, tokens: TokenBatch, budget: int, epoch: int, rooms: Rooms | None) -> list[Any]:
        """Some cells' packs of at most `budget` tokens, ready for `forward`.

        Args:
            tokens: the cells.
            budget: the most tokens of a pack; in the padded layout with its padding.
            epoch: another epoch, other masks.
            rooms: where the packs' memory comes from.
        """
        if self._shape is None:
            laid = (padded_packs_of if self._padded else packs_of)(tokens, budget, rooms)
            return [self.prepare(pack, epoch) for pack in laid]
        rule, shape = self._rules.at(epoch), self._shape
        masked_c = count_hidden(tokens.tokens, tokens.offsets, tokens.keys, rule)
        also = [(masked_c, shape.n_scored), (np.ones_like(masked_c), shape.n_real_cells)]
        return [
            self._filled(pack, shape, rule, int(masked_c[list(pack.rows)].sum()))
            for pack in packs_of(tokens, min(budget, shape.n_tokens), rooms, also=also)
        ]

    def prepare(self, pack: Pack, epoch: int) -> MaskedPack:
        """Choose and hide a pack's tokens for an epoch."""
        return replace(hide_in(pack, self._rules.at(epoch)), padded=self._padded)

    def nothing(self, epoch: int) -> Any:
        """A pack of weight 0, for a rank that has no cells in a step."""
        if self._shape is None:
            return self.prepare(empty_pack(), epoch)
        return self._filled(empty_pack(), self._shape, self._rules.at(epoch), 0)

    def forward(self, masked: "MaskedPack | StaticPack") -> tuple[torch.Tensor, torch.Tensor]:
        """The summed loss over the chosen tokens, and the guesses at them.

        All are sums, so that a step over many packs can divide by ITS number of chosen tokens.
        A pack without any gives zero, and zero gradients.

        Returns:
            The loss, fp32, shape (); and three counts, int64, shape (3,): chosen tokens guessed
            right, those of them that the model sees as `<mask>`, and all that it sees as `<mask>`.
            The other chosen ones show a gene: their own, or one that was drawn.
        """
        device = self.model.device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self._half):
            if isinstance(masked, StaticPack):
                at, grade = masked.to(device), self._grade
                scored_md, labels, is_mask_m = self._static_pass(
                    at.tokens, at.offsets, at.keys, at.begin, at.shape
                )
            else:
                here, grade = masked.to(device), graded  # its rows are as many as there are
                hidden_td = self.model.hidden_states(here.pack, padded=self._padded)
                scored_md, labels = self.model.scored(hidden_td[here.rows]), here.labels
                is_mask_m = here.pack.tokens[here.rows] == MASK
        decoder = self.model.decoder
        loss, right_m = linear_cross_entropy(
            scored_md,
            decoder.weight,
            decoder.bias,
            labels,
            chunk=ROWS_ON_CPU if device.type == "cpu" else ROWS_ON_GPU,
            half=self._half,
            grade=grade,
        )
        return loss, torch.stack([right_m, right_m & is_mask_m, is_mask_m]).sum(dim=1)

    def _static(
        self,
        tokens: torch.Tensor,
        offsets: torch.Tensor,
        keys_c: torch.Tensor,
        begin: torch.Tensor,
        shape: StaticShape,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Masks, the model's pass and the rows that are scored, all with static shapes.

        Returns:
            What the decoder reads of each row, the row's label, and whether it shows `<mask>`.
        """
        cell_t = cell_of(offsets, shape.n_tokens)
        everywhere = torch.arange(shape.n_tokens, device=tokens.device)
        positions = everywhere - offsets.long()[cell_t]
        hidden, rows, labels = hide_within(
            tokens.long(), positions, keys_c[cell_t], begin, self._static_rule, shape.n_scored
        )
        states = self.model.static_states(hidden, positions, offsets, shape.longest)
        is_mask_m = (hidden[rows] == MASK) & (labels >= 0)  # places not needed point to row 0
        return self.model.scored(states[rows]), labels, is_mask_m

    def _filled(self, pack: Pack, shape: StaticShape, rule: Rule, n_masked: int) -> StaticPack:
        made = static_pack(pack, shape, begin=rule.begin, n_masked=n_masked)
        return made.pinned() if self.model.device.type == "cuda" else made


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
    rules = MaskRules(
        seed=seed,
        n_special=n_special,
        vocabulary_size=vocabulary_size,
        share=share,
        masked=masked,
        random=random,
    )
    return hide_in(pack, rules.at(epoch))


def hide_in(pack: Pack, rule: Rule) -> MaskedPack:
    """Choose and hide a pack's tokens by a rule; pure."""
    hidden, rows, labels = hide(pack.tokens, pack.positions, pack.keys, rule)
    return MaskedPack(pack=replace(pack, tokens=hidden), rows=rows, labels=labels)
