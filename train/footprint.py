"""Bytes that a training holds: scores of a chunk, activations of a token. Knows no cell and no GPU.

What the arithmetic needs; an engine's and an allocator's own buffers come on top.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .recipe import PretrainRecipe

FLOAT = 4
"""Bytes of a number in fp32."""


def chunk_bytes(n_rows: int, width: int, vocabulary_size: int) -> int:
    """What `linear_cross_entropy` holds besides states: a chunk's scores, powers and gradient.

    The decoder's gradient is made beside the one that the step adds it to.

    Args:
        n_rows: scored rows of a chunk.
        width: of a hidden state.
        vocabulary_size: number of tokens.
    """
    return FLOAT * (3 * n_rows * vocabulary_size + vocabulary_size * width)


def activation_bytes(recipe: "PretrainRecipe") -> int:
    """Bytes that autograd keeps of each token of a pack for the backward pass.

    Counted in what a CPU's layers keep (see the test): of each layer in fp32 nine vectors of the
    width and one of the feed-forward, in bf16 (and `auto`) 26 bytes for each width and two for each
    feed-forward, and two masks where there is dropout; of the embeddings two vectors.
    """
    model = recipe.model
    d, f, half = model.width, model.feed_forward, recipe.training.precision != "fp32"
    a_layer = 26 * d + 2 * f if half else FLOAT * (9 * d + f)
    masks = 2 * d * (2 if half else FLOAT) if model.hidden_dropout else 0
    return model.layers * (a_layer + masks) + 2 * FLOAT * d


def as_bytes(n: float) -> str:
    """Bytes in words, in powers of ten: 417.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:,.4g} {unit}"
        n /= 1000
    return f"{n:,.4g} TB"
