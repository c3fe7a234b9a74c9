"""A file's or an AnnData's own cells to cell states: joins ingest's readers to evaluate.

Needs no corpus. Knows no format and no model.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .platform.errors import SourceError
from .platform.settings import Settings, load_settings

if TYPE_CHECKING:
    from anndata import AnnData

    from .evaluate.embeddings import Coverage, Embedding

KEY = "X_cytolake"
"""The entry of `obsm` that cell states are written to."""


def embed(
    adata: "AnnData",
    *,
    model: str | Path,
    key: str = KEY,
    allow_low_coverage: bool = False,
    settings: Settings | None = None,
) -> "Coverage":
    """Put the cell states of an AnnData's cells into its `obsm`.

    Args:
        adata: cells with raw counts in `raw`, a layer or `X`; genes named by Ensembl ids or
            symbols. Shape (n_obs, n_vars).
        model: a checkpoint folder, or the name of a run under `<home>/runs`.
        key: the entry of `obsm` to write: float32, shape (n_obs, width); NaN for a cell that
            expresses no gene of the vocabulary.
        allow_low_coverage: go on when under half of the counts fall on vocabulary genes.
        settings: where runs and resources are; read from the working folder where None.

    Returns:
        The shares of the counts and of the vocabulary that the cells and the model have in common.

    Raises:
        NotRawCountsError: no matrix holds raw counts.
        NoGenesError: no gene name is recognised.
        EvaluationError: low coverage that was not allowed.
        CheckpointError: no such model.
    """
    settings = settings or load_settings()
    embedding = _embed(adata, model, settings, allow_low_coverage)
    adata.obsm[key] = embedding.states_cd
    return embedding.coverage


def embed_file(
    file: Path,
    model: str | Path,
    output: Path,
    settings: Settings,
    *,
    allow_low_coverage: bool = False,
) -> str:
    """Write a copy of an h5ad with cell states in `obsm["X_cytolake"]`.

    Returns:
        What to tell the user: cells, and the two shares of coverage.

    Raises:
        SourceError: the file is no h5ad, or the output is the file itself.
        CytolakeError: as in `embed`.
    """
    import anndata

    if file.suffix != ".h5ad":
        raise SourceError(f"{file}: embed writes a copy of an h5ad; convert the file to one first")
    if not file.is_file():
        raise SourceError(f"{file}: no such file")
    if output.resolve() == file.resolve():
        raise SourceError(f"{output} is the file itself; give the copy another name")
    embedding = _embed(file, model, settings, allow_low_coverage)
    copy = anndata.read_h5ad(file)
    copy.obsm[KEY] = embedding.states_cd
    copy.write_h5ad(output)
    return f"{output}: {coverage_text(embedding.coverage)}"


def coverage_text(coverage: "Coverage") -> str:
    """Coverage in words, for the terminal."""
    empty = f", {coverage.n_empty:,} of them without any known gene" if coverage.n_empty else ""
    return (
        f"{coverage.n_cells:,} cells embedded{empty}. "
        f"{coverage.counts_share:.1%} of the counts fall on the model's genes; "
        f"{coverage.vocabulary_share:.1%} of the model's genes are measured"
    )


def _embed(
    cells: "Path | AnnData", model: str | Path, settings: Settings, allow_low_coverage: bool
) -> "Embedding":
    from .corpus.genes import GeneReference
    from .evaluate.embeddings import embed_batches
    from .ingest.job import gene_table
    from .ingest.reading import open_cells
    from .platform.progress import progress
    from .train.checkpoints import load_checkpoint
    from .train.model_names import find_model

    checkpoint = load_checkpoint(find_model(str(model), settings))
    reference = GeneReference.load(gene_table(settings))
    with tempfile.TemporaryDirectory() as spool:
        opened = open_cells(cells, reference, spool_folder=Path(spool))
        with progress("embedding", opened.n_cells, "cells") as bar:
            return embed_batches(
                checkpoint,
                opened.batches(),
                allow_low_coverage=allow_low_coverage,
                advance=bar.advance,
            )
