"""Cell states against the stock model, cell by cell, and coverage by hand."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from cytolake.corpus.cells import CellBatch
from cytolake.evaluate.embeddings import cell_states, embed_batches
from cytolake.platform.errors import EvaluationError
from cytolake.train.checkpoints import Checkpoint
from transformers import BertForMaskedLM

from .conftest import GENE_IDS, tiny_checkpoint, typed_cells

V2 = ("<pad>", "<mask>", "<cls>", "<eos>")


def stock_states(checkpoint: Checkpoint, batch: CellBatch, layer: int) -> list[list[float]]:
    """One cell at a time through Hugging Face's own model, pooled with a loop."""
    config = checkpoint.model.config.__class__.from_dict(checkpoint.model.config.to_dict())
    config._attn_implementation = "eager"
    stock = BertForMaskedLM(config).eval()
    stock.load_state_dict(checkpoint.model.state_dict())
    tokens = checkpoint.encoding.encode(batch)
    n_special = len(checkpoint.vocabulary.special)
    states: list[list[float]] = []
    for cell in range(batch.n_cells):
        ids = torch.from_numpy(tokens.cell(cell).astype(np.int64))
        with torch.no_grad():
            hidden = stock(input_ids=ids[None], output_hidden_states=True).hidden_states[layer][0]
        total, n_genes = torch.zeros(hidden.shape[1], dtype=torch.float64), 0
        for place in range(len(ids)):
            if ids[place] >= n_special:
                total, n_genes = total + hidden[place].double(), n_genes + 1
        states.append((total / n_genes).tolist())
    return states


@pytest.mark.parametrize("layer", [-2, -1])
@pytest.mark.parametrize("special", [V2[:2], V2], ids=["V1", "V2"])
def test_a_cell_state_is_the_mean_over_genes_of_the_stock_model(
    special: tuple[str, ...], layer: int
):
    checkpoint, batch = tiny_checkpoint(special=special), typed_cells(7)
    found = cell_states(checkpoint, [batch], layer=layer, pack_tokens=50)
    assert found.dtype == np.float32
    assert found == pytest.approx(np.array(stock_states(checkpoint, batch, layer)), abs=1e-5)


def test_a_cell_without_a_known_gene_gets_no_state_and_is_counted(checkpoint: Checkpoint):
    batch = typed_cells(3)
    indptr = np.array([0, 0, batch.indptr[2], batch.indptr[3]])
    keep = slice(int(batch.indptr[1]), None)
    empty_first = replace(
        batch,
        indptr=np.concatenate([[0, 0], indptr[2:] - batch.indptr[1]]),
        indices=batch.indices[keep],
        counts=batch.counts[keep],
    )
    found = embed_batches(checkpoint, [empty_first])
    assert np.isnan(found.states_cd[0]).all()
    assert np.isfinite(found.states_cd[1:]).all()
    assert (found.coverage.n_cells, found.coverage.n_empty) == (3, 1)


def half_known(known: int, unknown: int) -> CellBatch:
    """One cell with `known` counts on a gene of the vocabulary, `unknown` on another."""
    return CellBatch(
        gene_ids=np.array([GENE_IDS[0], "ENSG99999999999"], dtype=object),
        indptr=np.array([0, 2]),
        indices=np.array([0, 1], dtype=np.int32),
        counts=np.array([known, unknown], dtype=np.uint32),
        n_counts=np.array([known + unknown]),
        content_keys=np.array([7], dtype=np.uint64),
        obs=pa.table({"cell_id": [0]}),
    )


def test_coverage_is_over_all_batches_and_gene_lists(checkpoint: Checkpoint):
    whole = typed_cells(4)
    total = int(whole.counts.sum())
    coverage = embed_batches(checkpoint, [half_known(3, 1), whole]).coverage
    assert coverage.counts_share == pytest.approx((3 + total) / (4 + total))
    assert coverage.vocabulary_share == 1.0
    assert embed_batches(checkpoint, [half_known(3, 1)]).coverage.vocabulary_share == 1 / 40


def test_cells_that_do_not_fit_the_vocabulary_are_refused_unless_asked(checkpoint: Checkpoint):
    with pytest.raises(EvaluationError, match=r"25\.0% of the counts"):
        embed_batches(checkpoint, [half_known(1, 3)])
    allowed = embed_batches(checkpoint, [half_known(1, 3)], allow_low_coverage=True)
    assert np.isfinite(allowed.states_cd).all()


def test_no_cells_are_refused(checkpoint: Checkpoint):
    with pytest.raises(EvaluationError, match="no cells to embed"):
        embed_batches(checkpoint, [])


def test_neighbours_in_a_pack_do_not_change_a_state(checkpoint: Checkpoint):
    batch = typed_cells(6)
    together = cell_states(checkpoint, [batch], pack_tokens=1000)
    alone = cell_states(checkpoint, [batch], pack_tokens=24)
    assert together == pytest.approx(alone, abs=1e-6)
