"""`cytolake medians`: a frozen file, and how it compares with another set."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytolake.corpus.frozen_medians import make_medians, read_medians
from cytolake.corpus.median_comparison import compare_medians
from cytolake.corpus.medians import MediansSet, medians_of
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import RecipeError, ResourceError, VocabularyError
from cytolake.platform.settings import Settings
from scipy.stats import spearmanr


def a_set(**medians: float) -> MediansSet:
    return MediansSet(
        gene_ids=tuple(sorted(medians)), medians=np.array([medians[g] for g in sorted(medians)])
    )


def test_a_frozen_file_holds_the_medians_of_the_cells_chosen(
    fake_corpus: Corpus, tmp_path: Path
) -> None:
    path = tmp_path / "blood.json"
    [line] = make_medians(fake_corpus, path, "source_id = 'blood'", settings=Settings())
    frozen = read_medians(path)
    expected = medians_of(fake_corpus, fake_corpus.select("source_id = 'blood'"))
    assert frozen.digest == expected.digest and frozen.digest[:12] in str(line)
    assert (frozen.origin["where"], frozen.origin["snapshot"]) == (
        "source_id = 'blood'",
        fake_corpus.snapshot,
    )


def test_panels_are_left_out_and_named(fake_corpus: Corpus, tmp_path: Path) -> None:
    shown = make_medians(fake_corpus, tmp_path / "all.json", settings=Settings())
    assert "lung" in str(shown[-1]) and "panels" in str(shown[-1])


def test_a_set_is_held_against_another_over_the_genes_of_both() -> None:
    rng = np.random.default_rng(1)
    ours = {f"ENSG{i:011}": float(v) for i, v in enumerate(rng.lognormal(1, 1, 50))}
    theirs = {
        g: v / 2 * float(n)
        for (g, v), n in zip(ours.items(), rng.lognormal(0, 0.3, 50), strict=True)
    }
    theirs["ENSG00000000003"] = ours["ENSG00000000003"] * 40
    extra = {"ENSG99999999999": 1.0}
    found = compare_medians(a_set(**ours), a_set(**theirs, **extra), "theirs")
    expected: Any = spearmanr([ours[g] for g in ours], [theirs[g] for g in ours])
    ratios = np.array([ours[g] / theirs[g] for g in ours])
    assert found.spearman == pytest.approx(float(expected.statistic))
    assert found.ratio == pytest.approx(np.median(ratios))
    folds = ratios / np.median(ratios)
    assert found.within_twofold == pytest.approx(np.mean((folds >= 0.5) & (folds <= 2)))
    assert (found.n_only_here, found.n_only_there) == (0, 1)
    assert found.furthest(1)["gene_id"].to_pylist() == ["ENSG00000000003"]
    assert "Spearman" in found.text


def test_a_comparison_is_drawn(fake_corpus: Corpus, tmp_path: Path) -> None:
    make_medians(fake_corpus, tmp_path / "one.json", settings=Settings())
    shown = make_medians(
        fake_corpus,
        tmp_path / "two.json",
        against=str(tmp_path / "one.json"),
        plot=tmp_path / "two.png",
        settings=Settings(),
    )
    assert (tmp_path / "two.png").read_bytes()[:4] == b"\x89PNG"
    assert "Spearman 1.000" in str(shown)


def test_what_cannot_be_compared_is_refused(fake_corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="1 genes in common with mouse"):
        compare_medians(a_set(A=1.0, B=2.0), a_set(A=1.0, M=2.0), "mouse")
    with pytest.raises(RecipeError, match="--against"):
        make_medians(fake_corpus, tmp_path / "a", plot=tmp_path / "b", settings=Settings())
    with pytest.raises(ResourceError, match=r"nowhere\.json"):
        make_medians(
            fake_corpus, tmp_path / "a", against=str(tmp_path / "nowhere.json"), settings=Settings()
        )
    assert not (tmp_path / "a").exists()
