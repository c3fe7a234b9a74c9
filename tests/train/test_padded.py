"""The parity layout, one cell a row: the same loss and gradients, and the paper's dropout."""

from pathlib import Path
from typing import Any

import pytest
import torch
from cytolake.corpus.store import Corpus
from cytolake.train.objectives.masked_genes import MaskedGenes

from .corpora import small_corpus
from .tiny_models import cells_of, tiny_model
from .tiny_runs import Go, kept, recipe, runner

PADDED = {"layout": "padded"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("padded") / "corpus")


@pytest.fixture
def run(corpus: Corpus, tmp_path: Path) -> Go:
    return runner(corpus, tmp_path)


def learnt(padded: bool) -> tuple[float, list[int], torch.Tensor]:
    """Loss, guesses and the whole gradient of some cells, each by its mean over chosen tokens."""
    objective = MaskedGenes(tiny_model(length=24).train(), n_special=2, seed=3, padded=padded)
    packs = objective.packs(cells_of(20, 5, vocabulary=64, length=24), 72, 1, None)
    n_masked = sum(pack.n_masked for pack in packs)
    loss, guesses = torch.zeros(()), torch.zeros(3, dtype=torch.int64)
    for pack in packs:
        one, some = objective(pack)
        (one / n_masked).backward()
        loss, guesses = loss + one.detach() / n_masked, guesses + some
    gradients = [p.grad.flatten() for p in objective.parameters() if p.grad is not None]
    return float(loss), [*guesses.tolist(), n_masked, len(packs)], torch.cat(gradients)


def test_loss_guesses_and_gradient_are_those_of_packs_without_padding():
    loss, counts, gradient = learnt(padded=False)
    padded_loss, padded_counts, padded_gradient = learnt(padded=True)
    assert padded_loss == pytest.approx(loss, rel=1e-5)
    assert padded_counts[:4] == counts[:4]
    assert padded_counts[4] > counts[4]  # padding takes room: more packs
    assert (padded_gradient - gradient).norm() <= 1e-5 * gradient.norm()


def losses(run: Go, name: str, **model: Any) -> list[float]:
    layout = model.pop("training")
    result, _ = run(recipe(training={"steps": 4, **layout}, model=model), name)
    assert result.status == "finished"
    return [metrics["loss"] for metrics in result.metrics]


def test_a_padded_run_without_dropout_has_the_losses_of_a_packed_one(run: Go):
    padded = losses(run, "padded", training=PADDED, hidden_dropout=0.0)
    packed = losses(run, "packed", training={}, hidden_dropout=0.0)
    assert padded == pytest.approx(packed, rel=1e-5)


def test_a_run_with_the_papers_attention_dropout_draws_it_and_ends_with_the_same_bits_again(
    run: Go,
):
    still = losses(run, "still", training=PADDED, hidden_dropout=0.0)
    given = recipe(
        training={"steps": 4, **PADDED}, model={"hidden_dropout": 0.0, "attention_dropout": 0.02}
    )
    first, second = (run(given, name)[0] for name in ("first", "second"))
    assert [m["loss"] for m in first.metrics] != still
    expected = kept(first)
    assert all(torch.equal(expected[name], value) for name, value in kept(second).items())
