"""Medians sets as files: made from a snapshot and a condition, and held against other sets.

Knows files and official sets; the medians themselves are `corpus.medians`' matter.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from ..platform.errors import RecipeError, ResourceError
from ..platform.resources import find
from ..platform.screen import table
from ..platform.settings import Settings
from ..platform.storage import write_durably
from .bulk import BULK_ALONE
from .median_comparison import compare_medians
from .medians import MediansSet, medians_of, official_medians

if TYPE_CHECKING:
    from .store import Corpus

OFFICIAL = ("geneformer-v1", "geneformer-v2")


def read_medians(path: Path) -> MediansSet:
    """A set that `make_medians` has written.

    Raises:
        ResourceError: there is no such file.
        VocabularyError: it is no medians set.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResourceError(f"{path}: no medians set can be read there: {error}") from error
    return MediansSet.from_json(text)


def make_medians(
    corpus: "Corpus",
    output: Path,
    where: str | None = None,
    against: str | None = None,
    plot: Path | None = None,
    *,
    settings: Settings,
) -> list[str | Table]:
    """Freeze the medians of some cells in a file, and hold them against another set.

    Args:
        corpus: at a snapshot.
        output: the file.
        where: a condition over `cells`; None for all primary cells.
        against: an official set, or a file.
        plot: where to draw the comparison; needs `against`.
        settings: where official sets are found.

    Returns:
        What to show: lines and tables.

    Raises:
        RecipeError: a plot without a set to compare with.
        NoCellsError: no cell is chosen, or all of them are of panels.
        ResourceError: the other set is out of reach.
    """
    if plot is not None and against is None:
        raise RecipeError("a plot shows two sets: name the other by --against geneformer-v1")
    other = None if against is None else _other_set(against, settings)
    selection = corpus.select(where)
    medians = medians_of(corpus, selection)
    write_durably(output, medians.to_json().encode())
    shown: list[str | Table] = [
        f"{output}: medians of {len(medians.gene_ids):,} genes over "
        f"{medians.origin['n_cells']:,} cells of snapshot {corpus.snapshot}; digest "
        f"{medians.digest:.12}"
    ]
    if medians.origin["panels_left_out"]:
        shown.append(
            f"left out, for they are panels: {', '.join(medians.origin['panels_left_out'])}"
        )
    if selection.n_bulk_left_out:
        shown.append(
            f"left out, for they are no cells: {selection.n_bulk_left_out:,} bulk samples; their "
            f'own medians: --where "{BULK_ALONE}"'
        )
    if other is not None:
        comparison = compare_medians(medians, other, str(against))
        shown += [comparison.text, table(comparison.furthest().to_pylist(), title="furthest apart")]
        if plot is not None:
            comparison.plot().savefig(plot, dpi=144)
            shown.append(f"drawn in {plot}")
    return shown


def _other_set(name: str, settings: Settings) -> MediansSet:
    if name in OFFICIAL:
        return official_medians(find(f"{name}-medians", settings))
    return read_medians(Path(name).expanduser())
