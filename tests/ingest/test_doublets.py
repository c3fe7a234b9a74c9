"""300 cells of two kinds, 30 of them made of one of each: what Scrublet is for."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow.feather as feather
import pytest
from cytolake.corpus.payload.segments import Segment
from cytolake.corpus.store import Corpus
from cytolake.ingest import doublets as doublets_module
from cytolake.ingest import job
from cytolake.ingest import survey as survey_module
from cytolake.ingest.doublets import (
    FEWEST_CELLS,
    SampleScores,
    doublet_note,
    read_scores,
    samples_of,
    score_column,
    score_sample,
    with_doublets,
)
from cytolake.ingest.judging import units_of
from cytolake.ingest.pipeline import Pipeline
from cytolake.ingest.quality import Thresholds
from cytolake.ingest.rules import DoubletRules
from cytolake.ingest.scrublet import scrublet, valley
from cytolake.ingest.sources_toml import SourceEntry, SourcesFile
from cytolake.ingest.survey import open_survey, survey_source
from cytolake.ingest.units import prepare_unit
from cytolake.platform.errors import SourceError
from cytolake.platform.settings import Settings
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

with_scanpy = pytest.mark.skipif(find_spec("scanpy") is None, reason="scanpy is of [train]")
N_CELLS, N_GENES, N_DOUBLETS = 300, 400, 30
OPEN = Thresholds(bounds={}, skipped={})
"""No rule drops a cell."""


@pytest.fixture(scope="module")
def genes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "genes.tsv"
    rows = [f"ENSG{i:011d}\tG{i}\tprotein_coding\t" for i in range(N_GENES)]
    path.write_text("ensembl_id\tsymbol\tbiotype\taliases\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def mixture() -> Any:
    """Every tenth cell is the sum of two cells of the two kinds; two samples, ten cells in none."""
    random = np.random.default_rng(5)
    kinds = random.gamma(0.3, 2.0, size=(2, N_GENES))
    counts = np.array([random.poisson(kinds[cell % 2]) for cell in range(N_CELLS)])
    doublets = np.arange(0, N_CELLS, N_CELLS // N_DOUBLETS)
    for cell in doublets:
        counts[cell] = random.poisson(kinds[0]) + random.poisson(kinds[1])
    obs = pd.DataFrame(
        {
            "lane": ["a"] * 150 + ["b"] * 140 + [None] * 10,
            "barcode_again": [f"x{i}" for i in range(N_CELLS)],
            "made": np.isin(np.arange(N_CELLS), doublets),
        },
        index=pd.Index([f"cell{i}" for i in range(N_CELLS)]),
    )
    var = pd.DataFrame(index=pd.Index([f"ENSG{i:011d}" for i in range(N_GENES)]))
    return ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)


@pytest.fixture
def opened(mixture: Any, genes: Path, tmp_path: Path):
    def make(*, unit_cells: int = 8192, **rules: Any):
        path = tmp_path / "s.h5ad"
        if not path.exists():
            mixture.write_h5ad(path)
        entry = SourceEntry(path=str(path), doublets=DoubletRules(**rules))
        survey = survey_source(
            entry, source_id="s", path=path, metadata=None, sha256="0" * 64,
            recipe_hash="1" * 64, reference=genes, unit_cells=unit_cells,
            folder=tmp_path / f"staging-{unit_cells}-{len(rules)}",
        )  # fmt: skip
        return open_survey(survey.model_dump_json())

    return make


def slow_valley(scores: Any) -> float | None:
    """The minimum method in plain Python."""
    counts, edges = np.histogram(scores, bins=256)
    heights, tops = [np.float32(count) for count in counts], list[int]()
    for _ in range(10_000):
        padded = [heights[0], *heights, heights[-1]]
        heights = [
            np.float32((float(a) + float(b) + float(c)) / 3)
            for a, b, c in zip(padded, padded[1:], padded[2:], strict=False)
        ]
        turns = [(i, np.sign(heights[i + 1] - heights[i])) for i in range(255)]
        turns = [(i, way) for i, way in turns if way]
        tops = [
            i
            for place, (i, way) in enumerate(turns)
            if way < 0 and (place == 0 or turns[place - 1][1] > 0)
        ]
        if len(tops) < 3:
            break
    if len(tops) != 2:
        return None
    between = range(tops[0], tops[1] + 1)
    lowest = min(between, key=lambda i: heights[i])
    return (edges[lowest] + edges[lowest + 1]) / 2


@given(
    seed=st.integers(0, 10_000),
    middles=st.lists(st.floats(0.05, 0.9), min_size=1, max_size=3),
    n_scores=st.integers(30, 400),
)
@settings(max_examples=15, deadline=None)
def test_the_valley_is_that_of_the_minimum_method(seed: int, middles: list[float], n_scores: int):
    random = np.random.default_rng(seed)
    scores = np.concatenate([random.normal(middle, 0.05, n_scores) for middle in middles])
    found, expected = valley(scores), slow_valley(scores)
    assert (found is None) == (expected is None)
    # Rounding may part equal heights: then both lie on one flat ground.
    assert found is None or expected is None or abs(found - expected) < 0.05


def test_one_mode_has_no_valley():
    assert valley(np.full(1000, 0.3)) is None
    two = np.concatenate([np.random.default_rng(0).normal(m, 0.03, 500) for m in (0.1, 0.6)])
    assert 0.2 < (valley(two) or 0) < 0.5


@pytest.mark.slow
@with_scanpy
def test_planted_doublets_score_above_the_cells_they_are_made_of(mixture: Any):
    scores, simulated = scrublet(mixture.X, DoubletRules(seed=3))
    made = mixture.obs["made"].to_numpy()
    assert scores.shape == (N_CELLS,) and simulated.shape == (2 * N_CELLS,)
    above = (scores[made][:, None] > scores[~made][None, :]).mean()
    assert above > 0.95
    again, _ = scrublet(mixture.X, DoubletRules(seed=3))
    assert (scores == again).all()


@pytest.mark.slow
@with_scanpy
def test_scores_do_not_depend_on_the_size_of_units(opened: Any):
    found = []
    for unit_cells in (8192, 37):
        source = opened(unit_cells=unit_cells, batch="lane")
        assert len(units_of(source.survey)) == (1 if unit_cells == 8192 else 9)
        samples = samples_of(source)
        assert samples.n_samples == 2 and (samples.number_c < 0).sum() == 10
        done = [score_sample(source, number, OPEN) for number in range(2)]
        assert [sample.n_cells for sample in done] == [150, 140]
        found.append([feather.read_table(sample.path) for sample in done])
        assert [score_sample(source, number, OPEN) for number in range(2)] == done  # adopted
    assert all(one.equals(other) for one, other in zip(*found, strict=True))
    assert found[0][1].column("row").to_pylist() == list(range(150, 290))


@pytest.mark.slow
@with_scanpy
@pytest.mark.parametrize("drop", [True, False])
def test_doublets_are_dropped_and_every_kept_cell_has_its_score(
    opened: Any, mixture: Any, tmp_path: Path, drop: bool
):
    source = opened(batch="lane", threshold=0.06, drop=drop)
    done = [score_sample(source, number, OPEN) for number in range(2)]
    paths = tuple(sample.path for sample in done)
    (tmp_path / "segments").mkdir()
    (unit,) = units_of(source.survey)
    prepared = prepare_unit(
        source, unit, with_doublets(OPEN, done), segments=tmp_path / "segments", corpus_uuid="u",
        scores=paths,
    )  # fmt: skip
    scores = read_scores(paths, N_CELLS)
    n_doublets = int(scores.doublet_c.sum())
    assert (scores.doublet_c == (scores.score_c > 0.06)).all() and n_doublets >= 15
    assert prepared.dropped == ({"doublet": n_doublets} if drop else {})
    assert prepared.n_kept == N_CELLS - (n_doublets if drop else 0)
    record = Segment.open(prepared.segment).record
    stored = record.table("obs.parquet").column("doublet_score").to_pylist()
    kept = ~scores.doublet_c if drop else np.ones(N_CELLS, dtype=bool)
    expected = [None if np.isnan(score) else score for score in scores.score_c[kept]]
    assert stored == expected and stored[-10:] == [None] * 10
    assert record.provenance["thresholds"]["doublet_score"] == 0.06


def test_samples_too_large_and_too_small_are_not_scored_and_say_so(opened: Any):
    large = opened(most_cells=100)
    done = score_sample(large, 0, OPEN)
    assert "more than 100 cells" in str(done.skipped) and done.threshold is None
    assert np.isnan(read_scores((done.path,), N_CELLS).score_c).all()
    few = Thresholds(bounds={"total_counts_low": 1e9, "total_counts_high": 2e9}, skipped={})
    small = score_sample(opened(seed=1, expected_rate=0.1), 0, few)
    assert f"fewer than {FEWEST_CELLS} cells" in str(small.skipped) and small.n_cells == 0


def test_a_column_that_names_no_samples_is_refused(opened: Any):
    with pytest.raises(SourceError, match="300 values for 300 cells"):
        samples_of(opened(batch="barcode_again"))
    with pytest.raises(SourceError, match="did you mean 'lane'"):
        opened(batch="lan")


def test_scanpy_is_asked_for_before_anything_is_read(opened: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(survey_module, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match=r"pip install 'cytolake\[train\]'"):
        opened()


def test_a_receipt_has_the_thresholds_and_names_no_sample(tmp_path: Path):
    def sample(threshold: float | None, skipped: str | None = None):
        return SampleScores(
            path=tmp_path, n_cells=10, n_doublets=1, threshold=threshold, skipped=skipped
        )

    assert with_doublets(OPEN, [sample(0.3)]).bounds == {"doublet_score": 0.3}
    several = with_doublets(OPEN, [sample(0.3), sample(None, "too few"), sample(0.2)])
    assert several.bounds == {"doublet_score_least": 0.2, "doublet_score_greatest": 0.3}
    assert several.skipped == {"doublet": "1 of 3 samples: too few"}
    if find_spec("scanpy") is not None:
        note = doublet_note(DoubletRules(drop=False), [sample(0.3), sample(None)], 4)
        assert "10 cells, 2 sample(s)" in note and "kept, as asked; 4 cells" in note


def test_a_column_of_the_source_keeps_its_name():
    assert score_column(["a"]) == "doublet_score"
    assert score_column(["Doublet_Score"]) == "scrublet_doublet_score"


@pytest.fixture
def ingested(genes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A whole ingest in this process: the driver's stages without Ray."""
    monkeypatch.setattr(job, "gene_table", lambda settings: genes)
    monkeypatch.setattr(job, "_in_parallel", job._at_home)
    monkeypatch.setattr(job, "_open_ray", lambda *_: None)

    def call(*entries: SourceEntry):
        sources = SourcesFile(source=entries, unit_cells=64, folder=tmp_path)
        return job.ingest(str(tmp_path / "lake"), sources, Settings(home=tmp_path)).sources

    return call


@pytest.mark.slow
@with_scanpy
def test_an_ingest_scores_between_the_passes_and_a_restart_scores_nothing_again(
    mixture: Any, tmp_path: Path, ingested: Any, monkeypatch: pytest.MonkeyPatch
):
    mixture.write_h5ad(tmp_path / "a.h5ad")
    (mixture[:200].copy()).write_h5ad(tmp_path / "b.h5ad")
    doublets = DoubletRules(batch="lane", threshold=0.06)
    entries = (
        SourceEntry(path="a.h5ad", doublets=doublets),
        SourceEntry(path="b.h5ad", doublets=DoubletRules(batch="barcode_again")),
        SourceEntry(path="b.h5ad", name="plain"),
    )

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Pipeline, "_prepare_and_commit", killed)
        ingested(entries[0])
    monkeypatch.setattr(doublets_module, "scrublet", killed)
    (done,) = ingested(entries[0])
    receipt = done.receipt
    assert receipt is not None and receipt.thresholds["doublet_score"] == 0.06
    assert receipt.dropped["doublet"] > 0 and receipt.n_read == N_CELLS
    (note,) = [line for line in receipt.warnings if line.startswith("doublets: Scrublet")]
    assert "cells, 2 sample(s)" in note and "10 cells belong to no sample" in note
    lake = Corpus.open(tmp_path / "lake")
    scored = "SELECT count(doublet_score) AS scored, count(lane) AS named, count(*) AS n"
    (row,) = lake.sql(f"{scored} FROM source_obs").to_pylist()
    assert row["n"] == receipt.n_kept and row["scored"] == row["named"] < row["n"]
    refused, plain = ingested(entries[1])[0], ingested(entries[2])[0]
    assert refused.status == "refused" and "200 values for 200 cells" in str(refused.error)
    assert plain.status == "added" and not any(
        "doublet" in name for name in (*plain.receipt.thresholds, *plain.receipt.skipped_rules)
    )
