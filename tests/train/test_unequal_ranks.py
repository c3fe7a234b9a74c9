"""A step is the same step however its cells are dealt, and whatever makes it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


def stepped(folder: Path, engine: str, n_ranks: int, clip: float) -> dict[str, torch.Tensor]:
    """What rank 0 says after two steps."""
    out = folder / f"{engine}-{n_ranks}-{clip}.safetensors"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(n_ranks)}
    words = [
        sys.executable,
        "-m",
        "cytolake.tests.train.unequal_child",
        engine,
        str(out),
        str(clip),
    ]
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
    return load_file(out)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_norms_losses_and_weights_are_the_same_on_one_rank_and_on_two(tmp_path: Path, clip: float):
    expected = stepped(tmp_path, "torch", 1, clip)
    assert (expected["norms"] > 0.1).all()
    for engine, n_ranks in (
        ("torch", 2),
        ("deepspeed-0", 2),
        ("deepspeed-1", 2),
        ("deepspeed-1", 1),
    ):
        found = stepped(tmp_path, engine, n_ranks, clip)
        for name in ("norms", "losses"):
            assert torch.allclose(found[name], expected[name], rtol=1e-6, atol=0), (engine, name)
        for name, value in expected.items():
            # A step of AdamW is as long as the rate however small a gradient: 1e-6 of that.
            assert torch.allclose(found[name], value, atol=2e-6, rtol=1e-5), (engine, n_ranks, name)
