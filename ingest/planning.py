"""What an ingest would do, told before it does it: pass 1 of every source, and nothing written.

Knows no corpus and no Ray. Every value is tested and the thresholds are frozen as an ingest would
freeze them, so the cells that rules will drop are counted, not guessed (doublets apart, which are
looked for later). What is spooled for it lies in a temporary folder and goes with the call.
"""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.feather as feather
from numpy.typing import NDArray
from rich.console import Console

from ..corpus.schema import ANNOTATIONS
from ..platform.errors import CytolakeError, NotRawCountsError
from ..platform.progress import Bar, progress
from ..platform.settings import Settings
from .admission import Candidate, find_files
from .doublets import samples_of
from .inspect import likely_columns
from .judging import filtered_rows, own_columns, units_of
from .metadata import MALIGNANT, annotations, burdened
from .places import as_given
from .plans import PlanReport, SourcePlan
from .quality import DUPLICATE, Thresholds, freeze_thresholds, reasons
from .sources.formats import source_files
from .sources_toml import SourceEntry, SourcesFile
from .survey import Opened, gene_table, load_reference, open_survey, survey_source
from .units import all_measures, measure_unit, read_measures

BYTES_PER_COUNT = 3.7
"""Size of a segment's files by stored count: 2.7 to 3.7 on PBMC (10x), Kang 2018 and a mixture of
cell lines (Drop-seq), all tables and the gene-major copy included; the greatest is told."""

WRITE_S_PER_COUNT = 0.35e-6
"""Processor seconds that pass 2 takes by stored count, on the same sources (0.26 to 0.56)."""

DOUBLETS_PER_S = 300.0
"""Cells that Scrublet scores in a second: 2,700 PBMC, one core."""


def plan_report(
    plan: SourcesFile,
    settings: Settings,
    *,
    console: Console | None = None,
    n_cpus: int | None = None,
) -> PlanReport:
    """Survey and measure every source of a plan as an ingest would, and write nothing.

    Args:
        plan: the sources.
        settings: where resources are.
        console: where to show progress; standard error where None.
        n_cpus: cores that an ingest would have; those of this machine where None.

    Raises:
        ResourceError: the gene reference is not to be had.
    """
    reference = gene_table(settings)
    candidates = [Candidate(entry=entry) for entry in plan.source]
    digest = load_reference(reference).digest
    planned: list[SourcePlan] = []
    with (
        tempfile.TemporaryDirectory(prefix="cytolake-plan-") as folder,
        progress("testing every value", None, "cells", console=console) as bar,
    ):
        fetched = Path(folder) / "fetched"
        find_files(candidates, plan, settings, gene_reference=digest, staging=fetched,
                   console=console)  # fmt: skip
        for number, candidate in enumerate(candidates):
            place = Path(folder) / str(number)
            planned.append(_planned(candidate, plan, reference, place, bar, n_cpus))
            candidate.discard_copies()
    open_survey.cache_clear()  # what it holds open lay in the folder that is gone
    return PlanReport(sources=tuple(planned), unit_cells=plan.unit_cells)


def _planned(
    candidate: Candidate,
    plan: SourcesFile,
    reference: Path,
    folder: Path,
    bar: Bar,
    n_cpus: int | None,
) -> SourcePlan:
    entry, path = candidate.entry, candidate.path
    if path is None or candidate.outcome is not None:
        said = None if candidate.outcome is None else candidate.outcome.error
        return SourcePlan(entry=entry, source_id=candidate.source_id, path=path, error=said or "")
    try:
        return _told(
            candidate, path, _pass_1(candidate, path, plan, reference, folder, bar), n_cpus
        )
    except CytolakeError as error:
        said = str(error)
    except Exception as error:  # a damaged file can make any library raise anything
        said = f"{path}: cannot be read: {type(error).__name__}: {error}"
    said = as_given(said, entry, path)
    return SourcePlan(entry=entry, source_id=candidate.source_id, path=path, error=said)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Measured:
    """A source after pass 1: open, its units' measures, and how long that took."""

    opened: Opened
    paths: list[Path]
    seconds: float


def _pass_1(
    candidate: Candidate, path: Path, plan: SourcesFile, reference: Path, folder: Path, bar: Bar
) -> _Measured:
    """Survey and measure, again with the next layer where one turns out to hold no counts."""
    began = time.monotonic()
    offences: dict[str, str] = {}
    while True:
        survey = survey_source(
            candidate.entry,
            source_id=candidate.source_id,
            path=path,
            metadata=candidate.metadata,
            orthologs=candidate.orthologs,
            sha256="",
            recipe_hash=candidate.recipe_hash,
            reference=reference,
            unit_cells=plan.unit_cells,
            folder=folder,
            leave_out=tuple(offences),
            rejected=tuple(offences.values()),
        )
        opened = open_survey(survey.model_dump_json())
        paths: list[Path] = []
        try:
            for unit in units_of(survey):
                paths.append(measure_unit(opened, unit))
                bar.advance(unit.stop - unit.start)
        except NotRawCountsError as error:
            offences[survey.layer] = str(error)
        else:
            return _Measured(opened=opened, paths=paths, seconds=time.monotonic() - began)


def _told(candidate: Candidate, path: Path, measured: _Measured, n_cpus: int | None) -> SourcePlan:
    opened, entry = measured.opened, candidate.entry
    survey, genes = opened.survey, opened.genes
    thresholds = freeze_thresholds(
        read_measures(measured.paths),
        entry.quality,
        n_mitochondrial_genes=int(genes.mitochondrial_g.sum()),
        panel=genes.panel,
    )
    why_c, n_counts_c = _verdicts(opened, measured.paths, thresholds)
    dropped = Counter(why for why in why_c.tolist() if why)
    if len(opened.duplicates.rows):
        dropped[DUPLICATE] = len(opened.duplicates.rows)
    kept_counts = int(n_counts_c[why_c == ""].sum())
    n_counts = int(n_counts_c.sum())
    own = opened.own_columns(0, 0).column_names
    how = " once log1p CP10k is undone" if entry.recover else ""
    how = " once rounded" if entry.expected_counts else how
    cores = n_cpus or os.cpu_count() or 1
    seconds = measured.seconds + kept_counts * WRITE_S_PER_COUNT / cores
    notes = [*survey.notes, *(f"not taken for counts: {line}" for line in survey.rejected)]
    if entry.doublets is not None:
        n_kept = int((why_c == "").sum())
        seconds += n_kept / DOUBLETS_PER_S / min(cores, samples_of(opened).n_samples or 1)
        notes.append(f"doublets are looked for later, in {samples_of(opened).n_samples} samples")
    return SourcePlan(
        entry=entry,
        source_id=candidate.source_id,
        path=path,
        metadata=candidate.metadata,
        orthologs=candidate.orthologs,
        format=survey.format,
        layer=survey.layer,
        proof=f"{survey.layer}: all {n_counts:,} values tested, non-negative integers{how}",
        genes_column=genes.column,
        n_gene_names=genes.n_names,
        n_mapped=genes.n_mapped,
        gene_kinds=dict(genes.kinds),
        panel=genes.panel,
        own_columns=tuple(own),
        mapped=_mapped(entry, own),
        likely={k: v for k, v in likely_columns(own).items() if k not in _mapped(entry, own)},
        burden=_burden(entry, own),
        n_cells=survey.n_cells,
        n_counts=n_counts,
        thresholds=thresholds,
        dropped=dict(dropped.most_common()),
        notes=tuple(notes),
        n_bytes=sum(file.stat().st_size for file in source_files(path)),
        bytes_expected=int(kept_counts * BYTES_PER_COUNT),
        seconds_expected=seconds,
    )


def _verdicts(
    opened: Opened, paths: Sequence[Path], thresholds: Thresholds
) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Of each cell why it is dropped (an empty string: kept), and how many counts it has."""
    entry = opened.survey.entry
    why: list[NDArray[np.object_]] = []
    stored: list[NDArray[np.int64]] = []
    for unit, path in zip(units_of(opened.survey), paths, strict=True):
        rows = feather.read_table(path, columns=["row"]).column("row").to_numpy()
        own = own_columns(opened, rows, unit)
        lifted = annotations(entry, own, len(rows))
        measures = all_measures(path)
        marked = burdened(entry, own, lifted, len(rows))
        filtered = filtered_rows(opened, own)
        why.append(reasons(measures, thresholds, marked, filtered_c=filtered))
        stored.append(measures.n_genes_c.astype(np.int64))
    return np.concatenate(why), np.concatenate(stored)


def _mapped(entry: SourceEntry, own: Sequence[str]) -> dict[str, str]:
    """Column of the corpus -> where its values come from, as `metadata.annotations` takes them."""
    found: dict[str, str] = {}
    for name in ANNOTATIONS.names:
        column = entry.columns.get(name, name)
        if name in entry.constants:
            found[name] = f"constant {entry.constants[name]!r}"
        elif column in own:
            found[name] = f"column {column!r}"
    return found


def _burden(entry: SourceEntry, own: Sequence[str]) -> str:
    declared = entry.mutational_burden
    if not entry.quality.mutational_burden:
        return "kept: the rule is switched off"
    said: list[str] = []
    if declared is not None:
        which = "all cells" if declared.column is None else f"by column {declared.column!r}"
        said.append(f"{which}: {declared.reason}")
    words = [name for name in MALIGNANT if name in own or name in _mapped(entry, own)]
    if words:
        said.append(f"CELLxGENE's words in {', '.join(words)}")
    return "; ".join(said) or "no column tells: all cells are taken for healthy ones"
