"""A step is the same step however its cells are dealt, and whatever makes it."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

Seen = dict[str, torch.Tensor]

ENGINES = {1: ("torch", "deepspeed-1"), 2: ("torch", "deepspeed-0", "deepspeed-1")}
"""What makes the steps, by the number of ranks."""
NAMES = [f"{engine} on {n_ranks}" for n_ranks, engines in ENGINES.items() for engine in engines]


def all_trials(folder: Path, engines: Sequence[str], n_ranks: int) -> dict[str, list[Seen]]:
    """What each rank saw of all trials, by engine and number of ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(n_ranks)}
    words = [sys.executable, "-m", "cytolake.tests.train.unequal_child", str(folder), *engines]
    ranks = [
        subprocess.Popen(
            words,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(n_ranks)
    ]
    said = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * n_ranks, "\n".join(said)[-4000:]
    return {
        f"{engine} on {n_ranks}": [
            load_file(folder / f"{engine}-{rank}.safetensors") for rank in range(n_ranks)
        ]
        for engine in engines
    }


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Seen]]:
    """What each rank of each side saw: the first is torch on one rank."""
    found: dict[str, list[Seen]] = {}
    for n_ranks, engines in ENGINES.items():
        found |= all_trials(tmp_path_factory.mktemp("unequal"), engines, n_ranks)
    return found


def part(of: Seen, prefix: str) -> Seen:
    return {name[len(prefix) :]: value for name, value in of.items() if name.startswith(prefix)}


def gradient(of: Seen, trial: str, step: int) -> torch.Tensor:
    """The whole gradient of a step, after clipping, as the first moments tell it.

    The first moment is 0.9 times what it was, and 0.1 times the gradient: nothing in it is
    normalised, as the way of the weights is.
    """
    now, before = (_first_moments(of, f"{trial}/{n}/moments/") for n in (step, step - 1))
    return (now - 0.9 * before) / 0.1


def _first_moments(of: Seen, prefix: str) -> torch.Tensor:
    """All of them end to end; a zero, for any number of them, before the first step."""
    moments = part(of, prefix)
    names = sorted(name for name in moments if name.endswith("/exp_avg"))
    return torch.cat([moments[name].flatten().double() for name in names] or [torch.zeros(1)])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("side", NAMES[1:])
@pytest.mark.parametrize("trial", ["plain", "clipped"])
def test_gradients_norms_losses_and_weights_are_those_of_torch_on_one_rank(
    seen: dict[str, list[Seen]], trial: str, side: str
):
    [expected], found = seen[NAMES[0]], seen[side][0]
    assert (expected[f"{trial}/norms"] > 0.1).all()
    for step in (1, 2):
        one, other = gradient(expected, trial, step), gradient(found, trial, step)
        assert float((other - one).norm() / one.norm()) <= 1e-6
        norm = 0.05 if trial == "clipped" else float(expected["plain/norms"][step - 1])
        assert float(one.norm()) == pytest.approx(norm, rel=1e-5)
    for name in ("norms", "losses"):
        name = f"{trial}/{name}"
        assert torch.allclose(found[name], expected[name], rtol=1e-6, atol=0), name
    ours, theirs = (part(of, f"{trial}/2/weights/") for of in (found, expected))
    for name, value in theirs.items():
        # A step of AdamW is as long as the rate however small a gradient: 1e-6 of that.
        assert torch.allclose(ours[name], value, atol=2e-6, rtol=1e-5), name


@pytest.mark.timeout(600)
@pytest.mark.parametrize("side", NAMES)
def test_a_loss_that_is_no_number_on_one_rank_changes_nothing_on_any(
    seen: dict[str, list[Seen]], side: str
):
    """Step 2 of four: weights, moments and the number of updates stay, then it goes on."""
    for rank in seen[side]:
        assert rank["spoiled/left_out"].tolist() == [1]
        packs = rank["spoiled/bad_packs"]
        assert len(packs) and (packs[:, :2] == torch.tensor([1, 2])).all()  # step, then group
        assert rank["spoiled/norms"].isfinite().tolist() == [True, False, True, True]
        before, after = (part(rank, f"spoiled/{step}/") for step in (1, 2))
        assert before.keys() == after.keys()
        for name, value in before.items():
            assert torch.equal(after[name], value), name
        updates = [rank[f"spoiled/{step}/moments/optimizer/n_updates"] for step in (1, 2, 4)]
        assert [float(n) for n in updates] == [1, 1, 3]
        name = "weights/model.bert.embeddings.word_embeddings.weight"
        assert not torch.equal(rank[f"spoiled/4/{name}"], rank[f"spoiled/2/{name}"])
