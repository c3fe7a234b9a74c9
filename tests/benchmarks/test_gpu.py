"""The GPU benchmark, at a size that a CPU does: every part runs, and every check holds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
sys.argv = ["gpu.py", "--tiny", "--out", sys.argv[1]]
runpy.run_path({str(ROOT / "benchmarks" / "gpu.py")!r}, run_name="__main__")
"""


@pytest.mark.timeout(600)
def test_every_part_runs_where_only_torch_and_transformers_are(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", BARE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert not [name for name in found if "FAILED" in name or "left out" in name]
    assert found["masks on host and device"]["same"] is True
    assert found["packed fp32 beside stock fp32"]["difference"] < 1e-5
    assert found["six steps beside three, a restart and three"]["same"] is True
    assert {"random", "grouped"} == set(found["ours beside stock, 10M"])
    assert (tmp_path / "profile.txt").exists()
