"""Which device and which arithmetic a run has. GPUs are told of by torch's own questions."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import RecipeError, TrainingError
from cytolake.train.checkpoints import load_checkpoint
from cytolake.train.devices import refuse_unable, settled_precision, wants_gpus
from cytolake.train.runs import RunFolder

from .corpora import small_corpus
from .tiny_runs import DEEPSPEED, recipe, runner

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
V100, H100 = ("Tesla V100-SXM2-16GB", (7, 0)), ("NVIDIA H100 80GB HBM3", (9, 0))
EIGHTS = {"width": 16, "heads": 2}


def has(monkeypatch: pytest.MonkeyPatch, gpu: tuple[str, tuple[int, int]], n_gpus: int = 1) -> None:
    """Let torch tell of GPUs that are not here."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: gpu[0])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: gpu[1])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)


@pytest.mark.parametrize(
    ("n_gpus", "n_workers", "wants"), [(0, 2, False), (2, 2, True), (8, 2, True)]
)
def test_workers_have_a_gpu_each_or_none(n_gpus: int, n_workers: int, wants: bool):
    assert wants_gpus(n_gpus, n_workers) is wants


def test_fewer_gpus_than_workers_are_refused_before_a_run_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    go = runner(small_corpus(tmp_path / "corpus", n_cells=40), tmp_path)
    has(monkeypatch, H100)
    with pytest.raises(RecipeError, match=r"workers = 2, but there are GPUs for 1.*workers=1, or"):
        go(recipe(engine=DEEPSPEED))
    assert not (tmp_path / "runs" / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("gpu", "shape", "layout", "message"),
    [
        (V100, EIGHTS, "packed", r"V100.* capability 7\.0, expected 8\.0 or more.*precision=auto"),
        (V100, EIGHTS, "padded", r"capability 7\.0"),
        (H100, {"width": 24, "heads": 2}, "packed", "heads = 12, .* multiples of 8 up to 256"),
        (H100, {"width": 264, "heads": 1}, "packed", "heads = 264, .* multiples of 8 up to 256"),
        (H100, {"width": 24, "heads": 2}, "padded", ""),
        (H100, EIGHTS, "packed", ""),
    ],
    ids=["old", "old, padded", "twelve", "wide", "twelve, padded", "good"],
)
def test_bf16_is_refused_where_a_gpu_cannot_do_it(
    gpu: tuple[str, tuple[int, int]],
    shape: dict[str, int],
    layout: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
):
    has(monkeypatch, gpu)
    half = recipe(model=shape, training={"precision": "bf16", "layout": layout})
    auto = recipe(model=shape, training={"precision": "auto", "layout": layout})
    refuse_unable(half, CPU)
    refuse_unable(auto, GPU)
    assert settled_precision(auto, CPU, "") == "fp32"
    assert settled_precision(auto, GPU, "") == ("fp32" if message else "bf16")
    if not message:
        assert settled_precision(half, GPU, "") == "bf16"
        return
    with pytest.raises(RecipeError, match=message):
        settled_precision(half, GPU, "")
    with pytest.raises(TrainingError, match="came to bf16 when the run was begun"):
        settled_precision(auto, GPU, "bf16")


def test_what_auto_came_to_is_kept_wherever_the_run_goes_on(monkeypatch: pytest.MonkeyPatch):
    has(monkeypatch, H100)
    auto = recipe(training={"precision": "auto"})
    kept = [settled_precision(auto, on, was) for on in (CPU, GPU) for was in ("fp32", "bf16")]
    assert kept == ["fp32", "bf16", "fp32", "bf16"]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return small_corpus(tmp_path / "corpus", n_cells=40)


def test_a_run_freezes_and_tells_what_auto_came_to(corpus: Corpus, tmp_path: Path):
    go = runner(corpus, tmp_path)
    for frozen, comes_to in (("", "fp32"), ("bf16", "bf16")):
        name = f"run-{frozen}"
        folder = RunFolder(tmp_path / "runs" / name)
        cut = {"steps": 2, "precision": "auto", "max_hours": 1e-9}
        begun, _ = go(recipe(training=cut), name)
        assert (begun.status, begun.step) == ("stopped", 0)
        run = folder.read()
        assert run is not None and run.precision == "fp32"
        if frozen:  # as a GPU would have
            folder.set_precision(frozen)
        written = json.loads((folder.path / "run.json").read_text())
        written["recipe"]["training"]["max_hours"] = None
        (folder.path / "run.json").write_text(json.dumps(written))
        ended, tracker = go(recipe(training={"steps": 2, "precision": "auto"}), name)
        assert ended.status == "finished"
        assert ended.records[0]["precision"] == tracker.tags["precision"] == comes_to
        assert load_checkpoint(ended.run_folder).info.precision == comes_to
        assert ended.checkpoint is not None
        card = (ended.checkpoint / "README.md").read_text()
        assert f"| training.precision | auto, which came to {comes_to} |" in card


def test_bf16_that_this_machine_cannot_do_is_refused_before_a_run_is_begun(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    has(monkeypatch, V100)
    with pytest.raises(RecipeError, match=r"capability 7\.0"):
        runner(corpus, tmp_path)(recipe(training={"precision": "bf16"}))
    assert not (tmp_path / "runs" / "run" / "run.json").exists()


RANK = """
import os
import torch
from torch import distributed
from cytolake.train.devices import settled_precision
from cytolake.train.recipe import PretrainRecipe

distributed.init_process_group("gloo")
is_first = os.environ["RANK"] == "0"
torch.cuda.get_device_capability = lambda device: (9, 0)
recipe = PretrainRecipe.model_validate({"name": "x", "training": {"precision": "auto"}})
for other in ("cpu", "cuda"):
    device = torch.device("cuda" if is_first else other)
    first = settled_precision(recipe, device, "")
    # Rank 1 may have read what rank 0 froze in the meantime.
    print(first, settled_precision(recipe, device, "" if is_first else first))
distributed.destroy_process_group()
"""


def test_ranks_on_unlike_devices_agree():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK],
            env={**shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=120)[0].splitlines() for rank in ranks]
    assert said == [["fp32 fp32", "bf16 bf16"]] * 2
