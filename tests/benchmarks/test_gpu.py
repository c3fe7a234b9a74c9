"""The GPU benchmark, at a size that a CPU does: every part runs, and every check holds."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from cytolake.train.recipe import load_recipe

from benchmarks.gpu import TINY, shipped
from benchmarks.gpu_checks import check_equal_to_stock
from benchmarks.gpu_parts import CheckFailedError, Report
from benchmarks.pretraining_peers import Shape, stock_model

ROOT = Path(__file__).resolve().parents[2]

ABSENT = (
    "pydantic ray deepspeed duckdb zarr zarrs mlflow deltalake anndata h5py obstore pooch polars"
)

BARE = f"""
import importlib.abc, runpy, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {ABSENT.split()!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}")

sys.meta_path.insert(0, Absent())
sys.argv = ["gpu.py", "--tiny", "--out", *sys.argv[1:]]
runpy.run_path({str(ROOT / "benchmarks" / "gpu.py")!r}, run_name="__main__")
"""


def asked(*words: str) -> tuple[int, str]:
    """The benchmark in a process of its own: its exit status, and what it said."""
    done = subprocess.run(
        [sys.executable, "-c", BARE, *words], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.timeout(600)
def test_every_part_runs_where_only_torch_and_transformers_are(tmp_path: Path):
    status, said = asked(str(tmp_path))
    assert status == 0, said
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert not [name for name in found if "FAILED" in name or "LEFT OUT" in name]
    assert found["masks on host and device"]["same"] is True
    for name in ("packed fp32 beside stock fp32", "static packs fp32 beside packed fp32"):
        assert found[name]["loss_apart"] < 1e-5
        assert found[name]["gradient_apart"] < 1e-5
    # The check looks at something: bfloat16 is another arithmetic.
    assert found["static packs bf16 beside packed fp32"]["gradient_apart"] > 1e-4
    way = "three steps, a restart and three beside six"
    for mode in ("as torch comes", "deterministic, warn only"):
        assert found[f"{way}, {mode}: bits"]["same"] is True
        assert found[f"{way}, {mode}"]["weights_apart_of_way"] == 0
    assert {"random", "grouped"} == set(found["ours beside stock, 10M"])
    [shipped] = [found[name] for name in found if "as the recipe is shipped" in name]
    assert (shipped["cells_per_step"], shipped["peak"][:8]) == (8, "measured")
    assert (tmp_path / "profile.txt").exists()


def test_without_time_every_part_is_left_out_and_the_status_says_so(tmp_path: Path):
    status, said = asked(str(tmp_path), "--seconds", "0")
    assert status == 2, said
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert {"masks LEFT OUT", "resume LEFT OUT", "profile LEFT OUT"} <= set(found)
    assert not [name for name in found if "FAILED" in name]


def test_a_check_that_fails_is_told_and_the_parts_after_it_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def other_weights(shape: Shape, device: torch.device) -> Any:
        model = stock_model(shape, device)
        with torch.no_grad():
            model.cls.predictions.decoder.bias.add_(torch.linspace(0, 1, shape.vocabulary_size))
        return model

    report = Report(tmp_path, 1e9)
    cpu = torch.device("cpu")
    monkeypatch.setattr("benchmarks.gpu_checks.stock_model", other_weights)
    report.run("equality", lambda: check_equal_to_stock(report, TINY, cpu))
    assert report.run("after it", lambda: 7) == 7
    assert report.failed == ["equality"]
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert "loss_apart is" in found["equality FAILED"]["error"]
    assert "static packs fp32 beside packed fp32" in found  # told although the one before failed


def test_what_is_timed_as_shipped_is_what_the_recipe_says():
    training = load_recipe("geneformer-v1-10m").training
    groups = training.groups_per_step
    assert shipped() == (training.cells_per_group, groups, training.pack_tokens)


def test_a_number_over_its_bound_or_none_at_all_fails(tmp_path: Path):
    report = Report(tmp_path, 1e9)
    report.hold("fine", one=(1.0, 1.0))
    for value in (1.1, math.nan, math.inf):
        with pytest.raises(CheckFailedError, match="expected at most 1"):
            report.hold("not fine", one=(value, 1.0))
