import math
import os

import pytest
import torch
from cytolake.train.deepspeed_engine import name_accelerator, norm_on


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("before", ["cpu", "cuda", "xpu", None])
def test_deepspeed_is_told_the_workers_own_device_whatever_was_set(
    kind: str, before: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "environ", {"DS_ACCELERATOR": before} if before else {})
    name_accelerator(torch.device(kind, 0))
    assert os.environ["DS_ACCELERATOR"] == kind


@pytest.mark.parametrize("norm", [math.inf, torch.tensor(2.5)], ids=["left out", "taken"])
def test_a_norm_lies_where_the_weights_do(norm: float | torch.Tensor):
    there = norm_on(torch.device("cpu"), norm)
    assert (there.device.type, there.shape, float(there)) == ("cpu", (), float(norm))
    # The device of no data: what DeepSpeed tells as a plain number must not stay on the host.
    assert norm_on(torch.device("meta"), norm).device.type == "meta"
