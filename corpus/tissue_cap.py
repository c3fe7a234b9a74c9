"""No tissue above a share of the selected cells: a seeded choice, the same in a corpus built anew.

Pure: knows no file and no snapshot. Geneformer let no tissue be above 25 % of its corpus (Theodoris
et al. 2023, Methods). It is a choice of what to learn from, so it belongs to a selection and not
to ingest: no cell is lost, and another share needs no other corpus. Array suffix: c cell.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..platform.errors import NoCellsError
from .content import mix64

if TYPE_CHECKING:
    from .store import Corpus
    from .stream import Selection


def cap_per_tissue(
    tissue_c: pa.ChunkedArray | Sequence[str | None] | NDArray[np.object_],
    content_key_c: NDArray[np.uint64],
    *,
    share: float = 0.25,
    seed: int = 0,
) -> NDArray[np.bool_]:
    """Which cells to take so that no tissue has more than a share of those taken.

    As many as can be: every tissue gives all its cells, or as many as every other that is cut.
    Which of its cells is decided by a hash of the seed and the cell's content, so the answer
    depends neither on the order of cells nor on their ids; of cells of equal content (there are
    none among primary cells) the first ones are taken. Cells whose tissue is not known are a
    tissue like any other: who knows what they are.

    Args:
        tissue_c: tissues, None where unknown. Shape (n_cells,).
        content_key_c: content keys (`content.content_keys`). Shape (n_cells,).
        share: the greatest share of a tissue, above 0, at most 1.
        seed: another seed, other cells.

    Returns:
        Which cells are taken. Shape (n_cells,).

    Raises:
        NoCellsError: there are too few tissues for the share: with 3 one has a third at least.
    """
    if not 0 < share <= 1:
        raise NoCellsError(f"share is {share}, expected above 0 and at most 1")
    number_c = _numbers(tissue_c)
    sizes = np.bincount(number_c)
    sizes = sizes[sizes > 0]
    most = most_per_tissue(sizes, share)
    if most == 0 and len(number_c):
        raise NoCellsError(
            f"{len(sizes)} tissues cannot each be at most {share:.0%} of the cells: "
            f"expected {math.ceil(1 / Fraction(str(share)))} tissues or more, with cells "
            f"enough; raise the share to {math.ceil(100 / len(sizes)) / 100:.2f} or above, or "
            "select more tissues"
        )
    rank_c = _ranks(number_c, _scattered(content_key_c, np.uint64(seed)))
    return rank_c < most


def capped(
    corpus: "Corpus", selection: "Selection", *, share: float = 0.25, seed: int = 0
) -> "Selection":
    """A selection in which no tissue has more than a share; see `cap_per_tissue`.

    Raises:
        NoCellsError: there are too few tissues for the share.
    """
    tissues = corpus.column(selection, "tissue")
    chosen = cap_per_tissue(tissues, selection.content_key, share=share, seed=seed)
    return selection.only(chosen, f"at most {share!r} of a tissue, seed {seed}")


def most_per_tissue(sizes: NDArray[np.int64], share: float) -> int:
    """The largest number of cells a tissue may give: most <= share * sum(min(size, most)).

    The share of a tissue that gives all it may grows with that number, so it is found by halving.
    Reckoned in whole numbers: 0.29 * 100 is below 29 in floating point.

    Args:
        sizes: cells of each tissue. Shape (n_tissues,).
        share: the greatest share.

    Returns:
        The number, 0 where no cell can be taken.
    """
    exact = Fraction(str(share))
    low, high = 0, int(sizes.max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        taken = int(np.minimum(sizes, middle).sum())
        if middle * exact.denominator <= exact.numerator * taken:
            low = middle
        else:
            high = middle - 1
    return low


def _numbers(
    tissue_c: pa.ChunkedArray | Sequence[str | None] | NDArray[np.object_],
) -> NDArray[np.int64]:
    """A number for each cell's tissue; those that are not known share one, too."""
    given: Any = tissue_c
    if isinstance(tissue_c, pa.ChunkedArray):
        chunks = given.cast(pa.string()).chunks
        names: Any = pa.concat_arrays([*chunks, pa.array([], pa.string())])
    else:
        names = pa.array(given, pa.string())
    coded = names.dictionary_encode()
    numbers = coded.indices.fill_null(len(coded.dictionary)).to_numpy(zero_copy_only=False)
    return numbers.astype(np.int64)


def _ranks(number_c: NDArray[np.int64], key_c: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Each cell's place among those of its tissue, by key; equal keys keep their order."""
    order = np.lexsort((key_c, number_c))
    ordered = number_c[order]
    first = np.searchsorted(ordered, ordered, side="left")
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order)) - first
    return ranks


@numba.njit(cache=True, nogil=True)
def _scattered(
    keys: NDArray[np.uint64], seed: np.uint64
) -> NDArray[np.uint64]:  # pragma: no cover - compiled
    found = np.empty(len(keys), dtype=np.uint64)
    word = mix64(seed + np.uint64(0x9E3779B97F4A7C15))
    for cell in range(len(keys)):
        found[cell] = mix64(keys[cell] ^ word)
    return found
