"""Random single faults over all kinds of files of a corpus, once and many, and their dated note.

    python -m benchmarks.faults --faults 1000 --seed 0

Knows how the note is written; the faults and what is asked of the damaged corpus are
`tests/faults`' matter.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from cytolake import __version__
from cytolake.platform.progress import progress
from cytolake.tests.faults.campaign import WORKERS, run, table
from cytolake.tests.faults.examination import Outcome

HERE = Path(__file__).parent


_NOTE = """\
# {today}: {n} random single faults

Command: `python -m benchmarks.faults --faults {n} --seed {seed}`; cytolake {version}, Python
{python}; {seconds:.0f} s in {workers} processes.

Each fault is inflicted for itself on one small corpus: 8 sources, annotated and compacted, with
deleted and withdrawn cells, a replaced and two refused sources, one of cells that are there
already, one with proteins, tags, uses, checkpoints, and one segment of three chunks. Kinds of files
and of faults are drawn evenly. Then the corpus is verified deep, and asked: two epochs of its
stream, fourteen SQL queries over every view, `to_anndata`, `to_mudata`, `show`, the log, tags,
uses, an older snapshot and a tagged one. Right is only the sound corpus's answer.

**{silent} silent** of {n}: {found} found by `verify --deep`, which opening refused or which was
told; {told} met by a reader with a clear error; {harmless} harmless: all answers right and nothing
said; {swaps} swaps of files of equal size met by deep verification alone. Harmless are faults in
hints, which a reader does without: bytes of a log's checkpoint that are not read,
`_last_checkpoint`, the witness of the newest commit, the marks of notes.

An older snapshot that does not need the damaged file answers rightly, and so does every other
reader that does not: the columns count those that met the fault, with a clear error.

"""


def note(outcomes: Sequence[Outcome], seed: int, seconds: float) -> str:
    """The note, in Markdown."""
    silent = [outcome for outcome in outcomes if outcome.is_silent]
    text = _NOTE.format(
        today=date.today(),
        n=len(outcomes),
        seed=seed,
        version=__version__,
        python=sys.version.split()[0],
        seconds=seconds,
        workers=WORKERS,
        silent=len(silent),
        found=sum(outcome.found for outcome in outcomes),
        told=sum(bool(outcome.told) for outcome in outcomes),
        harmless=sum(outcome.is_harmless for outcome in outcomes),
        swaps=sum(bool(o.wrong) and not o.is_silent for o in outcomes),
    )
    lines = [*table(outcomes), *(f"\nSILENT: {o.fault}: {dict(o.wrong)}" for o in silent)]
    return text + "\n".join(lines) + "\n"


def main() -> None:
    """Run the campaign and write its note; exit status 1 where a fault was silent."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--faults", type=int, default=1000)
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, progress("faults", given.faults, "faults") as bar:
        outcomes = run(Path(folder) / "faults", given.faults, given.seed, lambda _: bar.advance(1))
    text = note(outcomes, given.seed, time.perf_counter() - began)
    (HERE / f"{date.today()}-faults.md").write_text(text)
    print(table(outcomes)[2])
    sys.exit(any(outcome.is_silent for outcome in outcomes))


if __name__ == "__main__":
    main()
