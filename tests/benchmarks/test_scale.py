"""What is made of figures at two sizes, and the copies that stages change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cytolake.corpus.store import Corpus

from benchmarks.scale_bars import bytes_of, linked_copy
from benchmarks.scale_note import Figures, line_through, note
from benchmarks.scale_stages import ONE_MORE, STAGES, base_sources


def figures(n_cells: int) -> Figures:
    """Every stage: a second and two microseconds a cell, 300 MB and a kilobyte a cell."""
    stage: dict[str, Any] = {
        "seconds": 2.0,
        "cpu_seconds": 1 + n_cells * 2e-6,
        "peak_mb": 300 + n_cells / 1024,
        "n_cells": 20_000,
        "warm_ms": 4.0,
        "least_ms": 3.0,
        "selected_mb": 350.0,
    }
    stages = {name: dict(stage) for name in STAGES if name not in ("build", "commit-all")}
    stages["write"] |= {"cpu_seconds": 4.0, "verify": {"cpu_seconds": 1.0, "seconds": 1.0}}
    parts = {"rna.zarr": 3000 * n_cells, "expression": 1600 * n_cells}
    return Figures(
        n_cells=n_cells,
        building={"workers": 2, "writing_cpu_seconds": n_cells / 5000},
        stages=stages,
        stored={"parts": parts, "rows": 40 * n_cells, "n_nonzero": 2000 * n_cells, "n_segments": 4},
    )


def test_a_line_goes_through_both_sizes() -> None:
    found = [figures(250_000), figures(1_000_000)]
    assert line_through(found, "select", "cpu_seconds") == pytest.approx((1, 2e-6))
    assert line_through(found, "select", "peak_mb") == pytest.approx((300, 1 / 1024))


def test_the_note_says_what_was_measured_and_what_was_not() -> None:
    grown = [{"grown by": "sources", "commits": 400, "commit ms": 120}]
    text = note([figures(250_000), figures(1_000_000)], grown, ["somewhere"])
    assert "| 6,000 cells/s | 12,000 | 4,000 by processor time |" in text
    assert "| bytes a non-zero, arrays | 1.7 | 1.5 | 1.500 |" in text
    measured, extrapolated = text.split("## EXTRAPOLATED")
    assert "| sources | 400 | 120 |" in measured
    # 1 s + 2 us x 100M cells; 300 MB + 1 kB x 100M cells
    assert "| select all | one process | 0.06 | 96 |" in extrapolated
    assert "0.46 TB" in extrapolated


def test_a_corpus_of_any_size_has_equal_sources_and_one_more_is_like_them() -> None:
    sources = base_sources(250_000)
    assert [source.number for source in sources] == list(range(8))
    assert {sum(source.sizes) for source in sources} == {sum(ONE_MORE)} == {31_250}


def test_a_copy_that_is_changed_leaves_the_corpus_as_it_was(
    build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path
) -> None:
    lake, copy = build_fake_corpus(tmp_path / "lake"), tmp_path / "copy"
    before = bytes_of(tmp_path / "lake")
    linked_copy(tmp_path / "lake", copy)
    changed = Corpus.open(copy)
    changed.delete("barcode = 'AAA'")
    changed.compact()
    changed.vacuum(older_than_ms=0)
    assert Corpus.open(copy).sql("SELECT * FROM cells").num_rows == 4
    assert bytes_of(tmp_path / "lake") == before
    assert lake.verify(deep=True) == [] and Corpus.open(copy).verify(deep=True) == []
