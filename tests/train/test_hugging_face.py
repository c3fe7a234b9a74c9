"""Runs that begin with a folder of stock transformers, and folders that cannot be begun with."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cytolake.corpus.medians import MediansSet
from cytolake.corpus.store import Corpus
from cytolake.corpus.vocabularies import Vocabulary
from cytolake.platform.errors import CheckpointError, CytolakeError, RecipeError
from cytolake.platform.settings import Settings
from cytolake.train.checkpoints import load_checkpoint
from cytolake.train.encodings.rank_value import RankValueEncoding
from cytolake.train.objectives.masked_genes import mask_pack
from cytolake.train.packing import packs_of
from cytolake.train.recipe import PretrainRecipe
from cytolake.train.retention import newest_checkpoint
from cytolake.train.starting import find_start
from cytolake.train.vocabularies import official_set
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM

from .conftest import gene_names
from .corpora import small_corpus
from .official import official_config
from .tiny_runs import recipe, runner

ONE_STEP = {"steps": 1, "cells_per_step": 120, "cells_per_group": 4}
"""All cells of the corpus in one step: its loss is that of the weights the run began with."""


def a_folder(place: Path, n_tokens: int, **changes: Any) -> BertForMaskedLM:
    """A folder as stock transformers writes it, of random weights."""
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"intermediate_size": 32, "max_position_embeddings": 40, "hidden_act": "relu"}
    values: dict[str, Any] = {"layer_norm_eps": 1e-12, "pad_token_id": 0, **shape}
    values |= {"initializer_range": 0.3, "vocab_size": n_tokens, **changes}
    torch.manual_seed(4)
    model = BertForMaskedLM(BertConfig(**values))
    model.save_pretrained(place)
    return model


def beside(place: Path, vocabulary: Vocabulary, medians: MediansSet) -> None:
    (place / "vocabulary.json").write_text(vocabulary.to_json())
    (place / "medians.json").write_text(medians.to_json())


def begun_with(place: Path, **changes: Any) -> PretrainRecipe:
    return recipe(
        start={"checkpoint": str(place)},
        model={"hidden_dropout": 0.0},
        training=ONE_STEP,
        optimizer={"peak_lr": 1e-12},
        **changes,
    )


def stock_loss(
    model: BertForMaskedLM, corpus: Corpus, vocabulary: Vocabulary, medians: MediansSet
) -> float:
    """Mean cross-entropy by stock transformers, a cell at a time, at what the first epoch hides."""
    selection = corpus.select()
    encoding = RankValueEncoding(vocabulary, medians, 40)
    total, n_hidden = 0.0, 0
    for batch in corpus.read(selection, np.arange(selection.n_cells)):
        for pack in packs_of(encoding.encode(batch), 90):
            hidden = mask_pack(pack, seed=42, epoch=0, n_special=len(vocabulary.special),
                               vocabulary_size=vocabulary.size)  # fmt: skip
            labels = torch.full_like(hidden.pack.tokens, -100)
            labels[hidden.rows] = hidden.labels
            for first, last in zip(pack.offsets[:-1], pack.offsets[1:], strict=True):
                cell = slice(int(first), int(last))
                if (n_here := int((labels[cell] != -100).sum())) > 0:
                    asked = {"input_ids": hidden.pack.tokens[cell][None].long()}
                    with torch.no_grad():
                        loss = model.eval()(**asked, labels=labels[cell][None].long()).loss
                    total, n_hidden = total + float(loss) * n_here, n_hidden + n_here
    return total / n_hidden


def test_a_run_begins_with_a_folder_that_has_its_genes_beside(
    tmp_path: Path, vocabulary: Vocabulary, medians: MediansSet
):
    corpus = small_corpus(tmp_path / "corpus")
    stock = a_folder(tmp_path / "theirs", vocabulary.size)
    beside(tmp_path / "theirs", vocabulary, medians)
    result, _ = runner(corpus, tmp_path)(begun_with(tmp_path / "theirs"))
    expected = stock_loss(stock, corpus, vocabulary, medians)
    assert result.metrics[0]["loss"] == pytest.approx(expected, abs=1e-5)
    ours = load_checkpoint(result.run_folder)
    for name, value in stock.state_dict().items():
        torch.testing.assert_close(ours.model.state_dict()[name], value, atol=1e-9, rtol=1e-6)
    assert ours.vocabulary == vocabulary
    assert result.checkpoint is not None
    card = (result.checkpoint / "README.md").read_text()
    told = f"weights of {tmp_path / 'theirs'}; what they were trained on is not on record"
    assert told in card
    assert find_start(recipe(start={"checkpoint": "run"}), Settings(home=tmp_path)) is not None


@pytest.mark.parametrize("name", ["Geneformer-V1-10M", "Geneformer-V2-104M"])
def test_an_official_configuration_begins_with_its_official_genes(name: str, tmp_path: Path):
    """The published folder, made narrow and shallow; its vocabulary is whole."""
    official, kind = official_config(name), f"geneformer-{name.split('-')[1].lower()}"
    settings = Settings(
        home=tmp_path, resources=tuple(map(Path, os.environ["CYTOLAKE_RESOURCES"].split(":")))
    )
    vocabulary, medians = official_set(kind, settings)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    small |= {"intermediate_size": 32, "max_position_embeddings": 40}
    stock = a_folder(tmp_path / "theirs", 0, **{**official, **small})
    corpus = small_corpus(tmp_path / "corpus", gene_ids=vocabulary.gene_ids[5000:5060])
    given = begun_with(tmp_path / "theirs", vocabulary={"set": kind})
    from cytolake.platform.tracking import MemoryTracker
    from cytolake.train.job import pretrain

    result = pretrain(str(corpus.folder), given, settings, tracker=MemoryTracker())
    expected = stock_loss(stock, corpus, vocabulary, medians)
    assert result.metrics[0]["loss"] == pytest.approx(expected, abs=1e-5)
    other = "geneformer-v2" if kind == "geneformer-v1" else "geneformer-v1"
    with pytest.raises(RecipeError, match="a token would stand for another gene"):
        find_start(begun_with(tmp_path / "theirs", vocabulary={"set": other}), settings)


def refused(place: Path, **changes: Any) -> str:
    with pytest.raises(CytolakeError) as caught:
        find_start(begun_with(place, **changes), Settings(home=place.parent))
    assert isinstance(caught.value, CheckpointError | RecipeError)
    return str(caught.value)


@pytest.fixture
def theirs(tmp_path: Path, vocabulary: Vocabulary, medians: MediansSet) -> Path:
    a_folder(tmp_path / "theirs", vocabulary.size)
    beside(tmp_path / "theirs", vocabulary, medians)
    return tmp_path / "theirs"


def test_without_a_word_on_its_genes_a_folder_is_refused_with_the_way_out(theirs: Path):
    (theirs / "vocabulary.json").unlink()
    for changes in ({}, {"vocabulary": {"set": "corpus"}}):
        assert 'vocabulary.set = "geneformer-v1"' in refused(theirs, **changes)


def test_a_vocabulary_of_another_size_is_refused_with_both_numbers(theirs: Path):
    smaller = Vocabulary(gene_ids=tuple(gene_names()[1:]))
    (theirs / "vocabulary.json").write_text(smaller.to_json())
    assert "its model has 62 tokens, its vocabulary.json has 61" in refused(theirs)


def test_pickled_weights_are_refused_and_never_opened(theirs: Path):
    (theirs / "model.safetensors").rename(theirs / "pytorch_model.bin")
    assert "pytorch_model.bin, which is pickled, and nothing is unpickled" in refused(theirs)
    (theirs / "pytorch_model.bin").unlink()
    assert "there is none" in refused(theirs)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"architectures": ["BertForSequenceClassification"]}, "expected BertForMaskedLM"),
        ({"position_embedding_type": "relative_key"}, "expected 'absolute'"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings = False"),
        ({"num_hidden_layers": 3}, r"model.layers = 2 (there 3)"),
        ({"max_position_embeddings": 41}, r"encoding.length = 40 (there 41)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_kind_of_model_is_refused_by_name(theirs: Path, setting: dict[str, Any], said: str):
    config = json.loads((theirs / "config.json").read_text())
    (theirs / "config.json").write_text(json.dumps({**config, **setting}))
    assert said in refused(theirs)


def test_tensors_are_held_against_the_recipes_model_before_anything_begins(theirs: Path):
    path = theirs / "model.safetensors"
    whole = load_file(path)
    dense = "bert.encoder.layer.1.output.dense.weight"
    for change, said in (
        ({n: value for n, value in whole.items() if n != dense}, f"1 missing (such as {dense})"),
        ({**whole, "pooler.x": torch.zeros(1)}, "1 unknown (such as pooler.x)"),
        ({**whole, dense: torch.zeros(3, 3)}, f"1 of another shape (such as {dense})"),
    ):  # fmt: skip
        save_file(change, path, metadata={"format": "pt"})
        assert said in refused(theirs)
    save_file(whole, path, metadata={"format": "pt"})
    path.write_bytes(path.read_bytes()[:-9])
    assert "cannot be read" in refused(theirs)


def test_what_older_versions_of_transformers_wrote_besides_is_no_harm(theirs: Path):
    path = theirs / "model.safetensors"
    older = {"bert.embeddings.position_ids": torch.arange(40)[None], **load_file(path)}
    older["cls.predictions.decoder.weight"] = older[
        "bert.embeddings.word_embeddings.weight"
    ].clone()
    save_file(older, path, metadata={"format": "pt"})
    corpus = small_corpus(theirs.parent / "corpus")
    assert runner(corpus, theirs.parent)(begun_with(theirs))[0].status == "finished"


def test_moments_of_such_a_folder_are_not_there_and_it_cannot_be_asked(theirs: Path):
    given = {"checkpoint": str(theirs), "moments": True}
    with pytest.raises(CheckpointError, match="no moments to begin with"):
        find_start(recipe(start=given), Settings(home=theirs.parent))
    with pytest.raises(CheckpointError, match="can be begun with"):
        newest_checkpoint(theirs)
