"""The vocabulary and medians that a recipe asks for. Knows the corpus's genes; knows no model."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..corpus.frozen_medians import read_medians
from ..corpus.medians import MediansSet, medians_of, official_medians
from ..corpus.store import Corpus
from ..corpus.stream import Selection
from ..corpus.vocabularies import Vocabulary, official_vocabulary
from ..platform.errors import VocabularyError
from ..platform.resources import find
from ..platform.settings import Settings
from .recipe import PretrainRecipe

if TYPE_CHECKING:
    from .starting import Start


def vocabulary_and_medians(
    recipe: PretrainRecipe,
    corpus: Corpus,
    selection: Selection,
    settings: Settings,
    start: "Start | None" = None,
) -> tuple[Vocabulary, MediansSet]:
    """Build or find what the recipe's `[vocabulary]` names.

    For `corpus`: the medians of the selected cells, and as tokens the protein-coding and microRNA
    genes that have one, in the order of their ids (as the official vocabularies are). For
    `checkpoint`: those of `start`, which is looked for where it is not given.

    Raises:
        VocabularyError: no gene of the cells is protein-coding or a microRNA.
        ResourceError: an official set is out of reach.
        CheckpointError: the checkpoint is.
    """
    name = recipe.vocabulary.set
    if name == "checkpoint":
        from .starting import find_start

        if (start := start or find_start(recipe, settings)) is not None:
            return start.vocabulary, start.medians
    elif name != "corpus":
        return official_set(name, settings)
    if recipe.vocabulary.medians is not None:
        medians = read_medians(Path(recipe.vocabulary.medians).expanduser())
    else:
        medians = medians_of(corpus, selection)
    table = corpus.sql("SELECT gene_id FROM genes WHERE biotype IN ('protein_coding', 'miRNA')")
    coding = set(table.column("gene_id").to_pylist())
    gene_ids = tuple(gene_id for gene_id in medians.gene_ids if gene_id in coding)
    if not gene_ids:
        raise VocabularyError(
            f"none of the {len(medians.gene_ids)} genes with a median is known as protein-coding "
            "or a microRNA; was the corpus made with another species' gene reference?"
        )
    return Vocabulary(gene_ids=gene_ids), medians


def official_set(name: str, settings: Settings) -> tuple[Vocabulary, MediansSet]:
    """The official vocabulary and medians: `geneformer-v1` or `geneformer-v2`.

    Raises:
        ResourceError: a file is out of reach.
    """
    tokens, mapping, medians = (
        find(f"{name}-{part}", settings) for part in ("tokens", "mapping", "medians")
    )
    version = name.removeprefix("geneformer-")
    return official_vocabulary([tokens, mapping], version), official_medians(medians)
