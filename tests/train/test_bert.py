import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from cytolake.platform.errors import TrainingError
from cytolake.train.encodings.tokens import TokenBatch
from cytolake.train.models.bert import PackedBert, bert_config
from cytolake.train.objectives.masked_genes import MaskedGenes
from cytolake.train.packing import Pack, pack_of
from transformers import BertConfig, BertForMaskedLM

from .tiny_models import cells_of, tiny_model

VOCABULARY, LENGTH = 97, 48


def tiny(seed: int = 0, *, attention_dropout: float = 0.0) -> PackedBert:
    return tiny_model(
        seed,
        vocabulary=VOCABULARY,
        length=LENGTH,
        layers=3,
        width=32,
        heads=4,
        feed_forward=64,
        attention_dropout=attention_dropout,
    )


def stock_of(model: PackedBert) -> BertForMaskedLM:
    config = BertConfig.from_dict(model.config.to_dict())
    stock = BertForMaskedLM(config)
    stock.set_attn_implementation("sdpa")
    stock.load_state_dict(model.state_dict())
    return stock


def random_batch(n_cells: int, seed: int) -> TokenBatch:
    return cells_of(n_cells, seed, vocabulary=VOCABULARY, length=LENGTH, shortest=3)


def stock_loss(stock: BertForMaskedLM, objective: MaskedGenes, pack: Pack) -> torch.Tensor:
    """The mean loss of stock BERT on the same cells and masks, padded."""
    masked = objective.prepare(pack, 0)
    inputs = torch.zeros((pack.n_cells, LENGTH), dtype=torch.int64)
    labels = torch.full_like(inputs, -100)
    attention = torch.zeros_like(inputs)
    flat = torch.full((pack.n_tokens,), -100)
    flat[masked.rows] = masked.labels
    begin = 0
    for row, length in enumerate(pack.lengths):
        inputs[row, :length] = masked.pack.tokens[begin : begin + length]
        labels[row, :length] = flat[begin : begin + length]
        attention[row, :length] = 1
        begin += length
    return stock(input_ids=inputs, attention_mask=attention, labels=labels).loss


def packed_loss(objective: MaskedGenes, pack: Pack) -> torch.Tensor:
    masked = objective.prepare(pack, 0)
    loss, _ = objective(masked)
    return loss / masked.n_masked


def test_packed_loss_and_every_gradient_equal_the_stock_padded_ones():
    model = tiny()
    stock = stock_of(model)
    objective = MaskedGenes(model, n_special=2, seed=3)
    pack = pack_of(random_batch(7, seed=1), range(7))
    ours, theirs = packed_loss(objective, pack), stock_loss(stock, objective, pack)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    ours.backward()
    theirs.backward()
    stock_gradients = {name: p.grad for name, p in stock.named_parameters()}
    for name, parameter in model.named_parameters():
        expected = stock_gradients[name]
        assert parameter.grad is not None
        assert expected is not None
        error = (parameter.grad - expected).norm() / expected.norm().clamp_min(1e-12)
        # The keys' biases shift all scores of a query alike: their true gradient is zero.
        if name.endswith("self.key.bias"):
            assert parameter.grad.norm() < 1e-6
            continue
        assert error < 1e-4, name


def test_twenty_steps_of_training_equal_the_stock_padded_ones():
    model = tiny()
    stock = stock_of(model)
    objective = MaskedGenes(model, n_special=2, seed=3)
    ours, theirs = (torch.optim.AdamW(m.parameters(), lr=1e-3) for m in (model, stock))
    for step in range(20):
        pack = pack_of(random_batch(6, seed=step), range(6))
        loss, stock_one = packed_loss(objective, pack), stock_loss(stock, objective, pack)
        assert loss.item() == pytest.approx(stock_one.item(), abs=1e-4)
        for optimizer, value in ((ours, loss), (theirs, stock_one)):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()


def test_a_neighbours_change_leaves_a_cells_output_bit_identical():
    model = tiny().eval()
    batch = random_batch(5, seed=4)
    tokens = batch.tokens.copy()
    for neighbour in (0, 1, 3, 4):
        begin, end = batch.offsets[neighbour], batch.offsets[neighbour + 1]
        tokens[begin:end] = tokens[begin:end][::-1]
    changed = TokenBatch(
        tokens=tokens, offsets=batch.offsets, keys=batch.keys, cell_ids=batch.cell_ids
    )
    with torch.no_grad():
        before, after = (model.hidden_states(pack_of(b, range(5))) for b in (batch, changed))
    cell = slice(batch.offsets[2], batch.offsets[3])
    assert torch.equal(before[cell], after[cell])
    assert not torch.equal(before, after)


def test_a_cell_alone_has_the_hidden_states_it_has_in_a_pack():
    model = tiny().eval()
    batch = random_batch(4, seed=5)
    with torch.no_grad():
        packed = model.hidden_states(pack_of(batch, range(4)), layer=-2)
        for cell in range(4):
            alone = model.hidden_states(pack_of(batch, [cell]), layer=-2)
            rows = slice(batch.offsets[cell], batch.offsets[cell + 1])
            torch.testing.assert_close(packed[rows], alone, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("layer", [0, 1, -2, -1])
def test_layers_are_counted_as_hugging_face_counts_them(layer: int):
    model = tiny().eval()
    batch = random_batch(1, seed=6)
    pack = pack_of(batch, [0])
    with torch.no_grad():
        ours = model.hidden_states(pack, layer=layer)
        theirs = stock_of(model).eval()(pack.tokens[None], output_hidden_states=True)
    torch.testing.assert_close(ours, theirs.hidden_states[layer][0], atol=2e-6, rtol=1e-5)


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(TrainingError, match="layer 4 of 4"):
        tiny().hidden_states(pack_of(random_batch(1, seed=0), [0]), layer=4)


def test_attention_dropout_is_refused_in_a_pack_and_drawn_in_the_padded_layout():
    model = tiny(attention_dropout=0.5)
    pack = pack_of(random_batch(3, seed=1), range(3))
    with pytest.raises(TrainingError, match=r"is 0\.5; packed attention has none"):
        model.train().hidden_states(pack)
    drawn = [model.hidden_states(pack, padded=True) for _ in range(2)]
    assert not torch.equal(*drawn)
    assert torch.allclose(
        model.eval().hidden_states(pack),
        tiny().eval().hidden_states(pack, padded=True),
        atol=1e-6,
    )


@pytest.mark.parametrize("layer", [0, 1, -1])
def test_the_padded_layout_has_the_packs_states_and_gradients(layer: int):
    model = tiny().train()
    pack = pack_of(random_batch(6, seed=2), range(6))
    found: list[tuple[torch.Tensor, list[torch.Tensor]]] = []
    for padded in (False, True):
        states = model.hidden_states(pack, layer, padded=padded)
        model.zero_grad()
        (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
        found.append((states, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (packed, by_packed), (padded_too, by_padded) = found
    assert torch.allclose(packed, padded_too, atol=1e-5)
    for one, other in zip(by_packed, by_padded, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_padded_batch_is_refused_by_packed_attention():
    with pytest.raises(TrainingError, match="offsets"):
        tiny()(torch.ones((2, 5), dtype=torch.int64))


def test_a_cell_longer_than_the_positions_is_refused():
    cell = np.full(LENGTH + 1, 5, dtype=np.int32)
    batch = TokenBatch.of_cells([cell], keys=np.zeros(1, dtype=np.uint64))
    with pytest.raises(TrainingError, match=f"{LENGTH} positions"):
        tiny().hidden_states(pack_of(batch, [0]))


def test_a_seed_gives_the_same_weights_and_leaves_torchs_own_draws_alone():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first, second, third = tiny(1), tiny(1), tiny(2)
    assert torch.equal(torch.rand(3), expected)
    weights = [m.bert.encoder.layer[0].output.dense.weight for m in (first, second, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_published_model_has_its_published_number_of_parameters():
    config = bert_config(
        vocabulary_size=25426, length=2048, layers=6, width=256, heads=4, feed_forward=512
    )
    with torch.device("meta"):
        model = PackedBert(config)
    assert sum(p.numel() for p in model.parameters()) == 10_288_722


def test_our_configuration_is_the_official_one():
    folder = os.environ.get("CYTOLAKE_RESOURCES")
    if not folder:
        pytest.skip("CYTOLAKE_RESOURCES is not set: the official configurations are not at hand")
    path = Path(folder) / "geneformer/configs/Geneformer-V1-10M.config.json"
    official = json.loads(path.read_text())
    ours = bert_config(
        vocabulary_size=25426,
        length=2048,
        layers=6,
        width=256,
        heads=4,
        feed_forward=512,
        attention_dropout=0.02,
    ).to_dict()
    gone = {"transformers_version", "gradient_checkpointing", "position_embedding_type"}
    differing = {k: (v, ours.get(k)) for k, v in official.items() if ours.get(k) != v}
    assert set(differing) <= gone
