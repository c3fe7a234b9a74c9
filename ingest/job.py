"""An ingest through Ray Data: sources in, commits out, by the driver only. Knows no format.

Each kind of work goes out as a Datasource of small JSON rows (`platform.tasks`): fingerprint the
files, survey the sources, measure the units (pass 1), prepare the units (pass 2). In which order
is known by `pipeline`.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace as with_changes
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from ..corpus.log.leases import lease
from ..corpus.log.snapshots import Snapshot
from ..corpus.store import Corpus
from ..corpus.upkeep.sweeping import remove_named
from ..platform.session import ray_session
from ..platform.settings import Settings
from ..platform.tasks import in_parallel, warm_up
from ..platform.tracking import Tracker
from .admission import Candidate, admit, check_replaced, find_files
from .pipeline import Pipeline, waves
from .places import is_elsewhere
from .qc_report import write_qc_report
from .report import IngestReport, empty_receipt
from .sources.formats import source_files
from .sources_toml import SourcesFile
from .survey import gene_table, load_reference
from .work import carry_out, get_ready

HASHED_AT_HOME = 2**31
"""Up to so many bytes the driver hashes the files alone: sooner done than Ray is started, which
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
    digest, staging = load_reference(reference).digest, corpus.staging
    with ExitStack() as session:
        if any(is_elsewhere(candidate.entry) for candidate in candidates):
            session.enter_context(lease(corpus.folder))  # a vacuum spares what is fetched
        find_files(candidates, plan, settings, gene_reference=digest, staging=staging,
                   console=console)  # fmt: skip
        _fingerprint(candidates, lambda: _open_ray(session, settings, reference))
        admit(candidates, Snapshot.load(corpus.folder), replaced=replace)
        for candidate in candidates:
            if candidate.outcome is not None:
                _put_on_record(candidate, corpus)
        if any(candidate.outcome is None for candidate in candidates):
            session.enter_context(lease(corpus.folder))  # a vacuum spares what is staged
            remove_named(corpus.folder)
            _open_ray(session, settings, reference)
            pipeline = Pipeline(
                corpus=corpus,
                plan=plan,
                reference=reference,
                carry=_in_parallel,
                replacing=replace is not None,
                console=console,
            )
            for wave in waves(candidates):
                pipeline.run(wave)
                for candidate in wave:
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


def _fingerprint(candidates: Sequence[Candidate], open_ray: Callable[[], None]) -> None:
    tasks = [
        {"source": i, "path": str(candidate.path)}
        for i, candidate in enumerate(candidates)
        if candidate.outcome is None
    ]
    large = sum(map(_size, candidates)) > HASHED_AT_HOME
    alone = _at_home("fingerprint", tasks)
    for answer in _while_ray_starts(tasks, open_ray) if large else alone:
        candidate = candidates[answer["source"]]
        if "error" in answer:
            candidate.refuse(answer["error"])
        else:
            candidate.sha256, candidate.n_bytes = answer["sha256"], answer["n_bytes"]
            candidate.stamp = answer["stamp"]


def _while_ray_starts(
    tasks: Sequence[dict[str, Any]], open_ray: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    """Files hashed here while Ray starts; those not begun by then are hashed by its workers."""
    with ThreadPoolExecutor(1) as here:  # one core is left to Ray
        try:
            begun = [here.submit(list, _at_home("fingerprint", [task])) for task in tasks]
            open_ray()
            left = [task for task, answer in zip(tasks, begun, strict=True) if answer.cancel()]
            yield from _in_parallel("fingerprint", left)
            for answer in begun:
                if not answer.cancelled():
                    yield from answer.result()
        finally:
            here.shutdown(cancel_futures=True)


def _put_on_record(candidate: Candidate, corpus: Corpus) -> None:
    """Append a refused source's receipt; clear what staging holds of a source that is done."""
    if candidate.survey is not None:
        shutil.rmtree(candidate.survey.folder, ignore_errors=True)
    candidate.discard_copies()
    if candidate.outcome is None or candidate.outcome.status != "refused":
        return
    receipt = empty_receipt(
        source_id=candidate.source_id,
        uri=candidate.uri,
        sha256=candidate.sha256,
        n_bytes=candidate.n_bytes,
        recipe_hash=candidate.recipe_hash,
    )
    corpus.refuse_source(receipt, candidate.outcome.error or "")
    candidate.outcome = with_changes(candidate.outcome, receipt=receipt)


def _at_home(work: str, tasks: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        yield json.loads(carry_out({"work": work, "task": json.dumps(task)})["result"])


def _in_parallel(work: str, tasks: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Answers as they come, in any order; each task is a Ray task of its own."""
    for row in in_parallel(carry_out, [{"work": work, "task": json.dumps(task)} for task in tasks]):
        yield json.loads(row["result"])


def _open_ray(session: ExitStack, settings: Settings, reference: Path) -> None:
    """Start Ray or join it, unless that is done; its workers get ready meanwhile."""
    import ray

    was_open = ray.is_initialized()
    session.enter_context(ray_session(settings.address))
    if not was_open:
        warm_up(get_ready, str(reference))


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
