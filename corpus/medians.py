"""Non-zero medians of genes: mergeable exact sketches, and the frozen set a model keeps.

Knows no file and no model. The value whose median is taken is
count / n_counts x 10,000, zeros left out (Theodoris et al. 2023, Methods).

A sketch holds, for each gene, exact integer counts of logarithmic bins whose borders are 1.01
apart, so that sketches merge by adding and a median is within 1 % whatever was merged in which
order. Price: a few hundred small integers a gene.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..platform.errors import DamageError, NoCellsError, ResourceError, VocabularyError

if TYPE_CHECKING:
    from .store import Corpus
    from .stream import Selection

PER = 10_000.0
"""Counts are measured per this many counts of the cell."""

RATIO = 1.01
"""Neighbouring bin borders differ by this factor."""

# Bin b holds values in [RATIO**b, RATIO**(b + 1)); int16 reaches far beyond any real value.
_LOG_RATIO = math.log(RATIO)
_LOWEST_BIN, _HIGHEST_BIN = -2000, 1000  # 2e-9 to 2e4; the largest value there can be is 1e4
_N_BINS = _HIGHEST_BIN - _LOWEST_BIN + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Sketch:
    """How often each gene took which value, in logarithmic bins.

    Attributes:
        gene_ids: the genes. Shape (n_genes,), dtype object (str).
        indptr: where each gene's bins begin and end. Shape (n_genes + 1,), int64.
        bins: bin numbers, ascending within a gene. Shape (n_bins,), int16.
        n_values: how many values fell into each bin, > 0. Shape (n_bins,), int64.
    """

    gene_ids: NDArray[np.object_]
    indptr: NDArray[np.int64]
    bins: NDArray[np.int16]
    n_values: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        gene_ids: NDArray[np.object_],
        indptr: NDArray[np.int64],
        indices: NDArray[np.int32],
        counts: NDArray[np.uint32],
        n_counts: NDArray[np.int64],
    ) -> "Sketch":
        """Sketch some cells.

        Args:
            gene_ids: the gene list. Shape (n_genes,).
            indptr: where each cell's non-zeros begin. Shape (n_cells + 1,).
            indices: positions in `gene_ids`. Shape (n_nonzero,).
            counts: raw counts, all > 0. Shape (n_nonzero,).
            n_counts: each cell's total, the denominator, > 0. Shape (n_cells,).
        """
        order, starts = gene_major(indices, len(gene_ids))
        cell_of = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        values = counts[order] / n_counts[cell_of[order]] * PER
        bins = np.floor(np.log(values) / _LOG_RATIO).astype(np.int64)
        np.clip(bins, _LOWEST_BIN, _HIGHEST_BIN, out=bins)
        ends, used, n_values = _count_bins(starts, bins)
        return cls(gene_ids=gene_ids, indptr=ends, bins=used, n_values=n_values)

    @classmethod
    def merge(cls, sketches: Sequence["Sketch"]) -> "Sketch":
        """Add sketches up; genes come out in ascending order of id."""
        gene_ids = np.array(
            sorted({str(gene_id) for sketch in sketches for gene_id in sketch.gene_ids}),
            dtype=object,
        )
        place = {gene_id: i for i, gene_id in enumerate(gene_ids)}
        keys: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
        n_values: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
        for sketch in sketches:
            genes = np.array([place[gene_id] for gene_id in sketch.gene_ids], dtype=np.int64)
            keys.append(
                np.repeat(genes, np.diff(sketch.indptr)) * _N_BINS + sketch.bins - _LOWEST_BIN
            )
            n_values.append(sketch.n_values)
        unique, inverse = np.unique(np.concatenate(keys), return_inverse=True)
        totals = np.zeros(len(unique), dtype=np.int64)
        np.add.at(totals, inverse, np.concatenate(n_values))
        indptr = np.searchsorted(unique, np.arange(len(gene_ids) + 1) * _N_BINS).astype(np.int64)
        bins = (unique % _N_BINS + _LOWEST_BIN).astype(np.int16)
        return cls(gene_ids=gene_ids, indptr=indptr, bins=bins, n_values=totals)

    def n_cells(self) -> NDArray[np.int64]:
        """How many cells express each gene. Shape (n_genes,)."""
        running = np.concatenate([[0], np.cumsum(self.n_values)])
        return running[self.indptr[1:]] - running[self.indptr[:-1]]

    def medians(self) -> NDArray[np.float64]:
        """Each gene's median, to 1 %; NaN for a gene without values. Shape (n_genes,).

        With an even number of values it is the mean of the middle two, as in numpy.
        """
        medians = np.full(len(self.gene_ids), np.nan)
        for gene, (start, end) in enumerate(zip(self.indptr[:-1], self.indptr[1:], strict=True)):
            if start == end:
                continue
            ends = np.cumsum(self.n_values[start:end])
            middle = np.array([(ends[-1] - 1) // 2, ends[-1] // 2])
            bins = self.bins[start + np.searchsorted(ends, middle, side="right")]
            medians[gene] = np.mean(RATIO ** (bins + 0.5))
        return medians

    def to_columns(self) -> dict[str, pa.Array]:
        """The sketch as the columns `bins` and `n_values`, one list a gene."""
        offsets = pa.array(self.indptr.astype(np.int32))
        return {
            "bins": pa.ListArray.from_arrays(offsets, pa.array(self.bins)),
            "n_values": pa.ListArray.from_arrays(offsets, pa.array(self.n_values)),
        }

    @classmethod
    def from_table(cls, table: pa.Table) -> "Sketch":
        """Read the columns `gene_id`, `bins` and `n_values`."""
        table = table.combine_chunks()
        lengths = table.column("bins").combine_chunks().value_lengths().to_numpy()
        return cls(
            gene_ids=np.array(table.column("gene_id").to_pylist(), dtype=object),
            indptr=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            bins=table.column("bins").combine_chunks().flatten().to_numpy(),
            n_values=table.column("n_values").combine_chunks().flatten().to_numpy(),
        )


def gene_major(
    indices: NDArray[np.int32], n_genes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The places of non-zeros by gene, then by their order: a counting sort.

    Returns:
        The places, shape (n_nonzero,), and where each gene begins, shape (n_genes + 1,).
    """
    starts = np.concatenate([[0], np.cumsum(np.bincount(indices, minlength=n_genes))])
    return _counting_sort(indices, starts.astype(np.int64)), starts.astype(np.int64)


@numba.njit(cache=True, nogil=True)
def _counting_sort(
    indices: NDArray[np.int32], starts: NDArray[np.int64]
) -> NDArray[np.int64]:  # pragma: no cover - compiled
    free = starts.copy()
    order = np.empty(len(indices), dtype=np.int64)
    for place in range(len(indices)):
        gene = indices[place]
        order[free[gene]] = place
        free[gene] += 1
    return order


@numba.njit(cache=True, nogil=True)
def _count_bins(
    starts: NDArray[np.int64], bins: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int16], NDArray[np.int64]]:  # pragma: no cover - compiled
    n_genes = len(starts) - 1
    ends = np.zeros(n_genes + 1, dtype=np.int64)
    used = np.empty(len(bins), dtype=np.int16)
    n_values = np.empty(len(bins), dtype=np.int64)
    tally = np.zeros(_N_BINS, dtype=np.int64)
    n_used = 0
    for gene in range(n_genes):
        low, high = _N_BINS, -1
        for place in range(starts[gene], starts[gene + 1]):
            slot = bins[place] - _LOWEST_BIN
            tally[slot] += 1
            low, high = min(low, slot), max(high, slot)
        for slot in range(low, high + 1):
            if tally[slot]:
                used[n_used] = slot + _LOWEST_BIN
                n_values[n_used] = tally[slot]
                tally[slot] = 0
                n_used += 1
        ends[gene + 1] = n_used
    return ends, used[:n_used].copy(), n_values[:n_used].copy()


@dataclass(frozen=True, kw_only=True, slots=True)
class MediansSet:
    """Non-zero medians frozen with every model trained on them.

    Attributes:
        gene_ids: Ensembl ids, ascending.
        medians: the non-zero median of count / n_counts x 10,000, > 0. Shape (n_genes,).
        origin: where they come from: snapshot, query and number of cells, or a publication.
        digest: SHA-256 of ids and medians; the origin is not part of it.
    """

    gene_ids: tuple[str, ...]
    medians: NDArray[np.float64]
    origin: dict[str, Any] = field(default_factory=dict[str, Any])
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be divided by."""
        if len(self.gene_ids) != len(self.medians):
            raise VocabularyError(
                f"{len(self.gene_ids)} genes and {len(self.medians)} medians, expected as many"
            )
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
            str(gene_id): float(median)
            for gene_id, median in zip(sketch.gene_ids, medians, strict=True)
            if not math.isnan(median) and ":" not in gene_id
        }
        gene_ids = tuple(sorted(found))
        values = np.array([found[gene_id] for gene_id in gene_ids], dtype=np.float64)
        return cls(gene_ids=gene_ids, medians=values, origin=origin)


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
    whole bring their stored sketch; of others the selected cells are read.

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
    left_out = {
        entry.segment_id: source.receipt.source_id
        for source in corpus.state.accepted
        if source.receipt.panel and not source.receipt.panel_use
        for entry in source.segments
    }
    sketches: list[Sketch] = []
    n_cells = 0
    for number in np.unique(selection.segment):
        segment_id = selection.segment_ids[number]
        positions = np.flatnonzero(selection.segment == number)
        if segment_id in left_out:
            continue
        n_cells += len(positions)
        segment = corpus.segment(segment_id)
        if len(positions) == segment.record.n_cells:
            sketches.append(segment.sketch)
            continue
        for start in range(0, len(positions), cells_at_once):
            for batch in corpus.read(selection, positions[start : start + cells_at_once]):
                parts = (batch.gene_ids, batch.indptr, batch.indices, batch.counts, batch.n_counts)
                sketches.append(Sketch.of(*parts))
    if not sketches:
        panels = ", ".join(sorted(set(left_out.values())))
        raise NoCellsError(
            f"no medians: every selected cell is of a panel ({panels}), a source that measures "
            'under half of the coding genes; ingest one with panel = "use" to count it all the same'
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
                for i in np.unique(selection.segment)
                if selection.segment_ids[i] in left_out
            }
        ),
    }
    return MediansSet.of_sketch(Sketch.merge(sketches), origin)
