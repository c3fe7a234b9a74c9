"""An extract as an AnnData whose counts are read when they are needed. Knows dask; knows no file.

dask is what anndata and scanpy know as "not in memory": slices stay lazy, `to_memory()` reads the
chunks that a slice touches, and scanpy's normalisation runs chunk by chunk.
"""

from typing import TYPE_CHECKING, Any

from scipy import sparse

from ...platform.errors import CorpusError
from .extract import Extract

if TYPE_CHECKING:
    from anndata import AnnData

CELLS_PER_CHUNK = 2048
"""What is read at once: of 2,000 non-zeros a cell 50 MB, in some 20 ms."""


def lazy_anndata(extract: Extract) -> "AnnData":
    """The AnnData of an extract; X is a dask array of CSR chunks, obs and var are in memory.

    The corpus must stay where it is for as long as X is read: a vacuum that ends the snapshot is
    told by an error then, and no other counts are ever read for it.

    dask's own `X.sum()` and `X.mean()` fail, for scipy's sparse chunks do not keep axes. What adds
    up, one dense chunk at a time, is
    `X.map_blocks(lambda counts: counts.toarray(), dtype=X.dtype).sum(axis=0)`.

    Raises:
        CorpusError: dask is not installed.
    """
    try:
        from dask.array.core import Array
    except ImportError as error:
        raise CorpusError(
            "an AnnData that reads its counts later needs dask: pip install 'cytolake[lazy]'"
        ) from error
    import anndata

    n_cells, n_genes = extract.shape
    starts = range(0, n_cells, CELLS_PER_CHUNK)
    ends = [min(start + CELLS_PER_CHUNK, n_cells) for start in starts]
    # One name for one object: dask takes what has the same name for the same array.
    name = f"cytolake-{extract.corpus.uuid}-{extract.corpus.snapshot}-{id(extract)}"
    graph: dict[Any, Any] = {
        (name, place, 0): (extract.counts, start, end)
        for place, (start, end) in enumerate(zip(starts, ends, strict=True))
    }
    counts = Array(
        graph,
        name,
        chunks=(tuple(end - start for start, end in zip(starts, ends, strict=True)), (n_genes,)),
        dtype=extract.dtype,
        meta=sparse.csr_matrix((0, 0), dtype=extract.dtype),
    )
    return anndata.AnnData(X=counts, obs=extract.obs(), var=extract.var(), uns=extract.uns)
