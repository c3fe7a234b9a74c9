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
        objective: model, on its device, recipe and vocabulary -> what makes a loss of packs.
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
    import torch

    from .models.packed_attention import kernel_for
    from .objectives.masked_genes import MaskedGenes
    from .static_packs import static_shape

    training, share = recipe.training, recipe.objective.share
    half, packed = training.precision == "bf16", training.layout == "packed"
    static = packed and half and kernel_for(model.device, torch.bfloat16) == "varlen"
    shape = static_shape(
        pack_tokens=training.pack_tokens, length=recipe.encoding.length, share=share
    )
    return MaskedGenes(
        model,
        n_special=len(vocabulary.special),
        seed=training.seed,
        share=share,
        masked=recipe.objective.masked,
        random=recipe.objective.random,
        half=half,
        padded=not packed,
        shape=shape if static else None,
        compiled=static,
    )


FAMILIES: Mapping[str, Family] = {
    "geneformer": Family(encoding=_rank_value, model=_bert, objective=_masked_genes),
}
