import numpy as np
import pytest
import torch
from cytolake.train.encodings.tokens import TokenBatch
from cytolake.train.objectives.masked_genes import MASK, MaskedGenes, mask_pack
from cytolake.train.packing import Pack, empty_pack, pack_of
from cytolake.train.static_packs import StaticShape

from .plain_hash import mixed_slowly
from .tiny_models import cells_of, tiny_model

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
    objective = MaskedGenes(tiny_model(), n_special=N_SPECIAL, seed=0)
    loss, guesses = objective(objective.prepare(empty_pack(), 0))
    loss.backward()
    assert (loss.item(), guesses.tolist()) == (0.0, [0, 0, 0])
    for parameter in objective.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


@pytest.mark.parametrize("layout", ["packed", "padded", "static"])
def test_guesses_under_the_mask_are_counted_apart_from_genes_that_can_be_read(layout: str):
    """Held against all scores of the plain model, where the tokens that it sees are looked at."""
    shape = StaticShape(n_tokens=70, n_cells=20, n_scored=40, longest=12)
    objective = MaskedGenes(
        tiny_model(vocabulary=12, length=12),
        n_special=2,
        seed=3,
        padded=layout == "padded",
        shape=shape if layout == "static" else None,
    )
    batch = cells_of(60, 7, vocabulary=12, length=12, shortest=6)
    with torch.no_grad():
        counts = [objective(pack)[1] for pack in objective.packs(batch, 70, 5, None)]
        plain = mask_pack(
            pack_of(batch, range(60)), seed=3, epoch=5, n_special=2, vocabulary_size=12
        )
        scores = objective.model.logits(objective.model.hidden_states(plain.pack)[plain.rows])
    right = scores.argmax(dim=-1) == plain.labels
    is_mask = plain.pack.tokens[plain.rows] == MASK
    assert 0 < int(is_mask.sum()) < plain.n_masked
    assert 0 < int((right & is_mask).sum()) < int(right.sum())
    expected = [right.sum(), (right & is_mask).sum(), is_mask.sum()]
    assert torch.stack(counts).sum(dim=0).tolist() == [int(count) for count in expected]
