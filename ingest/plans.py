"""What an ingest would do, source by source, as a screen shows it.

Knows settings and thresholds; knows no file and does no work (`planning.py` does).
"""

from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from ..platform.screen import table
from .places import is_elsewhere
from .quality import Thresholds
from .sources_toml import SourceEntry


@dataclass(frozen=True, kw_only=True, slots=True)
class SourcePlan:
    """What would become of one source.

    Attributes:
        entry: its settings, as they were given.
        source_id: the name that it asks for.
        path: the file or folder; None where there is none.
        metadata: the table of cells beside it.
        orthologs: the table of orthologs that its genes need.
        error: why it would be refused; all that follows is empty then.
        format: the reader.
        layer: the matrix with the raw counts.
        proof: one line on why that matrix.
        genes_column: the column of the gene table that names the genes.
        n_gene_names: names of genes.
        n_mapped: names that have an Ensembl id.
        gene_kinds: how many names were understood in each way.
        panel: whether under half of the coding genes are measured.
        own_columns: the source's own columns of cells.
        mapped: column of the corpus -> where its values come from.
        likely: column of the corpus -> own column that may mean it; proposed, never taken.
        burden: how malignant cells are known.
        n_cells: cells (rows) of the source.
        n_counts: counts stored, zeros apart.
        thresholds: frozen from the whole source.
        dropped: reason -> cells that would be dropped, doublets apart.
        notes: what else should be known.
        n_bytes: size of the source.
        bytes_expected: size of its segments.
        seconds_expected: time of an ingest on `n_cpus` cores, from what pass 1 took here.
    """

    entry: SourceEntry
    source_id: str
    path: Path | None
    metadata: Path | None = None
    orthologs: Path | None = None
    error: str | None = None
    format: str = ""
    layer: str = ""
    proof: str = ""
    genes_column: str = ""
    n_gene_names: int = 0
    n_mapped: int = 0
    gene_kinds: dict[str, int] = field(default_factory=dict[str, int])
    panel: bool = False
    own_columns: tuple[str, ...] = ()
    mapped: dict[str, str] = field(default_factory=dict[str, str])
    likely: dict[str, str] = field(default_factory=dict[str, str])
    burden: str = ""
    n_cells: int = 0
    n_counts: int = 0
    thresholds: Thresholds = field(default_factory=lambda: Thresholds(bounds={}, skipped={}))
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    notes: tuple[str, ...] = ()
    n_bytes: int = 0
    bytes_expected: int = 0
    seconds_expected: float = 0.0

    @property
    def place(self) -> str:
        """Where the source lies: the file found, or the URI that a copy of it came from."""
        here = self.path is not None and not is_elsewhere(self.entry)
        return str(self.path) if here else self.entry.place

    @property
    def n_kept(self) -> int:
        """Cells that would be kept, doublets apart."""
        return self.n_cells - sum(self.dropped.values())

    def rows(self) -> list[tuple[str, str]]:
        """One screen: what is asked, and the answer."""
        if self.error is not None:
            return [("refused because", self.error)]
        share = self.n_mapped / max(1, self.n_gene_names)
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in sorted(self.gene_kinds.items()))
        bounds = (f"{name} {bound:,.4g}" for name, bound in self.thresholds.bounds.items())
        skipped = (f"{rule}: {why}" for rule, why in self.thresholds.skipped.items())
        return [
            ("format", self.format),
            ("raw counts", self.proof),
            ("genes", f"{share:.1%} of {self.n_gene_names:,} names have an Ensembl id "
             f"(column {self.genes_column!r}: {kinds})" + ("; a panel" if self.panel else "")),
            ("columns mapped", "; ".join(f"{name}: {how}" for name, how in self.mapped.items())),
            ("likely, not taken", "; ".join(f"{k}: column {v}" for k, v in self.likely.items())),
            ("own columns", ", ".join(self.own_columns) or "none"),
            ("malignant cells", self.burden),
            ("thresholds", ", ".join(bounds) or "none"),
            ("rules skipped", "; ".join(skipped)),
            ("cells", f"{self.n_cells:,}, {self.n_kept:,} kept"
             + "".join(f", {n:,} {reason}" for reason, n in self.dropped.items())),
            ("expected", f"{self.bytes_expected / 1e6:,.1f} MB in the corpus, "
             f"{self.seconds_expected:,.0f} s"),
            ("notes", "; ".join(self.notes)),
        ]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanReport:
    """What an ingest would do.

    Attributes:
        sources: in the order in which they were given.
        unit_cells: the most cells of a work unit.
    """

    sources: tuple[SourcePlan, ...]
    unit_cells: int

    @property
    def exit_status(self) -> int:
        """0 where no source would be refused, else 1."""
        return int(any(source.error is not None for source in self.sources))

    def tables(self) -> list[Table]:
        """What a screen shows: a table a source."""
        return [
            table(
                [{"of": name, source.source_id: said} for name, said in source.rows() if said],
                title=source.place,
            )
            for source in self.sources
        ]
