"""Ask a checkpoint a question about cells of a corpus, and log the answer as a run.

Joins corpus, checkpoint, task and tracker. Folds run as Ray tasks where a Ray session is open
and no GPU is there; elsewhere in this process, with the same bits. Knows no question itself.
"""

import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from numpy.typing import NDArray
from rich.console import Console

from ..platform.configuration import flat
from ..platform.errors import EvaluationError, did_you_mean
from ..platform.progress import progress
from ..platform.settings import Settings
from ..platform.tracking import Tracker, open_run
from ..train.model_names import find_model
from .cells import scattered, thinned, units_of
from .embeddings import arithmetic_threads
from .question import Question, prepare
from .recipe import EvaluationRecipe
from .results import EvaluationResult, counted
from .scores import scores_table
from .tasks.contexts import contexts
from .tasks.finetune import Fold, FoldData, finetune, run_fold, run_here
from .tasks.masked import masked
from .tasks.perturb import perturb


def evaluate(
    corpus_uri: str,
    recipe: EvaluationRecipe,
    settings: Settings,
    *,
    tracker: Tracker | None = None,
    parent: str | None = None,
    snapshot: int | str | None = None,
    console: Console | None = None,
) -> EvaluationResult:
    """Ask a question and log the answer.

    Args:
        corpus_uri: the corpus that holds the cells.
        recipe: all that decides the question.
        settings: where runs live.
        tracker: an open run, told everything and finished here; a new one where None.
        parent: id of the run that the new one is nested in.
        snapshot: number or tag of the one to read; where None, the one that the model was trained
            on, or the newest where that was another corpus.
        console: where progress is shown.

    Raises:
        CheckpointError: there is no such model, or it is damaged.
        EvaluationError: the question cannot be asked of these cells.
        CytolakeError: whatever the corpus has to say.
    """
    place = find_model(recipe.model, settings)
    if tracker is None:
        tracker = open_run(settings.tracking_uri, recipe.name, parent=parent)
    try:
        question = prepare(corpus_uri, recipe, place, snapshot)
        question.corpus.record_use(
            "evaluate",
            recipe.name,
            where=recipe.where,
            part=recipe.part,
            uri=f"runs:/{tracker.run_id}",
            details={"task": recipe.task, "checkpoint": str(question.place)},
        )
        _log_question(tracker, question, recipe, corpus_uri)
        with arithmetic_threads(recipe.threads):
            result = _answer(question, recipe, console)
        result = replace(result, notes=(*question.notes, *result.notes), run_id=tracker.run_id)
        _log_answer(tracker, result)
    except KeyboardInterrupt:
        tracker.finish("KILLED")
        raise
    except Exception:
        tracker.finish("FAILED")
        raise
    tracker.finish("FINISHED")
    return result


def _answer(
    question: Question, recipe: EvaluationRecipe, console: Console | None
) -> EvaluationResult:
    if recipe.task == "masked":
        return _masked(question, recipe, console)
    if recipe.task == "finetune":
        return _finetune(question, recipe, console)
    if recipe.task == "contexts":
        return _contexts(question, recipe, console)
    return _perturb(question, recipe, console)


def _masked(
    question: Question, recipe: EvaluationRecipe, console: Console | None
) -> EvaluationResult:
    rows, unit_names, note = question.rows_with_units(recipe.unit)
    order = scattered(question.selection.content_key[rows], recipe.seed)
    chosen = np.sort(order[: recipe.masked.n_cells])
    cells = question.read(rows[chosen])
    learnt = question.pretraining_cells(
        most=recipe.masked.n_baseline_cells, seed=recipe.seed, columns=(recipe.unit,)
    )
    units = units_of(unit_names[chosen], recipe.unit)
    with progress("masked genes", cells.n_cells, "cells", console=console) as bar:
        result = masked(
            question.checkpoint,
            cells,
            units,
            learnt.tokens,
            recipe,
            pretraining_units=learnt.columns[recipe.unit],
            advance=bar.advance,
        )
    return replace(result, notes=(*result.notes, *note))


def _finetune(
    question: Question, recipe: EvaluationRecipe, console: Console | None
) -> EvaluationResult:
    label = recipe.label
    rows, unit_names, note = question.rows_with_units(recipe.unit)
    labels = question.column(label)[rows]
    groups = list(zip(unit_names, labels, strict=True))
    if len({name for name in unit_names if name is not None}) < 2:
        groups = [(None, name) for name in labels]
    keys = question.selection.content_key[rows]
    chosen = thinned(groups, keys, most=recipe.finetune.cells_per_label, seed=recipe.seed)
    cells = question.read(rows[chosen], (label,))
    units = units_of(unit_names[chosen], recipe.unit)
    n_folds = recipe.finetune.n_folds if units.are_cells else units.n_units
    with progress("fine-tuning", 2 * n_folds, "folds", console=console) as bar:

        def run_folds(data: FoldData, work: Sequence[Fold]) -> list[NDArray[np.float64]]:
            if _ray_is_up() and not torch.cuda.is_available():
                return _with_ray(data, work, bar.advance)
            found: list[NDArray[np.float64]] = []
            for fold in work:
                found += run_here(data, [fold])
                bar.advance(1)
            return found

        result = finetune(question.checkpoint, cells, units, recipe, run_folds=run_folds)
    return replace(result, notes=(*result.notes, *note))


def _perturb(
    question: Question, recipe: EvaluationRecipe, console: Console | None
) -> EvaluationResult:
    settings = recipe.perturb
    labels = question.column(recipe.label)
    sizes = Counter(str(name) for name in labels if name is not None)
    value = settings.value or (sizes.most_common(1)[0][0] if sizes else "")
    if value not in sizes:
        raise EvaluationError(
            f"no cell with {recipe.label} = {value!r}{did_you_mean(value, sizes)}; "
            f"the cells have {', '.join(sorted(sizes)) or 'no value'}"
        )
    rows = np.flatnonzero(labels == value)
    order = scattered(question.selection.content_key[rows], recipe.seed)
    cells = question.read(np.sort(rows[order[: settings.n_cells]]))
    genes = question.corpus.sql("SELECT gene_id, symbol FROM genes")
    symbols = dict(
        zip(genes.column("gene_id").to_pylist(), genes.column("symbol").to_pylist(), strict=True)
    )
    n_genes = int((cells.tokens.tokens >= len(question.checkpoint.vocabulary.special)).sum())
    with progress("deleting genes", 2 * n_genes, "deletions", console=console) as bar:
        return perturb(
            question.checkpoint,
            cells,
            recipe,
            symbols=symbols,
            what=f"{recipe.label} {value}",
            advance=bar.advance,
        )


def _contexts(
    question: Question, recipe: EvaluationRecipe, console: Console | None
) -> EvaluationResult:
    settings = recipe.contexts
    rows, unit_names, note = question.rows_with_units(recipe.unit)
    labels, batches = question.column(recipe.label)[rows], question.column(settings.batch)[rows]
    known = np.array([None not in pair for pair in zip(labels, batches, strict=True)], dtype=bool)
    notes = list(note)
    if not known.all():
        left_out = counted(int((~known).sum()), "cell")
        notes.append(f"left out: {left_out} without {recipe.label} or {settings.batch}")
    rows, unit_names = rows[known], unit_names[known]
    groups = list(zip(labels[known], batches[known], strict=True))
    keys = question.selection.content_key[rows]
    chosen = thinned(groups, keys, most=settings.cells_per_group, seed=recipe.seed)
    cells = question.read(rows[chosen], tuple(dict.fromkeys((recipe.label, settings.batch))))
    units = units_of(unit_names[chosen], recipe.unit)
    with progress("contexts of genes", 2 * cells.n_cells, "cells", console=console) as bar:
        result = contexts(question.checkpoint, cells, units, recipe, advance=bar.advance)
    return replace(result, notes=(*result.notes, *notes))


def _ray_is_up() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _with_ray(
    data: FoldData, work: Sequence[Fold], advance: Callable[[int], object]
) -> list[NDArray[np.float64]]:
    """Run folds as Ray tasks, one core each."""
    import ray

    remote = ray.remote(num_cpus=data.recipe.threads)(run_fold)
    shared = ray.put(data)
    waiting = [remote.remote(shared, fold) for fold in work]
    left = list(waiting)
    while left:
        done, left = ray.wait(left)
        advance(len(done))
    return ray.get(waiting)


def _log_question(
    tracker: Tracker, question: Question, recipe: EvaluationRecipe, corpus_uri: str
) -> None:
    info = question.checkpoint.info
    tracker.log_parameters(
        {
            **flat(recipe.model_dump(mode="json")),
            "checkpoint": str(question.place),
            "checkpoint.run_id": info.run_id,
            "checkpoint.step": info.step,
            "corpus.uuid": question.corpus.uuid,
            "corpus.snapshot": question.corpus.snapshot,
            "vocabulary.digest": info.vocabulary_digest,
            "medians.digest": info.medians_digest,
        }
    )
    tracker.log_text(recipe.model_dump_json(indent=2), "recipe.json")
    tracker.log_dataset(
        name=f"{recipe.name}-cells",
        source=f"{corpus_uri}@{question.corpus.snapshot} WHERE {recipe.where} PART {recipe.part}",
        digest=question.selection.digest,
        context="evaluation",
        n_rows=question.selection.n_cells,
    )
    tracker.set_tags({"task": recipe.task})


def _log_answer(tracker: Tracker, result: EvaluationResult) -> None:
    metrics: dict[str, float] = {}
    for score in result.scores:
        name = re.sub(r"[^\w\-. /]", "", f"{score.model}/{score.name}")
        for end, value in (("", score.value), ("/low", score.low), ("/high", score.high)):
            if np.isfinite(value):
                metrics[name + end] = value
    tracker.log_metrics(metrics)
    tracker.log_text("\n\n".join([result.verdict, *result.notes]) + "\n", "verdict.txt")
    scores = json.dumps([asdict(score) for score in result.scores], indent=2)
    tracker.log_text(scores, "scores.json")
    for name, table in {"scores": scores_table(result.scores), **result.tables}.items():
        tracker.log_text(_csv(table), f"tables/{name}.csv")
    for name, figure in result.figures.items():
        tracker.log_figure(figure, f"plots/{name}.png")


def _csv(table: pa.Table) -> str:
    target = io.BytesIO()
    pyarrow.csv.write_csv(table, target)
    return target.getvalue().decode()
