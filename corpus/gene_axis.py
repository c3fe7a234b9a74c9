"""One gene list for cells of many segments: theirs joined, and where each one's genes stand in it.

Knows no count and no file. Each segment's list ascends, and so does the joint one: places that
ascend within a cell go on ascending.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneAxis:
    """The joint gene list of some gene lists.

    Attributes:
        gene_ids: every gene of any of them, once, ascending. Shape (n_genes,), dtype object (str).
        places: each list's genes as places in `gene_ids`, list after list; empty where all lists
            are the joint one. Shape (n_places,), int32.
        starts: where each list begins in `places`. Shape (n_lists,), int64.
        sizes: genes of each list. Shape (n_lists,), int64.
    """

    gene_ids: NDArray[np.object_]
    places: NDArray[np.int32]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, lists: Sequence[NDArray[np.object_]]) -> "GeneAxis":
        """Join gene lists, each ascending and without repeats."""
        sizes = np.array([len(names) for names in lists], dtype=np.int64)
        if len(lists) == 1:
            gene_ids, places = lists[0], np.empty(0, dtype=np.int32)
        else:
            joint = sorted(set[str]().union(*(names.tolist() for names in lists)))
            place = {gene: i for i, gene in enumerate(joint)}
            gene_ids = np.array(joint, dtype=object)
            places = np.array([place[g] for names in lists for g in names], dtype=np.int32)
        return cls(gene_ids=gene_ids, places=places, starts=np.cumsum(sizes) - sizes, sizes=sizes)
