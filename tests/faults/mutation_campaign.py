"""Many mutated sources, ingested by two worker processes that may die, and a table of them.

Knows how mutations are dealt out, how long one may take, and how outcomes are counted; knows no
mutation and no reader.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer
from typing import Any, get_args

from cytolake.tests.faults.mutated_ingest import Became, Outcome
from cytolake.tests.faults.mutations import Mutation
from cytolake.tests.faults.real_sources import gather

WORKERS = 2
PATIENCE = 120.0
"""Seconds after which a worker that says nothing hangs; a source takes one to three."""

COLUMNS: tuple[Became, ...] = get_args(Became)
BAD: frozenset[Became] = frozenset({"no witness", "wrong", "crashed", "hung"})
"""What must not become of a mutated source."""


def run(
    folder: Path,
    resources: Path,
    n_mutations: int,
    seed: int,
    tell: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """Gather real sources, and ingest mutated copies of them.

    Args:
        folder: where to put sources and copies; not there yet.
        resources: the folder of real data.
        n_mutations: how many.
        seed: the same seed, the same mutations.
        tell: called with each outcome as it comes.
    """
    sources = folder / "sources"
    gather(resources, sources)
    table = resources / "reference/gene_table_human_gencode.tsv.gz"

    def work(first: int) -> list[Outcome]:
        log, place = folder / f"worker-{first}.txt", folder / f"work-{first}"
        words = [sys.executable, "-m", "cytolake.tests.faults.mutated_ingest", str(sources),
                 str(place), str(table), str(seed), str(n_mutations)]  # fmt: skip
        waiting = list(range(first, n_mutations, WORKERS))
        found: list[Outcome] = []
        while waiting:
            for outcome in one_life(words, waiting, log):
                waiting.remove(outcome.mutation.number)
                found.append(outcome)
                tell(outcome)
        return found

    with ThreadPoolExecutor(WORKERS) as pool:
        found = [outcome for some in pool.map(work, range(WORKERS)) for outcome in some]
    return sorted(found, key=lambda outcome: outcome.mutation.number)


def one_life(words: Sequence[str], numbers: Sequence[int], log: Path):
    """Outcomes of one worker, until it is done or dead; its death is the last one's outcome.

    Raises:
        AssertionError: it died before it began; it says why.
    """
    words = [*words, *map(str, numbers)]
    at: Mutation | None = None
    with (
        log.open("w") as said,
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said, text=True) as process,
    ):
        assert process.stdout is not None
        while True:
            watch = Timer(PATIENCE, process.kill)
            watch.start()
            line = process.stdout.readline()
            hung = not watch.is_alive()
            watch.cancel()
            if not line:
                break
            values = json.loads(line)
            if "begins" in values:
                at = Mutation(**values["begins"])
            else:
                at = None
                yield _outcome(values)
        process.wait()
    if at is not None:
        why = f"nothing for {PATIENCE:.0f} s" if hung else f"exit status {process.returncode}"
        text = f"{why}: {log.read_text()[-2000:]}"
        became: Became = "hung" if hung else "crashed"
        yield Outcome(mutation=at, became=became, said=text, seconds=PATIENCE, megabytes=0)
    else:
        assert process.returncode == 0, log.read_text()[-4000:]


def _outcome(values: dict[str, Any]) -> Outcome:
    return Outcome(mutation=Mutation(**values.pop("mutation")), **values)


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """A Markdown table: a row a format and way of mutation, and the sums."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for outcome in outcomes:
        kind, what = outcome.mutation.kind, outcome.mutation.what
        for key in ((kind, what), (kind, "**all**"), ("**all formats**", "**all**"),
                    ("**all formats**", what)):  # fmt: skip
            counts.setdefault(key, Counter()).update(["all", outcome.became])
    lines = [
        f"| format | mutation | all | {' | '.join(COLUMNS)} |",
        "|---|---|" + "---:|" * (len(COLUMNS) + 1),
    ]
    for (kind, what), row in sorted(counts.items()):
        cells = [str(row[name]) for name in ("all", *COLUMNS)]
        lines.append(f"| {kind} | {what} | {' | '.join(cells)} |")
    return lines


def reasons(outcomes: Sequence[Outcome]) -> Counter[str]:
    """Refusals by their words, what names a place or a number left out."""
    said = (o for o in outcomes if o.became == "refused")
    return Counter(
        re.sub(r"\d+", "0", o.said.rpartition(Path(o.mutation.source).name)[2])[:90] for o in said
    )
