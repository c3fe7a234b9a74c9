"""Compaction as a Ray Data job: each group of segments is a task, the driver commits.

Knows no cell: paths and statistics go through Ray, never matrices. The one file of the room that
speaks Ray.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console

from ...platform import errors
from ...platform.errors import CorpusError, CytolakeError
from ...platform.places import absolute_uri, place_of
from ...platform.progress import progress
from ...platform.session import ray_session
from ...platform.settings import Settings
from ...platform.tasks import in_parallel
from . import compaction
from .compaction import CELLS_PER_SEGMENT, Compacted, Group
from .remaking import Prepared, prepare


def compact(
    corpus_uri: str,
    settings: Settings,
    *,
    console: Console | None = None,
    cells_per_segment: int = CELLS_PER_SEGMENT,
    small: int | None = None,
) -> Compacted:
    """Bring many small segments together to few large ones; see `compaction.compact`.

    Args:
        corpus_uri: the corpus.
        settings: which Ray cluster to use; Ray is only started where there is something to do.
        console: where to show progress; standard error where None.
        cells_per_segment: the most cells that segments are brought together to.
        small: segments with fewer living cells are candidates.

    Raises:
        DamageError: a segment is damaged; nothing of its group is changed.
        ConflictError: other writers were first all the time.
    """
    uri = absolute_uri(corpus_uri)

    def prepare_all(groups: Sequence[Group]) -> Iterator[Prepared | None]:
        tasks = [{"corpus": uri, "segments": list(group)} for group in groups]
        with (
            ray_session(settings.address),
            progress("bringing segments together", len(tasks), "segments", console=console) as bar,
        ):
            for row in in_parallel(carry_out, [{"task": json.dumps(task)} for task in tasks]):
                bar.advance(1)
                yield _prepared(json.loads(row["result"]))

    return compaction.compact(
        place_of(uri), cells_per_segment=cells_per_segment, small=small, prepare_all=prepare_all
    )


def carry_out(row: dict[str, str]) -> dict[str, str]:
    """Do one task.

    Args:
        row: `task`, the JSON of `corpus` and `segments`.

    Returns:
        `result`, the JSON of `prepared` (None where a segment is no longer there), or of `error`
        and its `kind`.
    """
    task: dict[str, Any] = json.loads(row["task"])
    try:
        prepared = prepare(place_of(task["corpus"]), task["segments"])
        answer: dict[str, Any] = {"prepared": None if prepared is None else prepared.to_values()}
    except CytolakeError as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    return {"result": json.dumps(answer)}


def _prepared(answer: dict[str, Any]) -> Prepared | None:
    if "error" in answer:
        raise getattr(errors, answer["kind"], CorpusError)(answer["error"])
    return None if answer["prepared"] is None else Prepared.from_values(answer["prepared"])
