"""Contexts: does a gene's state tell the cell type, or the batch? Beside the untrained model.

Hidden states of occurrences of one gene at one rank, centred per gene, compared across batches
inside a label and across labels inside a batch. Knows no corpus. Array suffixes: o occurrence,
t token position, d width, s stratum.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ...platform.errors import EvaluationError
from ...train.checkpoints import Checkpoint, untrained_like
from ...train.encodings.tokens import TokenBatch
from ...train.models.bert import PackedBert
from ...train.packing import packs_of
from ..baselines import rank_bins
from ..cells import AskedCells, Units, genes_of
from ..contexts import (
    DIFFERENCE,
    GAIN,
    SAME_BATCH,
    SAME_LABEL,
    ContextPairs,
    Occurrences,
    context_pairs,
    context_scores,
)
from ..figures import score_bars
from ..metrics import FEW_UNITS
from ..recipe import EvaluationRecipe
from ..results import EvaluationResult, counted
from ..scores import Score, scores_table

CHECKPOINT, UNTRAINED = "checkpoint", "same model without training"


def contexts(
    checkpoint: Checkpoint,
    cells: AskedCells,
    units: Units,
    recipe: EvaluationRecipe,
    *,
    advance: Callable[[int], object] | None = None,
) -> EvaluationResult:
    """Compare a gene's states.

    Args:
        checkpoint: the model.
        cells: cells it has not seen, with the columns of label and batch, known for each.
        units: the independent units of these cells.
        recipe: label, batch, layer and the number of genes.
        advance: told the number of cells done, now and then; two models are asked.

    Raises:
        EvaluationError: fewer than two labels or batches, or none of a gene's occurrences can be
            compared both ways.
    """
    settings = recipe.contexts
    labels, label_c = _numbered(cells, recipe.label)
    batches, batch_c = _numbered(cells, settings.batch)
    n_special = len(checkpoint.vocabulary.special)
    place_o, cell_o, rank_o = _chosen(cells.tokens, n_special, settings.n_genes)
    edges = rank_bins(checkpoint.encoding.length)
    found = Occurrences(
        gene_o=cells.tokens.tokens[place_o].astype(np.int64),
        bin_o=np.searchsorted(edges, rank_o, side="right").astype(np.int64) - 1,
        rank_o=rank_o,
        label_o=label_c[cell_o],
        batch_o=batch_c[cell_o],
        unit_o=units.unit_c[cell_o],
        n_units=units.n_units,
    )
    pairs: dict[str, ContextPairs] = {}
    for name, asked in (
        (CHECKPOINT, checkpoint),
        (UNTRAINED, untrained_like(checkpoint, recipe.seed)),
    ):
        states_od = states_at(
            asked.model,
            cells.tokens,
            place_o,
            layer=settings.layer,
            pack_tokens=recipe.pack_tokens,
            advance=advance,
        )
        pairs[name] = context_pairs(states_od, found)
    scores = context_scores(pairs, untrained=UNTRAINED, unit=units.word, seed=recipe.seed)
    tables = {"by_rank": _by_rank(pairs, edges)}
    if 1 < units.n_units < FEW_UNITS:
        tables["bootstrap"] = scores_table(_resampled(pairs, scores, recipe.seed))
    gaps = pairs[CHECKPOINT].mean_gaps()
    notes = (
        f"{counted(cells.n_cells, 'cell')}, {len(labels)} values of {recipe.label}, "
        f"{len(batches)} of {settings.batch}; {len(np.unique(found.gene_o)):,} genes, "
        f"{len(place_o):,} occurrences; hidden states of layer {settings.layer}",
        f"{counted(len(pairs[CHECKPOINT].gene_s), 'stratum', 'strata')} (a gene in a rank bin) "
        "have pairs of both kinds and count once each; ranks inside a pair differ by "
        f"{gaps[0]:.1f} (same label) and {gaps[1]:.1f} (same batch) in the mean",
        *filter(None, [units.note]),
    )
    return EvaluationResult(
        task="contexts",
        verdict=_verdict(scores, recipe.label, settings.batch),
        scores=tuple(scores),
        tables=tables,
        figures={"contexts": score_bars(scores, (SAME_LABEL, SAME_BATCH, DIFFERENCE))},
        notes=notes,
    )


def states_at(
    model: PackedBert,
    tokens: TokenBatch,
    place_o: NDArray[np.int64],
    *,
    layer: int,
    pack_tokens: int,
    advance: Callable[[int], object] | None = None,
) -> NDArray[np.float32]:
    """Hidden states of some tokens of some cells. Shape (o, d).

    Args:
        model: in evaluation mode.
        tokens: the cells.
        place_o: which of `tokens.tokens`, ascending. Shape (o,).
        layer: which hidden states, as Hugging Face counts them.
        pack_tokens: the most tokens that go through the model at a time.
        advance: told the number of cells done, now and then.
    """
    states_od = np.empty((len(place_o), int(model.config.hidden_size)), dtype=np.float32)
    for pack in packs_of(tokens, max(pack_tokens, int(tokens.lengths.max(initial=1)))):
        with torch.inference_mode():
            hidden_td = model.hidden_states(pack.to(model.device), layer).float().cpu().numpy()
        for row, begin in zip(pack.rows, pack.offsets[:-1].tolist(), strict=True):
            first, last = np.searchsorted(place_o, tokens.offsets[row : row + 2])
            states_od[first:last] = hidden_td[begin + place_o[first:last] - tokens.offsets[row]]
        if advance is not None:
            advance(pack.n_cells)
    return states_od


def _numbered(cells: AskedCells, column: str) -> tuple[list[str], NDArray[np.int64]]:
    """A column's values, and each cell's as a number."""
    names, number_c = np.unique(cells.columns[column].astype(str), return_inverse=True)
    if len(names) < 2:
        raise EvaluationError(
            f"the cells have {len(names)} value of {column} ({', '.join(names)}), expected at "
            "least 2: choose another column, or a wider part or where"
        )
    return names.tolist(), number_c.astype(np.int64)


def _chosen(
    tokens: TokenBatch, n_special: int, n_genes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Occurrences of the genes that most cells have: place, cell and rank. Shapes (o,)."""
    genes = genes_of(tokens, n_special)
    common = np.argsort(-np.bincount(genes.token_o), kind="stable")[:n_genes]
    is_common = np.isin(genes.token_o, common)
    return genes.place_o[is_common], genes.cell_o[is_common], genes.rank_o[is_common]


def _resampled(pairs: Mapping[str, ContextPairs], scores: list[Score], seed: int) -> list[Score]:
    """The scores with a bootstrap's intervals, to be shown beside the jackknife's.

    Where leaving one unit out leaves no value, a draw without it has none either: no interval.
    """
    drawn = context_scores(pairs, untrained=UNTRAINED, unit=scores[0].unit, seed=seed, few_units=2)
    return [
        again
        if np.isfinite(score.low)
        else replace(again, low=float("nan"), high=float("nan"), method=score.method)
        for score, again in zip(scores, drawn, strict=True)
    ]


def _by_rank(pairs: Mapping[str, ContextPairs], edges: NDArray[np.int64]) -> pa.Table:
    """The mean cosines of each rank bin."""
    means = {model: found.means() for model, found in pairs.items()}
    bin_s = pairs[CHECKPOINT].bin_s
    rows: list[dict[str, object]] = []
    for number in np.unique(bin_s).tolist():
        here = bin_s == number
        row: dict[str, object] = {"from rank": int(edges[number]), "strata": int(here.sum())}
        for model, (label_s, batch_s) in means.items():
            row[f"{SAME_LABEL}, {model}"] = float(np.mean(label_s[here]))
            row[f"{SAME_BATCH}, {model}"] = float(np.mean(batch_s[here]))
        rows.append(row)
    return pa.Table.from_pylist(rows)


def _verdict(scores: list[Score], label: str, batch: str) -> str:
    known = {(score.name, score.model): score for score in scores}
    ours, theirs = known[DIFFERENCE, CHECKPOINT], known[DIFFERENCE, UNTRAINED]
    return (
        f"At one rank a gene's state is {_words(ours, label, batch)}. Without training it is "
        f"{_words(theirs, label, batch)}. Training moved the difference by "
        f"{_bracketed(known[GAIN, CHECKPOINT])}."
    )


def _words(score: Score, label: str, batch: str) -> str:
    if score.low > 0:
        lead = f"more alike across {batch} inside a {label} than across {label} inside a {batch}"
    elif score.high < 0:
        lead = f"more alike across {label} inside a {batch} than across {batch} inside a {label}"
    else:
        lead = f"not told to be more alike inside a {label} or inside a {batch}"
    return f"{lead} (difference of cosines {_bracketed(score)})"


def _bracketed(score: Score) -> str:
    if not (np.isfinite(score.low) and np.isfinite(score.high)):
        return f"{score.value:+.3f}, without an interval"
    return f"{score.value:+.3f} [{score.low:+.3f}, {score.high:+.3f}]"
