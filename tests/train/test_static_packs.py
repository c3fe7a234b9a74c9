from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from cytolake.platform.errors import TrainingError
from cytolake.train.encodings.tokens import TokenBatch
from cytolake.train.objectives.masked_genes import MaskedGenes
from cytolake.train.packing import empty_pack, pack_of
from cytolake.train.static_packs import StaticPack, StaticShape, static_pack, static_shape

from .tiny_models import cells_of, tiny_model

SIZE, LENGTH, BUDGET = 60, 24, 70
SHAPE = StaticShape(n_tokens=BUDGET, n_cells=16, n_scored=40, longest=LENGTH)


def objective(shape: StaticShape | None = None, **more: Any) -> MaskedGenes:
    model = tiny_model(vocabulary=SIZE, length=LENGTH)
    return MaskedGenes(model, n_special=2, seed=3, shape=shape, **more)


def cells(n_cells: int, seed: int, shortest: int = 1) -> TokenBatch:
    return cells_of(n_cells, seed, vocabulary=SIZE, length=LENGTH, shortest=shortest)


def summed(made: MaskedGenes, batch: TokenBatch, epoch: int = 0) -> tuple[float, list[int], int]:
    """Loss, guesses and chosen tokens of a batch, with gradients left in the model."""
    made.model.zero_grad()
    total, guesses, masked = torch.zeros(()), torch.zeros(3, dtype=torch.int64), 0
    for pack in made.packs(batch, BUDGET, epoch, None):
        loss, some = made(pack)
        loss.backward()
        total, guesses, masked = total + loss.detach(), guesses + some, masked + pack.n_masked
    return float(total), guesses.tolist(), masked


@pytest.mark.parametrize("seed", range(4))
def test_loss_guesses_and_gradients_are_those_of_packs_as_they_come(seed: int):
    batch, plain, static = cells(11, seed), objective(), objective(SHAPE)
    for epoch in (0, 5):
        expected, found = summed(plain, batch, epoch), summed(static, batch, epoch)
        assert found[0] == pytest.approx(expected[0], rel=1e-5)
        assert found[1:] == expected[1:]
        for (name, one), (_, other) in zip(
            plain.named_parameters(), static.named_parameters(), strict=True
        ):
            assert one.grad is not None and other.grad is not None
            assert torch.allclose(one.grad, other.grad, atol=1e-4), name


def test_a_filled_pack_holds_its_cells_and_pads_in_cells_of_their_own():
    batch = cells(2, 1, shortest=5)
    pack = pack_of(batch, range(2))
    made = static_pack(pack, SHAPE, begin=7, n_masked=3)
    n_tokens = pack.n_tokens
    assert made.tokens.shape == (BUDGET,)
    assert made.tokens[:n_tokens].tolist() == pack.tokens.tolist()
    assert not made.tokens[n_tokens:].any()
    begins = made.offsets.tolist()
    assert len(begins) == SHAPE.n_cells + 1
    assert begins[:3] == pack.offsets.tolist()
    assert begins[-1] == BUDGET
    assert begins == sorted(begins)
    assert all(end - begin <= LENGTH for begin, end in pairwise(begins))
    assert (made.n_cells, made.n_tokens, made.n_masked) == (2, n_tokens, 3)
    assert made.keys[:2].tolist() == batch.keys.view(np.int64).tolist()


@pytest.mark.parametrize("n_cells", [0, 1, 3])
def test_what_fills_a_pack_lies_in_as_many_short_cells_as_there_are_places(n_cells: int):
    pack = pack_of(cells(n_cells, 2), range(n_cells)) if n_cells else empty_pack()
    made = static_pack(pack, SHAPE, begin=7, n_masked=0)
    lengths = [end - begin for begin, end in pairwise(made.offsets.tolist())]
    filling = lengths[pack.n_cells :]
    assert lengths[: pack.n_cells] == list(pack.lengths)
    assert len(lengths) == SHAPE.n_cells and sum(filling) == BUDGET - pack.n_tokens
    assert max(filling) - min(filling) <= 1
    assert (made.n_laid, made.n_tokens) == (BUDGET, pack.n_tokens)


def test_a_pack_that_would_overflow_is_made_smaller_and_no_label_is_dropped():
    batch = cells(12, 3, shortest=20)
    plain, tight = (
        objective(),
        objective(StaticShape(n_tokens=70, n_cells=16, n_scored=8, longest=24)),
    )
    packs = tight.packs(batch, BUDGET, 0, None)
    assert all(0 <= pack.n_masked <= 8 for pack in packs)
    assert len(packs) > len(plain.packs(batch, BUDGET, 0, None))
    assert summed(tight, batch)[2] == summed(plain, batch)[2]
    assert summed(tight, batch)[0] == pytest.approx(summed(plain, batch)[0], rel=1e-5)


def test_a_cell_that_alone_overflows_is_refused():
    one_row = objective(StaticShape(n_tokens=70, n_cells=16, n_scored=1, longest=24))
    with pytest.raises(TrainingError, match="scored rows"):
        one_row.packs(cells(30, 4, shortest=20), BUDGET, 0, None)


def test_a_pack_has_no_more_cells_than_places():
    few = StaticShape(n_tokens=70, n_cells=6, n_scored=40, longest=24)
    packs = objective(few).packs(cells(40, 5), BUDGET, 0, None)
    assert few.n_real_cells == 3
    assert max(len(pack.lengths) for pack in packs) <= 3
    assert sum(len(pack.lengths) for pack in packs) == 40


def test_a_pack_without_cells_gives_zero_and_zero_gradients():
    made = objective(SHAPE)
    loss, guesses = made(made.nothing(0))
    loss.backward()
    assert (float(loss.detach()), guesses.tolist()) == (0.0, [0, 0, 0])
    assert all(p.grad is None or not p.grad.any() for p in made.parameters())
    assert isinstance(made.nothing(0), StaticPack)
    assert (
        made.nothing(0).tokens.shape
        == static_pack(empty_pack(), SHAPE, begin=0, n_masked=0).tokens.shape
    )


def test_one_graph_serves_every_pack_and_every_epoch():
    torch.compiler.reset()
    made = objective(SHAPE)
    graphs: list[int] = []

    def counting(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(len(inputs))
        return graph.forward

    made._static_pass = torch.compile(
        made._static_pass, fullgraph=True, dynamic=False, backend=counting
    )
    plain = objective()
    for epoch in range(3):
        batch = cells(9, epoch)
        assert summed(made, batch, epoch)[0] == pytest.approx(
            summed(plain, batch, epoch)[0], rel=1e-5
        )
    assert len(graphs) == 1


def test_the_shape_has_room_for_what_is_expected_and_for_one_whole_cell():
    wide = static_shape(pack_tokens=131_072, length=2048, share=0.15)
    assert wide.n_scored % 128 == 0
    assert 0.15 * 131_072 < wide.n_scored < 0.17 * 131_072
    assert wide.n_real_cells == 512
    narrow = static_shape(pack_tokens=2048, length=2048, share=0.15)
    assert narrow.n_scored == 2048
