import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cytolake.corpus.medians import MediansSet
from cytolake.corpus.vocabularies import Vocabulary
from cytolake.platform.errors import CheckpointError, NewerFormatError
from cytolake.train.checkpoints import (
    CheckpointInfo,
    load_checkpoint,
    load_moments,
    save_checkpoint,
    untrained_like,
)
from cytolake.train.models.bert import PackedBert, bert_config, fresh_bert
from cytolake.train.packing import pack_cells
from cytolake.train.recipe import PretrainRecipe
from cytolake.train.retention import checkpoints_in
from transformers import BertForMaskedLM

from .conftest import random_cells
from .tiny_runs import an_info


@pytest.fixture
def model(vocabulary: Vocabulary) -> PackedBert:
    config = bert_config(
        vocabulary_size=vocabulary.size, length=40, layers=2, width=16, heads=2, feed_forward=32
    )
    return fresh_bert(config, 3)


@pytest.fixture
def info(vocabulary: Vocabulary, medians: MediansSet) -> CheckpointInfo:
    return an_info(vocabulary, medians, given=PretrainRecipe(name="small"))


@pytest.fixture
def saved(
    tmp_path: Path,
    model: PackedBert,
    vocabulary: Vocabulary,
    medians: MediansSet,
    info: CheckpointInfo,
) -> Path:
    moments = {"model.x/exp_avg": torch.arange(3.0)}
    return save_checkpoint(
        tmp_path, model=model, vocabulary=vocabulary, medians=medians, info=info, moments=moments
    )


def test_a_checkpoint_comes_back_whole(saved: Path, model: PackedBert, info: CheckpointInfo):
    loaded = load_checkpoint(saved)
    assert loaded.info == info
    assert loaded.info.pretrain_recipe == PretrainRecipe(name="small")
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name
    assert load_moments(saved)["model.x/exp_avg"].tolist() == [0, 1, 2]
    assert not loaded.model.training


def test_stock_transformers_loads_it_and_agrees(saved: Path, model: PackedBert):
    stock = BertForMaskedLM.from_pretrained(saved).eval()
    encoded = load_checkpoint(saved).encoding.encode(random_cells(3))
    for pack in pack_cells(encoded, budget=40):
        if pack.n_cells > 1:
            continue
        with torch.no_grad():
            ours = model.eval().logits(model.hidden_states(pack))
            theirs = stock(pack.tokens[None]).logits[0]
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert stock.cls.predictions.decoder.weight is stock.bert.embeddings.word_embeddings.weight
    assert type(stock) is BertForMaskedLM


def test_a_runs_folder_gives_its_newest_checkpoint(
    tmp_path: Path,
    saved: Path,
    model: PackedBert,
    vocabulary: Vocabulary,
    medians: MediansSet,
    info: CheckpointInfo,
):
    for step in (8, 9):
        save_checkpoint(
            tmp_path,
            model=model,
            vocabulary=vocabulary,
            medians=medians,
            info=replace(info, step=step),
        )
    assert [path.name for path in checkpoints_in(tmp_path)] == ["step-00000008", "step-00000009"]
    assert load_checkpoint(tmp_path).info.step == 9


@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_a_damaged_file_is_named(saved: Path, damage: str):
    path = saved / "model.safetensors"
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[:-5])
    if damage == "changed":
        data[-5] ^= 1
        path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_checkpoint(saved)


def test_a_half_made_checkpoint_is_not_seen(tmp_path: Path, saved: Path):
    half = tmp_path / "step-00000099"
    half.mkdir()
    (half / "config.json").write_text("{}")
    assert load_checkpoint(tmp_path).info.step == 7
    (saved / "checkpoint.json").unlink()
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        load_checkpoint(tmp_path)


def test_a_newer_format_is_refused_by_name(saved: Path):
    listed = json.loads((saved / "checkpoint.json").read_text())
    (saved / "checkpoint.json").write_text(json.dumps({**listed, "format": 99}))
    with pytest.raises(NewerFormatError, match="format 99"):
        load_checkpoint(saved)


def test_a_folder_that_cannot_be_written_leaves_no_half(
    tmp_path: Path,
    model: PackedBert,
    vocabulary: Vocabulary,
    medians: MediansSet,
    info: CheckpointInfo,
):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(
            tmp_path / "file", model=model, vocabulary=vocabulary, medians=medians, info=info
        )


def test_an_untrained_twin_has_the_shape_and_other_weights(saved: Path):
    checkpoint = load_checkpoint(saved)
    twin, again = untrained_like(checkpoint, 5), untrained_like(checkpoint, 5)
    key = "bert.encoder.layer.0.output.dense.weight"
    weights = [c.model.state_dict()[key] for c in (checkpoint, twin, again)]
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[0], weights[1])
    assert twin.vocabulary == checkpoint.vocabulary
