"""Small random cells of three types and five donors, a tiny model, and a corpus of such cells."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from cytolake.corpus.cells import CellBatch
from cytolake.corpus.content import content_hashes, content_keys
from cytolake.corpus.log.receipts import Receipt
from cytolake.corpus.medians import MediansSet
from cytolake.corpus.payload.writing import write_segment
from cytolake.corpus.store import Corpus
from cytolake.corpus.vocabularies import Vocabulary
from cytolake.evaluate.recipe import EvaluationRecipe
from cytolake.platform.configuration import parse_values
from cytolake.platform.settings import Settings
from cytolake.platform.tracking import MemoryTracker
from cytolake.train.checkpoints import Checkpoint, CheckpointInfo
from cytolake.train.encodings.rank_value import RankValueEncoding
from cytolake.train.job import pretrain
from cytolake.train.models.bert import bert_config, fresh_bert
from cytolake.train.recipe import PretrainRecipe

N_GENES = 40
GENE_IDS = tuple(f"ENSG{number:011d}" for number in range(1, N_GENES + 1))
TYPES = ("T cell", "B cell", "monocyte")
DONORS = ("d1", "d2", "d3", "d4", "d5", "d6")
PRETRAIN = {
    "name": "small",
    "data": {"part": "pretraining"},
    "split": {
        "kind": "query",
        "parts": {
            "pretraining": "donor_id = 'd6'",
            "evaluation": "donor_id <> 'd6' OR donor_id IS NULL",
        },
    },
    "encoding": {"length": 24},
    "model": {"layers": 2, "width": 16, "heads": 2, "feed_forward": 32, "hidden_dropout": 0.0},
    "training": {
        "steps": 30,
        "cells_per_step": 16,
        "cells_per_group": 8,
        "pack_tokens": 256,
        "log_seconds": 0,
    },
    "optimizer": {"peak_lr": 1e-2, "warmup_steps": 3},
    "engine": {"kind": "torch", "workers": 1},
}


def typed_cells(n_cells: int, *, seed: int = 0) -> CellBatch:
    """Cells of three types, each with genes of its own, dealt to six donors."""
    draw = np.random.default_rng(seed)
    kind = draw.integers(0, 3, n_cells)
    rate = np.where(np.arange(N_GENES) % 3 == kind[:, None], 3.0, 0.4)
    counts = draw.poisson(rate)
    counts[:, 0] += 1
    rows, genes = np.nonzero(counts)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_cells))])
    stored = counts[rows, genes].astype(np.uint32)
    hashes = content_hashes(list(GENE_IDS), indptr, genes.astype(np.int32), stored)
    obs = {
        "cell_id": np.arange(n_cells),
        "cell_type": [TYPES[k] for k in kind],
        "donor_id": [DONORS[cell % 6] for cell in range(n_cells)],
    }
    return CellBatch(
        gene_ids=np.array(GENE_IDS, dtype=object),
        indptr=indptr.astype(np.int64),
        indices=genes.astype(np.int32),
        counts=stored,
        n_counts=counts.sum(axis=1).astype(np.int64),
        content_keys=content_keys(hashes),
        obs=pa.table(obs),
    )


def tiny_checkpoint(*, special: tuple[str, ...] = ("<pad>", "<mask>"), seed: int = 0) -> Checkpoint:
    """A checkpoint of fresh weights: two layers, width 16."""
    vocabulary = Vocabulary(gene_ids=GENE_IDS, special=special)
    medians = MediansSet(gene_ids=GENE_IDS, medians=np.ones(N_GENES))
    recipe = parse_values(PRETRAIN, PretrainRecipe, origin="test")
    shape = recipe.model.model_dump() | {"initializer_range": 0.2}
    config = bert_config(vocabulary_size=vocabulary.size, length=recipe.encoding.length, **shape)
    info = CheckpointInfo(
        family="geneformer",
        recipe=recipe.model_dump(mode="json"),
        length=recipe.encoding.length,
        snapshot=1,
        corpus_uuid="none",
        where=None,
        part="pretraining",
        selection_digest="",
        n_cells=10,
        vocabulary_digest=vocabulary.digest,
        medians_digest=medians.digest,
        step=0,
        epoch=0.0,
    )
    return Checkpoint(
        model=fresh_bert(config, seed).eval(),
        encoding=RankValueEncoding(vocabulary, medians, recipe.encoding.length),
        vocabulary=vocabulary,
        medians=medians,
        info=info,
    )


def a_recipe(task: str, **changes: object) -> EvaluationRecipe:
    """A recipe for tiny cells."""
    small = {
        "finetune": {"epochs": 6, "cells_per_step": 8, "peak_lr": 1e-2},
        "perturb": {"n_cells": 6, "min_peers": 10},
    }
    return parse_values(
        {"name": task, "task": task, **small, **changes}, EvaluationRecipe, origin="test"
    )


@pytest.fixture
def checkpoint() -> Checkpoint:
    return tiny_checkpoint()


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """A corpus and a model pretrained on donor d6 of it, as runs in a home folder."""

    corpus: Corpus
    settings: Settings
    run_id: str


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """Made once, to be read only."""
    folder = tmp_path_factory.mktemp("evaluate")
    corpus = corpus_of_cells(typed_cells(300, seed=1), folder / "corpus")
    settings = Settings(home=folder / "home")
    tracker = MemoryTracker(run_id="run-of-small")
    pretrain(
        str(corpus.folder),
        parse_values(PRETRAIN, PretrainRecipe, origin="test"),
        settings,
        tracker=tracker,
        run_folder=settings.home / "runs" / "small",
    )
    yield Trained(corpus=corpus, settings=settings, run_id=tracker.run_id)


def corpus_of_cells(
    cells: CellBatch, folder: Path, *, sources: tuple[str, ...] = ("typed",)
) -> Corpus:
    """The cells as a corpus, by the real writers: dealt to so many sources, end to end."""
    corpus = Corpus.create(folder)
    for number, name in enumerate(sources):
        first, last = (round(cells.n_cells * k / len(sources)) for k in (number, number + 1))
        _commit(corpus, cells.take(np.arange(first, last)), name, sha256=f"{13 + number:x}" * 64)
    return Corpus.open(folder)


def _commit(corpus: Corpus, cells: CellBatch, source_id: str, *, sha256: str) -> None:
    n_cells = cells.n_cells
    obs = pa.table(
        {
            "barcode": [f"C{cell}" for cell in range(n_cells)],
            "organism": ["Homo sapiens"] * n_cells,
            "cell_type": cells.obs.column("cell_type"),
            "donor_id": cells.obs.column("donor_id"),
            "n_counts": cells.n_counts,
            "n_genes": np.diff(cells.indptr).astype(np.int32),
            "mito_fraction": pa.nulls(n_cells, pa.float64()),
        }
    )
    stored = replace(cells, obs=obs)
    var = pa.table(
        {
            "gene_id": GENE_IDS,
            "symbol": [f"G{number}" for number in range(1, N_GENES + 1)],
            "biotype": ["protein_coding"] * N_GENES,
            "mapping": ["ensembl"] * N_GENES,
            "source_name": GENE_IDS,
        }
    )
    dropped = pa.schema(
        [
            ("barcode", pa.string()),
            ("reason", pa.string()),
            ("n_counts", pa.int64()),
            ("n_genes", pa.int32()),
            ("mito_fraction", pa.float64()),
        ]
    )
    segment = f"{source_id}-0"
    origin = {"source_id": source_id, "source_sha256": sha256, "first_row": 0}
    record = write_segment(
        corpus.segments_folder / segment,
        segment,
        stored,
        var,
        pa.table({"number": list(range(n_cells))}),
        dropped.empty_table(),
        {"corpus_uuid": corpus.uuid, **origin},
    )
    receipt = Receipt(
        source_id=source_id,
        uri=f"/data/{source_id}.h5ad",
        sha256=sha256,
        n_bytes=1,
        reader="h5ad",
        layer="X",
        n_read=n_cells,
        n_kept=n_cells,
        dropped={},
        thresholds={},
        panel=False,
        units=(segment,),
    )
    corpus.commit_source(receipt, [record])
