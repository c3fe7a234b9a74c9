"""What a file holds, told in seconds and without a corpus: format, counts, genes, cells, columns.

Judges large files by a sample and says so; ingest tests every value.
"""

import tempfile
from dataclasses import dataclass
from dataclasses import replace as with_changes
from pathlib import Path
from textwrap import shorten

import pyarrow as pa

from ..corpus.genes import OUTSIDE
from ..corpus.schema import ANNOTATIONS
from ..platform.errors import NotRawCountsError, SourceError
from ..platform.places import local_path
from ..platform.settings import Settings
from .fetching import fetch
from .harmonise import choose_names, harmonise
from .metadata import as_text
from .places import as_given, is_elsewhere, settled
from .proof import TOTALS, LayerChoice, choose_layer, recoverable_layer
from .sources.protocol import INDEX, Names, Source
from .sources.tables import TableSource, column_names, row_names, with_parts
from .sources_toml import SourceEntry, SourcesFile, default_name
from .survey import find_duplicates, gene_table, load_reference, open_entry

_LOOKED_AT = 2000
_LONGEST_ANSWER = 400

LIKELY: dict[str, tuple[str, ...]] = {
    "cell_type": ("celltype", "cell_type", "cluster_id", "bulk_labels", "annotation", "label"),
    "donor_id": ("donor", "patient", "individual", "subject", "sample_id", "orig.ident"),
    "tissue": ("tissue", "organ"),
    "assay": ("assay", "platform", "protocol", "chemistry", "technology"),
    "disease": ("disease", "diagnosis", "condition"),
    "sex": ("sex", "gender"),
    "development_stage": ("development_stage", "age", "stage"),
    "technical_batch": ("technical_batch", "batch", "library", "lane", "channel"),
}
"""Column of the corpus -> words by which a source's column may mean it, the likeliest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What is in a file.

    Attributes:
        path: the file or folder.
        format: the reader that reads it.
        n_cells: cells; None where only a pass over the whole file would tell.
        n_genes: names of genes; None likewise.
        layers: name -> number of genes, of all matrices.
        layer: the matrix with the raw counts (or the one that they can be recovered from).
        recover: whether they have to be recovered.
        proof: one line on why that matrix.
        genes_column: which column names the genes.
        n_looked_at: how many names of genes were looked at.
        kinds: how those were understood.
        first_unmapped: the first names that have no Ensembl id.
        coding_share: share of the coding genes that are measured.
        n_duplicates: rows that repeat a barcode; None where the barcodes were not read.
        columns: the source's own columns of cells with their first values.
        likely: column of the corpus -> column of the source that may mean it.
        notes: what the reader left out or took for granted.
        uri: where it lies, if elsewhere; `path` is the copy that was looked into, and is gone.
    """

    path: Path
    format: str
    n_cells: int | None
    n_genes: int | None
    layers: dict[str, int]
    layer: str | None
    recover: bool
    proof: str
    genes_column: str
    n_looked_at: int
    kinds: dict[str, int]
    first_unmapped: tuple[str, ...]
    coding_share: float
    n_duplicates: int | None
    columns: dict[str, tuple[str, ...]]
    likely: dict[str, str]
    notes: tuple[str, ...]
    uri: str | None = None

    @property
    def mapped_share(self) -> float:
        """Share of the names looked at that have an Ensembl id."""
        outside = sum(self.kinds.get(kind, 0) for kind in OUTSIDE)
        return 1 - outside / max(1, self.n_looked_at)

    def rows(self) -> list[tuple[str, str]]:
        """One screen: what is asked, and the answer."""
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self.kinds.items()))
        unmapped = ", ".join(self.first_unmapped)
        answers = [
            ("format", self.format),
            ("cells", "not counted: the file would have to be read whole" if self.n_cells is None
             else f"{self.n_cells:,}"),
            ("matrices", ", ".join(
                f"{name}" + (f" ({n:,} genes)" if n >= 0 else "")
                for name, n in self.layers.items())),
            ("raw counts", self.proof),
            ("genes", f"{self.mapped_share:.1%} of {self.n_looked_at:,} names have an Ensembl id "
             f"(column {self.genes_column!r}: {kinds})"),
            ("without an id", unmapped),
            ("panel", f"yes: {self.coding_share:.0%} of the coding genes are measured"
             if self.coding_share < 0.5 and self.n_looked_at == self.n_genes else ""),
            ("repeated barcodes", f"{self.n_duplicates:,}" if self.n_duplicates else ""),
            ("columns of cells", "; ".join(
                f"{name} ({', '.join(values)})" for name, values in self.columns.items())),
            ("notes", "; ".join(self.notes)),
        ]  # fmt: skip
        return [(question, answer) for question, answer in answers if answer]

    def to_text(self) -> str:
        """One screen: questions and answers, then the source to paste."""
        lines = [self.uri or str(self.path)]
        for question, answer in self.rows():
            lines.append(f"  {question:<18} {shorten(answer, _LONGEST_ANSWER, placeholder=' ...')}")
        return "\n".join([*lines, "", self.to_toml()])

    def to_toml(self) -> str:
        """A `[[source]]` to paste into a sources.toml."""
        lines = [
            "[[source]]",
            f"name = {_quoted(default_name(self.path))}",
            f"path = {_quoted(self.uri or str(self.path.absolute()))}",
            f"reader = {_quoted(self.format)}",
        ]
        if self.layer is not None and self.format in ("h5ad", "zarr", "loom"):
            lines.append(f"layer = {_quoted(self.layer)}")
        if self.recover:
            lines.append('recover = "log1p_cp10k"')
        if self.genes_column != INDEX:
            lines.append(f"genes = {_quoted(self.genes_column)}")
        pairs = [f"{name} = {_quoted(source)}" for name, source in self.likely.items()]
        if pairs:
            lines.append(f"columns = {{ {', '.join(pairs)} }}  # likely by their names: check")
        else:
            lines.append('# columns = { cell_type = "...", donor_id = "..." }')
        lines.append('# constants = { tissue = "blood", assay = "10x 3\' v3" }')
        return "\n".join(lines) + "\n"


def inspect_source(place: str | Path, settings: Settings) -> Inspection:
    """Look into a file or folder; what lies elsewhere is fetched first, whole.

    Args:
        place: the file or folder, or its URI.
        settings: where the gene reference is.

    Raises:
        SourceError: nothing here reads it, it names no genes, or it cannot be reached.
        ResourceError: the gene reference is not to be had.
    """
    entry = SourceEntry(path=str(place))
    if not is_elsewhere(entry):
        return _inspected(local_path(place), settings)
    said = settled(entry, SourcesFile(source=(entry,)))
    with tempfile.TemporaryDirectory(prefix="cytolake-inspect-") as folder:
        path = fetch(str(place), Path(folder)).path
        try:
            return with_changes(_inspected(path, settings), uri=said.place)
        except SourceError as error:
            raise SourceError(as_given(str(error), said, path)) from None


def _inspected(path: Path, settings: Settings) -> Inspection:
    reference = load_reference(gene_table(settings))
    source = open_entry(SourceEntry(path=str(path)), path, reference)
    layers = {layer.name: layer.n_genes for layer in source.layers()}
    layer, recover, proof = _judge(source)
    columns, n_genes = _gene_columns(source, layer or next(iter(layers)))
    column, names = choose_names(columns, reference, named=None, where=str(path))
    genes = harmonise({column: names}, reference, where=str(path))
    mapping = genes.var.column("mapping").to_pylist()
    outside = [
        name
        for name, kind in zip(genes.var.column("source_name").to_pylist(), mapping, strict=True)
        if kind in OUTSIDE
    ]
    barcodes = _barcodes(source)
    obs_columns = source.obs_columns()
    n_known = 0 if barcodes is None else len(barcodes)
    head = source.obs(0, min(_LOOKED_AT, n_known)) if obs_columns else pa.table({})
    return Inspection(
        path=path,
        format=source.format,
        n_cells=None if barcodes is None else len(barcodes),
        n_genes=n_genes,
        layers=layers,
        layer=layer,
        recover=recover,
        proof=proof,
        genes_column=column,
        n_looked_at=len(names),
        kinds=genes.kinds,
        first_unmapped=tuple(outside[:5]),
        coding_share=genes.coding_share,
        n_duplicates=None if barcodes is None else len(find_duplicates(barcodes).rows),
        columns={name: _first_values(head, name) for name in obs_columns},
        likely=likely_columns(obs_columns),
        notes=(*source.notes, *genes.notes),
    )


def likely_columns(names: list[str]) -> dict[str, str]:
    """Columns of the corpus that a source's columns may mean, by their names.

    A column that has the corpus's own name needs no mapping and is left out.
    """
    found: dict[str, str] = {}
    for wanted, words in LIKELY.items():
        if wanted in names:
            continue
        free = [name for name in names if name not in found.values() and name not in ANNOTATIONS]
        for word in words:
            near = [name for name in free if _plain(name) == _plain(word)]
            if near:
                found[wanted] = near[0]
                break
    return found


def _judge(source: Source) -> tuple[str | None, bool, str]:
    """Layer, whether to recover, and the proof in one line."""
    try:
        choice = choose_layer(source)
    except NotRawCountsError as error:
        place = recoverable_layer(source)
        if place is None:
            return None, False, str(error)
        total = next(name for name in TOTALS if name in source.obs_columns())
        return place, True, (
            f"none; {place} gives integers when log1p CP10k is undone with {total}: "
            'recover = "log1p_cp10k"'
        )  # fmt: skip
    return choice.layer.name, False, _proof(choice)


def _proof(choice: LayerChoice) -> str:
    whole = choice.layer.n_stored is not None and choice.n_tested >= choice.layer.n_stored
    how = "all" if whole else "a sample of"
    line = (
        f"{choice.layer.name}: {how} {choice.n_tested:,} values tested, all non-negative integers"
    )
    if not whole:
        line += " (ingest tests every value)"
    return "; ".join([line, *(f"not {fault}" for fault in choice.rejected)])


def _gene_columns(source: Source, layer: str) -> tuple[dict[str, Names], int | None]:
    """Names of the genes, of a long table only the first."""
    if isinstance(source, TableSource) and source.orientation == "genes_x_cells":
        names = row_names(source.path, most=_LOOKED_AT)
        return with_parts(names), len(names) if len(names) < _LOOKED_AT else None
    columns = source.genes(layer)
    return columns, len(next(iter(columns.values())))


def _barcodes(source: Source) -> Names | None:
    if isinstance(source, TableSource):
        down = source.orientation == "cells_x_genes"
        return None if down else column_names(source.path)
    return source.barcodes()


def _first_values(table: pa.Table, name: str) -> tuple[str, ...]:
    values = as_text(table.column(name)).unique().to_pylist()
    first = [str(value) for value in values[:3]]
    return (*first, "...") if len(values) > 3 else tuple(first)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace(".", "").replace(" ", "")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
