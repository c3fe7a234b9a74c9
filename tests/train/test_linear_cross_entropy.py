import pytest
import torch
from cytolake.train.objectives.linear_cross_entropy import graded, linear_cross_entropy
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional


def plainly(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """All scores at once, by torch's own loss."""
    logits = hidden @ weight.T + bias
    loss = functional.cross_entropy(logits, labels, reduction="sum", ignore_index=-100)
    return loss, logits.argmax(dim=-1) == labels


Drawn = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def drawn(n_rows: int, seed: int, *, width: int = 8, size: int = 21) -> Drawn:
    draw = torch.Generator().manual_seed(seed)
    shapes = ((n_rows, width), (size, width), (size,))
    hidden, weight, bias = (torch.randn(s, generator=draw).requires_grad_() for s in shapes)
    labels = torch.randint(0, size, (n_rows,), generator=draw)
    labels[torch.rand(n_rows, generator=draw) < 0.2] = -100
    return hidden, weight, bias, labels


@settings(max_examples=40, deadline=None)
@given(n_rows=st.integers(0, 40), chunk=st.integers(1, 45), seed=st.integers(0, 99))
def test_loss_guesses_and_every_gradient_equal_the_plain_ones(n_rows: int, chunk: int, seed: int):
    found: list[tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]] = []
    for by_chunk in (False, True):
        of = drawn(n_rows, seed)
        loss, right = linear_cross_entropy(*of, chunk=chunk) if by_chunk else plainly(*of)
        (loss / 7).backward()
        found.append((loss, right, [leaf.grad for leaf in of[:3] if leaf.grad is not None]))
    (expected, right, gradients), (loss, as_many, ours) = found
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-5)
    assert as_many.tolist() == right.tolist()
    for one, other in zip(gradients, ours, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_scores_far_apart_neither_overflow_nor_lose_the_loss():
    logits = torch.tensor([[500.0, -500.0, 0.0]])
    loss, right, gradient = graded(logits, torch.tensor([2]))
    assert (loss.item(), right.tolist()) == (500.0, [False])
    assert gradient.tolist() == [[1.0, 0.0, -1.0]]


def test_rows_that_do_not_count_give_nothing():
    hidden, weight, bias, _ = drawn(5, 0)
    loss, right = linear_cross_entropy(hidden, weight, bias, torch.full((5,), -100))
    loss.backward()
    assert (loss.item(), right.tolist()) == (0, [False] * 5)
    for leaf in (hidden, weight, bias):
        assert leaf.grad is not None and not leaf.grad.any()


def test_without_gradients_none_are_made():
    of = drawn(9, 1)
    with torch.no_grad():
        loss, right = linear_cross_entropy(*of, chunk=4)
    expected, as_many = plainly(*of)
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert right.tolist() == as_many.tolist()


def test_half_precision_stays_near_the_full_one():
    of = drawn(64, 2, width=32, size=100)
    loss, _ = linear_cross_entropy(*of, chunk=16, half=True)
    loss.backward()
    halves = [leaf.grad for leaf in of[:3]]
    full = drawn(64, 2, width=32, size=100)
    expected, _ = plainly(*full)
    expected.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.01)
    for one, other in zip(halves, (leaf.grad for leaf in full[:3]), strict=True):
        assert one is not None and other is not None
        assert (one - other).norm() < 0.02 * other.norm()
