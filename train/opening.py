"""What the tracking store is told of a run's start: settings, cells, genes. Knows no store.

It is kept in the run's folder until the store was told, so it is all that JSON can hold.
"""

from collections.abc import Mapping

from ..corpus.medians import MediansSet
from ..corpus.stream import Selection
from ..corpus.vocabularies import Vocabulary
from ..platform.configuration import flat
from .recipe import PretrainRecipe
from .runs import Run
from .worker import versions


def opening_of(
    run: Run,
    recipe: PretrainRecipe,
    vocabulary: Vocabulary,
    medians: MediansSet,
    held_out: Selection | None,
    remarks: Mapping[str, object],
) -> dict[str, object]:
    """Parameters, texts, files of the run's folder and data sets.

    Args:
        run: what it was started with.
        recipe: all that decides it.
        vocabulary: its tokens.
        medians: its medians.
        held_out: the cells it is validated on; None for none.
        remarks: more parameters, of what was found out before the start.
    """
    parameters = {
        **flat(run.recipe),
        "corpus.uuid": run.corpus_uuid,
        "corpus.snapshot": run.snapshot,
        "corpus.n_cells": run.n_cells,
        "vocabulary.size": vocabulary.size,
        "vocabulary.digest": vocabulary.digest,
        "medians.digest": medians.digest,
        **remarks,
        **{f"version.{name}": value for name, value in versions().items()},
    }
    seen = recipe.data.part
    datasets = [_dataset(run, "cells", seen, run.selection_digest, "pretraining", run.n_cells)]
    if held_out is not None:
        unseen, n_cells = recipe.validation.part, held_out.n_cells
        parameters["validation.n_cells"] = n_cells
        parameters["validation.selection_digest"] = held_out.digest
        datasets.append(_dataset(run, "held-out", unseen, held_out.digest, "validation", n_cells))
    return {
        "parameters": parameters,
        "texts": {"recipe.json": recipe.model_dump_json(indent=2)},
        "files": ["vocabulary.json", "medians.json"],
        "datasets": datasets,
    }


def _dataset(
    run: Run, what: str, part: str | None, digest: str, context: str, n_cells: int
) -> dict[str, object]:
    where = run.pretrain_recipe.data.where
    return {
        "name": f"{run.name}-{what}",
        "source": f"{run.corpus_uri}@{run.snapshot} WHERE {where} PART {part}",
        "digest": digest,
        "context": context,
        "n_rows": n_cells,
    }
