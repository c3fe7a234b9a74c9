from typing import Any

import numpy as np
import pytest
from cytolake.ingest.sources.memory import MemorySource
from cytolake.ingest.sources.protocol import RawBlock, find_layer, join_triplets, triplets_of
from cytolake.platform.errors import SourceError
from scipy import sparse


def test_triplets_give_back_the_block():
    matrix = sparse.csr_matrix(np.array([[0, 3], [4, 0], [0, 0]]))
    at = triplets_of(RawBlock(start=10, matrix=matrix))
    assert at.cells.tolist() == [10, 11]
    assert at.genes.tolist() == [1, 0]
    assert at.values.tolist() == [3, 4]


def test_no_triplets_join_to_none():
    assert len(join_triplets([]).values) == 0


def test_an_unknown_layer_is_refused_with_those_there_are(adata: Any):
    adata.layers["counts"] = adata.X
    with pytest.raises(SourceError, match="no layer 'spliced'; it has layers/counts, X"):
        find_layer(MemorySource(adata=adata), "spliced")
