"""Eight writers of twenty sources each and a reader: all land once, whole, and none starves."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from cytolake.corpus.log.chain import load_table
from cytolake.corpus.store import Corpus
from cytolake.tests.faults.commands import N_CELLS, ingest_source

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1800)]

N_WRITERS, N_COMMITS = 8, 20
CELLS_PER_SOURCE = 2 * N_CELLS

# All writers begin to commit together: each waits until the others stand ready, too.
WRITE = """
import json, sys, time
from pathlib import Path
from cytolake.corpus.store import Corpus
from cytolake.tests.faults.commands import ingest_source

folder, writer, n_writers, n_commits = Path(sys.argv[1]), *map(int, sys.argv[2:])
corpus = Corpus.open(folder)
ready = folder.parent / "ready"
(ready / str(writer)).touch()
while len(list(ready.iterdir())) < n_writers:
    time.sleep(0.01)
waits = []
for number in range(n_commits):
    began = time.monotonic()
    ingest_source(corpus, f"source-{writer}-{number}")
    waits.append(time.monotonic() - began)
print(json.dumps(waits))
"""

READ = """
import json, sys
from pathlib import Path
from cytolake.corpus.store import Corpus

folder, per_source = Path(sys.argv[1]), int(sys.argv[2])
seen, n_looks = -1, 0
while not (folder.parent / "over").exists():
    corpus = Corpus.open(folder)
    rows = corpus.sql(
        "SELECT source_id, count(*) AS n, count(DISTINCT cell_id) AS ids, "
        "count(DISTINCT segment) AS segments FROM cells GROUP BY 1"
    ).to_pylist()
    for row in rows:
        assert (row["n"], row["ids"], row["segments"]) == (per_source, per_source, 2), row
    assert {row["source_id"] for row in rows} == {
        source.receipt.source_id for source in corpus.state.accepted
    }
    assert corpus.snapshot >= seen, f"snapshot {corpus.snapshot} after {seen}"
    assert len(rows) == corpus.snapshot, f"{len(rows)} sources in snapshot {corpus.snapshot}"
    seen, n_looks = corpus.snapshot, n_looks + 1
print(json.dumps([n_looks, seen]))
"""


def start(script: str, *words: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said_by(process: "subprocess.Popen[str]") -> list[float]:
    out, error = process.communicate()
    assert process.returncode == 0, error
    return json.loads(out)


def test_eight_writers_of_twenty_sources_land_each_once_before_the_eyes_of_a_reader(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = tmp_path / "lake"
    corpus = Corpus.create(lake)
    (tmp_path / "ready").mkdir()
    reader = start(READ, lake, CELLS_PER_SOURCE)
    writers = [start(WRITE, lake, n, N_WRITERS, N_COMMITS) for n in range(N_WRITERS)]
    try:
        waits = [said_by(writer) for writer in writers]
    finally:
        (tmp_path / "over").touch()
        looked = said_by(reader)

    names = {f"source-{w}-{n}" for w in range(N_WRITERS) for n in range(N_COMMITS)}
    newest = Corpus.open(lake)
    assert newest.snapshot == len(names), "a version is missing, or one is too many"
    log = newest.log()
    assert [entry["snapshot"] for entry in log] == list(range(len(names), -1, -1))
    assert Counter(entry["source_id"] for entry in log[:-1]) == Counter(names)
    found = newest.sql(
        "SELECT count(*) AS n, count(DISTINCT cell_id) AS ids, "
        "count(DISTINCT (source_id, barcode)) AS names FROM cells"
    ).to_pylist()[0]
    assert set(found.values()) == {len(names) * CELLS_PER_SOURCE}
    assert newest.verify(deep=True) == []

    ingest_source(corpus, "the next")  # by a handle that was opened before all the others
    projected = [
        version
        for record in load_table(lake / "sources").records
        if record.kind == "accepted"
        for version in record.body["snapshots"]
    ]
    assert sorted(projected) == list(range(1, len(names) + 2))
    assert Corpus.open(lake).verify(deep=True) == []
    with capsys.disabled():
        longest = ", ".join(f"{max(wait):.1f}" for wait in waits)
        mean = sum(map(sum, waits)) / len(names)
        print(f"\n{len(names)} commits by {N_WRITERS} writers; a reader looked {looked[0]} times")
        print(f"seconds a source, with its preparation: mean {mean:.1f}; longest: {longest}")
