"""The Ray Data graph of an ingest: sources in, commits out, by the driver only.

Stages, each a Ray data set of small JSON rows (paths and statistics, never matrices):
fingerprint the files, survey the sources, measure the units (pass 1), prepare the units (pass 2).
Between the passes the driver freezes each source's thresholds, and samples are scored for doublets
where a source asks for it. A source that fails is refused with
its reason on record; the others land. Knows no format.
"""

import json
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace as with_changes
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from ..corpus.log.commits import commit_source
from ..corpus.log.leases import lease
from ..corpus.log.snapshots import Snapshot
from ..corpus.payload.records import SegmentRecord
from ..corpus.store import Corpus
from ..corpus.upkeep.sweeping import remove_named
from ..platform.errors import SourceError
from ..platform.progress import progress
from ..platform.session import ray_session
from ..platform.settings import Settings
from ..platform.tracking import Tracker
from .admission import Candidate, admit, check_replaced, find_files
from .doublets import SampleScores, doublet_note, samples_of, with_doublets
from .judging import Unit, units_of
from .qc_report import write_qc_report
from .quality import freeze_thresholds
from .report import IngestReport, empty_receipt, receipt_of
from .sources.formats import source_files
from .sources_toml import SourcesFile
from .survey import Survey, gene_table, load_reference, open_survey
from .units import PreparedUnit, read_measures
from .work import carry_out

HASHED_AT_HOME = 2**31
"""Up to so many bytes the driver hashes the files itself: sooner done than Ray is started, which
a call that adds nothing then never needs."""


def ingest(
    corpus_uri: str,
    plan: SourcesFile,
    settings: Settings,
    *,
    replace: str | None = None,
    console: Console | None = None,
    tracker: Tracker | None = None,
) -> IngestReport:
    """Bring sources into a corpus, which is made if it is not there.

    Args:
        corpus_uri: the corpus.
        plan: the sources.
        settings: where resources are, and which Ray cluster to use.
        replace: the source of the corpus in whose place the only given file comes: the old
            cells go and the new ones come in one commit.
        console: where to show progress; standard error where None.
        tracker: the run to log receipts to.

    Returns:
        Each source's outcome; a refused source does not stop the others.

    Raises:
        CorpusError: the corpus cannot be opened, or has no source to replace.
        SourceError: not exactly one file is given to replace a source.
        ResourceError: the gene reference is not to be had.
    """
    began = time.monotonic()
    if replace is None:
        corpus = Corpus.open_or_create(corpus_uri)
    else:
        corpus = Corpus.open(corpus_uri)
        check_replaced(replace, plan, corpus.state)
    reference = gene_table(settings)
    candidates = [Candidate(entry=entry) for entry in plan.source]
    find_files(candidates, plan, settings, gene_reference=load_reference(reference).digest)
    with ExitStack() as session:
        large = sum(map(_size, candidates)) > HASHED_AT_HOME
        if large:
            _open_ray(session, settings)
        _fingerprint(candidates, at_home=not large)
        admit(candidates, Snapshot.load(corpus.folder), replaced=replace)
        if any(candidate.outcome is None for candidate in candidates):
            session.enter_context(lease(corpus.folder))  # a vacuum spares what is staged
            remove_named(corpus.folder)
            _open_ray(session, settings)
            _survey_and_measure(candidates, corpus, plan, reference, console)
            _score_doublets(candidates, console)
            _prepare_and_commit(candidates, corpus, console, replacing=replace is not None)
    for candidate in candidates:
        _put_on_record(candidate, corpus)
    report = IngestReport(
        corpus_uri=corpus_uri,
        sources=tuple(c.outcome for c in candidates if c.outcome is not None),
        seconds=time.monotonic() - began,
    )
    if tracker is not None:
        _log(tracker, report)
        with TemporaryDirectory() as folder:  # the artifact is the tracker's copy
            write_qc_report(Corpus.open(corpus_uri), Path(folder) / "qc.html", tracker=tracker)
    return report


def _size(candidate: Candidate) -> int:
    if candidate.path is None:
        return 0
    return sum(file.stat().st_size for file in source_files(candidate.path))


def _fingerprint(candidates: Sequence[Candidate], *, at_home: bool) -> None:
    tasks = [
        {"source": i, "path": str(candidate.path)}
        for i, candidate in enumerate(candidates)
        if candidate.outcome is None
    ]
    for answer in _at_home("fingerprint", tasks) if at_home else _in_parallel("fingerprint", tasks):
        candidate = candidates[answer["source"]]
        if "error" in answer:
            candidate.refuse(answer["error"])
        else:
            candidate.sha256, candidate.n_bytes = answer["sha256"], answer["n_bytes"]
            candidate.stamp = answer["stamp"]


def _survey_and_measure(
    candidates: Sequence[Candidate],
    corpus: Corpus,
    plan: SourcesFile,
    reference: Path,
    console: Console | None,
) -> None:
    """Survey and pass 1, again with the next layer where a layer turns out to hold no counts."""
    waiting = [i for i, candidate in enumerate(candidates) if candidate.outcome is None]
    while waiting:
        tasks = [_survey_task(i, candidates[i], corpus, plan, reference) for i in waiting]
        for answer in _in_parallel("survey", tasks):
            candidate = candidates[answer["source"]]
            if "error" in answer:
                candidate.refuse(answer["error"])
            else:
                candidate.survey = Survey.model_validate_json(answer["survey"])
        waiting = [i for i in waiting if candidates[i].outcome is None]
        again = _measure(candidates, waiting, console)
        for i in waiting:
            if i not in again and candidates[i].outcome is None:
                _freeze(candidates[i])
        waiting = again


def _measure(
    candidates: Sequence[Candidate], waiting: Sequence[int], console: Console | None
) -> list[int]:
    """Pass 1 of some sources; those of which a value turned out to be no count."""
    surveys = {i: _surveyed(candidates[i]) for i in waiting}
    tasks = [
        _unit_task(i, survey, unit) for i, survey in surveys.items() for unit in units_of(survey)
    ]
    n_cells = sum(survey.n_cells for survey in surveys.values())
    failed: set[int] = set()
    with progress("testing every value", n_cells, "cells", console=console) as bar:
        for answer in _in_parallel("measure", tasks):
            candidate, unit = candidates[answer["source"]], Unit.model_validate_json(answer["unit"])
            bar.advance(unit.stop - unit.start)
            if "error" in answer:
                candidate.refuse(answer["error"])
            elif "offence" in answer:
                candidate.offences.setdefault(_surveyed(candidate).layer, answer["offence"])
                failed.add(answer["source"])
            else:
                candidate.measures[unit.start] = Path(answer["measures"])
    again = [i for i in sorted(failed) if candidates[i].outcome is None]
    for i in again:
        candidates[i].measures.clear()
    return again


def _freeze(candidate: Candidate) -> None:
    survey = _surveyed(candidate)
    genes = open_survey(survey.model_dump_json()).genes
    candidate.thresholds = freeze_thresholds(
        read_measures([candidate.measures[start] for start in sorted(candidate.measures)]),
        survey.entry.quality,
        n_mitochondrial_genes=int(genes.mitochondrial_g.sum()),
        panel=genes.panel,
    )


def _score_doublets(candidates: Sequence[Candidate], console: Console | None) -> None:
    """Score the samples of the sources that ask for it; other sources cost nothing here."""
    tasks: list[dict[str, Any]] = []
    unnamed: dict[int, int] = {}
    for i, candidate in enumerate(candidates):
        if candidate.thresholds is None or candidate.entry.doublets is None:
            continue
        survey, thresholds = _surveyed(candidate), candidate.thresholds
        with candidate.refusing():
            samples = samples_of(open_survey(survey.model_dump_json()))
            unnamed[i] = int((samples.number_c < 0).sum())
            judged_by = {"bounds": thresholds.bounds, "skipped": thresholds.skipped}
            task = {"source": i, "survey": survey.model_dump_json(), **judged_by}
            tasks += [task | {"sample": number} for number in range(samples.n_samples)]
    if not tasks:
        return
    with progress("looking for doublets", len(tasks), "samples", console=console) as bar:
        for answer in _in_parallel("score", tasks):
            candidate = candidates[answer["source"]]
            bar.advance(1)
            if "error" in answer:
                candidate.refuse(answer["error"])
            else:
                scores = SampleScores.model_validate_json(answer["scores"])
                candidate.scores[answer["sample"]] = scores
    for i, n_unnamed in unnamed.items():
        candidate, survey = candidates[i], _surveyed(candidates[i])
        rules, thresholds = candidate.entry.doublets, candidate.thresholds
        if candidate.outcome is None and rules is not None and thresholds is not None:
            samples = [candidate.scores[number] for number in sorted(candidate.scores)]
            candidate.thresholds = with_doublets(thresholds, samples)
            notes = (*survey.notes, doublet_note(rules, samples, n_unnamed))
            candidate.survey = survey.model_copy(update={"notes": notes})


def _prepare_and_commit(
    candidates: Sequence[Candidate], corpus: Corpus, console: Console | None, *, replacing: bool
) -> None:
    """Pass 2; a source is committed when all its units, and all sources before it, are done."""
    tasks: list[dict[str, Any]] = []
    n_cells = 0
    for i, candidate in enumerate(candidates):
        if candidate.outcome is None and candidate.thresholds is not None:
            survey = _surveyed(candidate)
            n_cells += survey.n_cells
            more = {
                "bounds": candidate.thresholds.bounds,
                "skipped": candidate.thresholds.skipped,
                "segments": str(corpus.segments_folder),
                "uuid": corpus.uuid,
                "scores": [str(candidate.scores[n].path) for n in sorted(candidate.scores)],
            }
            tasks += [_unit_task(i, survey, unit) | more for unit in units_of(survey)]
    with progress("writing segments", n_cells, "cells", console=console) as bar:
        for answer in _in_parallel("prepare", tasks):
            candidate, unit = candidates[answer["source"]], Unit.model_validate_json(answer["unit"])
            bar.advance(unit.stop - unit.start)
            if "error" in answer:
                candidate.refuse(answer["error"])
            else:
                prepared = PreparedUnit.model_validate_json(answer["prepared"])
                candidate.units[unit.start] = prepared
            _commit_ready(candidates, corpus, replacing=replacing)


def _commit_ready(candidates: Sequence[Candidate], corpus: Corpus, *, replacing: bool) -> None:
    new = "replaced" if replacing else "added"
    for candidate in candidates:
        if candidate.outcome is not None:
            continue
        survey = _surveyed(candidate)
        if len(candidate.units) < len(units_of(survey)) or candidate.thresholds is None:
            return
        units = [candidate.units[start] for start in sorted(candidate.units)]
        with candidate.refusing():
            candidate.check_unchanged()
            receipt = receipt_of(
                open_survey(survey.model_dump_json()),
                n_bytes=candidate.n_bytes,
                thresholds=candidate.thresholds,
                units=units,
            )
            records = [SegmentRecord.load(unit.segment) for unit in units]
            commit = commit_source(corpus.folder, receipt, records, replace=replacing)
            candidate.end(
                new if commit.added else "present",
                receipt=receipt,
                units=tuple(units),
                snapshot=commit.snapshot,
                n_withdrawn=commit.n_withdrawn,
                linked=commit.linked,
            )


def _put_on_record(candidate: Candidate, corpus: Corpus) -> None:
    """Append a refused source's receipt; clear what staging holds of a source that is done."""
    if candidate.survey is not None:
        shutil.rmtree(candidate.survey.folder, ignore_errors=True)
    if candidate.outcome is None or candidate.outcome.status != "refused":
        return
    receipt = empty_receipt(
        source_id=candidate.source_id,
        uri=candidate.path.absolute().as_uri() if candidate.path else candidate.entry.place,
        sha256=candidate.sha256,
        n_bytes=candidate.n_bytes,
        recipe_hash=candidate.recipe_hash,
    )
    corpus.refuse_source(receipt, candidate.outcome.error or "")
    candidate.outcome = with_changes(candidate.outcome, receipt=receipt)


def _surveyed(candidate: Candidate) -> Survey:
    if candidate.survey is None:
        raise SourceError(f"{candidate.entry.place}: was not surveyed")
    return candidate.survey


def _survey_task(
    i: int, candidate: Candidate, corpus: Corpus, plan: SourcesFile, reference: Path
) -> dict[str, Any]:
    key = f"{candidate.sha256[:16]}-{candidate.recipe_hash[:16]}-{plan.unit_cells}"
    return {
        "source": i,
        "entry": candidate.entry.model_dump_json(),
        "source_id": candidate.source_id,
        "path": str(candidate.path),
        "metadata": str(candidate.metadata or ""),
        "orthologs": str(candidate.orthologs or ""),
        "sha256": candidate.sha256,
        "recipe_hash": candidate.recipe_hash,
        "reference": str(reference),
        "unit_cells": plan.unit_cells,
        "folder": str(corpus.staging / key),
        "leave_out": list(candidate.offences),
        "rejected": list(candidate.offences.values()),
    }


def _unit_task(i: int, survey: Survey, unit: Unit) -> dict[str, Any]:
    return {"source": i, "survey": survey.model_dump_json(), "unit": unit.model_dump_json()}


def _at_home(work: str, tasks: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        yield json.loads(carry_out({"work": work, "task": json.dumps(task)})["result"])


def _in_parallel(work: str, tasks: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Answers as they come, in any order; each task is a Ray task of its own."""
    import ray.data

    if not tasks:
        return
    rows = [{"work": work, "task": json.dumps(task)} for task in tasks]
    data = ray.data.from_items(rows, override_num_blocks=len(rows)).map(carry_out)
    for row in data.iter_rows():
        yield json.loads(row["result"])


def _open_ray(session: ExitStack, settings: Settings) -> None:
    session.enter_context(ray_session(settings.address))
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # after the import, which resets it
    ray.data.DataContext.get_current().enable_progress_bars = False


def _log(tracker: Tracker, report: IngestReport) -> None:
    """Receipts as text, totals as metrics."""
    tracker.log_text(report.to_json(), "ingest.json")
    receipts = [source.receipt for source in report.sources if source.receipt is not None]
    tracker.log_metrics(
        {
            "ingest/cells_read": float(sum(receipt.n_read for receipt in receipts)),
            "ingest/cells_kept": float(sum(receipt.n_kept for receipt in receipts)),
            "ingest/cells_added": float(report.n_added),
            "ingest/sources_refused": float(
                sum(source.status == "refused" for source in report.sources)
            ),
            "ingest/seconds": report.seconds,
        }
    )
