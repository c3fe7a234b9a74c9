"""Many random faults, each examined for itself by one of two worker processes, and a table of them.

Knows how faults are dealt out and counted; knows no fault and no question.
"""

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cytolake.tests.faults.damage import Fault
from cytolake.tests.faults.examination import Outcome
from cytolake.tests.faults.sound_corpus import build

WORKERS = 2


def run(
    folder: Path, n_faults: int, seed: int, tell: Callable[[Outcome], None] = lambda _: None
) -> list[Outcome]:
    """Build the corpus, and examine faults.

    Args:
        folder: where to put the sound corpus and the workers' copies; not there yet.
        n_faults: how many.
        seed: the same seed, the same faults, if the corpus has the same files.
        tell: called with each outcome as it comes.

    Raises:
        AssertionError: a worker failed; it says why.
    """
    folder.mkdir(parents=True)
    sound = folder / "sound"
    build(sound)

    def work(first: int) -> list[Outcome]:
        # Answers name the corpus's folder: each worker compares with its own copy, mended.
        copy, log = folder / f"copy-{first}", folder / f"worker-{first}.txt"
        shutil.copytree(sound, copy)
        numbers = [str(number) for number in (seed, first, WORKERS, n_faults)]
        module = "cytolake.tests.faults.examination"
        words = [sys.executable, "-m", module, str(sound), str(copy), *numbers]
        outcomes: list[Outcome] = []
        with (
            log.open("w") as said,
            subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said, text=True) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                outcomes.append(_outcome(line))
                tell(outcomes[-1])
        assert process.returncode == 0, f"after {outcomes[-1:]}: {log.read_text()}"
        return outcomes

    with ThreadPoolExecutor(WORKERS) as pool:
        found = [outcome for some in pool.map(work, range(WORKERS)) for outcome in some]
    return sorted(found, key=lambda outcome: outcome.fault.number)


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """A Markdown table: a row a kind of file and kind of fault, and the sums."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for outcome in outcomes:
        told = set(outcome.told)
        said = Counter(
            faults=1,
            found=int(outcome.found),
            stream=int("stream" in told),
            sql=int(any(question.startswith("SELECT") for question in told)),
            anndata=int(bool({"to_anndata", "to_mudata"} & told)),
            older=int(any(" of " in question for question in told)),
            harmless=int(outcome.is_harmless),
            silent=int(outcome.is_silent),
        )
        of_kind = (outcome.fault.kind, outcome.fault.what)
        for key in (of_kind, (outcome.fault.kind, "**all**"), ("**all files**", "**all**")):
            counts.setdefault(key, Counter()).update(said)
    columns = ("faults", "found", "stream", "sql", "anndata", "older", "harmless", "silent")
    lines = [
        "| file | fault | faults | found by verify --deep | told by stream | by SQL "
        "| by to_anndata, to_mudata | by older snapshots | harmless | silent |",
        "|---|---|" + "---:|" * len(columns),
    ]
    for (kind, what), row in sorted(counts.items()):
        cells = [str(row[name]) for name in columns]
        lines.append(f"| {kind} | {what} | {' | '.join(cells)} |")
    return lines


def _outcome(line: str) -> Outcome:
    values = json.loads(line)
    fault = Fault(**values.pop("fault"))
    told = tuple(values.pop("told"))
    return Outcome(fault=fault, told=told, **values)
