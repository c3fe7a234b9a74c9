"""How full packs get, held against the packs that the objective makes; what is said of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cytolake.corpus.store import Corpus
from cytolake.platform.settings import Settings
from cytolake.train import devices, job
from cytolake.train.advice import advice_of
from cytolake.train.encodings.tokens import TokenBatch
from cytolake.train.engines import TorchEngine
from cytolake.train.feeding import Feed, plan_of
from cytolake.train.filling import filling_of, fuller
from cytolake.train.loop import Metrics, train
from cytolake.train.models.bert import bert_config, fresh_bert
from cytolake.train.objectives.masked_genes import MaskedGenes
from cytolake.train.planning import plan_cost
from cytolake.train.recipe import OptimizerRecipe, PretrainRecipe
from cytolake.train.static_packs import static_shape

from .conftest import RandomStream, gene_names
from .corpora import small_corpus
from .tiny_runs import recipe, runner

SIZE = 60
LENGTHS = tuple(np.random.default_rng(4).integers(1, 41, 240).tolist())


def static(**training: Any) -> PretrainRecipe:
    return recipe(training={"precision": "auto", **training})


def objective_of(given: PretrainRecipe) -> MaskedGenes:
    """One whose packs are of one shape, as on a GPU."""
    config = bert_config(
        vocabulary_size=SIZE + 2,
        length=given.encoding.length,
        layers=1,
        width=8,
        heads=1,
        feed_forward=8,
    )
    shape = static_shape(
        pack_tokens=given.training.pack_tokens, length=given.encoding.length, share=0.15
    )
    return MaskedGenes(fresh_bert(config, 0), n_special=2, seed=1, shape=shape)


def packed(given: PretrainRecipe) -> float:
    """The share of real tokens in the packs of `LENGTHS`."""
    training, objective = given.training, objective_of(given)
    real, laid = 0, 0
    for first in range(0, len(LENGTHS), training.cells_per_group):
        some = [np.full(n, 5, dtype=np.int32) for n in LENGTHS[first:][: training.cells_per_group]]
        batch = TokenBatch.of_cells(some, keys=np.arange(len(some), dtype=np.uint64))
        packs = objective.packs(batch, training.pack_tokens, 0, None)
        real += sum(pack.n_tokens for pack in packs)
        laid += sum(pack.n_laid for pack in packs)
    assert real == sum(LENGTHS)
    return real / laid


@pytest.mark.parametrize(
    ("cells_per_group", "pack_tokens"), [(4, 90), (4, 50), (12, 90), (20, 400), (20, 41)]
)
def test_packs_are_as_full_as_those_that_the_objective_makes(
    cells_per_group: int, pack_tokens: int
):
    given = static(cells_per_step=240, cells_per_group=cells_per_group, pack_tokens=pack_tokens)
    assert filling_of(given, LENGTHS).share == pytest.approx(packed(given))


@pytest.mark.parametrize(
    "training",
    [
        {"cells_per_step": 240, "cells_per_group": 4, "pack_tokens": 90},
        {"cells_per_step": 24, "cells_per_group": 4, "pack_tokens": 1600},
        {"cells_per_step": None, "tokens_per_step": 5000, "cells_per_group": 4},
    ],
    ids=["larger groups", "smaller packs", "a batch in tokens"],
)
def test_settings_that_fill_packs_are_found_and_do_fill_them(training: dict[str, Any]):
    given = static(**training)
    found = fuller(given, LENGTHS)
    assert found is not None and found.share >= 0.9 > filling_of(given, LENGTHS).share
    said = advice_of(given, 20, LENGTHS)[0]
    words = {"cells_per_group": found.cells_per_group, "pack_tokens": found.pack_tokens}
    changed = {name: n for name, n in words.items() if n != getattr(given.training, name)}
    assert changed and all(f"--set training.{name}={n}" in said for name, n in changed.items())
    assert f"fills {found.share:.0%}" in said
    assert packed(static(**{**training, **changed})) == pytest.approx(found.share, abs=0.02)


def test_where_nothing_fills_packs_a_larger_batch_is_named():
    given = static(cells_per_step=4, cells_per_group=4, pack_tokens=90)
    alone = advice_of(given.model_copy(update={"encoding": given.encoding}), 20, (20,) * 4)
    assert fuller(given, (20,) * 4) is None
    assert alone == [
        "on a GPU in bf16, packs would be 89% full: 4 cells are packed together and have 80 "
        "tokens on average, a pack has 90; a larger global batch would fill them"
    ]


def test_nothing_is_said_of_full_packs_of_fp32_and_of_padding():
    full = static(cells_per_step=240, cells_per_group=60, pack_tokens=90)
    assert filling_of(full, LENGTHS).share > 0.9
    assert advice_of(full, 20, LENGTHS) == []
    for training in ({"precision": "fp32"}, {"layout": "padded"}):
        assert advice_of(static(**training), 20, LENGTHS) == []
    assert advice_of(static(), 20) == []


def test_a_report_says_how_full_packs_were(vocabulary: Any, medians: Any):
    given = static(pack_tokens=90)
    objective, stream = objective_of(given), RandomStream(24, 4)
    plan = plan_of(6, groups_per_step=3, epochs=1)
    from cytolake.train.encodings.rank_value import RankValueEncoding

    feed = Feed(stream, RankValueEncoding(vocabulary, medians, 40), objective, plan, pack_tokens=90)
    works = [feed.work(step) for step in range(plan.n_steps)]
    told: list[Metrics] = []
    optimizer = OptimizerRecipe(warmup_steps=0)
    try:
        train(
            TorchEngine(objective, optimizer),
            feed,
            plan,
            optimizer,
            seed=1,
            log_seconds=0,
            report=told.append,
        )
    finally:
        feed.close()
    assert len(gene_names()) == SIZE
    expected = [work.n_tokens / (90 * len(work.packs)) for work in works]
    assert [metrics.filled for metrics in told] == pytest.approx(expected)
    assert all(0.3 < share < 1 for share in expected)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return small_corpus(tmp_path / "corpus")


def test_the_plan_and_the_start_say_it_and_how_to_do_better(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
):
    given = static(pack_tokens=160, steps=3)
    cost = plan_cost(given, Settings(home=tmp_path), corpus)
    [row] = [row for row in cost.rows() if row["what"] == "packs filled"]
    assert row["value"] == f"{filling_of(given, cost.lengths.cells).share:.1%}"
    warmup, packs = cost.advice
    assert warmup.startswith("the warm-up has 3 steps, the run 3: the learning rate ends at 0.0075")
    assert "--set training.cells_per_group=" in packs
    go = runner(corpus, tmp_path)
    go(given, "on-a-cpu")
    said = capsys.readouterr().err
    assert warmup in said and "packs would be" not in said  # here they are as long as their cells
    monkeypatch.setattr(job, "gpus_expected", lambda address: True)
    go(given, "on-a-gpu")
    said = capsys.readouterr().err
    assert warmup in said and packs in said
    go(static(pack_tokens=160), "long")
    assert "warm-up" not in capsys.readouterr().err
    assert devices.gpus_expected("ray://there:10001")
    assert devices.gpus_expected(None) is torch.cuda.is_available()
