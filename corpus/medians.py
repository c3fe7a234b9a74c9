"""Non-zero medians of genes: the frozen set that a model keeps. Knows no file and no model.

The value whose median is taken is that of `corpus.sketches`.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..platform.errors import DamageError, NoCellsError, ResourceError, VocabularyError
from .content import content_keys, from_binary
from .sketches import Sketch

if TYPE_CHECKING:
    from .store import Corpus
    from .stream import Selection


@dataclass(frozen=True, kw_only=True, slots=True)
class MediansSet:
    """Non-zero medians frozen with every model trained on them.

    Attributes:
        gene_ids: Ensembl ids, ascending.
        medians: the non-zero median of count / n_counts x 10,000, > 0. Shape (n_genes,).
        origin: where they come from: snapshot, query and number of cells, or a publication.
        n_cells: cells that express each gene, where it is known. Shape (n_genes,) or (0,).
        digest: SHA-256 of ids and medians; the rest is not part of it.
    """

    gene_ids: tuple[str, ...]
    medians: NDArray[np.float64]
    origin: dict[str, Any] = field(default_factory=dict[str, Any])
    n_cells: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be divided by."""
        if len(self.gene_ids) != len(self.medians):
            raise VocabularyError(
                f"{len(self.gene_ids)} genes and {len(self.medians)} medians, expected as many"
            )
        if len(self.n_cells) not in (0, len(self.gene_ids)):
            raise VocabularyError(f"{len(self.gene_ids)} genes, but {len(self.n_cells)} n_cells")
        if list(self.gene_ids) != sorted(set(self.gene_ids)):
            raise VocabularyError("the genes of a medians set must ascend, each once")
        bad = np.flatnonzero(~(np.isfinite(self.medians) & (self.medians > 0)))
        if bad.size:
            raise VocabularyError(
                f"median of {self.gene_ids[bad[0]]} is {self.medians[bad[0]]}, expected > 0: "
                "leave out genes that no cell expresses"
            )
        digest = hashlib.sha256("\n".join(self.gene_ids).encode())
        digest.update(self.medians.astype("<f8").tobytes())
        object.__setattr__(self, "digest", digest.hexdigest())

    def of(self, gene_ids: Iterable[str]) -> NDArray[np.float64]:
        """Each gene's median; NaN where the set has none. Shape (n_genes,)."""
        median_of = dict(zip(self.gene_ids, self.medians.tolist(), strict=True))
        return np.array([median_of.get(gene_id, math.nan) for gene_id in gene_ids], dtype=float)

    def to_json(self) -> str:
        """The whole set as JSON text; decimals come back bit by bit."""
        values = {
            "digest": self.digest,
            "origin": self.origin,
            "medians": dict(zip(self.gene_ids, self.medians.tolist(), strict=True)),
            "n_cells": self.n_cells.tolist(),
        }
        return json.dumps(values, indent=0)

    @classmethod
    def from_json(cls, text: str) -> "MediansSet":
        """Read what `to_json` wrote.

        Raises:
            VocabularyError: the text is something else.
            DamageError: the values are not those that were written.
        """
        try:
            values = json.loads(text)
            medians = values["medians"]
            found = cls(
                gene_ids=tuple(medians),
                medians=np.array(list(medians.values()), dtype=np.float64),
                origin=values["origin"],
                n_cells=np.array(values.get("n_cells", []), dtype=np.int64),
            )
            written = values["digest"]
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise VocabularyError(f"not a medians set written by cytolake: {error!r}") from error
        if found.digest != written:
            raise DamageError(f"medians set {written:.12} has the digest {found.digest:.12} now")
        return found

    @classmethod
    def of_sketch(cls, sketch: Sketch, origin: dict[str, Any]) -> "MediansSet":
        """The medians of the sketch's expressed genes that have an id (not `unmapped:`)."""
        medians = sketch.medians()
        found = {
            str(gene_id): (float(median), int(n_cells))
            for gene_id, median, n_cells in zip(
                sketch.gene_ids, medians, sketch.n_cells(), strict=True
            )
            if not math.isnan(median) and ":" not in gene_id
        }
        gene_ids = tuple(sorted(found))
        return cls(
            gene_ids=gene_ids,
            medians=np.array([found[gene_id][0] for gene_id in gene_ids], dtype=np.float64),
            origin=origin,
            n_cells=np.array([found[gene_id][1] for gene_id in gene_ids], dtype=np.int64),
        )


def official_medians(table: Path) -> MediansSet:
    """Geneformer's own medians from their tsv: a header, then Ensembl id and median.

    Raises:
        ResourceError: the file is something else.
    """
    try:
        lines = table.read_text(encoding="utf-8").splitlines()[1:]
        rows = sorted((line.split("\t")[0], float(line.split("\t")[1])) for line in lines)
    except (OSError, IndexError, ValueError) as error:
        raise ResourceError(f"{table}: no table of medians: {error}") from error
    return MediansSet(
        gene_ids=tuple(gene_id for gene_id, _ in rows),
        medians=np.array([median for _, median in rows], dtype=np.float64),
        origin={"table": table.name},
    )


def medians_of(
    corpus: "Corpus", selection: "Selection", *, cells_at_once: int = 8192
) -> MediansSet:
    """The medians set of selected cells: primary ones, of sources that are no panels.

    A panel counts where its source asked for it (`panel = "use"`). Segments that are selected
    whole bring their stored sketch; of others the selected cells are read, or those left out.

    Args:
        corpus: where the cells lie.
        selection: which cells; of primary cells only.
        cells_at_once: how many cells to read at a time.

    Raises:
        VocabularyError: the selection holds duplicates.
        NoCellsError: every selected cell is of a panel.
    """
    if not selection.primary_only:
        raise VocabularyError("medians are of primary cells: select with primary_only=True")
    of_panels = {
        source.receipt.source_id
        for source in corpus.state.accepted
        if source.receipt.panel and not source.receipt.panel_use
    }
    left_out = {
        segment_id: ", ".join(entry.sources)
        for segment_id, entry in corpus.state.segments.items()
        if of_panels & set(entry.sources)  # a compaction mixes panels with their like alone
    }
    chosen = np.unique(selection.segment)
    counted = [n for n in chosen.tolist() if selection.segment_ids[n] not in left_out]
    if not counted:
        panels = ", ".join(sorted(set(left_out.values())))
        raise NoCellsError(
            f"no medians: every selected cell is of a panel ({panels}), a source that measures "
            'under half of the coding genes; ingest one with panel = "use" to count it all the same'
        )
    # Positions ascend by segment (the canonical order), so each segment's are a slice.
    ends = np.searchsorted(selection.segment, [[n, n + 1] for n in counted])
    n_cells = int((ends[:, 1] - ends[:, 0]).sum())
    merged = Sketch.merge(
        sketch
        for start, stop in ends.tolist()
        for sketch in _sketches(corpus, selection, np.arange(start, stop), cells_at_once)
    )
    origin = {
        "corpus_uuid": corpus.uuid,
        "snapshot": selection.snapshot,
        "where": selection.where,
        "part": selection.part,
        "selection": selection.digest,
        "n_cells": n_cells,
        "panels_left_out": sorted(
            {
                left_out[selection.segment_ids[i]]
                for i in chosen.tolist()
                if selection.segment_ids[i] in left_out
            }
        ),
    }
    return MediansSet.of_sketch(merged, origin)


def _sketches(
    corpus: "Corpus", selection: "Selection", positions: NDArray[np.int64], cells_at_once: int
) -> Iterator[Sketch]:
    """Sketches that add up to that of some cells of one segment.

    The stored sketch is of all its cells: if fewer are left out than taken, those are read and
    taken off. So a deletion of a few cells everywhere does not make everything be read.
    """
    segment = corpus.segment(selection.segment_ids[selection.segment[positions[0]]])
    n_rows = segment.record.n_cells
    if 2 * len(positions) < n_rows:
        for start in range(0, len(positions), cells_at_once):
            for batch in corpus.read(selection, positions[start : start + cells_at_once]):
                parts = (batch.gene_ids, batch.indptr, batch.indices, batch.counts, batch.n_counts)
                yield Sketch.of(*parts)
        return
    with corpus.state.telling_of_its_end():
        whole = segment.sketch
        others = np.setdiff1d(np.arange(n_rows), selection.row[positions])
        if len(others):
            rows = segment.record.cells().take(pa.array(others))
            n_counts = rows.column("n_counts").to_numpy()
            keys = content_keys(from_binary(rows.column("content_hash")))
            for start in range(0, len(others), cells_at_once):
                some = slice(start, start + cells_at_once)
                read = segment.read(others[some], keys[some])
                gone = Sketch.of(segment.gene_ids, *read, n_counts[some])
                whole = whole.without(gone)
    yield whole
