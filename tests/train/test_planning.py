"""What a run would cost, held against numbers worked out by hand and against torch's own count."""

from pathlib import Path
from typing import Any

import pytest
import torch
from cytolake.corpus.store import Corpus
from cytolake.platform.configuration import parse_values
from cytolake.platform.errors import RecipeError, VocabularyError
from cytolake.platform.settings import Settings, load_settings
from cytolake.train.checkpoints import load_checkpoint
from cytolake.train.footprint import activation_bytes, as_bytes
from cytolake.train.models.bert import bert_config, fresh_bert
from cytolake.train.objectives.masked_genes import MaskedGenes
from cytolake.train.packing import Pack
from cytolake.train.planning import plan_cost
from cytolake.train.recipe import PretrainRecipe, load_recipe

from .corpora import small_corpus
from .official import official_config
from .tiny_runs import recipe, runner


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("planning") / "corpus")


def files_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_plan_is_what_the_run_then_does(corpus: Corpus, tmp_path: Path):
    given = recipe(training={"steps": None, "epochs": 2.5})
    cost = plan_cost(given, Settings(home=tmp_path), corpus)
    result, _ = runner(corpus, tmp_path)(given)
    # 120 cells in groups of 4, 5 groups a step: 6 steps an epoch, 15 in all, of 20 cells each
    assert cost.n_steps == result.step == 15
    assert cost.cell_passes == sum(m["n_cells"] for m in result.metrics) == 300
    model = load_checkpoint(result.run_folder).model
    assert cost.shape.n_parameters == sum(p.numel() for p in model.parameters())
    assert result.checkpoint is not None
    weights = (result.checkpoint / "model.safetensors").stat().st_size
    moments = (result.checkpoint / "training.safetensors").stat().st_size
    assert cost.checkpoint_bytes == pytest.approx(weights + moments, rel=0.2)  # names and headers
    assert cost.checkpoint_bytes < weights + moments


def test_the_numbers_are_those_worked_out_by_hand(corpus: Corpus, tmp_path: Path):
    given = recipe(
        encoding={"length": 12}, training={"steps": 7}, plan={"mfu": 0.5, "peak_tflops": 100}
    )
    cost = plan_cost(given, Settings(home=tmp_path), corpus)
    assert cost.lengths.mean == pytest.approx(12, abs=0.05)  # nearly every cell has twelve genes
    mean, square = cost.lengths.mean, cost.lengths.mean_square
    # d = 16, f = 32, two layers, 52 tokens: 50 coding genes, <pad>, <mask>
    linear = 2 * 2 * (4 * 16 * 16 + 2 * 16 * 32) * mean
    attention = 4 * 16 * 2 * square
    head = (2 * 16 * 16 + 2 * 16 * 52) * 0.15 * mean
    assert cost.flops_a_cell(training=False) == pytest.approx(linear + attention + head)
    assert cost.flops_a_cell(training=True) == pytest.approx(3 * (linear + attention + head))
    hours = 140 * 3 * (linear + attention + head) / (0.5 * 100e12) / 3600
    assert cost.cell_passes == 140
    assert cost.gpu_hours(140) == pytest.approx(hours)
    embeddings = (52 + 12 + 2) * 16 + 2 * 16
    layer = 4 * (16 * 16 + 16) + 2 * 16 + 16 * 32 + 32 + 32 * 16 + 16 + 2 * 16
    n = embeddings + 2 * layer + (16 * 16 + 16 + 2 * 16 + 52)
    assert cost.shape.n_parameters == n
    assert cost.memory == {
        "weights": 4 * n,
        "gradients": 4 * n,
        "moments": 8 * n,
        "activations of a pack": 90 * (2 * (4 * (9 * 16 + 32) + 8 * 16) + 8 * 16),
        "scores of a chunk of hidden rows": 4 * (3 * 14 * 52 + 52 * 16),
    }
    assert cost.checkpoint_bytes == 12 * n


def test_moments_are_shared_under_zero_1_and_every_worker_reads_the_corpus(
    corpus: Corpus, tmp_path: Path
):
    settings = Settings(home=tmp_path)
    one = plan_cost(recipe(), settings, corpus)
    four = plan_cost(
        recipe(engine={"kind": "deepspeed", "zero_stage": 1, "workers": 4}), settings, corpus
    )
    none = plan_cost(
        recipe(engine={"kind": "deepspeed", "zero_stage": 0, "workers": 4}), settings, corpus
    )
    assert four.memory["moments"] == one.memory["moments"] // 4
    assert none.memory["moments"] == one.memory["moments"]
    folder = next(corpus.segments_folder.iterdir()) / "rna.zarr"
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert (one.bytes_read, four.bytes_read) == (stored, 4 * stored)  # few cells: read once


def test_the_best_checkpoint_is_kept_besides_where_there_is_validation(
    corpus: Corpus, tmp_path: Path
):
    split = {"kind": "donors", "fractions": {"learn": 0.5, "look": 0.5}}
    parts = {"data": {"part": "learn"}, "validation": {"part": "look"}}
    kept: list[str] = []
    for more in ({}, {"split": split, **parts}):
        result, _ = runner(corpus, tmp_path)(recipe(**more), f"run-{len(more)}")
        cost = plan_cost(recipe(**more), Settings(home=tmp_path), corpus)
        rows = {str(row["what"]): row for row in cost.rows()}
        kept.append(str(rows["checkpoints kept"]["how"]))
        most = {"the newest 2": 2, "the newest 2 and the best": 3}[kept[-1].split(";")[0]]
        n_there = len(list((result.run_folder / "checkpoints").glob("step-*")))
        assert n_there in (most - 1, most)  # the best may be one of the newest
        assert rows["checkpoints kept"]["value"] == as_bytes(most * cost.checkpoint_bytes)
    assert "the best" not in kept[0] and "the best" in kept[1]


def test_nothing_is_written_and_nothing_starts(corpus: Corpus, tmp_path: Path):
    lake = Path(corpus.uri)
    before = files_of(lake)
    plan_cost(recipe(), Settings(home=tmp_path), corpus).table()
    assert files_of(lake) == before
    assert list(tmp_path.iterdir()) == []


def test_a_batch_in_tokens_is_planned_as_it_will_be_run(corpus: Corpus, tmp_path: Path):
    given = recipe(training={"cells_per_step": None, "tokens_per_step": 600, "steps": 2})
    cost = plan_cost(given, Settings(home=tmp_path), corpus)
    result, _ = runner(corpus, tmp_path)(given)
    assert {m["n_cells"] for m in result.metrics} == {4 * cost.groups_per_step}


def official() -> Settings:
    official_config("Geneformer-V1-10M")  # skips where no resources are at hand
    return load_settings()


def test_without_a_corpus_lengths_are_upper_bounds_and_say_so():
    cost = plan_cost(load_recipe("geneformer-v1-10m"), official())
    rows = {str(row["what"]): row for row in cost.rows()}
    assert rows["model"]["value"] == "10,288,722 parameters"
    assert "upper bound" in str(rows["tokens a cell, mean"]["how"])
    assert rows["cells"]["value"] == "not known"
    # the roofline worked out for this model: 20.8 and 62.5 MFLOP a token at full length
    assert float(str(rows["FLOPs a token, forward"]["value"])) == pytest.approx(20.8e6, rel=0.005)
    assert float(str(rows["FLOPs a token, training"]["value"])) == pytest.approx(62.5e6, rel=0.005)
    # 128 GFLOP a cell at 35 % of 67 TFLOP/s: the published precision is fp32
    assert cost.gpu_hours(1e6) == pytest.approx(1e6 * 128e9 / (0.35 * 67e12) / 3600, rel=0.01)
    assert "35 MFU x 67 TFLOP/s), data sheet of H200, fp32" in str(
        rows["GPU hours a million cell passes"]["how"]
    )


@pytest.mark.parametrize("precision", ["bf16", "auto"])
def test_hours_are_at_the_peak_of_the_precision_or_at_the_one_that_is_given(precision: str):
    said = [f"training.precision={precision}"]
    half = plan_cost(load_recipe("geneformer-v1-10m", said), official())
    given = plan_cost(
        load_recipe("geneformer-v1-10m", [*said, "plan.peak_tflops=98.9"]), official()
    )
    assert half.gpu_hours(1e6) == pytest.approx(1e6 * 128e9 / (0.35 * 989e12) / 3600, rel=0.01)
    assert given.gpu_hours(1e6) == pytest.approx(10 * half.gpu_hours(1e6))


def test_two_places_of_v2_are_for_special_tokens_that_are_never_hidden():
    cost = plan_cost(load_recipe("geneformer-v2-104m"), official())
    assert (cost.lengths.mean, cost.lengths.mean_genes) == (4096, 4094)
    assert cost.shape.n_parameters == 104_386_867


def test_the_corpus_own_genes_cannot_be_planned_without_it(tmp_path: Path):
    with pytest.raises(RecipeError, match="give --corpus to plan it"):
        plan_cost(recipe(), Settings(home=tmp_path))


def test_a_plan_is_refused_for_what_the_run_would_be_refused_for(corpus: Corpus):
    # genes that have nothing in common with the vocabulary but their spelling
    foreign = recipe(vocabulary={"set": "geneformer-v2"}, encoding={"length": 40})
    settings = official()
    with pytest.raises(VocabularyError, match="less than one hidden gene a cell"):
        plan_cost(foreign, settings, corpus)


def test_a_continued_run_is_planned_with_the_checkpoints_genes(corpus: Corpus, tmp_path: Path):
    runner(corpus, tmp_path)(recipe(), "first")
    given = recipe(start={"checkpoint": "first"})
    with_cells = plan_cost(given, Settings(home=tmp_path), corpus)
    without = plan_cost(given, Settings(home=tmp_path))
    assert with_cells.shape == without.shape
    assert without.n_steps == 20


# ------------------------------------------------------------- memory, as autograd keeps it


def kept_bytes(recipe: PretrainRecipe, lengths: list[int], vocabulary_size: int) -> int:
    """Bytes of all that a forward pass keeps for the backward pass, weights left out."""
    shape = recipe.model.model_dump()
    config = bert_config(vocabulary_size=vocabulary_size, length=recipe.encoding.length, **shape)
    model = fresh_bert(config, 0).train()
    objective = MaskedGenes(model, n_special=2, seed=0, half=recipe.training.precision == "bf16")
    n = sum(lengths)
    pack = Pack(
        tokens=torch.randint(2, vocabulary_size, (n,)),
        positions=torch.cat([torch.arange(length) for length in lengths]),
        offsets=torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32),
        lengths=tuple(lengths),
        keys=torch.arange(n) * 12345,
        rows=tuple(range(len(lengths))),
    )
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    prepared = objective.prepare(pack, 0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        objective(prepared)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("feed_forward", [128, 256])
def test_activations_are_what_autograd_keeps(precision: str, dropout: float, feed_forward: int):
    values: dict[str, Any] = {
        "encoding": {"length": 512},
        "model": {
            **{"layers": 4, "width": 64, "heads": 1, "feed_forward": feed_forward},
            "hidden_dropout": dropout,
        },
        "training": {"pack_tokens": 2048, "precision": precision},
    }
    given = parse_values({"name": "x", **values}, PretrainRecipe, origin="x")
    found = kept_bytes(given, [500, 512, 400, 88], vocabulary_size=50)
    assert activation_bytes(given) * 1500 == pytest.approx(found, rel=0.15)


def test_bytes_are_said_in_powers_of_ten():
    assert [as_bytes(n) for n in (999, 41_150_000, 1_265_419_468, 2e12, 5e15)] == [
        "999 B",
        "41.15 MB",
        "1.265 GB",
        "2 TB",
        "5,000 TB",
    ]
