"""What a BERT costs by its shape: parameters and floating-point operations. Knows no device.

A multiplication with its addition counts as two operations. Layer norms, activations, softmax and
embeddings are left out, as is usual: they are no matrix products. A backward pass costs twice its
forward pass.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .recipe import PretrainRecipe


@dataclass(frozen=True, kw_only=True, slots=True)
class BertShape:
    """The numbers that decide what a BERT costs.

    Attributes:
        layers: number of transformer layers.
        width: width of a hidden state.
        feed_forward: width inside a layer's feed-forward part.
        length: number of positions.
        vocabulary_size: number of tokens.
    """

    layers: int
    width: int
    feed_forward: int
    length: int
    vocabulary_size: int

    @property
    def n_parameters(self) -> int:
        """Parameters of `BertForMaskedLM` with a tied decoder, each once."""
        d, f = self.width, self.feed_forward
        embeddings = (self.vocabulary_size + self.length + 2) * d + 2 * d
        attention = 4 * (d * d + d) + 2 * d
        feed_forward = d * f + f + f * d + d + 2 * d
        head = d * d + d + 2 * d + self.vocabulary_size
        return embeddings + self.layers * (attention + feed_forward) + head

    def forward_flops(self, *, n_tokens: float, sum_squares: float, n_scored: float) -> float:
        """Operations of a forward pass over some cells.

        Args:
            n_tokens: real tokens of these cells.
            sum_squares: the sum of the cells' squared numbers of tokens: each token attends to
                all of its own cell.
            n_scored: rows that the head scores against the whole vocabulary.
        """
        d, f = self.width, self.feed_forward
        linear = 2 * self.layers * (4 * d * d + 2 * d * f) * n_tokens
        attention = 4 * d * self.layers * sum_squares
        head = (2 * d * d + 2 * d * self.vocabulary_size) * n_scored
        return linear + attention + head

    def training_flops(self, *, n_tokens: float, sum_squares: float, n_scored: float) -> float:
        """Operations of a forward and a backward pass; see `forward_flops`."""
        return 3 * self.forward_flops(n_tokens=n_tokens, sum_squares=sum_squares, n_scored=n_scored)


def shape_of(recipe: "PretrainRecipe", vocabulary_size: int) -> BertShape:
    """The shape that a recipe gives its model, with a vocabulary of so many tokens."""
    return BertShape(
        layers=recipe.model.layers,
        width=recipe.model.width,
        feed_forward=recipe.model.feed_forward,
        length=recipe.encoding.length,
        vocabulary_size=vocabulary_size,
    )
