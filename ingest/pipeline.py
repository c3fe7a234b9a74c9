"""The stages that sources pass through, some sources at once, each to its commit or its refusal.

Knows what work there is and in which order; who carries it out (Ray, or this process) is given.
Between the passes the driver freezes each source's thresholds, and samples are scored for doublets
where a source asks for it. A source that fails is refused with its reason; the others land.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ..corpus.log.commits import commit_source
from ..corpus.payload.records import SegmentRecord
from ..corpus.store import Corpus
from ..platform.errors import SourceError
from ..platform.progress import Bar, progress
from .admission import Candidate
from .doublets import SampleScores, doublet_note, samples_of, with_doublets
from .judging import Unit, units_of
from .quality import freeze_thresholds
from .report import receipt_of
from .sources_toml import SourcesFile
from .survey import Survey, open_survey
from .units import PreparedUnit, read_measures

BYTES_AT_ONCE = 2**34
SOURCES_AT_ONCE = 64
"""What is under way together: staging holds the spools, measures and unpacked counts of so much."""

Carry = Callable[[str, Sequence[dict[str, Any]]], Iterator[dict[str, Any]]]
"""Carries tasks of one kind (`work.WORK`) out; answers come in any order."""


def waves(candidates: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    """The sources that are still to be read, in their order, some at once.

    A wave has at most `SOURCES_AT_ONCE` sources, and at most `BYTES_AT_ONCE` of files if it has
    more than one: what was read first is there before the last is touched.
    """
    wave: list[Candidate] = []
    n_bytes = 0
    for candidate in candidates:
        if candidate.outcome is not None:
            continue
        full = len(wave) == SOURCES_AT_ONCE or n_bytes + candidate.n_bytes > BYTES_AT_ONCE
        if wave and full:
            yield wave
            wave, n_bytes = [], 0
        wave.append(candidate)
        n_bytes += candidate.n_bytes
    if wave:
        yield wave


@dataclass(frozen=True, kw_only=True, slots=True)
class Pipeline:
    """What an ingest does with each wave of sources.

    Attributes:
        corpus: where to.
        plan: the settings of the whole ingest.
        reference: the table of genes.
        carry: carries tasks out.
        replacing: whether the only source comes in the place of one that is there.
        console: where to show progress; standard error where None.
    """

    corpus: Corpus
    plan: SourcesFile
    reference: Path
    carry: Carry
    replacing: bool = False
    console: Console | None = None

    def run(self, candidates: Sequence[Candidate]) -> None:
        """Bring some sources in; each has its outcome afterwards."""
        self._survey_and_measure(candidates)
        self._score_doublets(candidates)
        self._prepare_and_commit(candidates)

    def _survey_and_measure(self, candidates: Sequence[Candidate]) -> None:
        """Survey and pass 1; again with the next layer where one turns out to hold no counts."""
        waiting = [i for i, candidate in enumerate(candidates) if candidate.outcome is None]
        while waiting:
            tasks = [self._survey_task(i, candidates[i]) for i in waiting]
            with progress("surveying", len(tasks), "sources", console=self.console) as bar:
                for candidate, answer in self._answers("survey", tasks, candidates, bar):
                    candidate.survey = Survey.model_validate_json(answer["survey"])
            waiting = [i for i in waiting if candidates[i].outcome is None]
            again = self._measure(candidates, waiting)
            for i in waiting:
                if i not in again and candidates[i].outcome is None:
                    with candidates[i].refusing():
                        _freeze(candidates[i])
            waiting = again

    def _measure(self, candidates: Sequence[Candidate], waiting: Sequence[int]) -> list[int]:
        """Pass 1 of some sources; those of which a value turned out to be no count."""
        surveys = {i: _surveyed(candidates[i]) for i in waiting}
        tasks = [
            _unit_task(i, survey, unit)
            for i, survey in surveys.items()
            for unit in units_of(survey)
        ]
        n_cells = sum(survey.n_cells for survey in surveys.values())
        failed: set[int] = set()
        with progress("testing every value", n_cells, "cells", console=self.console) as bar:
            for candidate, answer in self._answers("measure", tasks, candidates, bar):
                if "offence" in answer:
                    candidate.offences.setdefault(_surveyed(candidate).layer, answer["offence"])
                    failed.add(answer["source"])
                else:
                    candidate.measures[_unit(answer).start] = Path(answer["measures"])
        again = [i for i in sorted(failed) if candidates[i].outcome is None]
        for i in again:
            candidates[i].measures.clear()
        return again

    def _score_doublets(self, candidates: Sequence[Candidate]) -> None:
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
        with progress("looking for doublets", len(tasks), "samples", console=self.console) as bar:
            for candidate, answer in self._answers("score", tasks, candidates, bar):
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

    def _prepare_and_commit(self, candidates: Sequence[Candidate]) -> None:
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
                    "segments": str(self.corpus.segments_folder),
                    "uuid": self.corpus.uuid,
                    "scores": [str(candidate.scores[n].path) for n in sorted(candidate.scores)],
                }
                tasks += [_unit_task(i, survey, unit) | more for unit in units_of(survey)]
        with progress("writing segments", n_cells, "cells", console=self.console) as bar:
            for candidate, answer in self._answers("prepare", tasks, candidates, bar):
                prepared = PreparedUnit.model_validate_json(answer["prepared"])
                candidate.units[_unit(answer).start] = prepared
                self._commit_ready(candidates)
            self._commit_ready(candidates)  # the last answer may have been an error

    def _answers(
        self,
        work: str,
        tasks: Sequence[dict[str, Any]],
        candidates: Sequence[Candidate],
        bar: Bar,
    ) -> Iterator[tuple[Candidate, dict[str, Any]]]:
        """The answers that are no errors, in any order; an error refuses its source."""
        for answer in self.carry(work, tasks):
            candidate = candidates[answer["source"]]
            unit = _unit(answer) if "unit" in answer else None
            bar.advance(unit.stop - unit.start if unit else 1)
            if "error" in answer:
                candidate.refuse(answer["error"])
            else:
                yield candidate, answer

    def _commit_ready(self, candidates: Sequence[Candidate]) -> None:
        new = "replaced" if self.replacing else "added"
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
                commit = commit_source(self.corpus.folder, receipt, records, replace=self.replacing)
                candidate.end(
                    new if commit.added else "present",
                    receipt=receipt,
                    units=tuple(units),
                    snapshot=commit.snapshot,
                    n_withdrawn=commit.n_withdrawn,
                    linked=commit.linked,
                )

    def _survey_task(self, i: int, candidate: Candidate) -> dict[str, Any]:
        key = f"{candidate.sha256[:16]}-{candidate.recipe_hash[:16]}-{self.plan.unit_cells}"
        return {
            "source": i,
            "entry": candidate.entry.model_dump_json(),
            "source_id": candidate.source_id,
            "path": str(candidate.path),
            "metadata": str(candidate.metadata or ""),
            "orthologs": str(candidate.orthologs or ""),
            "sha256": candidate.sha256,
            "recipe_hash": candidate.recipe_hash,
            "reference": str(self.reference),
            "unit_cells": self.plan.unit_cells,
            "folder": str(self.corpus.staging / key),
            "leave_out": list(candidate.offences),
            "rejected": list(candidate.offences.values()),
        }


def _freeze(candidate: Candidate) -> None:
    survey = _surveyed(candidate)
    genes = open_survey(survey.model_dump_json()).genes
    candidate.thresholds = freeze_thresholds(
        read_measures([candidate.measures[start] for start in sorted(candidate.measures)]),
        survey.entry.quality,
        n_mitochondrial_genes=int(genes.mitochondrial_g.sum()),
        panel=genes.panel,
    )


def _surveyed(candidate: Candidate) -> Survey:
    if candidate.survey is None:
        raise SourceError(f"{candidate.entry.place}: was not surveyed")
    return candidate.survey


def _unit(answer: dict[str, Any]) -> Unit:
    return Unit.model_validate_json(answer["unit"])


def _unit_task(i: int, survey: Survey, unit: Unit) -> dict[str, Any]:
    return {"source": i, "survey": survey.model_dump_json(), "unit": unit.model_dump_json()}
