"""A mutated source ingested and judged: refused in words, or landed as a second witness reads it.

Knows the steps of an ingest as the driver takes them, without Ray; knows no way of mutation.
`python -m cytolake.tests.faults.mutated_ingest SOURCES WORK TABLE SEED N NUMBER...` examines the
mutations of these numbers and says a line of JSON before and after each: a worker that a
library takes down with it, or that never comes back, is told by the line that is missing.
"""

import faulthandler
import json
import re
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from cytolake.corpus.genes import GeneReference
from cytolake.corpus.payload.segments import Segment
from cytolake.corpus.payload.verification import verify_segment
from cytolake.ingest.judging import units_of
from cytolake.ingest.quality import freeze_thresholds
from cytolake.ingest.report import receipt_of
from cytolake.ingest.sources_toml import SourceEntry
from cytolake.ingest.survey import Survey, load_reference, open_survey
from cytolake.ingest.units import PreparedUnit, read_measures
from cytolake.ingest.work import carry_out
from cytolake.platform.errors import CytolakeError
from cytolake.tests.faults.mutations import Mutation, draw_mutations, inflict
from cytolake.tests.faults.plain_reading import Plain, read_plainly
from cytolake.tests.faults.real_sources import files_of, sources_in
from scipy import sparse

MEMORY = 4 * 2**30
"""Bytes that a worker may hold: a file of megabytes that asks for more is no reason to."""

UNIT_CELLS = 1000

Became = Literal["refused", "as before", "as it stands", "no witness", "wrong", "crashed", "hung"]
"""What becomes of a mutated source. `as before`: the same cells, counts and columns as the sound
one. `as it stands`: others, and the plain reader reads the same others. `no witness`: it landed,
and the plain reader cannot read it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a mutation.

    Attributes:
        mutation: the mutation.
        became: see `Became`.
        said: the refusal, or what is wrong.
        seconds: that it took.
        megabytes: the most that the worker held so far.
    """

    mutation: Mutation
    became: Became
    said: str
    seconds: float
    megabytes: int

    @property
    def is_bare(self) -> bool:
        """Whether a refusal does not name the file, or is a library's words and no more."""
        if self.became != "refused":
            return False
        name = Path(self.mutation.source).name
        return name not in self.said or re.search(r"Traceback|cannot be read: \w+: ", self.said) \
            is not None  # fmt: skip


class Refused(Exception):
    """A step of the ingest answered with an error of ours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Landed:
    """A source whose every unit is prepared.

    Attributes:
        survey: of the source.
        column: of the table of genes, that names them.
        segments: of its units, in order.
        n_read: cells read, by its receipt.
        n_kept: cells kept, by its receipt.
    """

    survey: Survey
    column: str
    segments: list[Path]
    n_read: int
    n_kept: int


def ingest(path: Path, folder: Path, table: Path) -> Landed:
    """Take a source through the steps of an ingest, up to what a commit would take.

    Raises:
        Refused: it is refused, with the reason.
    """
    named = _step("fingerprint", {"path": str(path)})
    about: dict[str, Any] = {
        "entry": SourceEntry(path=str(path)).model_dump_json(), "source_id": "mutated",
        "path": str(path), "metadata": "", "orthologs": "", "sha256": named["sha256"],
        "recipe_hash": "1" * 64, "reference": str(table), "unit_cells": UNIT_CELLS,
        "folder": str(folder / "staging"),
    }  # fmt: skip
    offences: dict[str, str] = {}
    while True:
        tried = {"leave_out": list(offences), "rejected": list(offences.values())}
        text = _step("survey", about | tried)["survey"]
        survey = Survey.model_validate_json(text)
        units = units_of(survey)
        tasks = [{"survey": text, "unit": unit.model_dump_json()} for unit in units]
        answers = [_step("measure", task) for task in tasks]
        offence = next((answer["offence"] for answer in answers if "offence" in answer), None)
        if offence is None:
            break
        offences[survey.layer] = offence
    try:
        opened = open_survey(survey.model_dump_json())
        thresholds = freeze_thresholds(
            read_measures([Path(answer["measures"]) for answer in answers]),
            survey.entry.quality,
            n_mitochondrial_genes=int(opened.genes.mitochondrial_g.sum()),
            panel=opened.genes.panel,
        )
        judged = {"bounds": thresholds.bounds, "skipped": thresholds.skipped, "scores": []}
        place = {"segments": str(folder / "segments"), "uuid": "u"}
        prepared = [
            PreparedUnit.model_validate_json(_step("prepare", task | judged | place)["prepared"])
            for task in tasks
        ]
        receipt = receipt_of(
            opened, n_bytes=named["n_bytes"], thresholds=thresholds, units=prepared
        )
    except CytolakeError as error:
        raise Refused(str(error)) from error
    return Landed(
        survey=survey,
        column=opened.genes.column,
        segments=[unit.segment for unit in prepared],
        n_read=receipt.n_read,
        n_kept=receipt.n_kept,
    )


def _step(work: str, task: dict[str, Any]) -> dict[str, Any]:
    answer = json.loads(carry_out({"work": work, "task": json.dumps(task)})["result"])
    if "error" in answer:
        raise Refused(answer["error"])
    return answer


def differences(landed: Landed, plain: Plain, reference: GeneReference) -> list[str]:
    """What a landed source holds otherwise than the plain reader read it; nothing where equal."""
    names = np.array([name.strip() for name in plain.names], dtype=object)
    gene_ids = reference.map_names(names).gene_ids.astype(str)
    genes, gene_of = np.unique(gene_ids, return_inverse=True)
    summing = _sums(gene_of, len(genes))
    first = {name: row for row, name in reversed(list(enumerate(plain.barcodes)))}
    into = np.array([first[name] for name in plain.barcodes], dtype=np.int64)
    n_cells = len(plain.barcodes)
    expected = sparse.csr_matrix(_sums(into, n_cells).T @ (plain.matrix @ summing))
    totals = np.asarray(_sums(into, n_cells).T @ plain.matrix.sum(axis=1)).ravel()
    found: list[str] = []
    if landed.n_read != n_cells:
        found.append(f"{landed.n_read} cells, expected {n_cells}")
    n_kept = 0
    for folder in landed.segments:
        found += verify_segment(folder)
        segment = Segment.open(folder)
        cells, own = segment.record.cells(), segment.record.table("obs.parquet")
        n_kept += cells.num_rows
        barcodes = cells.column("barcode").to_pylist()
        unknown = [name for name in barcodes if name not in first]
        if unknown or segment.gene_ids.tolist() != genes.tolist():
            return [f"other names: {unknown[:3]} or genes {segment.gene_ids[:3]} {genes[:3]}"]
        rows = np.array([first[name] for name in barcodes], dtype=np.int64)
        indptr, indices, counts = segment.read(np.arange(len(rows)))
        shape = (len(rows), len(genes))
        stored = sparse.csr_matrix((counts.astype(np.float64), indices, indptr), shape=shape)
        wrong = np.unique((stored != expected[rows]).nonzero()[0])
        if wrong.size:
            found.append(f"counts of {len(wrong)} cells, row {int(rows[wrong[0]])} first")
        if (cells.column("n_counts").to_numpy() != totals[rows]).any():
            found.append("n_counts")
        found += [
            f"column {name!r}"
            for name in own.column_names
            if name in plain.obs
            and not _same(own.column(name).to_pylist(), [plain.obs[name][row] for row in rows])
        ]
    if n_kept != landed.n_kept:
        found.append(f"{n_kept} cells are kept, the receipt says {landed.n_kept}")
    return found


def _sums(into: Any, n_groups: int) -> sparse.csr_matrix:
    """Sums columns into groups when a matrix is multiplied by it."""
    ones = np.ones(len(into))
    return sparse.csr_matrix((ones, (np.arange(len(into)), into)), shape=(len(into), n_groups))


def _same(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    return all(_plain(one) == _plain(other) for one, other in zip(ours, theirs, strict=True))


def _plain(value: Any) -> Any:
    """A value as anyone would write it: missing is missing, 1 is 1.0, text is text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace")
    if value is None or value != value or type(value).__name__ in ("NAType", "NaTType"):
        return None
    return float(value) if isinstance(value, bool | int | float | np.generic) and not isinstance(
        value, str
    ) else str(value)  # fmt: skip


def content(landed: Landed) -> str:
    """A digest of the kept cells: barcodes, counts by gene and own columns."""
    digest = sha256()
    for folder in landed.segments:
        record = Segment.open(folder).record
        for row in record.cells().to_pylist():
            digest.update(f"{row['barcode']} {row['content_hash']} {row['n_counts']}\n".encode())
        for row in record.table("obs.parquet").to_pylist():
            digest.update(repr(row).encode())
    return digest.hexdigest()


@lru_cache(maxsize=64)
def sound_content(source: Path, folder: Path, table: Path) -> str:
    """The digest of an unchanged source's cells; what it was refused for where it was."""
    try:
        return content(ingest(source, folder, table))
    except Refused as refused:
        return str(refused)


def examine(
    mutation: Mutation, sources: Path, work: Path, table: Path, others: Sequence[Path], seed: int
) -> Outcome:
    """Ingest one mutated source and judge what comes of it."""
    folder = work / str(mutation.number)
    before = sound_content(sources / mutation.source, work / f"{mutation.source}-sound", table)
    path = inflict(mutation, sources, folder / "in", others, seed)
    began = time.monotonic()
    try:
        landed = ingest(path, folder, table)
    except Refused as refused:
        became, said = "refused", str(refused)
    else:
        became, said = _judged(mutation, path, landed, before, table)
    seconds = time.monotonic() - began
    shutil.rmtree(folder, ignore_errors=True)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return Outcome(
        mutation=mutation, became=became, said=said, seconds=round(seconds, 2), megabytes=held
    )


def _judged(
    mutation: Mutation, path: Path, landed: Landed, before: str, table: Path
) -> tuple[Became, str]:
    same = content(landed) == before
    try:
        plain = read_plainly(path, mutation.kind, landed.survey.layer, landed.column)
    except Exception as error:  # a library may raise anything of such a file
        # The sound source was held against the plain reader: equal cells need no other witness.
        return ("as before", "") if same else ("no witness", f"{type(error).__name__}: {error}")
    wrong = differences(landed, plain, load_reference(table))
    if wrong:
        return "wrong", "; ".join(wrong[:5])
    return ("as before" if same else "as it stands"), ""


def main(words: Sequence[str]) -> None:
    """Examine some mutations of a campaign."""
    sources, work, table = (Path(word) for word in words[:3])
    seed, n_mutations, *numbers = (int(word) for word in words[3:])
    faulthandler.enable()
    warnings.simplefilter("ignore")  # libraries complain of such files; that is not ours
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    kinds = sources_in(sources)
    others = [file for found in kinds.values() for source in found for file in files_of(source)]
    others = [file for file in others if file.stat().st_size > 2000]
    mutations = draw_mutations(sources, kinds, n_mutations, seed)
    for mutation in (mutations[number] for number in numbers):
        print(json.dumps({"begins": asdict(mutation)}), flush=True)
        outcome = examine(mutation, sources, work, table, others, seed)
        print(json.dumps(asdict(outcome)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
