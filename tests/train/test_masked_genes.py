import numpy as np
import pytest
import torch
from cytolake.train.encodings.tokens import TokenBatch
from cytolake.train.models.bert import bert_config, fresh_bert
from cytolake.train.objectives.masked_genes import MASK, MaskedGenes, mask_pack
from cytolake.train.packing import Pack, empty_pack, pack_of

VOCABULARY, N_SPECIAL = 64, 4


def pack_with(keys: list[int], length: int, *, seed: int = 0) -> Pack:
    draw = np.random.default_rng(seed)
    cells = [
        np.concatenate([[2], draw.permutation(np.arange(4, VOCABULARY))[: length - 2], [3]]).astype(
            np.int32
        )
        for _ in keys
    ]
    batch = TokenBatch.of_cells(cells, keys=np.array(keys, dtype=np.uint64))
    return pack_of(batch, range(len(keys)))


def mask(pack: Pack, *, seed: int = 1, epoch: int = 0):
    return mask_pack(pack, seed=seed, epoch=epoch, n_special=N_SPECIAL, vocabulary_size=VOCABULARY)


def mixed_slowly(x: int) -> int:
    """SplitMix64's finaliser in Python's own integers."""
    x %= 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def test_choices_are_those_of_a_hash_in_plain_integers():
    pack = pack_with([3, 2**64 - 5, 2**63], 60)
    begin = mixed_slowly(mixed_slowly(9) + 4)
    chosen: list[int] = []
    for place in range(pack.n_tokens):
        key, position = int(pack.keys[place]) % 2**64, int(pack.positions[place])
        draw = mixed_slowly(mixed_slowly(key ^ begin) + position * 0x9E3779B97F4A7C1 + 1)
        if draw % 2**30 < round(0.15 * 2**30) and pack.tokens[place] >= N_SPECIAL:
            chosen.append(place)
    found = mask(pack, seed=9, epoch=4)
    assert found.rows.tolist() == chosen
    assert found.labels.tolist() == pack.tokens[found.rows].tolist()


def test_shares_are_the_published_ones():
    pack = pack_with(list(range(2000)), 60)
    found = mask(pack)
    n_genes = 2000 * 58
    before, after = pack.tokens[found.rows], found.pack.tokens[found.rows]
    assert found.n_masked / n_genes == pytest.approx(0.15, abs=0.005)
    assert (after == MASK).double().mean().item() == pytest.approx(0.8, abs=0.01)
    # One of the 60 genes drawn is the one that stood there.
    assert (after == before).double().mean().item() == pytest.approx(0.1 + 0.1 / 60, abs=0.01)
    assert after[after != MASK].min() >= N_SPECIAL
    untouched = torch.ones(pack.n_tokens, dtype=torch.bool)
    untouched[found.rows] = False
    assert torch.equal(found.pack.tokens[untouched], pack.tokens[untouched])


def test_special_tokens_are_never_chosen():
    found = mask(pack_with(list(range(300)), 4))
    assert found.labels.min() >= N_SPECIAL


def test_masks_follow_the_cell_not_its_place_in_a_pack():
    together, alone = pack_with([5, 6, 7], 40), pack_with([5, 6, 7], 40)
    batch = TokenBatch.of_cells(
        [alone.tokens[40:80].numpy().astype(np.int32)], keys=np.array([6], dtype=np.uint64)
    )
    single = mask(pack_of(batch, [0]))
    inside = mask(together)
    rows = inside.rows[(inside.rows >= 40) & (inside.rows < 80)] - 40
    assert rows.tolist() == single.rows.tolist()
    assert torch.equal(inside.pack.tokens[40:80], single.pack.tokens)


@pytest.mark.parametrize("change", [{"seed": 2}, {"epoch": 1}], ids=["seed", "epoch"])
def test_another_seed_or_epoch_masks_otherwise(change: dict[str, int]):
    pack = pack_with([5, 6], 60)
    assert mask(pack).rows.tolist() == mask(pack).rows.tolist()
    assert mask(pack).rows.tolist() != mask(pack, **change).rows.tolist()


def test_a_pack_without_a_chosen_token_gives_zero_and_zero_gradients():
    config = bert_config(
        vocabulary_size=VOCABULARY, length=16, layers=1, width=8, heads=2, feed_forward=8
    )
    objective = MaskedGenes(fresh_bert(config, 0), n_special=N_SPECIAL, seed=0)
    loss, right = objective(objective.prepare(empty_pack(), 0))
    loss.backward()
    assert (loss.item(), right.item()) == (0.0, 0)
    for parameter in objective.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()
