"""The modalities beside a source's genes on their way into segments: tested whole, then opened.

Knows sources and settings; knows no corpus. A modality whose values are no counts, or that lacks
cells, is left out with its reason; the genes of the source land all the same.
"""

from collections.abc import Sequence
from pathlib import Path

from scipy import sparse

from ..platform.configuration import Configuration
from ..platform.errors import SourceError
from .proof import checked_counts, choose_layer
from .sources.companions import Companion, companions_of, features_of, row_order
from .sources.protocol import Names, RawBlock, Source
from .sources.spool import SpooledSource, spool
from .sources_toml import SourceEntry


class SurveyedCompanion(Configuration):
    """A modality beside the genes, whose every value was tested.

    Attributes:
        modality: `protein` or `atac`.
        layer: the layer with its counts.
        spool: folder of its buckets, where it had to be spooled.
    """

    modality: str
    layer: str
    spool: Path | None


def survey_companions(
    source: Source, entry: SourceEntry, barcodes: Names, folder: Path
) -> tuple[tuple[SurveyedCompanion, ...], list[str]]:
    """Find a source's other modalities and test their every value.

    Args:
        source: as its reader opened it, not its spool.
        entry: the source's settings.
        barcodes: the cells.
        folder: staging folder of this source.

    Returns:
        The modalities that can be read, and of the others why not.

    Raises:
        SourceError: a modality that the entry names is not there or cannot be read.
    """
    found = companions_of(source)
    asked = entry.modalities
    if asked is not None:
        for name in asked:
            if name not in ("rna", *found):
                raise SourceError(
                    f"{source.path}: has no modality {name!r}; it has {', '.join(['rna', *found])}"
                )
    ready: list[SurveyedCompanion] = []
    notes: list[str] = []
    for modality, other in found.items():
        if asked is not None and modality not in asked:
            notes.append(f"{modality} was left out, as asked")
            continue
        try:
            ready.append(_survey(other, modality, barcodes, folder))
        except SourceError as error:
            if asked is not None:
                raise
            notes.append(f"{modality} was left out: {error}")
    return tuple(ready), notes


def _survey(source: Source, modality: str, barcodes: Names, folder: Path) -> SurveyedCompanion:
    where = f"{source.path}: {modality}"
    layer = choose_layer(source).layer
    features_of(source, layer.name, modality, source.path)
    row_order(barcodes, source.barcodes(), where=where)
    place: Path | None = None
    if layer.order == "columns":
        place = folder / f"spool-{modality}"
        source = spool(source, layer.name, place)
    for block in source.blocks(layer.name, 0, len(source.barcodes())):
        tested(source, layer.name, block)
    return SurveyedCompanion(modality=modality, layer=layer.name, spool=place)


def open_companions(
    source: Source, surveyed: Sequence[SurveyedCompanion], barcodes: Names
) -> dict[str, Companion]:
    """Open surveyed modalities for reading; modality -> what reads it."""
    sources = companions_of(source)
    opened: dict[str, Companion] = {}
    for one in surveyed:
        other = sources[one.modality]
        order = row_order(barcodes, other.barcodes(), where=f"{source.path}: {one.modality}")
        var = features_of(other, one.layer, one.modality, source.path)
        if one.spool is not None:
            other = SpooledSource(path=source.path, folder=one.spool)
        opened[one.modality] = Companion(source=other, layer=one.layer, order=order, var=var)
    return opened


def tested(source: Source, layer: str, block: RawBlock) -> sparse.csr_matrix:
    """A block's counts, every value tested.

    Raises:
        NotRawCountsError: a value is no count.
    """
    return checked_counts(source, layer, block, None)
