"""PretrainRecipe: all that decides a pretraining, parsed once and frozen.

Knows no corpus, no torch and no engine. Shipped recipes lie in `recipes/*.toml`.
"""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..corpus.splits import Split
from ..platform.configuration import Configuration
from ..platform.errors import did_you_mean
from ..platform.recipes import read_recipe
from .families import FAMILIES
from .model_recipe import EncodingRecipe, ModelRecipe


def _either(values: Any, usual: str, other: str, *, default: int) -> Any:
    """Settings with at least one of two that exclude each other: `usual` where neither is given."""
    if not isinstance(values, dict):
        return values
    given = [name for name in (usual, other) if values.get(name) is not None]
    if len(given) == 2:
        raise ValueError(f"has both {usual} and {other}; take one of them out of the recipe")
    return values if given else {**values, usual: default}


class DataRecipe(Configuration):
    """Which cells are learnt from.

    Attributes:
        where: a WHERE clause over the view `cells`; all primary cells where None.
        part: the part of the recipe's split that may be seen; all parts where None.
        cap_per_tissue: the greatest share of one tissue; Geneformer let none be above 0.25.
    """

    where: str | None = None
    part: str | None = None
    cap_per_tissue: float | None = Field(default=None, gt=0, le=1)


class VocabularyRecipe(Configuration):
    """Which genes are tokens, and their medians.

    Attributes:
        set: `corpus` (medians of the selected cells, frozen; tokens are the protein-coding and
            microRNA genes that have one), an official set: `geneformer-v1`, `geneformer-v2`, or
            `checkpoint`: that of the model which `[start]` names, and what a recipe with `[start]`
            means where it says nothing.
        medians: with `corpus`, a file that `cytolake medians` has made, in place of the medians of
            the selected cells.
    """

    set: Literal["corpus", "geneformer-v1", "geneformer-v2", "checkpoint"] = "corpus"
    medians: str | None = None

    @model_validator(mode="after")
    def _medians_of_a_corpus(self) -> Self:
        if self.medians is not None and self.set != "corpus":
            raise ValueError(f'`medians` goes with set = "corpus": {self.set} has its own')
        return self


class StartRecipe(Configuration):
    """Whose weights a run begins with.

    Attributes:
        checkpoint: a checkpoint's or run's folder, or the name or tracking id of a run; fresh
            weights where None.
        moments: begin with its optimizer's moments too: for more of the same. On other cells they
            are of gradients that are gone.
    """

    checkpoint: str | None = None
    moments: bool = False

    @model_validator(mode="after")
    def _moments_of_a_checkpoint(self) -> Self:
        if self.moments and self.checkpoint is None:
            raise ValueError("moments = true, but no `checkpoint` is named to take them from")
        return self


class ObjectiveRecipe(Configuration):
    """What is hidden from the model.

    Attributes:
        share: the share of a cell's tokens that is chosen.
        masked: of these, the share that becomes `<mask>`.
        random: of these, the share that becomes another gene; the rest stays.
    """

    share: float = Field(default=0.15, gt=0, le=1)
    masked: float = Field(default=0.8, ge=0, le=1)
    random: float = Field(default=0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _shares_of_one_whole(self) -> Self:
        if self.masked + self.random > 1 + 1e-9:  # 0.7 + 0.2 + 0.1 is a little more than 1
            raise ValueError(
                f"masked = {self.masked} and random = {self.random} are more than 1 together; "
                "both are shares of the chosen tokens, and the rest of them stays"
            )
        return self


class TrainingRecipe(Configuration):
    """How much is learnt, in which steps.

    Attributes:
        seed: of weights, order, masks and dropout.
        epochs: passes over the cells; used where `steps` is None.
        steps: number of optimizer steps.
        cells_per_step: the global batch: cells of one optimizer step over all workers; 144 where
            neither this nor `tokens_per_step` is given.
        tokens_per_step: the global batch as real tokens, instead: made whole groups of cells at the
            first start, by the mean number of tokens of a cell, and the same from then on.
        cells_per_group: cells that are read, packed and dealt to a worker together.
        pack_tokens: the most tokens of one pack; at least the encoding's length.
        layout: `packed`: cells end to end, without padding; or `padded`, one cell a row, cells
            of like lengths together: the parity mode, which has the paper's attention dropout.
        precision: `fp32`; `bf16` for the model's arithmetic (weights stay fp32); or `auto`: bf16
            where each worker has a GPU that does it, else fp32, settled at the first launch.
        bad_steps: so many steps in a row whose gradient is not finite end the run; such a step
            changes nothing.
        log_seconds: how often metrics are written.
        max_hours: hours after which a launch stops with a checkpoint; the same command goes on.
    """

    either: ClassVar[tuple[str, ...]] = ("cells_per_step", "tokens_per_step")

    seed: int = Field(default=42, ge=0)
    epochs: float = Field(default=3, gt=0)
    steps: int | None = Field(default=None, ge=1)
    cells_per_step: int | None = Field(default=None, ge=1)
    tokens_per_step: int | None = Field(default=None, ge=1)
    cells_per_group: int = Field(default=12, ge=1)
    pack_tokens: int = Field(default=8192, ge=2)
    layout: Literal["packed", "padded"] = "packed"
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    bad_steps: int = Field(default=5, ge=1)
    log_seconds: float = Field(default=5, ge=0)
    max_hours: float | None = Field(default=None, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _one_global_batch(cls, values: Any) -> Any:
        return _either(values, *cls.either, default=144)

    @property
    def groups_per_step(self) -> int | None:
        """Groups of one optimizer step; None where the cells' lengths decide."""
        return None if self.cells_per_step is None else self.cells_per_step // self.cells_per_group


class ValidationRecipe(Configuration):
    """Held-out cells that are looked at now and then; nothing is learnt from them.

    Attributes:
        part: a part of the recipe's split, other than `data.part`; no validation where None.
        every_steps: steps between validations; only at checkpoints, where it is always done, if
            None.
        cells: the most cells looked at: the same ones every time.
    """

    part: str | None = None
    every_steps: int | None = Field(default=None, ge=1)
    cells: int = Field(default=5_000, ge=1)


class OptimizerRecipe(Configuration):
    """AdamW and the course of its learning rate.

    A `--set` of one of `warmup_steps` and `warmup_ratio` takes the other's place.

    Attributes:
        peak_lr: learning rate after the warm-up.
        schedule: `linear` or `cosine` decay to 0 at the last step, or `constant`.
        warmup_steps: steps of linear warm-up from 0; 10,000 where neither this nor `warmup_ratio`
            is given.
        warmup_ratio: the same as a share of all steps, instead.
        betas: decay of the two moments.
        epsilon: AdamW's epsilon.
        weight_decay: decoupled decay, of matrices only (no biases, no layer norms).
        clip: largest global norm of a step's gradient; 0 for none.
    """

    either: ClassVar[tuple[str, ...]] = ("warmup_steps", "warmup_ratio")

    peak_lr: float = Field(default=1e-3, gt=0)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int | None = Field(default=None, ge=0)
    warmup_ratio: float | None = Field(default=None, ge=0, le=1)
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.001, ge=0)
    clip: float = Field(default=1.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _one_warmup(cls, values: Any) -> Any:
        return _either(values, *cls.either, default=10_000)

    def warmup(self, n_steps: int) -> int:
        """Steps of warm-up of a run of `n_steps`; a ratio is rounded up, as Hugging Face does."""
        if self.warmup_ratio is not None:
            return ceil(self.warmup_ratio * n_steps)
        return self.warmup_steps or 0


class EngineRecipe(Configuration):
    """What runs the steps.

    Attributes:
        kind: `deepspeed` or `torch`. `torch` with one worker runs in the calling process,
            without Ray.
        zero_stage: DeepSpeed's ZeRO stage: 0 or 1.
        workers: number of worker processes.
        threads: arithmetic threads of each.
        retries: how often lost workers are replaced before the run fails.
    """

    kind: Literal["deepspeed", "torch"] = "deepspeed"
    zero_stage: Literal[0, 1] = 1
    workers: int = Field(default=2, ge=1)
    threads: int = Field(default=1, ge=1)
    retries: int = Field(default=2, ge=0)

    @field_validator("zero_stage", mode="before")
    @classmethod
    def _a_stage_that_resumes(cls, value: Any) -> Any:
        if str(value) in ("2", "3"):
            raise ValueError(
                "ZeRO 2 and 3 are not offered: they speak with the other ranks in every pack's "
                "backward pass, and ranks have unequal numbers. Tried, a step aborts (2) or "
                "never ends (3), so there is nothing to resume. Take --set engine.zero_stage=1; "
                "where memory is short, a smaller training.pack_tokens"
            )
        return value


class CheckpointRecipe(Configuration):
    """What is kept for resuming.

    Attributes:
        every_steps: steps between checkpoints; one is always made at the end.
        keep: how many of the newest are kept.
        keep_best: whether the best by validation loss is kept besides, where there is validation.
    """

    every_steps: int = Field(default=1000, ge=1)
    keep: int = Field(default=2, ge=1)
    keep_best: bool = True


class PlanRecipe(Configuration):
    """What `--plan` reckons with; nothing of it decides what a run does.

    Attributes:
        mfu: the share of the peak that is reached, in the model's own operations.
        peak_tflops: dense TFLOP/s of one GPU at the recipe's precision; where None those of an
            H200, which are an H100 SXM's, too (`peak.KNOWN`).
    """

    mfu: float = Field(default=0.35, gt=0, le=1)
    peak_tflops: float | None = Field(default=None, gt=0)


class PretrainRecipe(Configuration):
    """A pretraining, whole.

    Attributes:
        name: what the run is called, where the caller gives no other name.
        family: a row of `train.families`.
        split: how the corpus is cut into parts; stored in the checkpoint for evaluation.
    """

    name: str
    family: str = "geneformer"
    data: DataRecipe = DataRecipe()
    start: StartRecipe = StartRecipe()
    split: Split | None = None
    vocabulary: VocabularyRecipe = VocabularyRecipe()
    encoding: EncodingRecipe = EncodingRecipe()
    model: ModelRecipe = ModelRecipe()
    objective: ObjectiveRecipe = ObjectiveRecipe()
    training: TrainingRecipe = TrainingRecipe()
    validation: ValidationRecipe = ValidationRecipe()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    engine: EngineRecipe = EngineRecipe()
    checkpoints: CheckpointRecipe = CheckpointRecipe()
    plan: PlanRecipe = PlanRecipe()

    @model_validator(mode="before")
    @classmethod
    def _vocabulary_of_the_start(cls, values: Any) -> Any:
        """A run that starts from a checkpoint has its vocabulary, where the recipe is silent."""
        if isinstance(values, dict) and not values.get("vocabulary"):
            start = values.get("start")
            named = start.get("checkpoint") if isinstance(start, dict) else start
            if isinstance(named, StartRecipe):
                named = named.checkpoint
            if named is not None:
                return {**values, "vocabulary": {"set": "checkpoint"}}
        return values

    def in_precision(self, precision: Literal["fp32", "bf16"]) -> Self:
        """The same recipe with the precision that its own came to."""
        training = self.training.model_copy(update={"precision": precision})
        return self.model_copy(update={"training": training})

    @field_validator("family")
    @classmethod
    def _known_family(cls, value: str) -> str:
        if value not in FAMILIES:
            raise ValueError(f"no such family{did_you_mean(value, FAMILIES)}")
        return value

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        part, split = self.data.part, self.split
        if part is not None and (split is None or part not in split.names):
            names = split.names if split else []
            raise ValueError(f"data.part = {part!r}, but [split] has the parts {names}")
        held_out = self.validation.part
        if held_out is not None and (split is None or held_out not in split.names):
            names = split.names if split else []
            raise ValueError(f"validation.part = {held_out!r}, but [split] has the parts {names}")
        if held_out is not None and part in (None, held_out):
            raise ValueError(
                f"validation.part = {held_out!r} and data.part = {part!r}: expected another part "
                "of the split to learn from, so that these cells stay unseen"
            )
        training, workers = self.training, self.engine.workers
        if self.model.attention_dropout and training.layout == "packed":
            raise ValueError(
                f"model.attention_dropout = {self.model.attention_dropout}, expected 0: packed "
                'attention has no dropout, and none is ignored; training.layout = "padded" has it'
            )
        if training.pack_tokens < self.encoding.length:
            raise ValueError(
                f"training.pack_tokens = {training.pack_tokens}, expected at least "
                f"encoding.length = {self.encoding.length}: a pack holds whole cells"
            )
        if self.vocabulary.set == "checkpoint" and self.start.checkpoint is None:
            raise ValueError('vocabulary.set = "checkpoint", but start.checkpoint names none')
        if training.cells_per_step is None:
            return self
        n_groups, rest = divmod(training.cells_per_step, training.cells_per_group)
        if rest or n_groups < workers:
            least = workers * training.cells_per_group
            raise ValueError(
                f"training.cells_per_step = {training.cells_per_step} makes {n_groups} groups of "
                f"{training.cells_per_group} cells with {rest} over; expected whole groups, one "
                f"or more for each of {workers} workers: {least}, or a larger multiple of "
                f"{training.cells_per_group}{_smaller_groups(training.cells_per_step, workers)}"
            )
        return self


def _smaller_groups(cells_per_step: int, workers: int) -> str:
    """The largest groups of which a step's cells make one for each worker, in words."""
    fitting = [n for n in range(1, cells_per_step // workers + 1) if cells_per_step % n == 0]
    return f"; or training.cells_per_group = {fitting[-1]}" if fitting else ""


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> PretrainRecipe:
    """Read a recipe.

    Args:
        name_or_path: a file, or the name of a shipped recipe.
        overrides: `a.b=value` settings laid over the file.

    Raises:
        RecipeError: no such recipe, or something in it is not understood.
    """
    return read_recipe(str(name_or_path), PretrainRecipe, verb="pretrain", overrides=overrides)
