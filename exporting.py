"""Cells of a corpus to a file of any form: joins train's tokens to corpus's exports.

Knows forms by name; knows no format's bytes and no command line.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .platform.errors import SettingsError
from .platform.settings import Settings

if TYPE_CHECKING:
    from .corpus.store import Corpus

TOKENS = "tokens"
TOKENS_ENDING = ".dataset"
"""What the official tokenizer calls its folders."""

DEFAULT_RECIPE = "geneformer-v2"
"""The official tokenizer's default, too."""


def export_cells(
    corpus: "Corpus",
    out: Path,
    settings: Settings,
    *,
    form: str | None = None,
    where: str | None = None,
    genes: Sequence[str] | None = None,
    recipe: str | None = None,
    columns: Sequence[str] | None = None,
) -> str:
    """Write cells to a new file or folder.

    Args:
        corpus: where from.
        out: where to.
        settings: where official vocabularies are found.
        form: one of `corpus.export.FORMS`, or tokens; told by the ending of `out` where None.
        where: a condition over `cells`; None for all.
        genes: of a matrix: which; None for all.
        recipe: of tokens: see `train.token_datasets.export_tokens`.
        columns: of tokens: what to keep of `cells` beside them.

    Returns:
        What to tell the user.

    Raises:
        SettingsError: an option that this form does not have.
        CytolakeError: as in `corpus.export.export` and `export_tokens`.
    """
    from .corpus.export import FORMS, form_of

    named = form or (TOKENS if out.suffix == TOKENS_ENDING else None)
    meant = form_of(out, named, (*FORMS, TOKENS))
    if meant != TOKENS:
        if recipe or columns:
            raise SettingsError(f"--recipe and --columns are of --format tokens, not of {meant}")
        n_cells = corpus.export(out, where, genes, form=meant)
        return f"{out}: {n_cells:,} cells of snapshot {corpus.snapshot}"
    if genes:
        raise SettingsError("--genes: tokens are of the genes of a vocabulary; leave it out")
    from .train.token_datasets import COLUMNS, export_tokens

    done = export_tokens(
        corpus, out, recipe or DEFAULT_RECIPE, settings, where=where, columns=columns or COLUMNS
    )
    left_out = f"; {done.n_empty:,} without a gene of the vocabulary left out"
    return (
        f"{out}: {done.n_cells:,} cells of snapshot {corpus.snapshot}"
        f"{left_out if done.n_empty else ''}"
    )
