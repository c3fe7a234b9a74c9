"""The gene vocabulary's door: a model's genes against a recipe's, and against a corpus's.

Knows genes, tokens and medians; knows no weights. A token that meant another gene, or a median
that was another's, would spoil a model without any error: so both are refused here, with what the
two sides have in common.
"""

from dataclasses import dataclass

import numpy as np

from ..corpus.medians import MediansSet
from ..corpus.store import Corpus
from ..corpus.stream import Selection
from ..corpus.vocabularies import Vocabulary
from ..platform.errors import VocabularyError
from .lengths import Lengths

Genes = tuple[Vocabulary, MediansSet]
TAKE_IT = (
    'Take the checkpoint\'s own (vocabulary.set = "checkpoint"), or leave [start] out to train '
    "fresh weights"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """How many of a vocabulary's genes some cells were measured for.

    Attributes:
        n_measured: genes of the vocabulary, with a median, in a gene list of the cells' segments.
        n_genes: genes of the vocabulary with a median.
    """

    n_measured: int
    n_genes: int

    @property
    def share(self) -> float:
        """The share that is measured."""
        return self.n_measured / self.n_genes

    @property
    def text(self) -> str:
        """One line for whoever starts a run."""
        return (
            f"the chosen cells measure {self.n_measured:,} of the vocabulary's {self.n_genes:,} "
            f"genes ({self.share:.1%}); nothing is learnt of the others"
        )


def refuse_other_genes(
    ours: Genes, theirs: Genes, *, chosen: str, checkpoint: str, way_out: str = TAKE_IT
) -> None:
    """Refuse genes that are not those a checkpoint was trained with.

    Args:
        ours: vocabulary and medians that the recipe's `[vocabulary]` gives.
        theirs: those of the checkpoint.
        chosen: what to call the first, such as `vocabulary.set = "geneformer-v2"`.
        checkpoint: what to call the second.
        way_out: what to do about it.

    Raises:
        VocabularyError: the digests of the vocabularies, or of the medians, differ.
    """
    (vocabulary, medians), (their_vocabulary, their_medians) = ours, theirs
    if vocabulary.digest != their_vocabulary.digest:
        first, second = set(vocabulary.gene_ids), set(their_vocabulary.gene_ids)
        why = "a token would stand for another gene than the one its weights were trained for"
        if first == second:
            why = "the genes are the same, but their tokens or their other names are not"
        raise VocabularyError(
            f"{chosen} has {_common(first, second)} of {checkpoint}: {why}. {way_out}"
        )
    if medians.digest != their_medians.digest:
        genes = np.array(vocabulary.gene_ids, dtype=object)
        our_g, their_g = medians.of(genes), their_medians.of(genes)
        first = set(genes[~np.isnan(our_g)].tolist())
        second = set(genes[~np.isnan(their_g)].tolist())
        n_equal = int((our_g == their_g).sum())
        raise VocabularyError(
            f"the medians of {chosen} are not those of {checkpoint}: of the vocabulary's genes it "
            f"has a median for {_common(first, second)}; {n_equal:,} medians are equal. Genes "
            f"would be ranked otherwise than the model learnt. {way_out}"
        )


def measured_genes(
    corpus: Corpus, selection: Selection, vocabulary: Vocabulary, medians: MediansSet
) -> Measured:
    """Count the vocabulary's genes in the gene lists of the segments that hold chosen cells."""
    has_median = ~np.isnan(medians.of(vocabulary.gene_ids))
    is_measured = np.zeros(vocabulary.size, dtype=bool)
    seen: set[int] = set()
    for number in np.unique(selection.segment).tolist():
        with corpus.state.telling_of_its_end():
            names = corpus.segment(selection.segment_ids[number]).gene_ids
        if id(names) not in seen:  # equal lists are one object
            seen.add(id(names))
            tokens = vocabulary.tokens_of(names)
            is_measured[tokens[tokens >= 0]] = True
    on_genes = is_measured[len(vocabulary.special) :] & has_median
    return Measured(n_measured=int(on_genes.sum()), n_genes=int(has_median.sum()))


def refuse_unmeasured(measured: Measured, lengths: Lengths, *, share: float) -> None:
    """Refuse cells that have next to none of a vocabulary's genes.

    The threshold is one hidden gene a cell: with fewer than 1 / `share` known genes a cell has
    on average nothing to learn from. That is 7 genes at the published 15 %, and the published
    corpus left out cells with fewer, too.

    Args:
        measured: genes of the vocabulary in the cells' gene lists.
        lengths: tokens of a sample of the cells.
        share: the share of a cell's tokens that is hidden.

    Raises:
        VocabularyError: the threshold is not reached.
    """
    if measured.n_measured * share >= 1 and lengths.mean_genes * share >= 1:
        return
    raise VocabularyError(
        f"the chosen cells measure {measured.n_measured:,} of the vocabulary's "
        f"{measured.n_genes:,} genes ({measured.share:.2%}), and a cell has "
        f"{lengths.mean_genes:.1f} of them on average: with a share of {share:g} hidden that is "
        f"less than one hidden gene a cell, expected {1 / share:.1f} genes or more. Is it another "
        'species, or are genes named otherwise (`cytolake sql "SELECT gene_id FROM genes"`)? '
        'Else train with the corpus\'s own genes: vocabulary.set = "corpus"'
    )


def _common(first: set[str], second: set[str]) -> str:
    """Two sets' genes in common, both ways, in numbers and per cent."""
    n = len(first & second)
    return (
        f"{n:,} of its {len(first):,} genes ({n / max(1, len(first)):.1%}) in common with the "
        f"{len(second):,} ({n / max(1, len(second)):.1%})"
    )
