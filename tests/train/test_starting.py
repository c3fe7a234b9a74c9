"""Runs that begin with another run's weights, and those that are refused to."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CheckpointError, RecipeError, VocabularyError
from cytolake.platform.settings import Settings
from cytolake.train.checkpoints import load_checkpoint, load_weights, read_info
from cytolake.train.models.bert import fresh_bert
from cytolake.train.recipe import PretrainRecipe
from cytolake.train.runs import RunFolder
from cytolake.train.starting import find_start, keep_start, load_start, steps_before

from .corpora import small_corpus
from .tiny_runs import DEEPSPEED, TABLES, Go, kept, recipe, runner


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("start") / "corpus")


@pytest.fixture(scope="module")
def first_home(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home where a run called `first` has ended."""
    home = tmp_path_factory.mktemp("home")
    runner(corpus, home)(recipe(), "first")
    return home


@pytest.fixture
def home(first_home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first_home, tmp_path / "home"))


@pytest.fixture
def run(corpus: Corpus, home: Path) -> Go:
    return runner(corpus, home)


def continued(**changes: dict[str, Any]) -> PretrainRecipe:
    start = {"checkpoint": "first", **changes.pop("start", {})}
    return recipe(start=start, data={"where": "donor_id <> 'd0'"}, **changes)


def test_a_run_goes_on_from_anothers_weights_on_other_cells(run: Go, home: Path):
    first = load_checkpoint(home / "runs" / "first")
    result, tracker = run(continued(training={"steps": 1}, optimizer={"peak_lr": 1e-12}), "next")
    ours = load_checkpoint(result.run_folder)
    for name, value in first.model.state_dict().items():  # a step that is next to none
        torch.testing.assert_close(ours.model.state_dict()[name], value, atol=1e-9, rtol=1e-6)
    assert (ours.info.n_cells, ours.info.step) == (90, 1)
    assert ours.vocabulary == first.vocabulary
    assert ours.medians.digest == first.medians.digest
    origin = ours.info.origin
    assert (origin["step"], origin["snapshot"]) == (20, first.info.snapshot)
    assert origin["selection_digest"] == first.info.selection_digest
    assert (origin["moments"], origin["steps_before"]) == (False, 0)
    assert tracker.parameters["start.step"] == 20


def test_it_goes_on_when_the_others_checkpoints_are_gone(run: Go, home: Path):
    whole, _ = run(continued(), "whole")
    run(continued(training={"steps": 1}), "short")  # makes the copy
    shutil.rmtree(home / "runs" / "first" / "checkpoints")
    folder = RunFolder(home / "runs" / "short")
    begun = folder.read()
    assert begun is not None
    long = continued()
    folder.write(replace(begun, recipe=long.model_dump(mode="json"), state="running"))
    shutil.rmtree(folder.checkpoints)  # killed before its first checkpoint
    again, _ = run(long, "short")
    assert again.status == "finished"
    for name, value in kept(whole).items():
        assert torch.equal(kept(again)[name], value), name


@pytest.mark.parametrize("moments", [False, True], ids=["weights", "weights and moments"])
def test_a_continued_run_that_was_stopped_ends_with_the_same_bits(
    run: Go, home: Path, moments: bool
):
    given = continued(start={"moments": moments})
    whole, _ = run(given, "whole")
    run(given, "cut")
    for late in sorted((home / "runs" / "cut" / "checkpoints").glob("step-*"))[1:]:
        shutil.rmtree(late)
    folder = RunFolder(home / "runs" / "cut")
    folder.set_state("running")
    resumed, _ = run(given, "cut")
    assert 0 < resumed.records[0]["resumed_at_step"] < 20
    for name, value in kept(whole).items():
        assert torch.equal(kept(resumed)[name], value), name
    info = read_info(whole.checkpoint) if whole.checkpoint else None
    assert info is not None
    assert steps_before(info.origin) == (20 if moments else 0)


def test_moments_change_what_the_first_steps_do(run: Go):
    without, _ = run(continued(training={"steps": 2}), "without")
    with_them, _ = run(continued(training={"steps": 2}, start={"moments": True}), "with")
    name = "bert.encoder.layer.0.output.dense.weight"
    assert not torch.equal(kept(without)[name], kept(with_them)[name])


def test_a_chain_of_continued_runs_keeps_the_whole_story(run: Go, home: Path):
    run(continued(start={"moments": True}), "second")
    third = continued(start={"moments": True, "checkpoint": str(home / "runs" / "second")})
    result, _ = run(third, "third")
    origin = load_checkpoint(result.run_folder).info.origin
    assert steps_before(origin) == 40
    assert origin["origin"]["step"] == 20


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"layers": 3}}, r"model\.layers = 3 \(there 2\)"),
        ({"model": {"heads": 4}}, r"model\.heads = 4 \(there 2\)"),
        ({"encoding": {"length": 30}}, r"encoding\.length = 30 \(there 40\)"),
        ({"model": {"activation": "gelu"}}, r"model\.activation = 'gelu'"),
    ],
    ids=["layers", "heads", "length", "activation"],
)
def test_a_model_of_another_shape_is_refused_by_name(run: Go, changes: dict[str, Any], said: str):
    with pytest.raises(RecipeError, match=said):
        run(continued(**changes), "other")


def test_a_dropout_of_ones_own_is_no_other_shape(run: Go):
    result, _ = run(continued(model={"hidden_dropout": 0.0}, training={"steps": 1}), "drop")
    assert load_checkpoint(result.run_folder).model.config.hidden_dropout_prob == 0.0


def test_the_cells_own_genes_are_refused_where_they_are_not_the_checkpoints(run: Go):
    with pytest.raises(VocabularyError, match=r"medians .* not those of the checkpoint"):
        run(continued(vocabulary={"set": "corpus"}), "other")


def test_the_cells_own_genes_pass_where_they_are_the_checkpoints(run: Go):
    same = recipe(start={"checkpoint": "first"}, vocabulary={"set": "corpus"})
    assert run(same, "same")[0].status == "finished"


def test_a_checkpoint_that_is_not_there_or_damaged_is_refused_and_nothing_begins(
    run: Go, home: Path
):
    with pytest.raises(CheckpointError, match="did you mean 'first'"):
        run(continued(start={"checkpoint": "frist"}), "other")
    assert not (home / "runs" / "other" / "run.json").exists()
    [*_, newest] = sorted((home / "runs" / "first" / "checkpoints").glob("step-*"))
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        run(continued(), "other")


def test_moments_that_are_not_there_are_refused(home: Path):
    [*_, newest] = sorted((home / "runs" / "first" / "checkpoints").glob("step-*"))
    listed = newest / "checkpoint.json"
    import json

    values = json.loads(listed.read_text())
    del values["files"]["training.safetensors"]
    listed.write_text(json.dumps(values))
    (newest / "training.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no moments to begin with"):
        find_start(continued(start={"moments": True}), Settings(home=home))


def test_copies_that_have_changed_are_not_begun_with(home: Path, tmp_path: Path):
    start = find_start(continued(), Settings(home=home))
    assert start is not None
    origin = keep_start(start, tmp_path / "mine", moments=False)
    model = fresh_bert(load_checkpoint(start.place).model.config, 9)
    assert load_start(tmp_path / "mine", origin, model) == {}
    expected = fresh_bert(model.config, 8)
    load_weights(expected, start.place)
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    copied = tmp_path / "mine" / "start" / "model.safetensors"
    copied.write_bytes(copied.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match="is not what the run began with"):
        load_start(tmp_path / "mine", origin, model)
    assert load_start(tmp_path / "mine", {}, model) == {}


def test_a_full_disk_leaves_no_half_copy(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    start = find_start(continued(), Settings(home=home))
    assert start is not None

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(CheckpointError, match="No space left on device; make room"):
        keep_start(start, tmp_path / "mine", moments=False)
    assert list((tmp_path / "mine").iterdir()) == []


# ------------------------------------------------------------- a global batch in tokens


def in_tokens(tokens: int, **changes: dict[str, Any]) -> PretrainRecipe:
    training = {"cells_per_step": None, "tokens_per_step": tokens, **changes.pop("training", {})}
    return recipe(training=training, **changes)


def test_a_batch_in_tokens_is_groups_of_the_measured_length_kept_with_the_run(run: Go, home: Path):
    result, tracker = run(in_tokens(600), "tokens")
    begun = RunFolder(result.run_folder).read()
    assert begun is not None
    assert begun.tokens_per_cell == pytest.approx(
        sum(m["tokens_per_s"] / m["cells_per_s"] * m["n_cells"] for m in result.metrics)
        / sum(m["n_cells"] for m in result.metrics),
        rel=0.05,
    )
    assert begun.groups_per_step == round(600 / (begun.tokens_per_cell * 4))
    assert {m["n_cells"] for m in result.metrics[:3]} == {4 * begun.groups_per_step}
    assert tracker.parameters["training.groups_per_step"] == begun.groups_per_step


def test_it_stays_the_same_after_a_resume_whatever_would_be_measured_now(run: Go, home: Path):
    whole, _ = run(in_tokens(600), "whole")
    cut, _ = run(in_tokens(600), "cut")
    for late in sorted((home / "runs" / "cut" / "checkpoints").glob("step-*"))[1:]:
        shutil.rmtree(late)
    RunFolder(cut.run_folder).set_state("running")
    resumed, _ = run(in_tokens(600), "cut")
    assert [m["n_cells"] for m in resumed.metrics] == [m["n_cells"] for m in whole.metrics]
    for name, value in kept(whole).items():
        assert torch.equal(kept(resumed)[name], value), name


def test_it_does_not_depend_on_the_number_of_workers(corpus: Corpus, home: Path):
    from cytolake.train.preparing import prepare

    found = {
        n: prepare(
            in_tokens(600, engine={**TABLES["engine"], "workers": n}),
            corpus,
            corpus.select(),
            Settings(home=home),
        ).groups_per_step
        for n in (1, 2, 4)
    }
    assert len(set(found.values())) == 1


def test_a_batch_that_the_workers_cannot_make_is_refused_before_anything_is_kept(
    run: Go, home: Path
):
    with pytest.raises(Exception, match=r"2 workers need one each .*tokens_per_step = \d+ or"):
        run(in_tokens(50, engine=DEEPSPEED), "small")
    assert not (home / "runs" / "small" / "run.json").exists()


def test_a_run_begun_before_groups_were_kept_has_those_of_its_recipe(home: Path):
    import json

    path = home / "runs" / "first" / "run.json"
    values = json.loads(path.read_text())
    for new in ("groups_per_step", "tokens_per_cell", "origin"):
        del values[new]
    path.write_text(json.dumps(values))
    begun = RunFolder(path.parent).read()
    assert begun is not None
    assert (begun.step_groups, begun.origin) == (5, {})
