import math

import pytest
import torch
from cytolake.train.engines import UPDATES, TorchEngine, adamw
from cytolake.train.recipe import OptimizerRecipe
from torch import nn

RECIPE = OptimizerRecipe(peak_lr=1e-2, weight_decay=0.1, clip=1.0)


class Line(nn.Module):
    """A loss by hand: the sum of weights times what is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        self.bias = nn.Parameter(torch.tensor([5.0, 6.0]))

    def forward(self, prepared: float) -> tuple[torch.Tensor, torch.Tensor]:
        return prepared * (self.weight.sum() + self.bias.sum()), torch.zeros(3)


def kept(engine: TorchEngine, line: Line) -> dict[str, torch.Tensor]:
    weights = {name: value.clone() for name, value in line.state_dict().items()}
    return weights | engine.moments()


def go(engine: TorchEngine, given: float) -> float:
    loss, _ = engine.forward(given)
    engine.backward(loss)
    return float(engine.step(1e-2))


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("given", [math.nan, math.inf, -math.inf])
def test_a_step_with_a_gradient_that_is_not_finite_changes_nothing(given: float, clip: float):
    line = Line()
    engine = TorchEngine(line, RECIPE.model_copy(update={"clip": clip}))
    go(engine, 1.0)
    before = kept(engine, line)
    assert not math.isfinite(go(engine, given))
    after = kept(engine, line)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert float(after[UPDATES]) == 1
    assert go(engine, 1.0) == pytest.approx(math.sqrt(6))
    assert float(engine.moments()[UPDATES]) == 2


def test_the_guard_changes_no_bit_of_a_step_that_is_made():
    lines = [Line(), Line()]
    plain = torch.optim.AdamW(
        [
            {"params": [lines[0].weight], "weight_decay": 0.1},
            {"params": [lines[0].bias], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=RECIPE.betas,
        eps=RECIPE.epsilon,
        fused=True,
    )
    guarded = adamw(lines[1], RECIPE)
    for group in guarded.param_groups:
        group["lr"] = 1e-2
    for given in (0.5, -1.0, 2.0):
        for line, optimizer in zip(lines, (plain, guarded), strict=True):
            optimizer.zero_grad()
            loss, _ = line(given)
            loss.backward()
            optimizer.step()
    for one, other in zip(lines[0].parameters(), lines[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_moments_without_a_number_of_updates_are_of_as_many_as_there_were_steps():
    line = Line()
    engine = TorchEngine(line, RECIPE)
    go(engine, 1.0)
    moments = engine.moments()
    del moments[UPDATES]
    again = TorchEngine(Line(), RECIPE)
    again.restore(moments, 41)
    assert float(again.moments()[UPDATES]) == 41
