"""All that a run's first start, or its plan, must know of cells and genes before anything begins.

Knows recipe, corpus and checkpoints; writes nothing. Whatever cannot work is refused here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ..corpus.medians import MediansSet
from ..corpus.store import Corpus
from ..corpus.stream import Selection
from ..corpus.vocabularies import Vocabulary
from ..platform.settings import Settings
from .families import FAMILIES
from .gene_door import Measured, measured_genes, refuse_other_genes, refuse_unmeasured
from .lengths import Lengths, groups_per_step, measure_lengths
from .recipe import PretrainRecipe
from .starting import Start, find_start
from .vocabularies import vocabulary_and_medians


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What was found.

    Attributes:
        vocabulary: the run's.
        medians: the run's.
        start: the checkpoint that the run begins with; None for fresh weights.
        lengths: tokens of a sample of the cells; None where nothing asks for them.
        measured: which of the genes the cells were measured for; None for the corpus's own.
        groups_per_step: groups of cells in one optimizer step.
    """

    vocabulary: Vocabulary
    medians: MediansSet
    start: Start | None
    lengths: Lengths | None
    measured: Measured | None
    groups_per_step: int

    @property
    def remarks(self) -> Mapping[str, object]:
        """What the tracking store is told of it."""
        found: dict[str, object] = {"training.groups_per_step": self.groups_per_step}
        if self.lengths is not None:
            found["cells.mean_tokens"] = round(self.lengths.mean, 2)
        if self.measured is not None:
            found["vocabulary.share_measured"] = round(self.measured.share, 4)
        if self.start is not None:
            found["start.run_id"] = self.start.info.run_id
            found["start.step"] = self.start.info.step
        return found


def prepare(
    recipe: PretrainRecipe,
    corpus: Corpus,
    selection: Selection,
    settings: Settings,
    *,
    measure: bool = False,
) -> Prepared:
    """Find a run's genes and its checkpoint to begin with, and see whether they fit its cells.

    Args:
        recipe: all that decides the run.
        corpus: the snapshot to learn from.
        selection: the cells to learn from.
        settings: where resources are found and runs live.
        measure: encode a sample of the cells in any case; else only where a batch in tokens or
            genes from elsewhere ask for it.

    Raises:
        VocabularyError: the genes are not the checkpoint's, or the cells have next to none.
        TrainingError: a global batch that the workers cannot make.
        CytolakeError: whatever vocabulary and checkpoints have to say.
    """
    start = find_start(recipe, settings)
    vocabulary, medians = vocabulary_and_medians(recipe, corpus, selection, settings, start)
    chosen = f'vocabulary.set = "{recipe.vocabulary.set}"'
    if start is not None:
        refuse_other_genes(
            (vocabulary, medians),
            (start.vocabulary, start.medians),
            chosen=chosen,
            checkpoint=start.name,
        )
    training = recipe.training
    is_own = recipe.vocabulary.set == "corpus" and start is None
    lengths: Lengths | None = None
    if measure or not is_own or training.groups_per_step is None:
        lengths = measure_lengths(
            corpus,
            selection,
            FAMILIES[recipe.family].encoding(vocabulary, medians, recipe.encoding.length),
            seed=training.seed,
            cells_per_group=training.cells_per_group,
        )
    measured: Measured | None = None
    if not is_own and lengths is not None:
        measured = measured_genes(corpus, selection, vocabulary, medians)
        refuse_unmeasured(measured, lengths, share=recipe.objective.share)
    return Prepared(
        vocabulary=vocabulary,
        medians=medians,
        start=start,
        lengths=lengths,
        measured=measured,
        groups_per_step=groups_per_step(
            training, lengths.mean if lengths else 0.0, n_workers=recipe.engine.workers
        ),
    )
