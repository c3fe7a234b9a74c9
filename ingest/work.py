"""What a worker does with one task: fingerprint, survey, measure, score, prepare. Knows no Ray.

Tasks and answers are small JSON values: paths and statistics, never matrices. Whatever goes wrong
is an answer, too, so that one bad source never stops the others.
"""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..platform.errors import CytolakeError, NotRawCountsError
from ..platform.memory import reuse_memory
from ..platform.storage import sha256_file
from .doublets import score_sample
from .judging import Unit
from .quality import Thresholds
from .sources.formats import source_files, stamp_of
from .sources_toml import SourceEntry
from .survey import load_reference, open_survey, survey_source
from .units import measure_unit, prepare_unit


def carry_out(row: dict[str, str]) -> dict[str, str]:
    """Do one task.

    Args:
        row: `work`, one of the names in `WORK`, and `task`, its JSON.

    Returns:
        `result`, the JSON of the task's `source`, `unit` and `sample` with the answer: what the
        work gives, or `offence` (a value that is no count), or `error` (why the source is refused).
    """
    reuse_memory()
    task: dict[str, Any] = json.loads(row["task"])
    answer: dict[str, Any] = {key: task[key] for key in ("source", "unit", "sample") if key in task}
    try:
        answer |= WORK[row["work"]](task)
    except CytolakeError as error:
        answer["error"] = str(error)
    except Exception as error:  # a damaged file can make any library raise anything
        path = task.get("path") or json.loads(task["survey"])["path"]
        answer["error"] = (
            f"{path}: cannot be read: {type(error).__name__}: {error}; if it opens elsewhere, this "
            "is a fault of cytolake's; else copy or download it again"
        )
    return {"result": json.dumps(answer)}


def get_ready(reference: str) -> None:
    """Load what the first task of a process would load: this module, and the table of genes."""
    reuse_memory()
    load_reference(Path(reference))


def fingerprint(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a source; of a folder, of its files' names and hashes."""
    files = source_files(path)
    n_bytes = sum(file.stat().st_size for file in files)
    if path.is_file():
        return sha256_file(path), n_bytes
    digest = sha256()
    for file in files:
        digest.update(f"{file.relative_to(path).as_posix()} {sha256_file(file)}\n".encode())
    return digest.hexdigest(), n_bytes


def _fingerprint(task: dict[str, Any]) -> dict[str, Any]:
    stamp = stamp_of(Path(task["path"]))
    digest, n_bytes = fingerprint(Path(task["path"]))
    return {"sha256": digest, "n_bytes": n_bytes, "stamp": stamp}


def _survey(task: dict[str, Any]) -> dict[str, Any]:
    survey = survey_source(
        SourceEntry.model_validate_json(task["entry"]),
        source_id=task["source_id"],
        path=Path(task["path"]),
        metadata=Path(task["metadata"]) if task["metadata"] else None,
        orthologs=Path(task["orthologs"]) if task["orthologs"] else None,
        sha256=task["sha256"],
        recipe_hash=task["recipe_hash"],
        reference=Path(task["reference"]),
        unit_cells=task["unit_cells"],
        folder=Path(task["folder"]),
        leave_out=tuple(task["leave_out"]),
        rejected=tuple(task["rejected"]),
    )
    return {"survey": survey.model_dump_json()}


def _measure(task: dict[str, Any]) -> dict[str, Any]:
    unit = Unit.model_validate_json(task["unit"])
    try:
        path = measure_unit(open_survey(task["survey"]), unit)
    except NotRawCountsError as error:
        return {"offence": str(error)}
    return {"measures": str(path), "pid": os.getpid()}


def _score(task: dict[str, Any]) -> dict[str, Any]:
    thresholds = Thresholds(bounds=task["bounds"], skipped=task["skipped"])
    scores = score_sample(open_survey(task["survey"]), task["sample"], thresholds)
    return {"scores": scores.model_dump_json()}


def _prepare(task: dict[str, Any]) -> dict[str, Any]:
    prepared = prepare_unit(
        open_survey(task["survey"]),
        Unit.model_validate_json(task["unit"]),
        Thresholds(bounds=task["bounds"], skipped=task["skipped"]),
        segments=Path(task["segments"]),
        corpus_uuid=task["uuid"],
        scores=tuple(map(Path, task["scores"])),
    )
    return {"prepared": prepared.model_dump_json()}


WORK = {
    "fingerprint": _fingerprint,
    "survey": _survey,
    "measure": _measure,
    "score": _score,
    "prepare": _prepare,
}
"""The kinds of work, in the order of the stages."""
