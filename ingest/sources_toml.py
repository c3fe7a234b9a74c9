"""sources.toml: which files are ingested, and how each is read. Parsed once, then frozen.

Knows the settings of a source; opens none.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from glob import has_magic
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ..corpus.log.receipts import BULK, CELLS
from ..corpus.schema import ANNOTATIONS
from ..platform.configuration import Configuration, parse_toml, parse_values
from ..platform.errors import RecipeError, SourceError, did_you_mean
from ..platform.places import local_path
from ..platform.resources import find
from ..platform.settings import Settings
from ..platform.uris import is_uri, recorded, scheme_of
from .proof import Recovery
from .remote import remote_sources
from .rules import CellFilters, DoubletRules, QualityRules, rules_of_samples
from .sources.census_store import CensusQuery
from .sources.formats import Reader
from .sources.listing import source_paths
from .sources.tables import Orientation


class MutationalBurden(Configuration):
    """Which cells are malignant or of an immortalised line.

    Attributes:
        reason: what they are, for the receipt: "lung adenocarcinoma cell lines".
        column: the column of the source's obs that marks them; all cells are where None.
        values: the values that mark a cell; needed with `column`.
    """

    reason: str
    column: str | None = None
    values: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.column is None) != (not self.values):
            raise ValueError("`column` and `values` go together: give both, or neither for all")
        return self


class SourceEntry(Configuration):
    """One source.

    Attributes:
        kind: what a row is: `cells`, or a sample of `bulk` RNA, for which the rules that only
            cells bear out are off unless they are set (`rules.rules_of_samples`).
        name: its `source_id` in the corpus; the file's name without its endings where None.
        path: the file or folder, relative to the toml, or its URI; or
        resource: the name of a resource; or
        census: which cells of a CELLxGENE Census.
        reader: the reader; found out from the content where None.
        orientation: how a text table lies; found out from the names where None.
        layer: the layer with the raw counts; looked for where None.
        recover: undo a normalisation to get the counts.
        recover_total: the column of obs with the totals that it divided by.
        expected_counts: `round` takes expected counts of bulk samples (RSEM, salmon, kallisto) to
            the nearest integers.
        genes: the column of the gene table with the names, or "index"; found out where None.
        orthologs: a text table of genes of another species and their human ones, relative to the
            toml; for sources whose genes are not human.
        metadata: a text table of cells, its first column the barcodes, relative to the toml; or
        metadata_resource: the name of a resource that is one.
        proteins: a text table of measured proteins, either way round, its rows matched by name,
            relative to the toml.
        columns: column of the corpus -> column of the source.
        constants: column of the corpus -> value for all cells.
        mutational_burden: which cells are malignant or immortalised.
        quality: the rules' settings.
        filters: which cells are read at all, by the source's own columns.
        doublets: how doublets are found; they are not looked for where None.
        modalities: which are read; all that the file holds as raw counts where None.
        duplicate_barcodes: whether rows with one barcode are one cell (`sum`) or several (`keep`).
        panel: whether a source that measures under half of the coding genes may shape medians.
    """

    kind: Literal["cells", "bulk"] = CELLS
    name: str | None = None
    path: str | None = None
    resource: str | None = None
    census: CensusQuery | None = None
    reader: Reader | None = None
    orientation: Orientation | None = None
    layer: str | None = None
    recover: Recovery | None = None
    recover_total: str | None = None
    expected_counts: Literal["round"] | None = None
    genes: str | None = None
    orthologs: str | None = None
    metadata: str | None = None
    metadata_resource: str | None = None
    proteins: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    constants: dict[str, str] = Field(default_factory=dict)
    mutational_burden: MutationalBurden | None = None
    quality: QualityRules = Field(default=QualityRules(), validate_default=True)
    filters: CellFilters = CellFilters()
    doublets: DoubletRules | None = None
    modalities: tuple[Literal["rna", "protein", "atac"], ...] | None = None
    duplicate_barcodes: Literal["sum", "keep"] = "sum"
    panel: Literal["refuse-in-medians", "use"] = "refuse-in-medians"

    @field_validator("columns", "constants")
    @classmethod
    def _of_the_schema(cls, given: dict[str, str]) -> dict[str, str]:
        for name in given:
            if name not in ANNOTATIONS.names:
                known = ", ".join(n for n in ANNOTATIONS.names if "ontology" not in n)
                near = did_you_mean(name, ANNOTATIONS.names)
                raise ValueError(f"the corpus has no column {name!r}{near}; it has {known}")
        return given

    @field_validator("quality")
    @classmethod
    def _as_samples_bear_out(cls, given: QualityRules, info: ValidationInfo) -> QualityRules:
        if info.data.get("kind") != BULK:
            return given
        declared = info.data.get("mutational_burden") is not None
        return rules_of_samples(given, burden_declared=declared)

    @model_validator(mode="after")
    def _as_its_kind_bears_out(self) -> Self:
        if self.kind == BULK and self.doublets is not None:
            raise ValueError(
                "doublets are two cells in one droplet, and a bulk sample is none: leave "
                "[source.doublets] out"
            )
        if self.expected_counts is not None and self.kind != BULK:
            raise ValueError(
                "expected_counts rounds what RSEM, salmon and kallisto tell of bulk samples: set "
                'kind = "bulk", or leave it out'
            )
        if self.expected_counts is not None and self.recover is not None:
            raise ValueError("give `recover` or `expected_counts`, not both")
        return self

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if [self.path, self.resource, self.census].count(None) != 2:
            raise ValueError("a source needs a `path` or a `resource` (or a `census`), and not two")
        if self.metadata is not None and self.metadata_resource is not None:
            raise ValueError("give `metadata` or `metadata_resource`, not both")
        return self

    @property
    def place(self) -> str:
        """The path, the resource or the Census, for messages."""
        if self.census is not None:
            return self.census.place
        return self.path or f"resource {self.resource}"


class SourcesFile(Configuration):
    """A list of sources.

    Attributes:
        source: the sources, in the order in which they are committed.
        unit_cells: the most cells of a work unit (and so of a segment).
        folder: what relative paths are relative to; set by `load_sources`.
    """

    source: tuple[SourceEntry, ...] = Field(min_length=1)
    unit_cells: int = Field(default=8192, ge=1, le=2**20)
    folder: Path | None = None


def load_sources(
    path: Path, overrides: Sequence[str] = (), folder: Path | None = None
) -> SourcesFile:
    """Read a sources.toml.

    Raises:
        RecipeError: it is no TOML, or a key or value is not understood.
        SourceError: there is no such file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error
    plan = parse_toml(text, SourcesFile, origin=str(path), overrides=overrides)
    return plan.model_copy(update={"folder": folder or plan.folder or path.resolve().parent})


def plan_of(
    arguments: Sequence[str | Path], laid_over: Mapping[str, Any] | None = None
) -> SourcesFile:
    """A plan out of what stands on a command line: data files and folders, or one sources.toml.

    Args:
        arguments: files, folders of sources and patterns, here or as URIs; or the toml.
        laid_over: settings of `SourceEntry` for each of the files; a toml has its own.

    Raises:
        RecipeError: a sources.toml among several arguments, or with settings; nothing at all; a
            setting that is not understood.
        SourceError: no source in a folder, or none that fits a pattern.
    """
    paths = [_place(argument) for argument in arguments]
    tomls = [path for path in paths if isinstance(path, Path) and path.suffix == ".toml"]
    if tomls and len(paths) == 1 and laid_over:
        raise RecipeError(f"{tomls[0]} has settings of its own: write {', '.join(laid_over)} there")
    if tomls and len(paths) == 1:
        return load_sources(tomls[0])
    if tomls or not paths:
        raise RecipeError("give data files and folders, or one sources.toml")
    entries = tuple(
        parse_values(
            {**(laid_over or {}), "path": str(path.absolute() if isinstance(path, Path) else path)},
            SourceEntry,
            origin=str(path) if isinstance(path, Path) else recorded(path),
        )
        for argument in paths
        for path in _named(argument)
    )
    return SourcesFile(source=entries, folder=Path.cwd())


def _place(argument: str | Path) -> str | Path:
    """What a word is: the URI of what lies elsewhere, or a path."""
    text = str(argument)
    return text if is_uri(text) and scheme_of(text) != "file" else local_path(argument)


def _named(argument: str | Path) -> list[str] | list[Path]:
    """The sources that a word names; one that is not there is refused later, alone."""
    if isinstance(argument, str):
        try:
            return remote_sources(argument)
        except SourceError:
            return [argument]
    if not argument.exists() and not has_magic(str(argument)):
        return [argument]
    return source_paths(argument)


def resolve(entry: SourceEntry, plan: SourcesFile, settings: Settings) -> Path:
    """The file or folder of a source.

    Raises:
        ResourceError: the resource is not to be had.
        SourceError: there is no such path.
    """
    if entry.resource is not None:
        return find(entry.resource, settings)
    path = (plan.folder or Path.cwd()) / local_path(entry.path or "")
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    return path


def resolve_metadata(entry: SourceEntry, plan: SourcesFile, settings: Settings) -> Path | None:
    """The table of cells that belongs to a source, None where it has none.

    Raises:
        ResourceError: the resource is not to be had.
        SourceError: there is no such path.
    """
    if entry.metadata_resource is not None:
        return find(entry.metadata_resource, settings)
    return _beside(entry.metadata, entry, plan, "metadata")


def resolve_orthologs(entry: SourceEntry, plan: SourcesFile) -> Path | None:
    """The table of orthologs that a source needs, None where its genes are human.

    Raises:
        SourceError: there is no such path.
    """
    return _beside(entry.orthologs, entry, plan, "orthologs")


def resolve_proteins(entry: SourceEntry, plan: SourcesFile) -> Path | None:
    """The table of measured proteins beside a source, None where it has none.

    Raises:
        SourceError: there is no such path.
    """
    return _beside(entry.proteins, entry, plan, "proteins")


def _beside(given: str | None, entry: SourceEntry, plan: SourcesFile, what: str) -> Path | None:
    if given is None:
        return None
    if is_uri(given) and scheme_of(given) != "file":
        raise SourceError(
            f"{recorded(given)} ({what} of {recorded(entry.place)}): only a source itself is "
            "fetched: fetch this table, and give the file"
        )
    path = (plan.folder or Path.cwd()) / local_path(given)
    if not path.is_file():
        raise SourceError(f"{path}: no such file ({what} of {entry.place})")
    return path


_NOT_CONTENT = {
    "name", "path", "resource", "metadata", "metadata_resource", "orthologs", "proteins",
    "census",
}  # fmt: skip
_ALWAYS_HASHED: dict[type[Configuration], set[str]] = {
    SourceEntry: {
        "reader", "orientation", "layer", "recover", "recover_total", "genes", "columns",
        "constants", "mutational_burden", "quality", "duplicate_barcodes", "panel",
    },
    QualityRules: {"total_counts_sd", "mitochondrial_sd", "min_genes", "mutational_burden"},
    MutationalBurden: {"reason", "column", "values"},
}  # fmt: skip
"""The settings of the first cytolake. A later one is hashed where it is not at its default, so that
a corpus knows its own sources after an upgrade; a default must therefore never change."""


def recipe_hash(
    entry: SourceEntry,
    *,
    gene_reference: str,
    metadata_sha256: str | None,
    orthologs_sha256: str | None = None,
    proteins_sha256: str | None = None,
) -> str:
    """A hash of all that decides which cells a file gives: two runs with one hash agree.

    Args:
        entry: the source's settings; its name and place do not matter.
        gene_reference: digest of the gene reference.
        metadata_sha256: of the table of cells, where there is one.
        orthologs_sha256: of the table of orthologs, where there is one.
        proteins_sha256: of the table of measured proteins, where there is one.
    """
    values = _hashed(entry)
    values |= {"gene_reference": gene_reference, "metadata_sha256": metadata_sha256}
    if orthologs_sha256 is not None:
        values["orthologs_sha256"] = orthologs_sha256
    if proteins_sha256 is not None:
        values["proteins_sha256"] = proteins_sha256
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _hashed(settings: Configuration) -> dict[str, Any]:
    """Settings as JSON values, those left out that a later cytolake added and nobody uses."""
    always = _ALWAYS_HASHED.get(type(settings), set())
    plain = settings.model_dump(mode="json")
    values: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(settings, SourceEntry) and name in _NOT_CONTENT:
            continue
        if name in always or value != field.get_default(call_default_factory=True):
            values[name] = _hashed(value) if isinstance(value, Configuration) else plain[name]
    return values


def default_name(path: Path) -> str:
    """A source's name out of its file's: without folders and endings."""
    name = path.name
    for ending in (
        ".gz", ".bz2", ".xz", ".tar", ".tgz", ".zip", ".zarr", ".h5ad", ".h5mu", ".h5", ".loom",
        ".mtx", ".csv", ".tsv", ".txt",
    ):  # fmt: skip
        name = name.removesuffix(ending)
    return name or path.name
