"""The modalities that a source holds beside its genes: found, tested, read by cell.

Knows which readers have such; knows no corpus. A companion is a source of its own whose rows are
the cells of the first, in the same order or in another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from ...corpus.features import FEATURE_COLUMNS, FeatureBatch
from ...platform.errors import SourceError
from .h5mu import H5muSource, groups_of, modality_of
from .protocol import INDEX, Names, RawBlock, Source
from .tenx_h5 import MODALITIES, TenxH5Source
from .tenx_mtx import TenxMtxSource

Tested = Callable[[Source, str, RawBlock], sparse.csr_matrix]
"""A block's counts as integers, after a test of every value."""


def companions_of(source: Source) -> dict[str, Source]:
    """Modality -> the source that holds it; empty for a reader that has none.

    Raises:
        SourceError: two groups of a file are of one modality.
    """
    found: dict[str, Source] = {}
    if isinstance(source, H5muSource):
        for group in groups_of(source.path):
            modality = modality_of(group)
            if modality in (None, "rna"):
                continue
            if modality in found:
                raise SourceError(f"{source.path}: two of its groups hold {modality}: keep one")
            found[str(modality)] = replace(source, group=group)
    elif isinstance(source, TenxH5Source | TenxMtxSource):
        for feature_type in source.feature_types():
            modality = MODALITIES.get(feature_type)
            if modality is not None:
                found[modality] = replace(source, feature_type=feature_type)
    return found


def row_order(barcodes: Names, theirs: Names, *, where: str) -> NDArray[np.int64] | None:
    """Where each cell stands in a companion; None where both have the same order.

    Raises:
        SourceError: a cell is not there, or its name is not unique.
    """
    ours, others = barcodes.astype(str), theirs.astype(str)
    if len(ours) == len(others) and (ours == others).all():
        return None
    order = np.argsort(others, kind="stable")
    places = np.searchsorted(others[order], ours)
    found = places < len(others)
    found[found] = others[order][places[found]] == ours[found]
    if not found.all():
        raise SourceError(
            f"{where}: {int((~found).sum())} of {len(ours)} cells are not in it: what was not "
            "measured must not be read as 0"
        )
    if len(np.unique(others)) < len(others):
        raise SourceError(f"{where}: names a cell twice, in another order than the genes do")
    return order[places].astype(np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Companion:
    """One modality of a source, open.

    Attributes:
        source: what holds it, read by rows.
        layer: the layer with the counts.
        order: each cell's row in it; None where it is the cell's own. Shape (n_cells,).
        var: its features, columns of `FEATURE_COLUMNS`.
    """

    source: Source
    layer: str
    order: NDArray[np.int64] | None
    var: pa.Table

    def read(self, rows: NDArray[np.int64], tested: Tested) -> sparse.csr_matrix:
        """The counts of some cells, in the order asked for.

        Args:
            rows: rows of the genes' source. Shape (n_rows,).
            tested: tests and converts a block.
        """
        wanted = rows if self.order is None else self.order[rows]
        return rows_of(self.source, self.layer, wanted, tested, self.var.num_rows)

    def batch(self, matrix: sparse.csr_matrix) -> FeatureBatch:
        """Counts as they go into a segment."""
        matrix.sort_indices()
        return FeatureBatch(
            var=self.var,
            indptr=matrix.indptr.astype(np.int64),
            indices=matrix.indices.astype(np.int32),
            values=matrix.data.astype(np.uint32),
        )


def rows_of(
    source: Source, layer: str, rows: NDArray[np.int64], tested: Tested, n_columns: int
) -> sparse.csr_matrix:
    """Some rows of a layer that is read by rows, in the order asked for; uint32."""
    if not rows.size:
        return sparse.csr_matrix((0, n_columns), dtype=np.uint32)
    ascending = np.unique(rows)
    runs = np.split(ascending, np.flatnonzero(np.diff(ascending) != 1) + 1)
    pieces = [
        tested(source, layer, block)
        for run in runs
        for block in source.blocks(layer, int(run[0]), int(run[-1]) + 1)
    ]
    whole = sparse.csr_matrix(sparse.vstack(pieces, format="csr"))
    return sparse.csr_matrix(whole[np.searchsorted(ascending, rows)])


def features_of(source: Source, layer: str, modality: str, path: Path) -> pa.Table:
    """A companion's features.

    Raises:
        SourceError: a feature's name stands twice.
    """
    columns: Mapping[str, Names] = source.genes(layer)
    ids = [str(name) for name in columns[INDEX]]
    if len(set(ids)) < len(ids):
        raise SourceError(f"{path}: {modality} names a feature twice")
    named = next((n for n in ("name", "gene_symbols", "symbol", "gene_name") if n in columns), None)
    n_features = len(ids)
    types = {"protein": "Antibody Capture", "atac": "Peaks"}
    genomes = columns.get("genome")
    return pa.table(
        {
            "feature_id": pa.array(ids, pa.string()),
            "name": pa.array([str(n) for n in columns[named]] if named else [None] * n_features,
                             pa.string()),
            "feature_type": pa.array([types[modality]] * n_features, pa.string()),
            "genome": pa.array(
                [None] * n_features if genomes is None else [str(g) for g in genomes], pa.string()
            ),
        },
        schema=FEATURE_COLUMNS,
    )  # fmt: skip
