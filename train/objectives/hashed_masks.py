"""What an integer hash hides: one kernel on the host, plain torch elsewhere, the same bits.

Knows tokens, positions and keys; knows no pack and no model. What is chosen comes from a hash of
(seed, epoch, content key of the cell, position), in 64-bit arithmetic that wraps: the same bits on
any device, for any packing, in any corpus that holds the same cells. Array suffixes: t token
position, m masked row.
"""

from dataclasses import dataclass

import numba
import numpy as np
import torch
from numpy.typing import NDArray

_BITS = 30
_LOW = (1 << _BITS) - 1
_SPREAD = 0x9E3779B97F4A7C1
"""Odd, so that positions stay apart; the mixing then spreads them over all bits."""
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_ALL = 2**64 - 1
_POSITIVE = 2**62 - 1
_CHUNK = 1024
"""Tokens that the kernel looks at together: what it keeps of them stays in L1."""

NOTHING = -100
"""The label of a place that holds no chosen token; what torch's cross-entropy leaves out."""

Hidden = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """What decides which tokens are hidden, and how.

    Attributes:
        begin: what keys are mixed with, of the seed and the epoch; in two's complement.
        chosen_below: a token is chosen when 30 bits of its draw are below this.
        masked_below: a chosen one becomes `<mask>` when 30 bits of its fate are below this.
        random_below: of the others, it becomes another gene when they are below this.
        n_special: tokens below this one are never chosen, never drawn.
        n_genes: tokens from there on, at least one.
        mask: the token that hides.
    """

    begin: int
    chosen_below: int
    masked_below: int
    random_below: int
    n_special: int
    n_genes: int
    mask: int


def rule_of(
    *,
    seed: int,
    epoch: int,
    n_special: int,
    vocabulary_size: int,
    share: float,
    masked: float,
    random: float,
    mask: int,
) -> Rule:
    """The rule of a seed, an epoch and shares; see `mask_pack`."""
    scale = 1 << _BITS
    return Rule(
        begin=_mix_int(_mix_int(seed) + epoch),
        chosen_below=round(share * scale),
        masked_below=round(masked * scale),
        random_below=round((masked + random) * scale),
        n_special=n_special,
        n_genes=vocabulary_size - n_special,
        mask=mask,
    )


def hide(tokens: torch.Tensor, positions: torch.Tensor, keys: torch.Tensor, rule: Rule) -> Hidden:
    """Choose and hide tokens, where they are. Pure.

    Args:
        tokens: Shape (t,), int64, as are `positions` and `keys`.
        positions: each token's place in its own cell.
        keys: the content key of each token's cell, as two's complement.
        rule: what decides.

    Returns:
        Tokens with the hidden ones replaced, shape (t,); places of the chosen ones, ascending,
        and the tokens that stood there, each of shape (m,). All int64.
    """
    by = hide_by_kernel if tokens.device.type == "cpu" else hide_by_torch
    return by(tokens, positions, keys, rule)


def hide_by_torch(
    tokens: torch.Tensor, positions: torch.Tensor, keys: torch.Tensor, rule: Rule
) -> Hidden:
    """`hide` in whole-tensor operations, on any device."""
    chosen, hidden = _chosen_and_hidden(tokens, positions, keys, rule.begin, rule)
    rows = torch.nonzero(chosen).flatten()
    return hidden, rows, tokens[rows]


def hide_within(
    tokens: torch.Tensor,
    positions: torch.Tensor,
    keys: torch.Tensor,
    begin: torch.Tensor,
    rule: Rule,
    capacity: int,
) -> Hidden:
    """`hide_by_torch` with shapes that do not depend on what is chosen, so that no host waits.

    Args:
        tokens: as in `hide`, as are `positions` and `keys`.
        positions: see `tokens`.
        keys: see `tokens`.
        begin: stands for `rule.begin`, which changes with the epoch. Shape (), int64.
        rule: what decides, all but `begin`.
        capacity: places for chosen tokens; the caller sees to it that there are enough.

    Returns:
        As `hide`, with m = `capacity`; places that are not needed hold row 0 and `NOTHING`.
    """
    chosen, hidden = _chosen_and_hidden(tokens, positions, keys, begin, rule)
    # Tokens that are not chosen all go to one place more, which is cut off.
    place = torch.where(chosen, torch.cumsum(chosen, 0) - 1, capacity).clamp(max=capacity)
    rows, labels = tokens.new_zeros(capacity + 1), tokens.new_full((capacity + 1,), NOTHING)
    rows = rows.scatter(0, place, torch.arange(len(tokens), device=tokens.device))
    return hidden, rows[:capacity], labels.scatter(0, place, tokens)[:capacity]


def _chosen_and_hidden(
    tokens: torch.Tensor,
    positions: torch.Tensor,
    keys: torch.Tensor,
    begin: torch.Tensor | int,
    rule: Rule,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which tokens are chosen, and all tokens with the hidden ones replaced. Shapes (t,)."""
    draw = _mix(_mix(keys ^ begin) + positions * _SPREAD + 1)
    chosen = ((draw & _LOW) < rule.chosen_below) & (tokens >= rule.n_special)
    fate = _mix(draw + 2) & _LOW
    is_masked = chosen & (fate < rule.masked_below)
    is_random = chosen & ~is_masked & (fate < rule.random_below)
    others = (_mix(draw + 3) & _POSITIVE) % rule.n_genes + rule.n_special
    return chosen, torch.where(is_masked, rule.mask, torch.where(is_random, others, tokens))


def count_hidden(
    tokens: NDArray[np.int32], offsets_c: NDArray[np.int64], keys_c: NDArray[np.uint64], rule: Rule
) -> NDArray[np.int64]:
    """How many tokens of each cell `hide` chooses; on the host. Shape (n_cells,).

    Args:
        tokens: the cells' tokens, end to end.
        offsets_c: where each cell begins and ends. Shape (n_cells + 1,).
        keys_c: each cell's content key. Shape (n_cells,).
        rule: what decides.
    """
    begin = np.uint64(rule.begin & _ALL)
    return _count(tokens, offsets_c, keys_c, begin, rule.chosen_below, rule.n_special)


def hide_by_kernel(
    tokens: torch.Tensor, positions: torch.Tensor, keys: torch.Tensor, rule: Rule
) -> Hidden:
    """`hide` in one pass over the host's memory: a ninth of the time of `hide_by_torch`."""
    tokens_t, positions_t, keys_t = (x.contiguous().numpy() for x in (tokens, positions, keys))
    hidden_t = np.empty_like(tokens_t)
    found = np.empty((2, len(tokens_t)), dtype=np.int64)
    n_chosen = _hide(
        tokens_t,
        positions_t.view(np.uint64),
        keys_t.view(np.uint64),
        np.uint64(rule.begin & _ALL),
        rule.chosen_below,
        rule.masked_below,
        rule.random_below,
        rule.n_special,
        np.uint64(rule.n_genes),
        rule.mask,
        hidden_t,
        found,
    )
    rows_m, labels_m = torch.from_numpy(found[:, :n_chosen].copy()).unbind()
    return torch.from_numpy(hidden_t), rows_m, labels_m


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _hide(
    tokens_t: NDArray[np.int64],
    positions_t: NDArray[np.uint64],
    keys_t: NDArray[np.uint64],
    begin: np.uint64,
    chosen_below: int,
    masked_below: int,
    random_below: int,
    n_special: int,
    n_genes: np.uint64,
    mask: int,
    hidden_t: NDArray[np.int64],
    found: NDArray[np.int64],
) -> int:  # pragma: no cover - compiled
    """Write all tokens to `hidden_t`, rows and labels to the first columns of `found`.

    A few of many are chosen, and nothing foretells which: no loop branches on it, each one adds to
    a list's length what is 0 or 1. The first loop runs on whole vectors.
    """
    draws = np.empty(_CHUNK, dtype=np.uint64)
    flags = np.empty(_CHUNK, dtype=np.uint8)
    others = np.empty(_CHUNK, dtype=np.uint64)
    rows, labels = found[0], found[1]
    n_chosen = 0
    for first in range(0, len(tokens_t), _CHUNK):
        tokens, hidden = tokens_t[first : first + _CHUNK], hidden_t[first : first + _CHUNK]
        positions, keys = positions_t[first : first + _CHUNK], keys_t[first : first + _CHUNK]
        draw, flag = draws[: len(tokens)], flags[: len(tokens)]
        for i in range(len(draw)):
            mixed = _mix_word(keys[i] ^ begin) + positions[i] * np.uint64(_SPREAD)
            word = _mix_word(mixed + np.uint64(1))
            is_low = np.int64(word & np.uint64(_LOW)) < chosen_below
            draw[i], hidden[i] = word, tokens[i]
            flag[i] = is_low & (tokens[i] >= n_special)
        n_before = n_chosen
        for i in range(len(flag)):
            rows[np.uint64(n_chosen)] = first + i
            n_chosen += flag[i]
        n_others = 0
        for row in range(n_before, n_chosen):
            i = np.uint64(rows[row] - first)
            word = _mix_word(np.uint64(draw[i] + np.uint64(2)))
            fate = np.int64(word & np.uint64(_LOW))
            labels[row] = tokens[i]
            hidden[i] = mask if fate < masked_below else tokens[i]
            others[np.uint64(n_others)] = i
            n_others += (fate >= masked_below) & (fate < random_below)
        for other in range(n_others):
            i = others[other]
            word = _mix_word(np.uint64(draw[i] + np.uint64(3)))
            hidden[i] = np.int64((word & np.uint64(_POSITIVE)) % n_genes) + n_special
    return n_chosen


@numba.njit(cache=True, nogil=True)
def _count(
    tokens: NDArray[np.int32],
    offsets_c: NDArray[np.int64],
    keys_c: NDArray[np.uint64],
    begin: np.uint64,
    chosen_below: int,
    n_special: int,
) -> NDArray[np.int64]:  # pragma: no cover - compiled
    counts_c = np.zeros(len(keys_c), dtype=np.int64)
    for c in range(len(keys_c)):
        start = _mix_word(keys_c[c] ^ begin)
        cell = tokens[offsets_c[c] : offsets_c[c + 1]]
        n_chosen = 0
        for i in range(len(cell)):
            word = _mix_word(start + np.uint64(i) * np.uint64(_SPREAD) + np.uint64(1))
            is_low = np.int64(word & np.uint64(_LOW)) < chosen_below
            n_chosen += is_low & (cell[i] >= n_special)
        counts_c[c] = n_chosen
    return counts_c


@numba.njit(cache=True, nogil=True, inline="always")
def _mix_word(x: np.uint64) -> np.uint64:  # pragma: no cover - compiled
    """SplitMix64's finaliser. Source: Steele et al. 2014."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(_FIRST)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(_SECOND)
    return x ^ (x >> np.uint64(31))


def _mix(x: torch.Tensor) -> torch.Tensor:
    """`_mix_word` of each of int64, in two's complement."""
    x = (x ^ _shift(x, 30)) * _signed(_FIRST)
    x = (x ^ _shift(x, 27)) * _signed(_SECOND)
    return x ^ _shift(x, 31)


def _shift(x: torch.Tensor, n: int) -> torch.Tensor:
    """A logical shift to the right: torch's own keeps the sign."""
    return (x >> n) & ((1 << (64 - n)) - 1)


def _mix_int(x: int) -> int:
    """`_mix_word` of one Python integer of any size, in two's complement."""
    x &= _ALL
    x = ((x ^ (x >> 30)) * _FIRST) & _ALL
    x = ((x ^ (x >> 27)) * _SECOND) & _ALL
    return _signed(x ^ (x >> 31))


def _signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x
