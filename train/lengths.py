"""How many tokens a selection's cells have, and how many cells make a global batch of tokens.

Knows cells and their encoding; knows no model and no run. The cells that are measured are whole
groups of the first epoch's order, evenly spread over it: a pure function of selection and seed.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np

from ..corpus.order import epoch_order, groups
from ..corpus.store import Corpus
from ..corpus.stream import Selection
from ..platform.errors import TrainingError
from .encodings.rank_value import RankValueEncoding
from .recipe import TrainingRecipe

MOST_CELLS = 4096
"""Cells that are measured at most: the mean's standard error is then about 1 % of it."""
_CELLS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """What encoding some cells gave.

    Attributes:
        n_cells: cells measured.
        mean: mean number of tokens of a cell, special ones included.
        mean_square: mean of the squared numbers: what attention inside each cell costs.
        mean_genes: mean number of gene tokens.
        error: standard error of `mean`; 0 where all cells of the selection were measured.
        n_without: cells without any gene token.
        cells: each measured cell's number of tokens, group after group as the first epoch has them.
    """

    n_cells: int
    mean: float
    mean_square: float
    mean_genes: float
    error: float
    n_without: int
    cells: tuple[int, ...] = ()


def measure_lengths(
    corpus: Corpus,
    selection: Selection,
    encoding: RankValueEncoding,
    *,
    seed: int,
    cells_per_group: int,
    most: int = MOST_CELLS,
) -> Lengths:
    """Encode a sample of a selection's cells and say how long they are.

    Args:
        corpus: where the cells lie.
        selection: the cells that a run may learn from.
        encoding: what turns them into tokens.
        seed: of the run.
        cells_per_group: cells of a group.
        most: cells measured at most, in whole groups; all where the selection has no more.
    """
    order = epoch_order(selection.n_cells, seed=seed, epoch=0)
    all_groups = groups(order, cells_per_group)
    n_taken = len(all_groups)
    if selection.n_cells > most:
        n_taken = max(1, most // cells_per_group)
    spread = np.linspace(0, len(all_groups) - 1, n_taken).round().astype(int)
    taken = np.concatenate([all_groups[number] for number in spread.tolist()])
    positions = np.sort(taken)
    n_special = len(encoding.vocabulary.special)
    lengths_c, genes_c = np.zeros(len(positions)), np.zeros(len(positions))
    for begin in range(0, len(positions), _CELLS_AT_ONCE):
        some = positions[begin : begin + _CELLS_AT_ONCE]
        read = begin + np.argsort(selection.segment[some], kind="stable")  # as `read` gives them
        for batch in corpus.read(selection, some):
            tokens = encoding.encode(batch)
            here, read = read[: batch.n_cells], read[batch.n_cells :]
            lengths_c[here] = tokens.lengths
            genes_before = np.concatenate([[0], np.cumsum(tokens.tokens >= n_special)])
            genes_c[here] = np.diff(genes_before[tokens.offsets])
    is_all = len(lengths_c) == selection.n_cells
    spread_of_mean = float(lengths_c.std(ddof=1) / np.sqrt(len(lengths_c))) if not is_all else 0.0
    return Lengths(
        n_cells=len(lengths_c),
        mean=float(lengths_c.mean()),
        mean_square=float((lengths_c**2).mean()),
        mean_genes=float(genes_c.mean()),
        error=spread_of_mean,
        n_without=int((genes_c == 0).sum()),
        cells=tuple(lengths_c[np.searchsorted(positions, taken)].astype(int).tolist()),
    )


def groups_per_step(training: TrainingRecipe, mean: float, *, n_workers: int) -> int:
    """Groups of one optimizer step: those of the recipe's cells, or nearest to its tokens.

    Args:
        training: the recipe's part that names the global batch.
        mean: mean number of tokens of a cell; used where the batch is in tokens.
        n_workers: each needs a group in a step.

    Raises:
        TrainingError: a batch in tokens is fewer groups than workers.
    """
    if training.groups_per_step is not None:
        return training.groups_per_step
    wanted, tokens_a_group = training.tokens_per_step or 0, mean * training.cells_per_group
    n_groups = max(1, round(wanted / tokens_a_group)) if tokens_a_group else 0
    if n_groups >= n_workers:
        return n_groups
    least = ceil((n_workers - 0.5) * tokens_a_group)
    smaller = int(wanted / (n_workers * mean)) if mean else 0
    ways = [f"training.tokens_per_step = {least} or more"]
    if smaller:
        ways.append(f"training.cells_per_group = {smaller} or fewer")
    if n_groups:
        ways.append(f"engine.workers = {n_groups}")
    raise TrainingError(
        f"training.tokens_per_step = {wanted} makes {n_groups} groups of "
        f"{training.cells_per_group} cells with {mean:,.1f} tokens each on average, and "
        f"{n_workers} workers need one each in every step; expected {', or '.join(ways)}"
    )
