"""EvaluationRecipe: all that decides an evaluation, parsed once and frozen.

Knows no corpus, no torch and no model. Shipped recipes lie in `recipes/*.toml`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from ..platform.configuration import Configuration
from ..platform.recipes import read_recipe


class MaskedRecipe(Configuration):
    """Guess genes that are hidden.

    Attributes:
        n_cells: the most cells that are asked.
        n_baseline_cells: the most pretraining cells that the baselines count genes in.
    """

    n_cells: int = Field(default=1000, ge=1)
    n_baseline_cells: int = Field(default=20_000, ge=1)


class FinetuneRecipe(Configuration):
    """Learn the label, on folds that hold units out.

    Attributes:
        n_folds: stratified folds of cells, where there are no units to hold out.
        cells_per_label: the most cells of one label in one unit (in all, where there are none):
            rare labels stay whole, common ones are thinned.
        train_cells: the most training cells of a fold, drawn alike for every model.
        frozen_layers: 0 trains everything; k keeps embeddings and the first k layers as they
            are; -k all but the last k layers. The same for pretrained and fresh weights.
        epochs: passes over the training cells.
        cells_per_step: cells of one optimizer step.
        peak_lr: AdamW's learning rate of the encoder after a warm-up of a tenth of the steps; then
            linear to 0.
        head_lr: the same for the fresh linear head.
        weight_decay: AdamW's.
    """

    n_folds: int = Field(default=3, ge=2)
    cells_per_label: int = Field(default=60, ge=1)
    train_cells: int = Field(default=400, ge=2)
    frozen_layers: int = 0
    epochs: int = Field(default=4, ge=1)
    cells_per_step: int = Field(default=16, ge=1)
    peak_lr: float = Field(default=3e-3, gt=0)
    head_lr: float = Field(default=1e-2, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)


class PerturbRecipe(Configuration):
    """Delete every gene of some cells of one label, one at a time.

    Attributes:
        value: the label's value, such as a cell type; the one with the most cells where empty.
        n_cells: how many cells are screened.
        layer: which hidden states are pooled, as Hugging Face counts: -2 is the last but one.
        min_cells: genes deleted in fewer cells get no statistic; they are counted.
        min_peers: deletions of other genes wanted at a rank; ranks beside are taken in until
            there are so many.
    """

    value: str = ""
    n_cells: int = Field(default=16, ge=3)
    layer: int = -2
    min_cells: int = Field(default=3, ge=3)
    min_peers: int = Field(default=50, ge=2)


class ContextsRecipe(Configuration):
    """Compare the states of a gene's occurrences across batches and across labels.

    Attributes:
        batch: the column of `cells` that names the batch: `technical_batch`, `donor_id`,
            `source_id`.
        cells_per_group: the most cells of one label in one batch: common labels are thinned.
        n_genes: how many genes are compared: those that most of the cells have.
        layer: which hidden states, as Hugging Face counts: -2 is the last but one.
    """

    batch: str = "donor_id"
    cells_per_group: int = Field(default=20, ge=1)
    n_genes: int = Field(default=500, ge=1)
    layer: int = -2


class EvaluationRecipe(Configuration):
    """An evaluation, whole.

    Attributes:
        name: what the run is called.
        task: the question.
        model: a run's name or id, or a checkpoint's folder; the newest run's where empty.
        part: which part of the checkpoint's split is asked; all cells where None.
        where: a WHERE clause over the view `cells`, within the part.
        seen_cells: what to do when cells were pretrained on: `refuse`, or `use` them.
        unit: the column of `cells` that names the independent unit, which intervals are over;
            cells take its place, and the answer says so, where fewer than two are named.
        label: the column of `cells` that is learnt, that names the cells to perturb, or across
            which a gene's states are compared.
        length: the most tokens of a cell; the checkpoint's where None.
        pack_tokens: the most tokens that go through the model at a time.
        threads: arithmetic threads. With 1 the same bits come out with Ray and without.
        seed: of masks, folds, fresh weights and resampling.
    """

    name: str
    task: Literal["masked", "finetune", "perturb", "contexts"]
    model: str = ""
    part: str | None = "evaluation"
    where: str | None = None
    seen_cells: Literal["refuse", "use"] = "refuse"
    unit: str = "donor_id"
    label: str = "cell_type"
    length: int | None = Field(default=None, ge=2)
    pack_tokens: int = Field(default=8192, ge=2)
    threads: int = Field(default=1, ge=1)
    seed: int = Field(default=42, ge=0)
    masked: MaskedRecipe = MaskedRecipe()
    finetune: FinetuneRecipe = FinetuneRecipe()
    perturb: PerturbRecipe = PerturbRecipe()
    contexts: ContextsRecipe = ContextsRecipe()


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> EvaluationRecipe:
    """Read a recipe.

    Args:
        name_or_path: a file, or the name of a shipped recipe.
        overrides: `a.b=value` settings laid over the file.

    Raises:
        RecipeError: no such recipe, or something in it is not understood.
    """
    return read_recipe(str(name_or_path), EvaluationRecipe, verb="evaluate", overrides=overrides)
