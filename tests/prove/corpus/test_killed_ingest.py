"""kill -9 in the middle of an ingest: nothing half-visible, and the same command finishes it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import NotACorpusError

pytestmark = [pytest.mark.prove, pytest.mark.timeout(600)]

Command = Callable[..., tuple[int, str]]
CONTENT = "SELECT barcode, content_hash, n_counts FROM cells ORDER BY barcode, content_hash"


def state(uri: Path) -> str:
    """What a reader sees: nothing, or whole sources that verify."""
    try:
        corpus = Corpus.open(str(uri))
    except NotACorpusError:
        return "no corpus"
    assert corpus.verify(deep=True) == []
    n_cells = corpus.sql("SELECT count(*) AS n FROM cells")["n"][0].as_py()
    return f"{n_cells} cells"


@pytest.mark.parametrize("n_segments", [0, 1, 2, 4, 6])
def test_an_ingest_killed_between_units_is_finished_by_the_same_command(
    command: Command, pbmc_sources: Path, tmp_path: Path, n_segments: int
) -> None:
    lake, whole = tmp_path / "lake", tmp_path / "whole"
    words = ["ingest", pbmc_sources, "--corpus"]

    def prepared() -> list[Path]:
        return list(lake.glob("segments/*/segment.json"))

    status, _ = command(*words, lake, when=lambda: len(prepared()) >= max(n_segments, 1))
    assert state(lake) in ("no corpus", "0 cells") or status == 0
    left = {path: path.stat().st_mtime_ns for path in prepared()}

    status, said = command(*words, lake)
    assert status == 0, said
    for path, written in left.items():
        assert path.stat().st_mtime_ns == written, f"{path} was prepared twice"

    status, said = command(*words, whole)
    assert status == 0, said
    assert Corpus.open(str(lake)).sql(CONTENT) == Corpus.open(str(whole)).sql(CONTENT)
    assert state(lake) == state(whole)


@pytest.mark.parametrize("seconds", [3.0, 6.0, 9.0, 10.5, 12.0])
def test_an_ingest_killed_at_any_moment_shows_all_or_nothing(
    command: Command, pbmc_sources: Path, tmp_path: Path, seconds: float
) -> None:
    lake = tmp_path / "lake"
    words = ["ingest", pbmc_sources, "--corpus", lake]
    command(*words, kill_after=seconds)
    before = state(lake)
    status, said = command(*words)
    assert status == 0, said
    after = state(lake)
    assert before in ("no corpus", "0 cells", after)
    command(*words)
    assert state(lake) == after
