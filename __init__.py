"""cytolake: a data lake and training platform for single-cell foundation models."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .corpus.store import Corpus as Corpus
    from .embedding import embed as embed

__version__ = "0.1.0"
__all__ = ["Corpus", "__version__", "embed"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Offer `Corpus` and `embed` without importing anything heavy before they are asked for."""
    if name == "Corpus":
        from .corpus.store import Corpus

        return Corpus
    if name == "embed":
        from .embedding import embed

        return embed
    raise AttributeError(f"module 'cytolake' has no attribute {name!r}")
