"""Runs whose model knows other genes than the cells were measured for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytolake.corpus.medians import MediansSet
from cytolake.corpus.store import Corpus
from cytolake.corpus.vocabularies import Vocabulary
from cytolake.platform.errors import VocabularyError
from cytolake.train.checkpoints import load_checkpoint, save_checkpoint
from cytolake.train.models.bert import bert_config, fresh_bert
from cytolake.train.recipe import PretrainRecipe

from .conftest import gene_names
from .corpora import small_corpus
from .tiny_runs import DEEPSPEED, Go, an_info, kept, recipe, runner


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("foreign") / "corpus")


@pytest.fixture
def run(corpus: Corpus, tmp_path: Path) -> Go:
    return runner(corpus, tmp_path)


def a_model_that_knows(genes: list[str], folder: Path) -> PretrainRecipe:
    """A recipe that begins with a model of these genes; its checkpoint lies in `folder`."""
    given = recipe(start={"checkpoint": str(folder)}, training={"steps": 2})
    vocabulary = Vocabulary(gene_ids=tuple(sorted(genes)))
    medians = MediansSet(gene_ids=vocabulary.gene_ids, medians=np.ones(len(genes)))
    config = bert_config(
        vocabulary_size=vocabulary.size, length=given.encoding.length, **given.model.model_dump()
    )
    info = an_info(vocabulary, medians, given=recipe())
    save_checkpoint(
        folder, model=fresh_bert(config, 1), vocabulary=vocabulary, medians=medians, info=info
    )
    return given


def foreign(n: int) -> list[str]:
    return [f"ENSMUSG{number:011d}" for number in range(n)]


def test_cells_without_any_of_the_models_genes_are_refused_and_nothing_is_kept(
    run: Go, tmp_path: Path
):
    given = a_model_that_knows(foreign(40), tmp_path / "model")
    with pytest.raises(VocabularyError, match=r"measure 0 of the vocabulary's 40 genes \(0.00%\)"):
        run(given, "none")
    assert not (tmp_path / "runs" / "none" / "run.json").exists()


def test_cells_with_next_to_none_of_them_are_refused(run: Go, tmp_path: Path):
    given = a_model_that_knows([*gene_names()[:6], *foreign(40)], tmp_path / "model")
    with pytest.raises(VocabularyError, match="less than one hidden gene a cell"):
        run(given, "few")


def test_cells_with_some_of_them_are_learnt_from_and_the_share_is_said(
    run: Go, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    given = a_model_that_knows([*gene_names(), *foreign(40)], tmp_path / "model")
    result, tracker = run(given, "some")
    assert result.status == "finished"
    said = " ".join(capfd.readouterr().err.split())
    assert "measure 60 of the vocabulary's 100 genes (60.0%)" in said
    assert tracker.parameters["vocabulary.share_measured"] == 0.6


def test_a_vocabulary_that_was_laid_beside_other_weights_is_refused(run: Go, tmp_path: Path):
    given = a_model_that_knows(gene_names(), tmp_path / "model")
    [place] = (tmp_path / "model").iterdir()
    info = json.loads((place / "cytolake.json").read_text())
    (place / "cytolake.json").write_text(json.dumps({**info, "vocabulary_digest": "0" * 64}))
    listed = json.loads((place / "checkpoint.json").read_text())
    del listed["files"]["cytolake.json"]
    (place / "checkpoint.json").write_text(json.dumps(listed))
    with pytest.raises(Exception, match=r"its vocabulary is .* trained with 000000000000"):
        run(given, "swapped")


@pytest.fixture
def a_ray_session():
    from cytolake.platform.session import ray_session

    with ray_session(n_cpus=2):
        yield


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("a_ray_session")
def test_two_workers_begin_with_weights_and_moments_as_one_process_does(run: Go):
    run(recipe(), "first")
    start = {"checkpoint": "first", "moments": True}
    training: dict[str, Any] = {"cells_per_step": None, "tokens_per_step": 600, "steps": 6}
    one, _ = run(recipe(start=start, training=training), "one")
    two, _ = run(recipe(start=start, training=training, engine=DEEPSPEED), "two")
    assert len({record["pid"] for record in two.records}) == 2
    assert [m["n_cells"] for m in two.metrics] == [m["n_cells"] for m in one.metrics]
    for ours, theirs in zip(two.metrics, one.metrics, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
    expected = kept(one)
    for name, value in kept(two).items():
        assert value.numpy() == pytest.approx(expected[name].numpy(), abs=2e-5), name
    assert load_checkpoint(two.run_folder).info.origin["steps_before"] == 20
