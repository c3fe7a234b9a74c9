import math

import pytest
import torch
from cytolake.train.tally import Tally


def test_sums_leave_out_packs_whose_loss_is_no_number():
    tally = Tally()
    tally.add_pack((0, 5, 0), torch.tensor(1.5), torch.tensor([2, 1, 2]), 3)
    tally.add_pack((0, 6, 0), torch.tensor(math.nan), torch.tensor([4, 4, 4]), 4)
    tally.add_step(0, torch.tensor(math.inf), n_cells=7, n_tokens=20, n_laid=25, sum_squares=90)
    tally.add_pack((1, 8, 1), torch.tensor(0.25), torch.tensor([1, 0, 1]), 2)
    tally.add_step(1, torch.tensor(0.5), n_cells=1, n_tokens=4, n_laid=5, sum_squares=16)
    reading = tally.read()
    assert (reading.loss, reading.right, reading.masked) == (1.75, 3, 5)
    assert (reading.mask_right, reading.mask_asked) == (1, 3)
    assert (reading.cells, reading.tokens, reading.sum_squares) == (8, 24, 106)
    assert reading.laid == 30
    assert (reading.steps, reading.skipped, reading.bad_packs) == ((0, 1), (0,), ((0, 6, 0),))
    assert reading.norm == 0.5


def test_a_reading_begins_anew():
    tally = Tally()
    tally.add_pack((0, 0, 0), torch.tensor(1.0), torch.tensor([1, 1, 1]), 1)
    tally.add_step(0, torch.tensor(2.0), n_cells=1, n_tokens=1, n_laid=1, sum_squares=1)
    tally.read()
    empty = tally.read()
    assert (empty.loss, empty.masked, empty.cells, empty.steps) == (0, 0, 0, ())
    assert math.isnan(empty.norm)


def test_a_long_sum_of_small_losses_is_exact():
    tally = Tally()
    for number in range(1000):
        tally.add_pack((0, number, 0), torch.tensor(0.1), torch.tensor([0, 0, 0]), 1)
    assert tally.read().loss == pytest.approx(1000 * float(torch.tensor(0.1)), rel=1e-15)
