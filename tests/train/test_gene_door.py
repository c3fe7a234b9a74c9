"""Genes that are not the model's are refused with what both have in common, counted by hand."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cytolake.corpus.medians import MediansSet
from cytolake.corpus.store import Corpus
from cytolake.corpus.vocabularies import Vocabulary
from cytolake.platform.errors import VocabularyError
from cytolake.train.gene_door import (
    Measured,
    measured_genes,
    refuse_other_genes,
    refuse_unmeasured,
)
from cytolake.train.lengths import Lengths

from .conftest import gene_names
from .corpora import small_corpus
from .tiny_runs import Go, recipe, runner

A, B, C, D = (f"ENSG{number:011d}" for number in range(1, 5))


def genes(*names: str, medians: dict[str, float] | None = None) -> tuple[Vocabulary, MediansSet]:
    found = medians or dict.fromkeys(sorted(names), 1.0)
    values = np.array(list(found.values()))
    return Vocabulary(gene_ids=names), MediansSet(gene_ids=tuple(found), medians=values)


def refuse(ours: tuple[Vocabulary, MediansSet], theirs: tuple[Vocabulary, MediansSet]) -> None:
    refuse_other_genes(ours, theirs, chosen="[vocabulary]", checkpoint="the checkpoint x")


def test_the_same_genes_pass_and_nothing_else_does():
    refuse(genes(A, B, C), genes(A, B, C))
    for other in (genes(A, B), genes(A, C, B), genes(A, B, C, medians={A: 1.0, B: 1.0, C: 2.0})):
        with pytest.raises(VocabularyError):
            refuse(genes(A, B, C), other)


def test_another_vocabulary_is_refused_with_the_genes_in_common_both_ways():
    with pytest.raises(VocabularyError) as caught:
        refuse(genes(A, B, C), genes(B, C, D, f"{D}1"))
    said = str(caught.value)
    assert "2 of its 3 genes (66.7%) in common with the 4 (50.0%) of the checkpoint x" in said
    assert "another gene" in said
    assert 'vocabulary.set = "checkpoint"' in said


def test_the_same_genes_under_other_tokens_are_refused_as_such():
    with pytest.raises(VocabularyError, match="the genes are the same, but their tokens"):
        refuse(genes(A, B), genes(B, A, medians={A: 1.0, B: 1.0}))


def test_other_medians_are_refused_with_how_many_are_equal():
    ours = genes(A, B, C, medians={A: 1.0, B: 2.0, D: 1.0})
    theirs = genes(A, B, C, medians={A: 1.0, B: 3.0, C: 4.0})
    with pytest.raises(VocabularyError) as caught:
        refuse(ours, theirs)
    said = str(caught.value)
    assert "2 of its 2 genes (100.0%) in common with the 3 (66.7%)" in said
    assert "1 medians are equal" in said


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("door") / "corpus")


def test_the_genes_that_chosen_cells_measure_are_counted(corpus: Corpus):
    known = gene_names()
    vocabulary, _ = genes(*known[:5], D + "9", D + "99")
    medians = MediansSet(gene_ids=tuple(sorted([*known[:4], D + "9"])), medians=np.ones(5))
    found = measured_genes(corpus, corpus.select(), vocabulary, medians)
    # five of the seven have a median; of these the corpus lacks one
    assert (found.n_measured, found.n_genes, found.share) == (4, 5, 0.8)
    assert "measure 4 of the vocabulary's 5 genes (80.0%)" in found.text


def lengths(mean_genes: float) -> Lengths:
    return Lengths(
        n_cells=10, mean=mean_genes, mean_square=1, mean_genes=mean_genes, error=0, n_without=0
    )


@pytest.mark.parametrize(
    ("n_measured", "mean_genes", "passes"),
    [(7, 6.7, True), (6, 6.0, False), (2000, 6.6, False), (0, 0.0, False), (300, 90.0, True)],
    ids=["just", "few measured", "few a cell", "none", "a panel"],
)
def test_cells_that_would_have_less_than_one_hidden_gene_are_refused(
    n_measured: int, mean_genes: float, passes: bool
):
    measured = Measured(n_measured=n_measured, n_genes=20_000)
    if passes:
        refuse_unmeasured(measured, lengths(mean_genes), share=0.15)
        return
    with pytest.raises(VocabularyError, match=r"expected 6\.7 genes or more") as caught:
        refuse_unmeasured(measured, lengths(mean_genes), share=0.15)
    assert f"measure {n_measured:,} of the vocabulary's 20,000 genes" in str(caught.value)


@pytest.fixture
def stopped(corpus: Corpus, tmp_path: Path) -> tuple[Go, Path]:
    """A run that was stopped with a checkpoint, and how it is gone on with."""
    go = runner(corpus, tmp_path)
    result, _ = go(recipe(training={"steps": 3}))
    run_file = result.run_folder / "run.json"
    run_file.write_text(run_file.read_text().replace("finished", "running"))
    return go, result.run_folder


def permute(folder: Path) -> None:
    """Two genes change their tokens; sizes and shapes stay."""
    values = json.loads((folder / "vocabulary.json").read_text())
    values["gene_ids"][:2] = reversed(values["gene_ids"][:2])
    (folder / "vocabulary.json").write_text(json.dumps(values))


def test_a_run_does_not_go_on_with_genes_that_were_permuted_since(stopped: tuple[Go, Path]):
    go, folder = stopped
    before = (folder / "vocabulary.json").read_text()
    permute(folder)
    with pytest.raises(VocabularyError) as caught:
        go(recipe(training={"steps": 3}))
    said = str(caught.value)
    assert f"the run's folder {folder} has 50 of its 50 genes" in said
    assert "its checkpoint step-00000003: the genes are the same, but their tokens" in said
    assert "Copy vocabulary.json and medians.json from" in said
    (folder / "vocabulary.json").write_text(before)
    assert go(recipe(training={"steps": 3}))[0].status == "finished"


def test_a_run_does_not_go_on_with_medians_of_another_set(stopped: tuple[Go, Path]):
    go, folder = stopped
    kept = MediansSet.from_json((folder / "medians.json").read_text())
    other = MediansSet(gene_ids=kept.gene_ids, medians=kept.medians * 2)
    (folder / "medians.json").write_text(other.to_json())
    with pytest.raises(VocabularyError, match=r"0 medians are equal.*Copy vocabulary\.json"):
        go(recipe(training={"steps": 3}))


@pytest.mark.parametrize("name", ["vocabulary", "medians"])
def test_without_a_checkpoint_genes_are_held_against_what_was_written_down(
    stopped: tuple[Go, Path], name: str
):
    go, folder = stopped
    shutil.rmtree(folder / "checkpoints")
    permute(folder)
    if name == "medians":
        run_file = folder / "run.json"
        values = json.loads(run_file.read_text())
        values |= {"vocabulary_digest": "", "medians_digest": "0" * 64}
        run_file.write_text(json.dumps(values))
    with pytest.raises(
        VocabularyError, match=rf"{folder}/{name}\.json: holds \w+, the run run was"
    ):
        go(recipe(training={"steps": 3}))
