"""What a recipe says of the model: how long its cells are, and its shape. Knows no corpus.

Parsed and frozen with the rest of `recipe.PretrainRecipe`.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from ..platform.configuration import Configuration


class EncodingRecipe(Configuration):
    """How cells become tokens.

    Attributes:
        length: the most tokens of a cell; also the model's number of positions.
    """

    length: int = Field(default=2048, ge=2)


class ModelRecipe(Configuration):
    """The shape of the model; names and defaults follow Geneformer V1-10M's configuration.

    Attributes:
        layers: number of transformer layers.
        width: width of a hidden state.
        heads: number of attention heads; divides `width`.
        feed_forward: width inside a layer's feed-forward part.
        activation: `relu` or `gelu`.
        hidden_dropout: dropout of embeddings and layer outputs.
        attention_dropout: dropout of attention weights; 0 but in the padded layout, for packed
            attention kernels have none.
        initializer_range: standard deviation of fresh weights.
        layer_norm_eps: epsilon of the layer norms.
    """

    layers: int = Field(default=6, ge=1)
    width: int = Field(default=256, ge=2)
    heads: int = Field(default=4, ge=1)
    feed_forward: int = Field(default=512, ge=1)
    activation: Literal["relu", "gelu"] = "relu"
    hidden_dropout: float = Field(default=0.02, ge=0, lt=1)
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    initializer_range: float = Field(default=0.02, gt=0)
    layer_norm_eps: float = Field(default=1e-12, gt=0)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide width = {self.width}")
        return self
