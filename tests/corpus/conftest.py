"""A corpus of two sources, which a test may change."""

from pathlib import Path

import pytest
from cytolake.corpus.store import Corpus
from cytolake.tests.faults.commands import ingest_source


@pytest.fixture
def two(tmp_path: Path) -> Corpus:
    """Two sources of two segments of 24 cells each; snapshot 2."""
    corpus = Corpus.create(tmp_path / "corpus")
    for name in ("blood", "lung"):
        ingest_source(corpus, name)
    return Corpus.open(tmp_path / "corpus")
