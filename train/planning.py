"""What a pretraining would cost, before anything starts: a table to paste. Writes nothing.

Knows recipe, corpus and shapes; knows no engine. What is counted is the model's own work, packed
and with the head on hidden rows only. Memory is that of what the arithmetic needs; the engine's
and the allocator's own buffers come on top.
"""

from dataclasses import dataclass

import numpy as np
from rich.table import Table

from ..corpus.order import BUFFER
from ..corpus.store import Corpus
from ..corpus.stream import Selection
from ..corpus.vocabularies import Vocabulary
from ..platform.errors import RecipeError
from ..platform.screen import table
from ..platform.settings import Settings
from .advice import advice_of
from .feeding import Plan, plan_for
from .filling import filling_of, may_be_static
from .flops import BertShape, shape_of
from .footprint import FLOAT, activation_bytes, as_bytes, chunk_bytes
from .gene_door import Measured
from .lengths import Lengths, groups_per_step
from .objectives.masked_genes import ROWS_ON_GPU
from .peak import Peak, Precision, known_peak
from .preparing import prepare
from .recipe import PretrainRecipe
from .starting import find_start
from .vocabularies import official_set
from .worker import selection_of

MILLION = 1_000_000
_GPU = "H200"
"""The GPU that is reckoned with where the recipe names no peak; see `peak.KNOWN`."""

_AROUND = ("<cls>", "<eos>")


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """The cells of a plan.

    Attributes:
        selection: the cells.
        n_bytes: stored bytes of their counts, compressed.
        text: corpus and snapshot, in words.
    """

    selection: Selection
    n_bytes: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """A pretraining in numbers.

    Attributes:
        recipe: what would be run.
        shape: of its model.
        lengths: of its cells: measured, or all at the recipe's length.
        groups_per_step: groups of one optimizer step.
        data: the cells; None without a corpus.
        measured: which of the vocabulary's genes the cells were measured for, where it is asked.
    """

    recipe: PretrainRecipe
    shape: BertShape
    lengths: Lengths
    groups_per_step: int
    data: Data | None
    measured: Measured | None = None

    @property
    def plan(self) -> Plan | None:
        """Steps and their groups; None where the number of cells is not known."""
        if self.data is None:
            return None
        n_cells = self.data.selection.n_cells
        return plan_for(self.recipe.training, n_cells, self.groups_per_step)

    @property
    def n_steps(self) -> int | None:
        """Optimizer steps; None where neither recipe nor corpus says it."""
        return self.plan.n_steps if self.plan else self.recipe.training.steps

    @property
    def cell_passes(self) -> int | None:
        """Cells that are learnt from, each once a pass; None where it is not known."""
        cells_a_step = self.groups_per_step * self.recipe.training.cells_per_group
        if self.plan is None or self.data is None:
            steps = self.recipe.training.steps
            return None if steps is None else steps * cells_a_step
        n_cells = self.data.selection.n_cells
        epochs, rest = divmod(self.plan.n_steps, self.plan.steps_per_epoch)
        return epochs * n_cells + min(rest * cells_a_step, n_cells)

    def flops_a_cell(self, *, training: bool) -> float:
        """Operations of a mean cell, forward or forward and backward."""
        count = self.shape.training_flops if training else self.shape.forward_flops
        return count(
            n_tokens=self.lengths.mean,
            sum_squares=self.lengths.mean_square,
            n_scored=self.recipe.objective.share * self.lengths.mean_genes,
        )

    def gpu_hours(self, cells: float) -> float:
        """Hours of one GPU for some cell passes, at the recipe's `[plan]`."""
        flops = cells * self.flops_a_cell(training=True)
        return flops / (self.recipe.plan.mfu * self.peak.flops) / 3600

    @property
    def precision(self) -> Precision:
        """The precision that is reckoned with: `auto` is bf16 on the GPU that is meant."""
        return "fp32" if self.recipe.training.precision == "fp32" else "bf16"

    @property
    def peak(self) -> Peak:
        """The peak of one GPU: the recipe's, or that of the data sheet at its precision."""
        given, known = self.recipe.plan.peak_tflops, known_peak(_GPU, self.precision)
        if given is None and known is not None:
            return known
        return Peak(flops=(given or 0.0) * 1e12, origin=f"plan.peak_tflops, {self.precision}")

    @property
    def advice(self) -> list[str]:
        """What there is to say of the recipe, a line each."""
        return advice_of(self.recipe, self.n_steps, self.lengths.cells)

    @property
    def memory(self) -> dict[str, int]:
        """Bytes in one worker, by what they hold."""
        engine, training = self.recipe.engine, self.recipe.training
        n, zero = self.shape.n_parameters, engine.kind == "deepspeed" and engine.zero_stage == 1
        rows = self.recipe.objective.share * training.pack_tokens
        return {
            "weights": FLOAT * n,
            "gradients": FLOAT * n,
            "moments": 2 * FLOAT * n // (engine.workers if zero else 1),
            "activations of a pack": training.pack_tokens * activation_bytes(self.recipe),
            "scores of a chunk of hidden rows": chunk_bytes(
                min(round(rows), ROWS_ON_GPU), self.shape.width, self.shape.vocabulary_size
            ),
        }

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of a checkpoint: weights and two moments; vocabulary and medians are small."""
        return 3 * FLOAT * self.shape.n_parameters

    @property
    def bytes_read(self) -> int | None:
        """Bytes of the corpus that all workers read; None where it is not known.

        Each worker reads each buffer of an epoch, for its groups are dealt in turn; cells that
        fit one buffer are read once and for all.
        """
        if self.data is None or self.plan is None:
            return None
        times = 1.0
        if self.data.selection.n_cells > BUFFER:
            times = self.plan.n_steps / self.plan.steps_per_epoch
        return round(times * self.data.n_bytes * self.recipe.engine.workers)

    def rows(self) -> list[dict[str, object]]:
        """The plan, a row each: what, how much, and how it was reckoned."""
        return [{"what": what, "value": value, "how": how} for what, value, how in self._all_rows()]

    def _all_rows(self) -> list[tuple[str, str, str]]:
        recipe, shape, lengths, training = (
            self.recipe,
            self.shape,
            self.lengths,
            self.recipe.training,
        )
        known = f"{lengths.n_cells:,} cells encoded"
        known += f", standard error {lengths.error:.2g}" if lengths.error else ", which is all"
        if not lengths.n_cells:
            known = "an upper bound: encoding.length; give --corpus to measure it"
        forward, trained = (
            self.flops_a_cell(training=train) / lengths.mean for train in (False, True)
        )
        used = f"mean length {lengths.mean:,.1f}, mean square {lengths.mean_square:,.0f}"
        cells_a_step = self.groups_per_step * training.cells_per_group
        return [
            (
                "model",
                f"{shape.n_parameters:,} parameters",
                f"{shape.layers} layers, width {shape.width}, vocabulary "
                f"{shape.vocabulary_size:,}, {shape.length:,} positions",
            ),
            ("tokens a cell, mean", f"{lengths.mean:,.1f}", known),
            ("FLOPs a token, forward", f"{forward:.4g}", used),
            (
                "FLOPs a token, training",
                f"{trained:.4g}",
                f"3 x forward; head on {recipe.objective.share:.0%} of the gene tokens",
            ),
            *self._memory_rows(),
            (
                "global batch",
                f"{cells_a_step:,} cells, {cells_a_step * lengths.mean:,.0f} tokens",
                f"{self.groups_per_step} groups of {training.cells_per_group} cells",
            ),
            *self._pack_rows(),
            *self._amount_rows(),
            *self._disk_rows(),
        ]

    def _memory_rows(self) -> list[tuple[str, str, str]]:
        parts, training, engine = self.memory, self.recipe.training, self.recipe.engine
        how = {
            "moments": f"shared by {engine.workers} workers (ZeRO 1)"
            if engine.kind == "deepspeed" and engine.zero_stage == 1
            else "whole in each worker",
            "activations of a pack": f"{training.pack_tokens:,} tokens, {self.precision}; as "
            "autograd keeps them on a CPU",
            "scores of a chunk of hidden rows": f"at most {ROWS_ON_GPU:,} rows, fp32, thrice; and "
            "the decoder's gradient",
        }
        rows = [
            (f"memory: {name}", as_bytes(n), how.get(name, "fp32")) for name, n in parts.items()
        ]
        total = ("memory a worker", as_bytes(sum(parts.values())), "the five above")
        return [*rows, total]

    def _pack_rows(self) -> list[tuple[str, str, str]]:
        if not may_be_static(self.recipe) or not any(self.lengths.cells):
            return []
        filling = filling_of(self.recipe, self.lengths.cells)
        how = (
            f"on a GPU: {filling.cells_per_group} cells are packed together, into packs of "
            f"{filling.pack_tokens:,} tokens; elsewhere packs are as long as their cells"
        )
        return [("packs filled", f"{filling.share:.1%}", how)]

    def _amount_rows(self) -> list[tuple[str, str, str]]:
        recipe, passes, steps = self.recipe, self.cell_passes, self.n_steps
        peak = self.peak
        at = f"FLOPs / ({recipe.plan.mfu:g} MFU x {peak.flops / 1e12:,g} TFLOP/s), {peak.origin}"
        what, cells = "", passes
        rows: list[tuple[str, str, str]] = []
        if self.data is None:
            rows.append(("cells", "not known", "give --corpus"))
        else:
            rows.append(("cells", f"{self.data.selection.n_cells:,}", self.data.text))
        if (genes := self.measured) is not None:
            share = f"{genes.share:.1%} of the vocabulary's {genes.n_genes:,} with a median"
            rows.append(("genes measured", f"{genes.n_measured:,}", share))
        if steps is not None and passes is not None:
            why = (
                "training.steps" if recipe.training.steps else f"{recipe.training.epochs:g} epochs"
            )
            rows.append(("steps", f"{steps:,}", f"{why}; {passes:,} cell passes"))
        if cells is None:
            what, cells = " a million cell passes", MILLION
        flops = cells * self.flops_a_cell(training=True)
        return [
            *rows,
            (f"tokens{what}", f"{cells * self.lengths.mean:,.0f}", "cell passes x mean length"),
            (f"FLOPs{what}", f"{flops:.4g}", "of training, whatever the machine"),
            (f"GPU hours{what}", f"{self.gpu_hours(cells):,.3g}", at),
        ]

    def _disk_rows(self) -> list[tuple[str, str, str]]:
        kept = self.recipe.checkpoints.keep
        has_best = self.recipe.checkpoints.keep_best and self.recipe.validation.part is not None
        best = " and the best" if has_best else ""
        read = self.bytes_read
        return [
            ("a checkpoint", as_bytes(self.checkpoint_bytes), "weights and two moments, fp32"),
            (
                "checkpoints kept",
                as_bytes((kept + has_best) * self.checkpoint_bytes),
                f"the newest {kept}{best}; one more while it is written",
            ),
            (
                "read from the corpus",
                "not known" if read is None else as_bytes(read),
                f"by {self.recipe.engine.workers} workers, each all of it, compressed",
            ),
        ]

    def table(self) -> Table:
        """The plan as a table that can be pasted."""
        return table(self.rows(), ("what", "value", "how"), title=f"plan of {self.recipe.name}")


def plan_cost(recipe: PretrainRecipe, settings: Settings, corpus: Corpus | None = None) -> Cost:
    """Reckon what a recipe would cost. Starts nothing and writes nothing.

    Args:
        recipe: all that would decide the run.
        settings: where resources are found and runs live.
        corpus: the snapshot it would learn from; without one, lengths are upper bounds.

    Raises:
        RecipeError: without a corpus, the vocabulary's size cannot be known.
        CytolakeError: whatever the run itself would be refused for.
    """
    training = recipe.training
    if corpus is not None:
        selection = selection_of(recipe, corpus)
        prepared = prepare(recipe, corpus, selection, settings, measure=True)
        vocabulary, n_groups, lengths = (
            prepared.vocabulary,
            prepared.groups_per_step,
            prepared.lengths,
        )
        measured = prepared.measured
        data = Data(
            selection=selection,
            n_bytes=_stored_bytes(corpus, selection),
            text=f"snapshot {corpus.snapshot} of {corpus.uri}",
        )
    else:
        vocabulary, data, lengths, n_groups = _vocabulary(recipe, settings), None, None, 0
        measured = None
    if lengths is None:
        longest = float(recipe.encoding.length)
        n_around = sum(name in vocabulary.special for name in _AROUND)
        lengths = Lengths(
            n_cells=0,
            mean=longest,
            mean_square=longest**2,
            mean_genes=longest - n_around,
            error=0.0,
            n_without=0,
        )
        n_groups = groups_per_step(training, longest, n_workers=recipe.engine.workers)
    return Cost(
        recipe=recipe,
        shape=shape_of(recipe, vocabulary.size),
        lengths=lengths,
        groups_per_step=n_groups,
        data=data,
        measured=measured,
    )


def _vocabulary(recipe: PretrainRecipe, settings: Settings) -> Vocabulary:
    """The vocabulary of a recipe that can be known without a corpus."""
    if (start := find_start(recipe, settings)) is not None:
        return start.vocabulary
    if recipe.vocabulary.set == "corpus":
        raise RecipeError(
            f'{recipe.name}: vocabulary.set = "corpus" has as many tokens as the cells have genes; '
            "give --corpus to plan it"
        )
    return official_set(recipe.vocabulary.set, settings)[0]


def _stored_bytes(corpus: Corpus, selection: Selection) -> int:
    """Stored bytes of some cells' counts: of each segment the share of its cells."""
    total = 0.0
    numbers, n_chosen = np.unique(selection.segment, return_counts=True)
    for number, chosen in zip(numbers.tolist(), n_chosen.tolist(), strict=True):
        entry = corpus.state.segments[selection.segment_ids[number]]
        total += entry.n_bytes.get("rna.zarr", 0) * chosen / entry.n_cells
    return round(total)
