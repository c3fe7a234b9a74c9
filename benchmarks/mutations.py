"""Mutated real files through whole ingests, many at once, and their dated note.

    CYTOLAKE_RESOURCES=... python -m benchmarks.mutations --mutations 2000 --seed 0

Knows how the note is written; mutations, ingests and judgement are `tests/faults`' matter.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

from cytolake import __version__
from cytolake.platform.progress import progress
from cytolake.tests.faults.mutated_ingest import MEMORY, Outcome
from cytolake.tests.faults.mutation_campaign import BAD, PATIENCE, WORKERS, reasons, run, table

HERE = Path(__file__).parent
LIBRARIES = ("h5py", "zarr", "anndata", "numpy", "scipy", "pandas", "pyarrow")


_NOTE = """\
# {today}: {n} mutated real files

Command: `python -m benchmarks.mutations --mutations {n} --seed {seed}`; cytolake {version}, Python
{python}, {libraries}, HDF5 {hdf5}; {system}, {cores} cores; {seconds:.0f} s in {workers} processes
of at most {memory:.0f} GiB each, {patience:.0f} s for a file.

Each mutation is made for itself in a copy of one real source: files as they were published (h5ad,
h5mu, 10x HDF5, 10x matrix folders, loom, csv.gz, zarr in a zip), and real cells written anew where
a format has none at hand (h5ad dense and by columns, zarr of format 2, plain csv and tsv, a tar).
Formats and ways are drawn evenly; half of the bytes that change lie near what steers a reader
(heaps, trees and headers of HDF5, entries of a zip or tar). Then fingerprint, survey, measures,
thresholds, segments and receipt are made as an ingest makes them, without Ray, in a process that
may die.

What became of them:

- refused: with an error of ours. {bare} of {refused} refusals did not name the file or were a
  library's words alone.
- as before: it landed with the cells, counts and own columns of the sound file. The mutation lies
  where nothing is read from.
- as it stands: it landed otherwise, and a second reader that shares no code with ours (h5py, zarr,
  scipy, pandas) reads the same from the mutated file: barcodes, every count by gene, totals, own
  columns. HDF5 without checksums, plain text and a gzip that was packed again say nothing of what
  they held before, so a changed digit is another count for every reader.
- no witness: it landed, and the second reader cannot read it.
- wrong: it landed, and the second reader reads something else.
- crashed, hung: a library took the process down, or did not come back.

**{bad} bad** of {n}: {wrong} wrong, {unseen} without a witness, {crashed} crashed, {hung} hung.
The slowest took {slowest:.1f} s; no worker held more than {megabytes:,} MB.

"""


def note(outcomes: Sequence[Outcome], seed: int, seconds: float) -> str:
    """The note, in Markdown."""
    import h5py

    became = Counter(outcome.became for outcome in outcomes)
    text = _NOTE.format(
        today=date.today(),
        n=len(outcomes),
        seed=seed,
        version=__version__,
        python=sys.version.split()[0],
        libraries=", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        hdf5=h5py.version.hdf5_version,
        system=f"{platform.system()} {platform.machine()}",
        cores=os.cpu_count(),
        seconds=seconds,
        workers=WORKERS,
        memory=MEMORY / 2**30,
        patience=PATIENCE,
        bare=sum(outcome.is_bare for outcome in outcomes),
        refused=became["refused"],
        bad=sum(became[name] for name in BAD),
        wrong=became["wrong"],
        unseen=became["no witness"],
        crashed=became["crashed"],
        hung=became["hung"],
        slowest=max(outcome.seconds for outcome in outcomes),
        megabytes=max(outcome.megabytes for outcome in outcomes),
    )
    lines = [*table(outcomes), "\nThe most frequent refusals, what names a file or number apart:\n"]
    lines += [f"- {n}: `{said.strip(' :')}`" for said, n in reasons(outcomes).most_common(15)]
    lines += [
        f"\n{o.became.upper()}: {o.mutation}: {o.said[:400]}" for o in outcomes if o.became in BAD
    ]
    lines += [f"\nBARE: {o.mutation}: {o.said[:400]}" for o in outcomes if o.is_bare]
    return text + "\n".join(lines) + "\n"


def main() -> None:
    """Run the campaign and write its note; exit status 1 where a file ended badly."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--mutations", type=int, default=2000)
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    resources = os.environ.get("CYTOLAKE_RESOURCES", "").split(os.pathsep)[0]
    if not resources:
        sys.exit("CYTOLAKE_RESOURCES is not set: it names the folder of real files to mutate")
    began, n = time.perf_counter(), given.mutations
    with tempfile.TemporaryDirectory() as folder, progress("mutations", n, "files") as bar:
        place = Path(folder) / "mutations"
        outcomes = run(place, Path(resources), n, given.seed, lambda _: bar.advance(1))
    text = note(outcomes, given.seed, time.perf_counter() - began)
    (HERE / f"{date.today()}-mutations.md").write_text(text)
    print(table(outcomes)[2])
    sys.exit(any(o.became in BAD or o.is_bare for o in outcomes))


if __name__ == "__main__":
    main()
