"""Every real count file at hand is understood, or refused in words that say what to do."""

import os
from pathlib import Path

import pytest
from cytolake.ingest.inspect import inspect_source
from cytolake.platform.errors import SourceError
from cytolake.platform.settings import load_settings

pytestmark = [pytest.mark.prove, pytest.mark.timeout(300)]

FOLDER = os.environ.get("CYTOLAKE_RESOURCES", "")
ENDINGS = (".h5ad", ".h5", ".tar.gz", ".count.csv.gz", "cells.csv.gz", ".matrix.gz")
FILES = sorted(path for path in Path(FOLDER).rglob("*") if FOLDER and path.name.endswith(ENDINGS))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
@pytest.mark.filterwarnings("ignore")  # old files make their readers complain; that is not ours
def test_a_real_file_is_understood_or_refused_with_a_reason(file: Path, tmp_path: Path) -> None:
    settings = load_settings(tmp_path, {**os.environ, "CYTOLAKE_HOME": str(tmp_path)})
    try:
        found = inspect_source(str(file), settings)
    except SourceError as refusal:
        assert str(file) in str(refusal) and len(str(refusal)) > len(str(file)) + 20
    else:
        assert found.to_toml()
        assert found.layer or "no raw counts" in found.proof


def test_there_are_real_files() -> None:
    if not FOLDER:
        pytest.skip("CYTOLAKE_RESOURCES is not set: no real files at hand")
    assert len(FILES) > 10
