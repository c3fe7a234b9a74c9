"""Cells of a corpus as an AnnData object, or as a file of one's own. Knows no format's bytes.

What is written on the shelf `exports/` reads back as the object.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from scipy import sparse

from ..platform.errors import CorpusError, did_you_mean
from ..platform.places import local_path
from ..platform.progress import progress
from .exports.anndata_files import write_h5ad, write_zarr
from .exports.extract import Extract
from .exports.placing import leaving, refuse_taken
from .exports.tables import write_tables

if TYPE_CHECKING:
    from anndata import AnnData

    from .store import Corpus
    from .stream import Selection

FORMS: Mapping[str, Callable[[Extract, Path, Callable[[int], None]], None]] = MappingProxyType(
    {"h5ad": write_h5ad, "zarr": write_zarr, "parquet": write_tables}
)
"""What cells can be written as: name -> who writes."""


def to_anndata(
    corpus: "Corpus",
    *,
    where: str | None = None,
    genes: Sequence[str] | None = None,
    lazy: bool = False,
) -> "AnnData":
    """The cells that a condition chooses, duplicates too (`obs["is_primary"]` tells them).

    A gene that a cell's source did not measure is 0 in the matrix, for AnnData knows no other:
    `var["n_cells_measured"]` tells how many of the cells measured it.

    Args:
        corpus: where from.
        where: a bare condition over `cells`; None for all.
        genes: Ensembl ids or symbols to keep, in this order; None for all genes measured.
        lazy: whether counts are read when they are needed (X is a dask array of CSR chunks), so
            that the cells may be more than fit into memory.

    Returns:
        X: raw counts as float32 CSR (float64 where one exceeds 2**24). obs: index unique, column
        `barcode`, the columns of `cells` that say something, then the source's own (under
        `source_<name>` where the name is taken). var: index Ensembl ids; symbol, biotype.

    Raises:
        QueryError: the condition is refused, or no gene of that name was measured.
        NoCellsError: no cell is chosen.
        CorpusError: `lazy`, and dask is not installed.
    """
    selection = corpus.select(where, primary_only=False)
    if lazy:
        from .exports.lazy import lazy_anndata

        return lazy_anndata(Extract.of(corpus, selection, genes))
    return anndata_of(corpus, selection, genes=genes)


def anndata_of(
    corpus: "Corpus", selection: "Selection", *, genes: Sequence[str] | None = None
) -> "AnnData":
    """The cells of a selection, as `to_anndata` gives them.

    Raises:
        QueryError: no gene of that name was measured.
    """
    import anndata

    extract = Extract.of(corpus, selection, genes)
    blocks = list(extract.blocks())
    counts = blocks[0] if len(blocks) == 1 else sparse.vstack(blocks, format="csr")
    return anndata.AnnData(X=counts, obs=extract.obs(), var=extract.var(), uns=extract.uns)


def export(
    corpus: "Corpus",
    path: str | Path,
    *,
    form: str | None = None,
    where: str | None = None,
    genes: Sequence[str] | None = None,
) -> int:
    """Write the cells that a condition chooses to a new file or folder, whole or not at all.

    What is written reads back as what `to_anndata` gives. Counts go through memory block by block;
    of the metadata all cells' is held (some hundred bytes a cell). The export is on record: a
    vacuum for consent names it when cells of it are withdrawn.

    Args:
        corpus: where from.
        path: the file or folder; nothing is there yet.
        form: one of `FORMS`; told by the path's ending where None.
        where: a bare condition over `cells`; None for all.
        genes: as in `to_anndata`.

    Returns:
        The number of cells written.

    Raises:
        CorpusError: there is no such form, or the name is taken.
        QueryError: the condition is refused, or no gene of that name was measured.
        NoCellsError: no cell is chosen.
        StorageError: the disk says no.
    """
    target = local_path(path).absolute()
    write = FORMS[form_of(target, form)]
    refuse_taken(target)
    extract = Extract.of(corpus, corpus.select(where, primary_only=False), genes)
    with (
        leaving(corpus, extract.selection, target) as temporary,
        progress("exporting", extract.n_cells, "cells") as bar,
    ):
        write(extract, temporary, bar.advance)
    return extract.n_cells


def form_of(target: Path, form: str | None, known: Sequence[str] = tuple(FORMS)) -> str:
    """The form that is meant, by its name or by the path's ending.

    Raises:
        CorpusError: there is no such form.
    """
    name = target.suffix.removeprefix(".") if form is None else form
    if name not in known:
        near = did_you_mean(name, known)
        meant = f"{target}: its ending names no format" if form is None else f"format {form!r}"
        raise CorpusError(f"{meant}; expected one of {', '.join(known)}{near}")
    return name
