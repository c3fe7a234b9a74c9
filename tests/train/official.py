"""Geneformer's published configurations, read from `CYTOLAKE_RESOURCES`."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

CONFIGS = (
    "Geneformer-V1-10M",
    "Geneformer-V2-104M",
    "Geneformer-V2-104M_CLcancer",
    "Geneformer-V2-316M",
    "gf-12L-30M-i2048",
    "gf-12L-95M-i4096",
    "gf-12L-95M-i4096_CLcancer",
    "gf-12L-95M-i4096_MTLCellClassifier_CELLxGENE_240522",
    "gf-20L-95M-i4096",
    "gf-6L-30M-i2048",
)


def official_config(name: str) -> dict[str, Any]:
    """One configuration as it was published; the test is skipped where none are at hand."""
    folder = os.environ.get("CYTOLAKE_RESOURCES", "").split(os.pathsep)[0]
    path = Path(folder) / "geneformer" / "configs" / f"{name}.config.json"
    if not folder or not path.is_file():
        pytest.skip("CYTOLAKE_RESOURCES has no official configurations")
    return json.loads(path.read_text())
