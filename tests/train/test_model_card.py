"""The card beside a checkpoint says where the model comes from, and what it is not good for."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytolake.corpus.medians import MediansSet
from cytolake.corpus.store import Corpus
from cytolake.corpus.vocabularies import Vocabulary
from cytolake.train.checkpoints import CheckpointInfo, check_files, load_checkpoint
from cytolake.train.encodings.rank_value import RankValueEncoding
from cytolake.train.model_card import model_card
from transformers import BertForMaskedLM

from .corpora import small_corpus
from .test_rank_value import one_cell
from .tiny_runs import an_info, recipe, runner

SPLIT = {"kind": "donors", "fractions": {"seen": 0.5, "unseen": 0.5}}


@pytest.fixture
def info(vocabulary: Vocabulary, medians: MediansSet) -> CheckpointInfo:
    given = recipe(split=SPLIT, data={"part": "seen", "where": "tissue = 'a|b'"})
    return an_info(
        vocabulary,
        medians,
        given=given,
        corpus_uuid="the-corpus",
        where="tissue = 'a|b'",
        part="seen",
        selection_digest="the-selection",
        n_cells=12_345,
        step=1200,
        epoch=2.5,
        versions={"torch": "2.13.0"},
    )


def report(step: int, **more: float) -> dict[str, float]:
    return {"step": step, "loss": 5.0 - step / 1000, "accuracy": 0.125, **more}


@pytest.fixture
def card(info: CheckpointInfo, vocabulary: Vocabulary, medians: MediansSet):
    def make(*reports: dict[str, float], **changes: Any) -> str:
        return model_card(
            replace(info, **changes),
            vocabulary=vocabulary,
            medians=medians,
            n_parameters=10_288_722,
            reports=reports,
        )

    return make


def test_a_card_says_what_was_learnt_from_and_with_which_genes(card, info: CheckpointInfo):
    text = card()
    for words in (
        "10,288,722 parameters",
        "12,345 cells; 2.5 passes",
        "| corpus | the-corpus |",
        "| snapshot | 3 |",
        "| query | `tissue = 'a\\|b'` |",
        "| part of the split | seen |",
        "fractions.unseen = 0.5",
        "| selection digest | the-selection |",
        f"| vocabulary digest | {info.vocabulary_digest} |",
        f"| medians digest | {info.medians_digest} |",
        "| tokens | 62, of which 2 special |",
        "| optimizer.peak_lr | 0.01 |",
        "| torch | 2.13.0 |",
    ):
        assert words in text, words


def test_scores_are_those_of_the_last_report_up_to_the_checkpoint(card):
    text = card(report(1000), report(1200), report(1300))
    assert "3.8000 nats" in text and "step 1,200" in text and "12.50%" in text
    assert "It was not validated while it was trained" in text
    assert "None: no report was made" in card()
    assert "None: no report was made" in card(report(1300))


def test_guesses_under_the_mask_are_told_apart_from_all_chosen_genes(card):
    text = card(report(1200, mask_accuracy=0.0625))
    assert "| training, chosen genes guessed right | 12.50% |" in text
    assert "| training, genes under `<mask>` guessed right | 6.25% |" in text
    assert "under `<mask>`" not in card(report(1200))  # a run of an older version


def test_validation_is_shown_where_there_was_one(card):
    text = card(report(1000, validation_loss=4.25), report(1100))
    assert "| validation loss | 4.2500, step 1,000 |" in text
    assert "not validated" not in text


def test_a_model_that_saw_every_cell_says_that_nothing_was_held_out(card):
    assert "No cell of the query was held out" in card(part=None)
    assert "No cell of the query was held out" not in card()


def test_a_split_that_may_cut_donors_is_no_promise_of_unseen_donors(card, info: CheckpointInfo):
    told = "may be of donors that it has learnt from"
    assert told not in card()
    alike = {**info.recipe, "split": {**info.recipe["split"], "or_cells": True}}
    assert told in card(recipe=alike)


def test_a_continued_run_says_whose_weights_it_began_with(card):
    origin = {"step": 20, "run_id": "abc", "snapshot": 2, "corpus_uuid": "old", "moments": False}
    assert "weights of step 20 of run abc, trained on snapshot 2 of corpus old" in card(
        origin=origin
    )
    assert "begun with" not in card()


def test_the_rule_for_tokens_is_that_of_the_encoding(card, info: CheckpointInfo):
    """A cell is encoded by hand, as the card's words say, and by the encoding."""
    gene_ids, length = tuple(f"ENSG{number:011d}" for number in range(1, 9)), 7
    special = ("<pad>", "<mask>", "<cls>", "<eos>")
    vocabulary = Vocabulary(
        gene_ids=gene_ids, special=special, mapping={"ENSG00000000099": gene_ids[1]}
    )
    medians = MediansSet(gene_ids=gene_ids[:7], medians=np.array([1, 8, 2, 2, 1, 4, 9.0]))
    text = model_card(
        replace(info, length=length), vocabulary=vocabulary, medians=medians, n_parameters=1
    )
    assert "1 ids are read as others by its `mapping`, and the counts of ids that meet are" in text
    [(cls, eos)] = re.findall(r"`<cls>` \((\d)\) stands .* and `<eos>` \((\d)\) after them", text)
    [first] = re.findall(r"Token (\d) is the first of `gene_ids`", text)
    [most] = re.findall(r"At most (\d) genes are kept", text)
    counts = np.array(
        [[3, 1, 4, 4, 0, 9, 1, 5, 20]]
    )  # the eighth has no median, the last is mapped
    telling = {int(first) + g: counts[0, g] / medians.medians[g] for g in (0, 2, 3, 5, 6)}
    telling[int(first) + 1] = (1 + 20) / 8
    by_rank = sorted(telling, key=lambda token: (-telling[token], token))[: int(most)]
    stored = dict(zip([*gene_ids, "ENSG00000000099"], counts[0].tolist(), strict=True))
    cell = one_cell({gene: count for gene, count in stored.items() if count})
    encoded = RankValueEncoding(vocabulary, medians, length).encode(cell)
    assert encoded.tokens.tolist() == [int(cls), *by_rank, int(eos)]
    assert "<cls>" not in card() and "At most 40 genes are kept." in card()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    corpus: Corpus = small_corpus(folder / "corpus")
    result, _ = runner(corpus, folder)(recipe())
    assert result.checkpoint is not None
    return result.checkpoint


def test_every_checkpoint_of_a_run_has_its_card_and_the_card_is_checked(checkpoint: Path):
    text = (checkpoint / "README.md").read_text()
    assert "# small, step 20" in text and "nats" in text and "step 20" in text
    listed = json.loads((checkpoint / "checkpoint.json").read_text())["files"]
    assert "README.md" in listed
    check_files(checkpoint)


def test_the_lines_of_the_card_load_the_model(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    text = (checkpoint / "README.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(checkpoint)
    names: dict[str, Any] = {"tokens": torch.tensor([[2, 5, 3]])}
    exec(code, names)
    assert type(names["model"]) is BertForMaskedLM
    assert names["states"].shape == (1, 3, 16)


def test_a_checkpoint_without_a_card_is_read_as_before(checkpoint: Path, tmp_path: Path):
    old = Path(shutil.copytree(checkpoint, tmp_path / checkpoint.name))
    (old / "README.md").unlink()
    listed = json.loads((old / "checkpoint.json").read_text())
    del listed["files"]["README.md"]
    (old / "checkpoint.json").write_text(json.dumps(listed))
    info = json.loads((old / "cytolake.json").read_text())
    del info["origin"]
    (old / "cytolake.json").write_text(json.dumps(info))
    del listed["files"]["cytolake.json"]
    (old / "checkpoint.json").write_text(json.dumps(listed))
    assert (load_checkpoint(old).info.step, load_checkpoint(old).info.origin) == (20, {})
