"""Perturb: which genes move a cell's state when deleted, more than others of the SAME RANK?

Every gene of every screened cell is deleted singly; beside it the same screen by the same model
without training, for much of a raw shift needs no learning. Knows no corpus.
Array suffixes: s deletion, t token position, d width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ...platform.errors import EvaluationError
from ...train.checkpoints import Checkpoint, untrained_like
from ...train.encodings.tokens import TokenBatch
from ...train.models.bert import PackedBert
from ...train.packing import pack_of
from ..cells import AskedCells
from ..figures import shifts_by_rank, z_against_z
from ..metrics import bootstrap, spearman
from ..perturbation.deletion import Deletions, every_deletion
from ..perturbation.shift import pools_without_each, shift
from ..perturbation.statistics import GeneStatistics, against_same_rank, gene_statistics
from ..recipe import EvaluationRecipe
from ..results import EvaluationResult, counted
from ..scores import Score

CHECKPOINT, UNTRAINED = "checkpoint", "same model without training"
TRAP = "Spearman of raw shift and rank"
AGREEMENT = "Spearman of the genes' z by both models"
SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Screen:
    """Every deletion of some cells by one model, end to end. Shapes (n_deletions,).

    Attributes:
        cells: the row of the cell.
        genes: the deleted token.
        ranks: how many genes stood before it in its cell.
        shifts: how far the cell state moved.
    """

    cells: NDArray[np.int64]
    genes: NDArray[np.int64]
    ranks: NDArray[np.int64]
    shifts: NDArray[np.float64]


def screen(
    model: PackedBert,
    tokens: TokenBatch,
    *,
    n_special: int,
    layer: int,
    pack_tokens: int,
    advance: Callable[[int], object] | None = None,
) -> Screen:
    """Delete every gene of every cell, one at a time.

    Args:
        model: the model, in evaluation mode.
        tokens: the cells, each with at least two genes.
        n_special: how many special tokens the vocabulary begins with.
        layer: which hidden states are pooled.
        pack_tokens: the most tokens that go through the model at a time.
        advance: told the number of deletions done, now and then.
    """
    cells: list[NDArray[np.int64]] = []
    genes: list[NDArray[np.int64]] = []
    ranks: list[NDArray[np.int64]] = []
    shifts: list[NDArray[np.float64]] = []
    for cell in range(tokens.n_cells):
        deletions = every_deletion(tokens.cell(cell), n_special=n_special)
        with torch.inference_mode():
            whole = pack_of(tokens, [cell]).to(model.device)
            hidden_td = model.hidden_states(whole, layer).float().cpu().numpy()
        before_sd = pools_without_each(hidden_td, deletions.positions, deletions.positions)
        after_sd = _pooled_after(
            model, deletions, n_special=n_special, layer=layer, budget=pack_tokens, advance=advance
        )
        shifts.append(shift(before_sd, after_sd))
        genes.append(deletions.deleted.astype(np.int64))
        ranks.append(deletions.ranks)
        cells.append(np.full(len(deletions.ranks), cell, dtype=np.int64))
    return Screen(
        cells=np.concatenate(cells),
        genes=np.concatenate(genes),
        ranks=np.concatenate(ranks),
        shifts=np.concatenate(shifts),
    )


def perturb(
    checkpoint: Checkpoint,
    cells: AskedCells,
    recipe: EvaluationRecipe,
    *,
    symbols: Mapping[str, str],
    what: str,
    advance: Callable[[int], object] | None = None,
) -> EvaluationResult:
    """Screen deletions.

    Args:
        checkpoint: the model.
        cells: the cells to screen.
        recipe: layer, least cells and peers.
        symbols: gene id -> symbol, for the table.
        what: what the cells are, for the words.
        advance: told the number of deletions done, now and then; there are twice as many as
            genes in the cells, for two models are asked.

    Raises:
        EvaluationError: too few cells with two genes or more.
    """
    settings, n_special = recipe.perturb, len(checkpoint.vocabulary.special)
    usable = [c for c in range(cells.n_cells) if (cells.tokens.cell(c) >= n_special).sum() >= 2]
    if len(usable) < settings.min_cells:
        raise EvaluationError(
            f"{counted(len(usable), 'cell')} of {what} with two genes of the vocabulary, expected "
            f"at least {settings.min_cells}: choose another cell type or a wider part"
        )
    tokens = TokenBatch.of_cells(
        [cells.tokens.cell(cell) for cell in usable], keys=cells.tokens.keys[usable]
    )
    models = {CHECKPOINT: checkpoint, UNTRAINED: untrained_like(checkpoint, recipe.seed)}
    screens = {
        name: screen(
            asked.model,
            tokens,
            n_special=n_special,
            layer=settings.layer,
            pack_tokens=recipe.pack_tokens,
            advance=advance,
        )
        for name, asked in models.items()
    }
    reaches: list[NDArray[np.int64]] = []
    found: dict[str, GeneStatistics] = {}
    for name, done in screens.items():
        compared = against_same_rank(
            done.shifts, done.ranks, done.genes, min_peers=settings.min_peers
        )
        reaches.append(compared.reach)
        found[name] = gene_statistics(
            done.shifts, done.ranks, done.genes, compared, min_cells=settings.min_cells
        )
    ours, theirs = found[CHECKPOINT], _like(found[UNTRAINED], found[CHECKPOINT])
    scores = _scores(screens, ours, theirs, tokens.n_cells, recipe)
    table = _table(checkpoint, ours, theirs, symbols)
    n_found = int((ours.fdr < SIGNIFICANT).sum())
    notes = (
        f"{counted(tokens.n_cells, 'cell')} of {what}, {len(screens[CHECKPOINT].genes):,} "
        "deletions by each model; the unit is the cell, taken as independent",
        f"z, p and FDR of {counted(len(ours.genes), 'gene')} deleted in at least "
        f"{settings.min_cells} cells; {ours.n_untested:,} others in fewer",
        f"peers: at least {settings.min_peers} deletions of other genes at the same rank, ranks "
        f"beside taken in where few: {int(np.median(reaches[0]))} to each side in the median, "
        f"{int(reaches[0].max())} at most",
    )
    return EvaluationResult(
        task="perturb",
        verdict=_verdict(scores, n_found, len(ours.genes), table),
        scores=scores,
        tables={"genes": table},
        figures={
            "shifts_by_rank": shifts_by_rank(
                screens[CHECKPOINT].ranks, {name: done.shifts for name, done in screens.items()}
            ),
            "z": z_against_z(ours.z, theirs.z, table.column("symbol").to_pylist()),
        },
        notes=notes,
    )


def _pooled_after(
    model: PackedBert,
    deletions: Deletions,
    *,
    n_special: int,
    layer: int,
    budget: int,
    advance: Callable[[int], object] | None,
) -> NDArray[np.float64]:
    """The cell state after each deletion: the mean over the genes that are left."""
    n_deletions, length = deletions.tokens_st.shape
    # Only genes are deleted, so special tokens stand at the same places in every row.
    is_gene = torch.from_numpy(deletions.tokens_st[0] >= n_special)
    n_rows = max(1, budget // length)
    pooled: list[NDArray[np.float64]] = []
    for begin in range(0, n_deletions, n_rows):
        rows = deletions.tokens_st[begin : begin + n_rows]
        batch = TokenBatch.of_cells(list(rows), keys=np.zeros(len(rows), dtype=np.uint64))
        with torch.inference_mode():
            pack = pack_of(batch, range(len(rows))).to(model.device)
            hidden_std = model.hidden_states(pack, layer).view(len(rows), length, -1)
            genes_std = hidden_std[:, is_gene.to(model.device)]
            pooled.append(genes_std.double().mean(dim=1).cpu().numpy())
        if advance is not None:
            advance(len(rows))
    return np.concatenate(pooled)


def _like(other: GeneStatistics, order: GeneStatistics) -> GeneStatistics:
    """The same statistics in the order of another's genes; both hold the same genes."""
    by_gene = np.argsort(other.genes)
    place = by_gene[np.searchsorted(other.genes, order.genes, sorter=by_gene)]
    return GeneStatistics(
        genes=other.genes[place],
        n_cells=other.n_cells[place],
        mean_shift=other.mean_shift[place],
        mean_rank=other.mean_rank[place],
        z=other.z[place],
        p=other.p[place],
        fdr=other.fdr[place],
        n_untested=other.n_untested,
    )


def _scores(
    screens: Mapping[str, Screen],
    ours: GeneStatistics,
    theirs: GeneStatistics,
    n_cells: int,
    recipe: EvaluationRecipe,
) -> tuple[Score, ...]:
    scores: list[Score] = []
    for model, done in screens.items():
        per_cell = np.array(
            [
                spearman(done.shifts[done.cells == cell], done.ranks[done.cells == cell] * 1.0)
                for cell in range(n_cells)
            ]
        )
        usable = per_cell[np.isfinite(per_cell)]
        if len(usable):
            scores.append(
                bootstrap(
                    lambda units, values=usable: float(values[units].mean()),
                    len(usable),
                    name=TRAP,
                    model=model,
                    unit="cells",
                    seed=recipe.seed,
                )
            )
    if len(ours.genes):
        scores.append(
            bootstrap(
                lambda genes: spearman(ours.z[genes], theirs.z[genes]),
                len(ours.genes),
                name=AGREEMENT,
                model=CHECKPOINT,
                unit="genes",
                seed=recipe.seed,
            )
        )
    return tuple(scores)


def _table(
    checkpoint: Checkpoint,
    ours: GeneStatistics,
    theirs: GeneStatistics,
    symbols: Mapping[str, str],
) -> pa.Table:
    gene_ids = [checkpoint.vocabulary.gene_of(int(token)) for token in ours.genes]
    return pa.table(
        {
            "symbol": [symbols.get(gene_id, gene_id) for gene_id in gene_ids],
            "gene_id": gene_ids,
            "cells": ours.n_cells,
            "mean rank": ours.mean_rank,
            "raw shift": ours.mean_shift,
            "z": ours.z,
            "p": ours.p,
            "FDR": ours.fdr,
            "raw shift, untrained": theirs.mean_shift,
            "z, untrained": theirs.z,
            "FDR, untrained": theirs.fdr,
        }
    )


def _verdict(scores: tuple[Score, ...], n_found: int, n_tested: int, table: pa.Table) -> str:
    top = ", ".join(table.column("symbol").slice(0, 5).to_pylist())
    trap = "; ".join(f"{s.model} {s.value:+.2f}" for s in scores if s.name == TRAP)
    return (
        f"{n_found} of {n_tested} genes move the cell state more than others of their rank at FDR "
        f"< {SIGNIFICANT}; first by z: {top or 'none'}. A raw shift is mostly rank "
        f"({TRAP}: {trap}), so read z, beside the untrained model's."
    )
