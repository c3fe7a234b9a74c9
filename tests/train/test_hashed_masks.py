from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cytolake.train.encodings.tokens import TokenBatch
from cytolake.train.objectives.hashed_masks import (
    Hidden,
    Rule,
    hide,
    hide_by_kernel,
    hide_by_torch,
    rule_of,
)
from cytolake.train.packing import empty_pack, pack_of
from hypothesis import given, settings
from hypothesis import strategies as st

from .plain_hash import mixed_slowly

MASK = 1
WORDS = st.integers(-(2**63), 2**63 - 1)
"""Any 64 bits."""
SHARES = st.sampled_from([0.0, 0.15, 0.5, 1.0]) | st.floats(0, 1)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    n_special = draw(st.integers(0, 5))
    masked = draw(SHARES)
    return rule_of(
        seed=draw(WORDS),
        epoch=draw(st.integers(0, 2**40)),
        n_special=n_special,
        vocabulary_size=n_special + draw(st.integers(1, 30_000)),
        share=draw(SHARES),
        masked=masked,
        random=draw(st.floats(0, 1 - masked)),
        mask=MASK,
    )


def rule(**changed: Any) -> Rule:
    usual: dict[str, Any] = {"seed": 1, "epoch": 0, "share": 0.15, "masked": 0.8, "random": 0.1}
    return rule_of(**(usual | {"n_special": 4, "vocabulary_size": 64, "mask": MASK} | changed))


def columns(n_tokens: int) -> Hidden:
    """Tokens, positions and keys, the latter two such as no corpus has."""
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, 64, n_tokens)
    positions, keys = draw.integers(-(2**63), 2**63 - 1, (2, n_tokens))
    return torch.from_numpy(tokens), torch.from_numpy(positions), torch.from_numpy(keys)


def hidden_slowly(token: int, position: int, key: int, *, seed: int, epoch: int) -> int | None:
    """What stands where a token was chosen, by the usual `rule`; None where none was."""
    begin = mixed_slowly(mixed_slowly(seed) + epoch)
    draw = mixed_slowly(mixed_slowly(key ^ begin) + position * 0x9E3779B97F4A7C1 + 1)
    if token < 4 or draw % 2**30 >= round(0.15 * 2**30):
        return None
    fate = mixed_slowly(draw + 2) % 2**30
    if fate < round(0.8 * 2**30):
        return MASK
    is_random = fate < round((0.8 + 0.1) * 2**30)
    return mixed_slowly(draw + 3) % 2**62 % (64 - 4) + 4 if is_random else token


@pytest.mark.parametrize("by", [hide_by_kernel, hide_by_torch])
def test_what_is_hidden_is_that_of_a_hash_in_plain_integers(by: Callable[..., Hidden]):
    tokens, positions, keys = columns(3000)
    words = list(zip(tokens.tolist(), positions.tolist(), keys.tolist(), strict=True))
    slowly = [hidden_slowly(*word, seed=-9, epoch=4) for word in words]
    hidden, rows, labels = by(tokens, positions, keys, rule(seed=-9, epoch=4))
    assert rows.tolist() == [row for row, there in enumerate(slowly) if there is not None]
    assert labels.tolist() == [words[row][0] for row in rows.tolist()]
    assert hidden.tolist() == [
        word[0] if there is None else there for word, there in zip(words, slowly, strict=True)
    ]


def assert_same(found: Hidden, expected: Hidden) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype == torch.int64
        assert torch.equal(one, other)


@settings(deadline=None)
@given(
    rule=rules(), lengths=st.lists(st.integers(1, 700), max_size=6), seed=st.integers(0, 2**32 - 1)
)
def test_kernel_and_torch_hide_the_same_of_packed_cells(rule: Rule, lengths: list[int], seed: int):
    """Cells of one token too; tokens are special ones and genes in any order."""
    draw = np.random.default_rng(seed)
    top = rule.n_special + rule.n_genes
    cells = [draw.integers(0, top, n).astype(np.int32) for n in lengths]
    keys = draw.integers(0, 2**64 - 1, len(cells), dtype=np.uint64)
    packs = [empty_pack()]
    if cells:
        packs.append(pack_of(TokenBatch.of_cells(cells, keys=keys), range(len(cells))))
    for pack in packs:
        before = pack.tokens.clone()
        found = hide_by_kernel(pack.tokens, pack.positions, pack.keys, rule)
        assert_same(found, hide_by_torch(pack.tokens, pack.positions, pack.keys, rule))
        assert torch.equal(pack.tokens, before)


@settings(deadline=None)
@given(rule=rules(), words=st.lists(st.tuples(WORDS, WORDS, WORDS), max_size=40))
def test_kernel_and_torch_wrap_any_words_alike(rule: Rule, words: list[tuple[int, int, int]]):
    tokens, positions, keys = torch.tensor(words, dtype=torch.int64).reshape(-1, 3).unbind(1)
    assert not words or tokens.stride() == (3,)  # whatever lies in memory in strides is read too
    assert_same(
        hide_by_kernel(tokens, positions, keys, rule), hide_by_torch(tokens, positions, keys, rule)
    )


@pytest.mark.parametrize("n_tokens", [0, 1, 1023, 1024, 1025, 2048, 5000])
def test_what_the_kernel_looks_at_together_has_no_seam(n_tokens: int):
    held = columns(n_tokens)
    assert_same(hide_by_kernel(*held, rule()), hide_by_torch(*held, rule()))


def test_read_in_strides_the_same_is_hidden():
    held = columns(3000)
    spread = [column.repeat_interleave(3)[::3] for column in held]
    assert not any(column.is_contiguous() for column in spread)
    assert_same(hide_by_kernel(*spread, rule()), hide_by_torch(*held, rule()))


def test_a_share_of_one_hides_every_gene_and_no_special_token():
    tokens, positions, keys = columns(3000)
    hidden, rows, labels = hide(tokens, positions, keys, rule(share=1, masked=1, random=0))
    assert rows.tolist() == torch.nonzero(tokens >= 4).flatten().tolist()
    assert labels.tolist() == tokens[tokens >= 4].tolist()
    assert hidden.tolist() == [MASK if token >= 4 else token for token in tokens.tolist()]


def test_other_genes_are_drawn_from_all_genes_and_from_no_special_token():
    hidden, rows, _ = hide(*columns(20_000), rule(share=1, masked=0, random=1))
    assert sorted(set(hidden[rows].tolist())) == list(range(4, 64))


def test_what_is_hidden_is_not_in_the_memory_of_what_was_there():
    tokens, positions, keys = columns(100)
    hidden, _, labels = hide(tokens, positions, keys, rule(share=0.9))
    before = (hidden.clone(), labels.clone())
    tokens.zero_()
    assert torch.equal(hidden, before[0])
    assert torch.equal(labels, before[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_device_hides_what_the_host_hides():
    held = columns(50_000)
    hidden, rows, labels = hide(*(column.cuda() for column in held), rule())
    assert hidden.is_cuda
    assert_same((hidden.cpu(), rows.cpu(), labels.cpu()), hide(*held, rule()))
