"""The order of an epoch: a pure function of seed and epoch. Knows numbers of cells, no cell.

Permutations sort integer hashes, so that no random generator's version matters.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

BLOCK = 64
"""Neighbouring cells that travel together: about one chunk of a segment."""

BUFFER = 16_384
"""Cells that are mixed with one another."""


def epoch_order(
    n_cells: int, *, seed: int, epoch: int, block: int = BLOCK, buffer: int = BUFFER
) -> NDArray[np.int64]:
    """The epoch's order of some cells: blocks permuted, then cells within buffers.

    `block` is the one number that sets how well cells are mixed. 1 is a true shuffle, every order
    as likely as any other; at `block` cells a buffer holds `buffer / block` places of the
    corpus, and a batch comes from so many. What that means for a batch, and what it costs:
    `benchmarks/stream_bars.py`.

    Args:
        n_cells: how many.
        seed: of the run.
        epoch: from 0.
        block: neighbouring cells that travel together to the buffer.
        buffer: cells that are mixed with one another.

    Returns:
        Positions, each once. Shape (n_cells,).
    """
    blocks = np.arange(-(-n_cells // block))
    blocks = blocks[np.argsort(_scatter(blocks, seed, epoch, 1), kind="stable")]
    order = (blocks[:, None] * block + np.arange(block)[None, :]).ravel()
    if len(order) > n_cells:  # the last block is not full
        order = order[order < n_cells]
    for start in range(0, n_cells, buffer):  # memory for one buffer, not for the epoch
        some = order[start : start + buffer]
        some[:] = some[np.argsort(_scatter(some, seed, epoch, 2), kind="stable")]
    return order


def groups(order: NDArray[np.int64], cells_per_group: int) -> list[NDArray[np.int64]]:
    """Cut an order into groups of a fixed number of cells; the last may have fewer."""
    return [order[i : i + cells_per_group] for i in range(0, len(order), cells_per_group)]


def _scatter(values: NDArray[np.int64], seed: int, epoch: int, use: int) -> NDArray[np.uint64]:
    """Hash integers under a key: splitmix64's finaliser, twice."""
    key = hashlib.blake2b(f"{seed}/{epoch}/{use}".encode(), digest_size=8).digest()
    mixed = values.astype(np.uint64) + np.frombuffer(key, dtype="<u8")
    for _ in range(2):
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed
