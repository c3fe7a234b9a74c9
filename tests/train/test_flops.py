"""A shape's cost: parameters as published, operations as torch counts them."""

import pytest
import torch
from cytolake.train.flops import BertShape
from cytolake.train.models.bert import bert_config, fresh_bert
from torch.utils.flop_counter import FlopCounterMode

PUBLISHED = {
    "V1-10M": ((6, 256, 512, 2048, 25_426), 10_288_722),
    "12L-30M": ((12, 512, 1024, 2048, 25_426), 39_591_250),
    "12L-95M": ((12, 512, 1024, 4096, 20_275), 37_997_363),
    "V2-104M": ((12, 768, 3072, 4096, 20_275), 104_386_867),
    "V2-316M": ((18, 1152, 4608, 4096, 20_275), 316_354_867),
}


def shape(layers: int, width: int, feed_forward: int, length: int, size: int) -> BertShape:
    return BertShape(
        layers=layers, width=width, feed_forward=feed_forward, length=length, vocabulary_size=size
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_shapes_have_their_published_parameters(name: str):
    numbers, expected = PUBLISHED[name]
    assert shape(*numbers).n_parameters == expected


def test_operations_are_those_that_torch_counts():
    cost = shape(2, 32, 48, 64, 100)
    config = bert_config(
        vocabulary_size=100, length=64, layers=2, width=32, heads=2, feed_forward=48
    )
    model = fresh_bert(config, seed=0)
    model.set_attn_implementation("eager")  # two matrix products that torch can count
    tokens = torch.randint(0, 100, (3, 20))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens)
    expected = cost.forward_flops(n_tokens=60, sum_squares=3 * 20**2, n_scored=60)
    assert counter.get_total_flops() == expected
    assert cost.training_flops(n_tokens=60, sum_squares=1200, n_scored=60) == 3 * expected


def test_the_roofline_of_v1_10m_is_the_one_worked_out_by_hand():
    cost = shape(6, 256, 512, 2048, 25_426)
    every_position = cost.forward_flops(n_tokens=2048, sum_squares=2048**2, n_scored=2048)
    assert every_position / 2048 == pytest.approx(32.0e6, rel=0.01)
