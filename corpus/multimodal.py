"""Cells with their other modalities as MuData. Knows no file: what is written is the caller's.

A cell that a modality was not measured in has no row there: not measured is never 0.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from ..platform.errors import CorpusError, NoCellsError, QueryError, did_you_mean
from .export import anndata_of
from .features import FEATURE_COLUMNS, MODALITIES, FeatureBatch, Kind

if TYPE_CHECKING:
    from mudata import MuData

    from .store import Corpus
    from .stream import Selection

RNA = "rna"


def to_mudata(
    corpus: "Corpus", *, where: str | None = None, modalities: Sequence[str] | None = None
) -> "MuData":
    """The cells that a condition chooses, one AnnData a modality.

    Args:
        corpus: where from.
        where: a bare condition over `cells`; None for all.
        modalities: `rna` and those of `features.MODALITIES`; None for all that the cells have.

    Returns:
        `mod["rna"]` as `corpus.export` gives it; of the others X is raw counts as float32 CSR and
        var the features, both over all features of the cells chosen. The index of obs is the
        same in all; cells that a modality was not measured in are not in its AnnData. A feature
        that a cell's source lacks, of a modality of counts that it has, is 0:
        `var["n_cells_measured"]` tells how many cells measured it. Of real values
        (`protein_abundance`) X is dense float32, 4 bytes a cell and feature, and NaN where a cell
        has no value.

    Raises:
        QueryError: the condition is refused, or there is no such modality.
        NoCellsError: no cell is chosen, or none has a modality that is asked for.
        CorpusError: the package mudata is not installed.
    """
    try:
        from mudata import MuData, set_options
    except ImportError as error:
        raise CorpusError(
            "several modalities need the package mudata: pip install 'cytolake[multimodal]'"
        ) from error
    import anndata

    asked = (RNA, *MODALITIES) if modalities is None else tuple(modalities)
    for name in asked:
        if name not in (RNA, *MODALITIES):
            raise QueryError(
                f"there is no modality {name!r}{did_you_mean(name, (RNA, *MODALITIES))}; there "
                f"are {', '.join((RNA, *MODALITIES))}"
            )
    selection = corpus.select(where, primary_only=False)
    rna = anndata_of(corpus, selection)
    found: dict[str, Any] = {RNA: rna} if RNA in asked else {}
    for name in MODALITIES:
        pieces = [] if name not in asked else read_features(corpus, selection, name)
        if pieces:
            places, numbers, var = _joined(pieces, MODALITIES[name])
            obs: Any = rna.obs.iloc[places][["cell_id", "barcode"]]
            found[name] = anndata.AnnData(X=numbers, obs=obs, var=var)
        elif name in asked and modalities is not None:
            raise NoCellsError(f"{corpus.uri}: none of the cells chosen has the modality {name!r}")
    with set_options(pull_on_update=False):
        return MuData(found)


def read_features(
    corpus: "Corpus", selection: "Selection", modality: str
) -> list[tuple[NDArray[np.int64], FeatureBatch]]:
    """A modality of the cells of a selection: one batch a segment that has it.

    Returns:
        Positions in the selection, and their numbers; of real values only cells that have some.

    Raises:
        DamageError: a file is not what was committed.
    """
    found: list[tuple[NDArray[np.int64], FeatureBatch]] = []
    for number in np.unique(selection.segment):
        segment = corpus.segment(selection.segment_ids[number])
        companion = segment.companions.get(modality)
        if companion is None:
            continue
        places = np.flatnonzero(selection.segment == number)
        rows = selection.row[places].astype(np.int64)
        with corpus.state.telling_of_its_end():
            if companion.kind.real:
                has_some = np.diff(companion.counts.indptr)[rows] > 0
                places, rows = places[has_some], rows[has_some]
            batch = companion.read(rows)
        if len(places):
            found.append((places, batch))
    return found


def _joined(
    pieces: Sequence[tuple[NDArray[np.int64], FeatureBatch]], kind: Kind
) -> tuple[NDArray[np.int64], Any, Any]:
    """Positions, numbers and features of several segments, over the union of their features."""
    tables = [batch.var for _, batch in pieces]
    features = (
        pa.concat_tables(tables)
        .group_by("feature_id")
        .aggregate([(name, "min") for name in FEATURE_COLUMNS.names[1:]])
    )
    features = features.sort_by("feature_id").rename_columns(
        {f"{name}_min": name for name in FEATURE_COLUMNS.names[1:]}
    )
    ids = features.column("feature_id").to_pylist()
    place_of = {feature_id: place for place, feature_id in enumerate(ids)}
    n_measured = np.zeros(len(ids), dtype=np.int64)
    blocks: list[Any] = []
    for places, batch in pieces:
        columns = np.array([place_of[feature_id] for feature_id in batch.feature_ids])
        entries = batch.to_csr().tocoo()
        rows, into = entries.row, columns[entries.col]
        if kind.real:
            n_measured += np.bincount(into, minlength=len(ids))
            dense = np.full((batch.n_cells, len(ids)), np.nan, dtype=kind.dtype)
            dense[rows, into] = entries.data
            blocks.append(dense)
        else:
            n_measured[columns] += len(places)
            block = (entries.data, (rows, into))
            blocks.append(sparse.csr_matrix(block, shape=(batch.n_cells, len(ids))))
    numbers: Any = np.vstack(blocks) if kind.real else sparse.vstack(blocks, format="csr")
    var = features.to_pandas().set_index("feature_id")
    var["n_cells_measured"] = n_measured
    said = [name for name in var.columns if var[name].notna().any()]
    order = np.argsort(np.concatenate([places for places, _ in pieces]))
    places = np.concatenate([places for places, _ in pieces])[order]
    numbers = numbers[order]
    return places, numbers if kind.real else sparse.csr_matrix(numbers), var[said]
