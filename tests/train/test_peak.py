"""Peaks and MFU: numbers that can be done by hand."""

import pytest
import torch
from cytolake.train.flops import BertShape
from cytolake.train.peak import Roof, known_peak, peak_of


@pytest.mark.parametrize(
    ("name", "half", "single"),
    [
        ("NVIDIA H200", 989, 67),
        ("NVIDIA H100 80GB HBM3", 989, 67),
        ("NVIDIA H100 PCIe", 756, 51),
        ("NVIDIA A100-SXM4-80GB", 312, 19.5),
        ("Tesla V100-SXM2-32GB", 125, 15.7),
    ],
)
def test_a_known_gpu_has_the_peak_of_its_data_sheet(name: str, half: float, single: float):
    for precision, expected in (("bf16", half), ("fp32", single)):
        peak = known_peak(name, precision)
        assert peak is not None
        assert peak.flops == pytest.approx(expected * 1e12)
        assert precision in peak.origin


@pytest.mark.parametrize("name", ["Some Card 9000", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", ""])
def test_another_device_or_a_slice_of_one_is_measured(name: str):
    assert known_peak(name, "bf16") is None


def test_a_measured_peak_says_that_it_was_measured():
    peak = peak_of(torch.device("cpu"), "fp32")
    assert peak.origin.startswith("measured at start")
    assert 1e8 < peak.flops < 1e15


def test_mfu_counts_a_cells_squared_length_and_the_masked_rows_alone():
    shape = BertShape(layers=1, width=2, feed_forward=4, length=8, vocabulary_size=10)
    roof = Roof(shape=shape, flops=1000.0)
    # Two cells of 3 and 5 tokens, 2 masked: 2(4*4 + 2*8) = 64 a token, 8 a squared length,
    # 8 + 40 = 48 a masked row; three times for forward and backward.
    done = 3 * (64 * 8 + 8 * (9 + 25) + 48 * 2)
    used = roof.utilisation(n_tokens=8, sum_squares=34, n_scored=2, seconds=4.0)
    assert used == pytest.approx(done / 4000)
