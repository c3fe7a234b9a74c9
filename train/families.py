"""THE table: a model family is one row, and one file on each of three shelves.

`encodings/` (cells -> tokens), `models/` (tokens -> hidden states), `objectives/` (hidden states
-> loss). Knows no engine and no corpus. Nothing heavy is imported before a row is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..corpus.medians import MediansSet
    from ..corpus.vocabularies import Vocabulary
    from .encodings.rank_value import RankValueEncoding
    from .models.bert import PackedBert
    from .objectives.masked_genes import MaskedGenes
    from .recipe import PretrainRecipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """One row.

    Attributes:
        encoding: vocabulary, medians and length -> what turns cells into tokens.
        model: recipe, vocabulary and seed -> a model of fresh weights.
        objective: model, recipe and vocabulary -> what makes a loss of packs.
    """

    encoding: Callable[[Vocabulary, MediansSet, int], RankValueEncoding]
    model: Callable[[PretrainRecipe, Vocabulary, int], PackedBert]
    objective: Callable[[PackedBert, PretrainRecipe, Vocabulary], MaskedGenes]


def _rank_value(vocabulary: Vocabulary, medians: MediansSet, length: int) -> RankValueEncoding:
    from .encodings.rank_value import RankValueEncoding

    return RankValueEncoding(vocabulary, medians, length)


def _bert(recipe: PretrainRecipe, vocabulary: Vocabulary, seed: int) -> PackedBert:
    from .models.bert import bert_config, fresh_bert

    shape = recipe.model.model_dump()
    length = recipe.encoding.length
    config = bert_config(vocabulary_size=vocabulary.size, length=length, **shape)
    return fresh_bert(config, seed)


def _masked_genes(model: PackedBert, recipe: PretrainRecipe, vocabulary: Vocabulary) -> MaskedGenes:
    from .objectives.masked_genes import MaskedGenes

    return MaskedGenes(
        model,
        n_special=len(vocabulary.special),
        seed=recipe.training.seed,
        share=recipe.objective.share,
        masked=recipe.objective.masked,
        random=recipe.objective.random,
        half=recipe.training.precision == "bf16",
    )


FAMILIES: Mapping[str, Family] = {
    "geneformer": Family(encoding=_rank_value, model=_bert, objective=_masked_genes),
}
