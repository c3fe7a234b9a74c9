"""Finetune: what is pretraining worth for naming cells? On folds that hold donors out.

Beside the checkpoint, on the same folds and the same training cells: the same model without
pretraining, and logistic regression. Knows no corpus and no Ray: folds are handed to `run_folds`.
Array suffixes: c cell, g gene, k class.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from ...corpus.cells import CellBatch
from ...corpus.splits import folds
from ...corpus.vocabularies import Vocabulary
from ...platform.errors import EvaluationError
from ...train.checkpoints import Checkpoint, untrained_like
from ...train.encodings.tokens import TokenBatch
from ..baselines import log_normalised, logistic_regression
from ..cells import AskedCells, Units, scattered
from ..classifier import ModelArrays, finetune_and_predict
from ..figures import confusion, score_bars
from ..metrics import bootstrap_together, macro_f1, one_vs_rest_auc
from ..recipe import EvaluationRecipe
from ..results import EvaluationResult, compare, counted
from ..scores import Score

CHECKPOINT, UNTRAINED = "checkpoint", "same model without pretraining"
LOGISTIC = "logistic regression"
MACRO_F1, AUC = "macro-F1", "one-vs-rest AUC"
GAINED = "{} gained by the checkpoint"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """One fold of one model: what to learn from, what to name.

    Attributes:
        model: whose fold it is: `CHECKPOINT` or `UNTRAINED`.
        train: rows of the labelled cells to learn from.
        test: rows of the labelled cells held out.
        seed: of this fold.
    """

    model: str
    train: NDArray[np.int64]
    test: NDArray[np.int64]
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldData:
    """What all folds share, as arrays: it travels to other processes once.

    Attributes:
        models: the weights that each model begins with.
        tokens: the labelled cells, encoded.
        labels: their classes. Shape (n_cells,).
        n_classes: how many classes.
        recipe: the evaluation's.
    """

    models: dict[str, ModelArrays]
    tokens: TokenBatch
    labels: NDArray[np.int64]
    n_classes: int
    recipe: EvaluationRecipe


FoldRunner = Callable[[FoldData, Sequence[Fold]], list[NDArray[np.float64]]]
"""Runs folds, each giving class probabilities of its test cells, in the order of the folds."""


def run_fold(data: FoldData, fold: Fold) -> NDArray[np.float64]:
    """Learn and predict one fold: pure, the same bits in any process."""
    return finetune_and_predict(
        data.models[fold.model],
        _rows(data.tokens, fold.train),
        data.labels[fold.train],
        _rows(data.tokens, fold.test),
        data.recipe,
        n_classes=data.n_classes,
        seed=fold.seed,
    )


def run_here(data: FoldData, work: Sequence[Fold]) -> list[NDArray[np.float64]]:
    """Run folds one after the other in this process."""
    return [run_fold(data, fold) for fold in work]


def finetune(
    checkpoint: Checkpoint,
    cells: AskedCells,
    units: Units,
    recipe: EvaluationRecipe,
    *,
    run_folds: FoldRunner = run_here,
) -> EvaluationResult:
    """Fine-tune for a label on folds.

    Args:
        checkpoint: the pretrained model.
        cells: cells it has not seen, with the column `recipe.label`.
        units: what is held out: one fold a donor, or folds of cells where cells are the units.
        recipe: what is asked.
        run_folds: who runs the folds.

    Raises:
        EvaluationError: fewer than two labels are left.
    """
    kept, classes, notes = _labelled(checkpoint, cells, units, recipe)
    labels_text = cells.columns[recipe.label][kept]
    number = {name: place for place, name in enumerate(classes)}
    labels = np.array([number[str(name)] for name in labels_text], dtype=np.int64)
    tokens = _rows(cells.tokens, kept)
    groups = None if units.are_cells else [units.names[unit] for unit in units.unit_c[kept]]
    fold_c = folds(
        [str(name) for name in labels_text],
        groups,
        recipe.finetune.n_folds,
        tokens.keys,
        recipe.seed,
    )
    parts = [_part(tokens.keys, fold_c, fold, recipe) for fold in np.unique(fold_c)]
    expression = _expression(cells.batches, checkpoint.vocabulary)[kept]
    n_special = len(checkpoint.vocabulary.special)
    untrained = untrained_like(checkpoint, recipe.seed)
    data = FoldData(
        models={
            CHECKPOINT: ModelArrays.of(checkpoint.model, n_special),
            UNTRAINED: ModelArrays.of(untrained.model, n_special),
        },
        tokens=tokens,
        labels=labels,
        n_classes=len(classes),
        recipe=recipe,
    )
    work = [
        Fold(model=model, train=train, test=test, seed=recipe.seed + place)
        for model in (CHECKPOINT, UNTRAINED)
        for place, (train, test) in enumerate(parts)
    ]
    found = run_folds(data, work)
    predictions = {model: np.zeros((len(labels), len(classes))) for model in data.models}
    for fold, probabilities in zip(work, found, strict=True):
        predictions[fold.model][fold.test] = probabilities
    predictions[LOGISTIC] = np.zeros((len(labels), len(classes)))
    for train, test in parts:
        predictions[LOGISTIC][test] = logistic_regression(
            expression[train], labels[train], expression[test], n_classes=len(classes)
        )
    scores = _scores(labels, fold_c, predictions, units, recipe)
    return EvaluationResult(
        task="finetune",
        verdict=_verdict(scores),
        scores=tuple(scores.values()),
        tables={
            "folds": _fold_table(labels, predictions, groups, parts),
            "labels": _label_table(labels, predictions, classes),
        },
        figures={
            "finetune": score_bars(list(scores.values()), (MACRO_F1, AUC)),
            "confusion": confusion(
                _confusion(labels, predictions[CHECKPOINT]), classes, "checkpoint, held-out cells"
            ),
        },
        notes=tuple(notes),
    )


def _labelled(
    checkpoint: Checkpoint, cells: AskedCells, units: Units, recipe: EvaluationRecipe
) -> tuple[NDArray[np.int64], list[str], list[str]]:
    """Rows with a usable label and a gene, the labels, and what was left out."""
    label = recipe.label
    names_c = cells.columns[label]
    n_special = len(checkpoint.vocabulary.special)
    has_gene = np.array([(cells.tokens.cell(c) >= n_special).any() for c in range(cells.n_cells)])
    named = np.array([name is not None for name in names_c]) & has_gene
    n_folds = recipe.finetune.n_folds if units.are_cells else units.n_units
    sizes = Counter(str(name) for name in names_c[named])
    classes = sorted(name for name, size in sizes.items() if size >= n_folds)
    if len(classes) < 2:
        raise EvaluationError(
            f"{counted(len(classes), 'value')} of {label} with at least {n_folds} cells (one a "
            f"fold), expected 2 or more; the cells have {dict(sizes)}"
        )
    rare = sorted(set(sizes) - set(classes))
    usable = named & np.isin(names_c.astype(str), classes)
    notes = [
        f"{counted(int(usable.sum()), 'cell')} of {len(classes)} labels, at most "
        f"{recipe.finetune.cells_per_label} of a label"
        + ("" if units.are_cells else " and donor")
        + f"; at most {recipe.finetune.train_cells} to learn from in a fold",
        f"folds: {n_folds} stratified folds of {units.note}"
        if units.are_cells
        else f"folds: each of {n_folds} {units.word} held out once",
    ]
    if rare:
        size = sum(sizes[name] for name in rare)
        notes.append(
            f"left out: {counted(len(rare), 'label')} ({', '.join(rare)}; "
            f"{counted(size, 'cell')}) with fewer cells than folds"
        )
    if (unlabelled := int((~named).sum())) > 0:
        notes.append(f"left out: {counted(unlabelled, 'cell')} without {label} or without a gene")
    if recipe.finetune.frozen_layers:
        notes.append(
            f"frozen_layers = {recipe.finetune.frozen_layers} in the pretrained and the fresh model"
        )
    return np.flatnonzero(usable), classes, notes


def _part(
    keys_c: NDArray[np.uint64], fold_c: NDArray[np.int64], fold: int, recipe: EvaluationRecipe
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = scattered(keys_c, recipe.seed)
    train = order[fold_c[order] != fold][: recipe.finetune.train_cells]
    return np.sort(train), np.flatnonzero(fold_c == fold)


def _expression(batches: Sequence[CellBatch], vocabulary: Vocabulary) -> sparse.csr_matrix:
    """log1p CP10k of the vocabulary's genes, all cells; an unmeasured gene is taken as 0."""
    parts: list[sparse.csr_matrix] = []
    for batch in batches:
        tokens_g = vocabulary.tokens_of(batch.gene_ids)
        known = np.flatnonzero(tokens_g >= 0)
        to_token = sparse.csr_matrix(
            (np.ones(len(known)), (known, tokens_g[known])), shape=(batch.n_genes, vocabulary.size)
        )
        counts_cv = sparse.csr_matrix(batch.to_csr() @ to_token)
        parts.append(log_normalised(counts_cv, batch.n_counts))
    return sparse.csr_matrix(sparse.vstack(parts))


def _scores(
    labels: NDArray[np.int64],
    fold_c: NDArray[np.int64],
    predictions: dict[str, NDArray[np.float64]],
    units: Units,
    recipe: EvaluationRecipe,
) -> dict[tuple[str, str], Score]:
    """Scores are means over folds; with donors the fold is the unit, else the cell.

    What the checkpoint gains is resampled as a difference, for all are scored on the same cells.
    """
    models = list(predictions)
    others = [models.index(model) for model in (UNTRAINED, LOGISTIC)]
    names = [(name, model) for name in (MACRO_F1, AUC) for model in models]
    names += [(GAINED.format(name), models[o]) for name in (MACRO_F1, AUC) for o in others]

    def measured(rows: NDArray[np.int64]) -> list[float]:
        truth, found = labels[rows], [predictions[model][rows] for model in models]
        f1 = [macro_f1(truth, scores.argmax(axis=1)) for scores in found]
        auc = [one_vs_rest_auc(truth, scores) for scores in found]
        ours = models.index(CHECKPOINT)
        return [
            *f1,
            *auc,
            *(f1[ours] - f1[o] for o in others),
            *(auc[ours] - auc[o] for o in others),
        ]

    numbers = np.unique(fold_c)
    if units.are_cells:
        n_units = len(labels)

        def statistics(cells: NDArray[np.int64]) -> list[float]:
            here = [cells[fold_c[cells] == fold] for fold in numbers]
            return _means([measured(rows) for rows in here if len(rows)])
    else:
        n_units = len(numbers)
        per_fold = [measured(np.flatnonzero(fold_c == fold)) for fold in numbers]

        def statistics(cells: NDArray[np.int64]) -> list[float]:
            return _means([per_fold[fold] for fold in cells])

    scores = bootstrap_together(statistics, n_units, names=names, unit=units.word, seed=recipe.seed)
    return dict(zip(names, scores, strict=True))


def _means(rows: Sequence[Sequence[float]]) -> list[float]:
    """Means over folds; folds without a value (an AUC of one label) are left out."""
    values = np.array(rows)
    known = np.isfinite(values)
    totals = np.where(known, values, 0.0).sum(axis=0)
    return [
        float(t / n) if n else float("nan") for t, n in zip(totals, known.sum(axis=0), strict=True)
    ]


def _fold_table(
    labels: NDArray[np.int64],
    predictions: dict[str, NDArray[np.float64]],
    groups: Sequence[str] | None,
    parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> pa.Table:
    rows = [
        {
            "held out": f"fold {place + 1}" if groups is None else groups[int(test[0])],
            "cells": len(test),
            "training cells": len(train),
            "model": model,
            MACRO_F1: macro_f1(labels[test], found[test].argmax(axis=1)),
            AUC: one_vs_rest_auc(labels[test], found[test]),
        }
        for place, (train, test) in enumerate(parts)
        for model, found in predictions.items()
    ]
    return pa.Table.from_pylist(rows)


def _label_table(
    labels: NDArray[np.int64], predictions: dict[str, NDArray[np.float64]], classes: Sequence[str]
) -> pa.Table:
    rows: list[dict[str, object]] = []
    for place, name in enumerate(classes):
        row: dict[str, object] = {"label": name, "cells": int((labels == place).sum())}
        for model, found in predictions.items():
            counts = _confusion(labels, found)
            both = counts[place].sum() + counts[:, place].sum()
            row[f"F1, {model}"] = float(2 * counts[place, place] / both)
        rows.append(row)
    return pa.Table.from_pylist(rows)


def _confusion(labels: NDArray[np.int64], found: NDArray[np.float64]) -> NDArray[np.int64]:
    n_classes = found.shape[1]
    flat = labels * n_classes + found.argmax(axis=1)
    return np.bincount(flat, minlength=n_classes**2).reshape(n_classes, n_classes)


def _verdict(scores: dict[tuple[str, str], Score]) -> str:
    ahead = GAINED.format(MACRO_F1)
    return (
        f"In {MACRO_F1} the checkpoint reaches {scores[MACRO_F1, CHECKPOINT].text}. Against "
        f"{UNTRAINED} it is {compare(scores[ahead, UNTRAINED])}; against {LOGISTIC} it is "
        f"{compare(scores[ahead, LOGISTIC])}."
    )


def _rows(tokens: TokenBatch, rows: NDArray[np.int64]) -> TokenBatch:
    """Some cells of a batch."""
    return TokenBatch.of_cells(
        [tokens.cell(int(row)) for row in rows],
        keys=tokens.keys[rows],
        cell_ids=tokens.cell_ids[rows],
    )
