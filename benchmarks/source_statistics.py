"""What a real source looks like in numbers: learnt from its raw counts, kept in a small file.

Knows counts, genes and labels of cells; knows nothing of how cells are made from the numbers.

Array suffixes: c cell, g gene, k cell type, q quantile.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cytolake.corpus.genes import UNMAPPED, GeneReference
from cytolake.ingest.metadata import as_text
from cytolake.ingest.proof import Recovery, count_offence
from cytolake.ingest.reading import open_cells
from cytolake.ingest.survey import gene_table, load_reference
from cytolake.platform.errors import ResourceError, SourceError, did_you_mean
from cytolake.platform.resources import available, find
from cytolake.platform.settings import Settings
from cytolake.platform.storage import sha256_file
from numpy.typing import NDArray
from scipy import sparse

FORMAT = 1
QUANTILES = np.linspace(0, 1, 101)
UNKNOWN = "unknown"
PRIOR_COUNTS = 5_000.0
"""A type's profile is drawn towards all cells' as if so many of its counts were theirs: about two
cells of a source of ordinary depth, so that a type of ten cells keeps its markers."""

_LARGEST_DISPERSION = 20.0
_MIDDLES = np.linspace(0.025, 0.975, 20)


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """The numbers of a source, enough to make cells like its own.

    Attributes:
        gene_ids: Ensembl ids, ascending.
        symbols: of the genes.
        biotypes: of the genes.
        cell_types: the labels of its cells, ascending.
        cells_k: cells of each type. Shape (n_types,), int64.
        totals_kg: raw counts of each gene over a type's cells. Shape (n_types, n_genes), uint64.
        sizes_kq: quantiles 0, 0.01 ... 1 of a type's counts a cell. Shape (n_types, 101).
        dispersion_g: by how much a gene varies beyond Poisson between cells of one type and size:
            variance = mean + dispersion * mean ** 2. Shape (n_genes,).
        detected_g: cells in which each gene is seen. Shape (n_genes,), int64.
        nonzeros_q: quantiles of the genes seen in a cell. Shape (101,).
        facts: columns of cells that are the same for all of them, such as tissue.
        origin: where the numbers come from.
    """

    gene_ids: tuple[str, ...]
    symbols: tuple[str, ...]
    biotypes: tuple[str, ...]
    cell_types: tuple[str, ...]
    cells_k: NDArray[np.int64]
    totals_kg: NDArray[np.uint64]
    sizes_kq: NDArray[np.float64]
    dispersion_g: NDArray[np.float64]
    detected_g: NDArray[np.int64]
    nonzeros_q: NDArray[np.float64]
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    origin: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self.gene_ids)

    @property
    def n_cells(self) -> int:
        """Cells that the numbers were learnt from."""
        return int(self.cells_k.sum())

    @property
    def mean_counts(self) -> float:
        """Mean counts a cell."""
        return float(self.totals_kg.sum(dtype=np.float64)) / self.n_cells

    @property
    def mean_nonzeros(self) -> float:
        """Mean number of genes seen in a cell."""
        return float(self.detected_g.sum()) / self.n_cells

    def profiles(self) -> NDArray[np.float64]:
        """Each type's share of counts by gene; rows sum to 1. Shape (n_types, n_genes).

        Genes that no cell showed share the mass that Good and Turing give the unseen (genes seen
        once / all counts: Good 1953, doi:10.1093/biomet/40.3-4.237): they appear as cells grow.
        """
        return profiles_of(self.totals_kg.astype(np.float64))

    def keep_genes(self, n_genes: int) -> "Statistics":
        """The same source as if only its most often seen genes had been measured.

        What follows from all genes (counts and genes a cell) is scaled to the share that is kept.
        """
        chosen = np.sort(np.argsort(-self.detected_g, kind="stable")[:n_genes])
        totals_kg = self.totals_kg[:, chosen]
        share_k = totals_kg.sum(axis=1) / np.maximum(self.totals_kg.sum(axis=1), 1)
        return Statistics(
            gene_ids=tuple(self.gene_ids[g] for g in chosen),
            symbols=tuple(self.symbols[g] for g in chosen),
            biotypes=tuple(self.biotypes[g] for g in chosen),
            cell_types=self.cell_types,
            cells_k=self.cells_k,
            totals_kg=totals_kg,
            sizes_kq=self.sizes_kq * share_k[:, None],
            dispersion_g=self.dispersion_g[chosen],
            detected_g=self.detected_g[chosen],
            nonzeros_q=self.nonzeros_q * self.detected_g[chosen].sum() / self.detected_g.sum(),
            facts=self.facts,
            origin={**self.origin, "genes_kept": str(len(chosen))},
        )

    def save(self, path: Path) -> None:
        """Write the numbers as a compressed npz: arrays of numbers, words as JSON bytes."""
        words = {name: getattr(self, name) for name in _WORDS} | {"format": FORMAT}
        text = np.frombuffer(json.dumps(words, default=dict).encode(), dtype=np.uint8)
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        with path.open("wb") as file:
            np.savez_compressed(file, words=text, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """Read what `save` wrote.

        Raises:
            ResourceError: the file is something else, or of a newer format.
        """
        try:
            with np.load(path, allow_pickle=False) as held:
                words: dict[str, Any] = json.loads(held["words"].tobytes())
                arrays = {name: held[name] for name in _ARRAYS}
            if words.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            for name in ("gene_ids", "symbols", "biotypes", "cell_types"):
                words[name] = tuple(words[name])
            return cls(**words, **arrays)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResourceError(
                f"{path}: no statistics of a source ({error}); write some with Statistics.save"
            ) from error


_WORDS = ("gene_ids", "symbols", "biotypes", "cell_types", "facts", "origin")
_ARRAYS = ("cells_k", "totals_kg", "sizes_kq", "dispersion_g", "detected_g", "nonzeros_q")


def learn(
    counts: sparse.csr_matrix,
    gene_ids: Sequence[str],
    *,
    cell_types: Sequence[str | None] | None = None,
    symbols: Sequence[str] | None = None,
    biotypes: Sequence[str] | None = None,
    facts: Mapping[str, str] | None = None,
    origin: Mapping[str, str] | None = None,
) -> Statistics:
    """Take the numbers of some cells.

    Args:
        counts: raw counts (of an AnnData object: its `X`). Shape (n_cells, n_genes).
        gene_ids: names of the columns.
        cell_types: label of each cell; one type of all where None.
        symbols: of the genes; their ids where None.
        biotypes: of the genes; empty where None.
        facts: columns of cells that are the same for all of them.
        origin: where the counts come from.

    Raises:
        SourceError: the parts do not fit, a value is no count, or there is nothing to learn from.
    """
    n_cells, n_genes = _shape(counts)
    labels = [UNKNOWN] * n_cells if cell_types is None else [str(k or UNKNOWN) for k in cell_types]
    if len(gene_ids) != n_genes or len(labels) != n_cells:
        raise SourceError(
            f"{len(gene_ids)} names of genes and {len(labels)} labels, expected {n_genes} and "
            f"{n_cells}: one for each column and row"
        )
    counts_cg = sparse.csr_matrix(counts, dtype=np.float64, copy=True)
    counts_cg.sum_duplicates()
    counts_cg.eliminate_zeros()
    if count_offence(counts_cg.data) is not None:
        raise SourceError("a value is no raw count (negative or fractional): learn from raw counts")
    if not counts_cg.nnz:
        raise SourceError(f"{n_cells} cells without a single count: nothing to learn from")
    order = np.array(sorted(range(n_genes), key=gene_ids.__getitem__), dtype=np.int64)
    counts_cg = sparse.csr_matrix(counts_cg[:, order])
    size_c = np.asarray(counts_cg.sum(axis=1)).ravel()
    types, type_c = np.unique(np.array(labels, dtype=str), return_inverse=True)
    member_kc = sparse.csr_matrix(
        (np.ones(n_cells), (type_c, np.arange(n_cells))), shape=(len(types), n_cells)
    )
    totals_kg = sparse.csr_matrix(member_kc @ counts_cg).toarray()
    nonzeros_c = np.diff(counts_cg.indptr)
    sizes_kq = np.stack([np.quantile(size_c[type_c == k], QUANTILES) for k in range(len(types))])
    return Statistics(
        gene_ids=tuple(str(gene_ids[g]) for g in order),
        symbols=tuple(str((symbols or gene_ids)[g]) for g in order),
        biotypes=tuple("" if biotypes is None else str(biotypes[g]) for g in order),
        cell_types=tuple(str(name) for name in types),
        cells_k=np.bincount(type_c).astype(np.int64),
        totals_kg=totals_kg.astype(np.uint64),
        sizes_kq=sizes_kq,
        dispersion_g=_dispersion(counts_cg, member_kc, totals_kg, size_c, sizes_kq),
        detected_g=np.bincount(counts_cg.indices, minlength=n_genes).astype(np.int64),
        nonzeros_q=np.quantile(nonzeros_c, QUANTILES),
        facts=dict(facts or {}),
        origin=dict(origin or {}),
    )


def _shape(matrix: sparse.csr_matrix) -> tuple[int, int]:
    n_cells, n_genes = matrix.get_shape()
    return int(n_cells), int(n_genes)


def profiles_of(totals_kg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of counts by gene from each type's totals; see `Statistics.profiles`."""
    pooled_g = totals_kg.sum(axis=0)
    unseen_g = pooled_g == 0
    missing = float((pooled_g == 1).sum()) / pooled_g.sum() if unseen_g.any() else 0.0
    pooled_g = pooled_g / pooled_g.sum() * (1 - missing)
    pooled_g[unseen_g] = missing / max(int(unseen_g.sum()), 1)
    mixed_kg = totals_kg + PRIOR_COUNTS * pooled_g
    return np.asarray(mixed_kg / mixed_kg.sum(axis=1, keepdims=True))


def expected_cells(
    profiles_kg: NDArray[np.float64],
    sizes_kq: NDArray[np.float64],
    cells_k: NDArray[np.int64],
    dispersion_g: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Cells in which each gene is to be seen: 1 - P(0) of the negative binomial law, summed.

    A type's sizes are taken at the middles of its twentieths. Shape (n_genes,).
    """
    spread_g = np.maximum(dispersion_g, 1e-9)
    cells_g = np.zeros(len(spread_g))
    for profile_g, sizes_q, n_cells in zip(profiles_kg, sizes_kq, cells_k, strict=True):
        for size in np.interp(_MIDDLES, QUANTILES, sizes_q):
            none_g = np.exp(-np.log1p(spread_g * profile_g * size) / spread_g)
            cells_g += n_cells / len(_MIDDLES) * (1 - none_g)
    return cells_g


def _dispersion(
    counts_cg: sparse.csr_matrix,
    member_kc: sparse.csr_matrix,
    totals_kg: NDArray[np.float64],
    size_c: NDArray[np.float64],
    sizes_kq: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Each gene's dispersion, against the mean that type and size of the cell give.

    Genes seen in under nine cells of ten take the dispersion at which as many cells show them as
    did; moments would be ruled by the few largest counts. Of the others, which hardly any cell
    lacks, moments. Shape (n_genes,).
    """
    n_cells = len(size_c)
    cells_k = np.asarray(member_kc.sum(axis=1)).ravel().astype(np.int64)
    profiles_kg = profiles_of(totals_kg)
    detected_g = np.bincount(counts_cg.indices, minlength=profiles_kg.shape[1])
    seen = np.flatnonzero(detected_g)
    low, high = np.full(len(seen), np.log(1e-4)), np.full(len(seen), np.log(_LARGEST_DISPERSION))
    for _ in range(16):
        middle = (low + high) / 2
        expected = expected_cells(profiles_kg[:, seen], sizes_kq, cells_k, np.exp(middle))
        too_many = expected > detected_g[seen]
        low, high = np.where(too_many, middle, low), np.where(too_many, high, middle)
    dispersion_g = np.zeros(len(detected_g))
    dispersion_g[seen] = np.exp((low + high) / 2)
    squares_g = np.asarray(counts_cg.multiply(counts_cg).sum(axis=0)).ravel()
    by_size_kg = sparse.csr_matrix(member_kc.multiply(size_c) @ counts_cg).toarray()
    squared_size_k = np.asarray(member_kc @ size_c**2)
    squared_mean_g = (squared_size_k[:, None] * profiles_kg**2).sum(axis=0)
    residue_g = squares_g - 2 * (profiles_kg * by_size_kg).sum(axis=0) + squared_mean_g
    often = detected_g >= 0.9 * n_cells
    moments_g = (residue_g - totals_kg.sum(axis=0))[often] / squared_mean_g[often]
    dispersion_g[often] = np.clip(moments_g, 0, _LARGEST_DISPERSION)
    return dispersion_g


def learn_file(
    path: Path,
    reference: GeneReference,
    *,
    label: str,
    recover: Recovery | None = None,
    facts: Mapping[str, str] | None = None,
) -> Statistics:
    """Take the numbers of a file that ingest reads; genes without an Ensembl id are left out.

    Args:
        path: the file.
        reference: the genes.
        label: the column of cells with their types.
        recover: how counts come out of log values, where the file holds no counts.
        facts: columns of cells that are the same for all of them.

    Raises:
        SourceError: the file cannot be read, has no counts or no such column.
    """
    opened = open_cells(path, reference, recover=recover)
    obs = opened.source.obs(0, opened.n_cells)
    if label not in obs.column_names:
        raise SourceError(
            f"{path}: has no column {label!r} of cells; it has {', '.join(obs.column_names)}"
            f"{did_you_mean(label, obs.column_names)}"
        )
    counts = sparse.vstack([batch.to_csr() for batch in opened.batches()], format="csr")
    known = np.array([not str(gene).startswith(UNMAPPED) for gene in opened.genes.gene_ids])
    gene_ids = [str(gene) for gene in opened.genes.gene_ids[known]]
    return learn(
        sparse.csr_matrix(sparse.csc_matrix(counts)[:, np.flatnonzero(known)]),
        gene_ids,
        cell_types=as_text(obs.column(label)).to_pylist(),
        symbols=[str(name) for name in reference.symbol_of(gene_ids)],
        biotypes=[str(name) for name in reference.biotype_of(gene_ids)],
        facts=facts,
        origin={"file": path.name, "sha256": sha256_file(path), "label": label},
    )


def default_statistics(settings: Settings) -> Statistics:
    """The numbers of the richest source at hand: pbmc3k's 32,738 genes, else scanpy's 765.

    Raises:
        ResourceError: scanpy is not installed, or there is no gene reference.
    """
    reference = load_reference(gene_table(settings))
    facts = {"organism": "Homo sapiens", "tissue": "blood"}
    rich = available("pbmc3k-labelled", settings)
    if rich is not None:
        return learn_file(rich, reference, label="cell_type", facts=facts)
    poor = find("pbmc68k-reduced", settings)
    return learn_file(poor, reference, label="bulk_labels", recover="log1p_cp10k", facts=facts)
