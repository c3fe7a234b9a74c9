"""Every published configuration builds, loads stock weights and answers as stock does.

No published weights are at hand: the weights are random, the names and shapes are the published
models' own. Attention dropout is set aside, as in our recipes: packed attention has none, and in
evaluation there is none anyway.
"""

import gc
from typing import Any

import pytest
import torch
from cytolake.train.models.bert import PackedBert
from cytolake.train.packing import Pack
from transformers import BertConfig, BertForMaskedLM

from .official import CONFIGS, official_config

LENGTHS = (5, 17, 1, 9)

PARAMETERS = {
    "Geneformer-V1-10M": 10_288_722,
    "Geneformer-V2-104M": 104_386_867,
    "Geneformer-V2-104M_CLcancer": 104_386_867,
    "Geneformer-V2-316M": 316_354_867,
    "gf-12L-30M-i2048": 39_591_250,
    "gf-12L-95M-i4096": 37_997_363,
    "gf-12L-95M-i4096_CLcancer": 37_997_363,
    "gf-12L-95M-i4096_MTLCellClassifier_CELLxGENE_240522": 37_997_363,
    "gf-20L-95M-i4096": 151_313_459,
    "gf-6L-30M-i2048": 10_288_722,
}
LARGE = 200_000_000
ANSWERING = [
    pytest.param(name, marks=pytest.mark.slow if PARAMETERS[name] > LARGE else ())
    for name in CONFIGS
]


def configs(name: str) -> tuple[BertConfig, BertConfig]:
    """The published configuration, and the same without attention dropout."""
    published = official_config(name)
    ours: dict[str, Any] = {**published, "attention_probs_dropout_prob": 0.0}
    return BertConfig.from_dict(published), BertConfig.from_dict(ours)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_tensor_has_the_name_and_shape_of_stock(name: str):
    published, ours = configs(name)
    with torch.device("meta"):
        stock, packed = BertForMaskedLM(published), PackedBert(ours)
    expected = {key: tuple(value.shape) for key, value in stock.state_dict().items()}
    assert {key: tuple(value.shape) for key, value in packed.state_dict().items()} == expected
    assert sum(p.numel() for p in packed.parameters()) == PARAMETERS[name]
    assert sum(p.numel() for p in stock.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ANSWERING)
def test_with_stocks_weights_it_answers_as_stock_does(name: str):
    published, ours = configs(name)
    torch.manual_seed(7)
    stock = BertForMaskedLM(published).eval()
    packed = PackedBert(ours).eval()
    packed.load_state_dict(stock.state_dict(), assign=True)  # one copy in memory is enough
    draw = torch.Generator().manual_seed(3)
    cells = [torch.randint(2, ours.vocab_size, (length,), generator=draw) for length in LENGTHS]
    ends = torch.tensor([0, *LENGTHS]).cumsum(0)
    pack = Pack(
        tokens=torch.cat(cells),
        positions=torch.cat([torch.arange(length) for length in LENGTHS]),
        offsets=ends.to(torch.int32),
        lengths=LENGTHS,
        keys=torch.zeros(sum(LENGTHS), dtype=torch.int64),
        rows=tuple(range(len(LENGTHS))),
    )
    with torch.no_grad():
        found = packed.logits(packed.hidden_states(pack)).split(LENGTHS)
        del packed
        for cell, logits in zip(cells, found, strict=True):
            torch.testing.assert_close(logits, stock(cell[None]).logits[0], atol=1e-5, rtol=1e-5)
    del stock, found
    gc.collect()
