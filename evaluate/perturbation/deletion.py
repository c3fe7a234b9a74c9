"""Deletion: a cell's tokens to the tokens of the cell without a gene. Knows no model.

Deleting a gene takes its token out and lets those behind it move up by one rank; a gene that had
been cut off by the encoding's length does not come back in (Geneformer's semantics).
Array suffixes: t token position, s deletion.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...platform.errors import EvaluationError


@dataclass(frozen=True, kw_only=True, slots=True)
class Deletions:
    """Every single-gene deletion of one cell.

    Attributes:
        tokens_st: the cell without one gene, a row a deletion. Shape (n_deletions, n_tokens - 1).
        deleted: the token taken out of each row. Shape (n_deletions,).
        positions: where it stood in the whole cell. Shape (n_deletions,).
        ranks: how many genes stood before it, special tokens not counted. Shape (n_deletions,).
    """

    tokens_st: NDArray[np.int32]
    deleted: NDArray[np.int32]
    positions: NDArray[np.int64]
    ranks: NDArray[np.int64]


def delete(tokens_t: NDArray[np.int32], gene: int) -> NDArray[np.int32]:
    """Take one gene out of a cell.

    Args:
        tokens_t: the cell, most telling gene first. Shape (n_tokens,).
        gene: the token to take out.

    Returns:
        Shape (n_tokens - 1,).

    Raises:
        EvaluationError: the cell does not hold the gene.
    """
    keep = tokens_t != gene
    if keep.all():
        raise EvaluationError(
            f"token {gene} is not among the cell's {len(tokens_t)} tokens: "
            "only a gene that the cell expresses can be deleted"
        )
    return tokens_t[keep]


def every_deletion(tokens_t: NDArray[np.int32], *, n_special: int) -> Deletions:
    """Take out each gene of a cell, one at a time.

    Args:
        tokens_t: the cell, most telling gene first. Shape (n_tokens,).
        n_special: how many special tokens the vocabulary begins with; they stay.

    Raises:
        EvaluationError: fewer than two genes: nothing would be left to pool.
    """
    is_gene = tokens_t >= n_special
    positions = np.flatnonzero(is_gene)
    if len(positions) < 2:
        raise EvaluationError(
            f"a cell of {len(positions)} genes cannot lose one: "
            "at least 2 must be in the vocabulary"
        )
    columns = np.arange(len(tokens_t) - 1)
    source = columns[None, :] + (columns[None, :] >= positions[:, None])
    return Deletions(
        tokens_st=tokens_t[source],
        deleted=tokens_t[positions],
        positions=positions,
        ranks=np.arange(len(positions), dtype=np.int64),
    )
