"""What tests of vacuums ask of a corpus: what it holds, which folders there are."""

from pathlib import Path

from cytolake.corpus.store import Corpus
from cytolake.tests.faults.killing import State, state_of

NOW = {"older_than_ms": 0, "grace_ms": 0}
"""A vacuum that spares nothing for its youth."""


def held(folder: Path) -> State:
    corpus = Corpus.open(folder)
    assert corpus.verify(deep=True) == []
    return state_of(corpus)


def folders(corpus: Corpus) -> set[str]:
    return {path.name for path in corpus.segments_folder.iterdir()}
