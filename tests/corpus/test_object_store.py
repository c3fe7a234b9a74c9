"""A corpus in a bucket: whatever is done to it, on whichever machine, is what a local one does."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cytolake.corpus.log import ledger
from cytolake.corpus.log.leases import lease, live_leases
from cytolake.corpus.payload.verification import verify_segment
from cytolake.corpus.store import Corpus
from cytolake.corpus.stream import Stream
from cytolake.corpus.upkeep.sweeping import remove_named
from cytolake.platform.buckets import Bucket
from cytolake.platform.errors import (
    CorpusError,
    DamageError,
    NotACorpusError,
    StorageError,
    UnknownOutcomeError,
)
from cytolake.platform.faults import watching
from cytolake.tests.faults.commands import ingest_source, prepare_part
from cytolake.tests.faults.killing import state_of
from cytolake.tests.object_store import BUCKET, home, keys, s3_server

GENE = "GENE3"


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A client of an S3 server on loopback."""
    with s3_server() as client:
        yield client


@dataclass(frozen=True)
class Lake:
    """A corpus of two sources in a bucket; snapshot 2."""

    client: Any
    prefix: str
    machines: Path

    @property
    def uri(self) -> str:
        return f"s3://{BUCKET}/{self.prefix}"

    def open(self, machine: str, snapshot: int | str | None = None) -> Corpus:
        with home(self.machines / machine):
            return Corpus.open(self.uri, snapshot)

    def keys(self) -> list[str]:
        return keys(self.client, self.prefix)

    def put(self, key: str, body: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=f"{self.prefix}/{key}", Body=body)

    def remove(self, key: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=f"{self.prefix}/{key}")


@pytest.fixture
def lake(client: Any, request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    lake = Lake(client, f"of/{abs(hash(request.node.name)):x}", tmp_path)
    with home(tmp_path / "a"):
        corpus = Corpus.create(lake.uri)
        for name in ("blood", "lung"):
            ingest_source(corpus, name)
    return lake


def packs(corpus: Corpus) -> list[tuple[list[int], list[int]]]:
    """What a stream gives: barcodes as content keys, and counts."""
    stream = Stream(corpus, corpus.select(), seed=0, cells_per_group=16)
    groups = [batch for group in stream.epoch(0) for batch in group]
    stream.close()
    return [(batch.content_keys.tolist(), batch.counts.tolist()) for batch in groups]


def test_every_machine_sees_what_a_local_corpus_holds(lake: Lake, two: Corpus):
    local = state_of(two).content
    for machine in ("a", "b"):
        corpus = lake.open(machine)
        assert state_of(corpus).content == local
        assert packs(corpus) == packs(two)
        assert corpus.to_anndata().X.sum() == two.to_anndata().X.sum()  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue, reportUnknownMemberType] - a sparse matrix
        assert corpus.verify(deep=True) == []
    assert not [key for key in lake.keys() if "/." in key and not key.endswith(".newest.json")]


def test_changes_of_one_machine_are_seen_by_the_next(lake: Lake, two: Corpus):
    lake.open("b").delete("donor_id = 'blood-d1'")
    two.delete("donor_id = 'blood-d1'")
    lake.open("c").annotate(annotations := labels(two), origin="labels")
    Corpus.open(two.folder).annotate(annotations, origin="labels")
    lake.open("a").compact(cells_per_segment=50)
    Corpus.open(two.folder).compact(cells_per_segment=50)
    lake.open("b").tag("paper")
    with pytest.raises(CorpusError, match="paper"):
        lake.open("a").tag("paper", 1)
    assert lake.open("c").tags()["paper"].snapshot == lake.open("c").snapshot
    assert state_of(lake.open("d")).content == state_of(Corpus.open(two.folder)).content
    lake.open("d").restore(2)
    assert lake.open("a").sql("SELECT count(*) AS n FROM cells").to_pylist() == [{"n": 96}]
    assert lake.open("a").verify(deep=True) == []


def labels(corpus: Corpus) -> Any:
    """A label for every cell of one source."""
    query = "SELECT source_id, barcode, 'NK cell' AS cell_type FROM cells WHERE source_id = 'lung'"
    return corpus.sql(query)


def test_what_is_withdrawn_goes_from_the_bucket_and_from_every_mirror(lake: Lake):
    barcode = lake.open("b").sql("SELECT min(barcode) AS b FROM cells").to_pylist()[0]["b"]
    for machine in ("a", "b"):
        state_of(lake.open(machine))  # all of it is here now
        assert found_in(lake.machines / machine, barcode)
    lake.open("a").withdraw(f"barcode = '{barcode}'", "consent ended")
    lake.open("a").vacuum(older_than_ms=0, for_consent=True)
    lake.open("b")
    for machine in ("a", "b"):
        assert not found_in(lake.machines / machine, barcode)
    objects = [lake.client.get_object(Bucket=BUCKET, Key=f"{lake.prefix}/{k}") for k in lake.keys()]
    assert not any(barcode.encode() in found["Body"].read() for found in objects)
    assert lake.open("c").verify(deep=True) == []


def found_in(folder: Path, word: str) -> list[Path]:
    """Files below a folder that hold a word; Parquet keeps unique texts as they are."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if word.encode() in path.read_bytes()]


RACE = """
import sys
from cytolake.corpus.store import Corpus
from cytolake.tests.faults.commands import ingest_source, prepare_part

for name in sys.argv[2:]:
    ingest_source(Corpus.open(sys.argv[1]), name)
"""


def test_racing_writers_on_machines_of_their_own_land_once_each(lake: Lake):
    def race(machine: str, *names: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", RACE, lake.uri, *names],
            env={**os.environ, "CYTOLAKE_HOME": str(lake.machines / machine)},
            stderr=subprocess.PIPE,
            text=True,
        )

    racers = [race("x", "skin", "liver", "both"), race("y", "bone", "heart", "both")]
    said = [racer.communicate()[1] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], said
    corpus = lake.open("z")
    rows = corpus.sql("SELECT source_id, count(*) AS n FROM cells GROUP BY 1 ORDER BY 1")
    names = ["blood", "bone", "both", "heart", "liver", "lung", "skin"]
    assert rows.to_pylist() == [{"source_id": name, "n": 48} for name in names]
    assert corpus.snapshot == 7  # each landed by one commit
    assert corpus.verify(deep=True) == []


def test_a_vacuum_spares_what_another_machine_is_at_work_on(lake: Lake):
    ours, theirs = lake.open("a"), lake.open("b")
    with lease(theirs.folder):
        assert len(live_leases(ours.folder)) == 1
        name = f"{ours.folder.name}-staged"
        lake.put(f"segments/{name}/rna.zarr/zarr.json", b"{}")
        assert ours.vacuum(older_than_ms=0).removed.n_staged == 0
    assert live_leases(ours.folder) == []
    assert [key for key in lake.keys() if name in key]  # it is young


def test_a_damaged_copy_is_fetched_anew_and_a_damaged_object_is_told(lake: Lake):
    corpus = lake.open("b")
    total = corpus.sql("SELECT sum(count) AS n FROM expression").to_pylist()
    for path in corpus.folder.rglob("*.parquet"):
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"X")
    corpus = lake.open("b")
    assert corpus.sql("SELECT sum(count) AS n FROM expression").to_pylist() == total
    [segment, *_] = corpus.state.segments
    key = f"segments/{segment}/expression/0000.parquet"
    body = lake.client.get_object(Bucket=BUCKET, Key=f"{lake.prefix}/{key}")["Body"].read()
    lake.put(key, bytes([body[0] ^ 1]) + body[1:])
    [problem] = lake.open("b").verify(deep=True)
    assert f"{segment}/expression/0000.parquet has other bytes" in problem
    with pytest.raises(DamageError, match="has other bytes than were written"):
        lake.open("c").sql("SELECT sum(count) AS n FROM expression")
    lake.remove(key)
    where = f"s3://{BUCKET}/{lake.prefix}/{key}"
    assert [where in problem for problem in lake.open("d").verify()] == [True]
    with pytest.raises(DamageError, match=r"0000\.parquet is missing"):
        lake.open("e").sql("SELECT sum(count) AS n FROM expression")


def test_another_corpus_in_its_place_is_not_mixed_with_the_copy(lake: Lake):
    state_of(lake.open("b"))
    for key in lake.keys():
        lake.remove(key)
    with pytest.raises(StorageError, match=r"holds another corpus than it did.*remove the copy"):
        lake.open("b")
    with home(lake.machines / "c"):
        ingest_source(Corpus.create(lake.uri), "skin")
    with pytest.raises(StorageError, match="holds another corpus than it did"):
        lake.open("b")
    assert lake.open("c").sql("SELECT count(*) AS n FROM cells").to_pylist() == [{"n": 48}]


def test_a_bucket_without_a_corpus_or_with_another_thing_is_told(lake: Lake):
    with home(lake.machines / "a"):
        with pytest.raises(NotACorpusError, match=f"s3://{BUCKET}/elsewhere holds no corpus"):
            Corpus.open(f"s3://{BUCKET}/elsewhere")
        lake.put("inner/notes.txt", b"hello")
        with pytest.raises(CorpusError, match=r"is not empty \(it holds notes\.txt\)"):
            Corpus.create(f"{lake.uri}/inner")
        with pytest.raises(CorpusError, match=r"not empty|a table already"):
            Corpus.create(lake.uri)


def test_a_bucket_that_cannot_be_reached_is_told(lake: Lake, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="the object store says no") as caught:
        lake.open("a")
    assert "hidden" not in str(caught.value)


def test_a_commit_whose_answer_is_lost_keeps_its_files(lake: Lake, monkeypatch: pytest.MonkeyPatch):
    corpus, loads = lake.open("a"), []
    load = ledger.load_table

    def cut_off(folder: Path, version: int | None = None) -> Any:
        loads.append(folder)
        if len(loads) > 1:
            raise StorageError("the network is down")
        return load(folder, version)

    def lose_the_answer(point: str) -> None:
        if point == "after cells/commit":
            raise OSError("connection reset")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "load_table", cut_off)
        with watching(lose_the_answer), pytest.raises(UnknownOutcomeError, match="cannot be told"):
            corpus.delete("donor_id = 'blood-d1'")
    assert lake.open("b").snapshot == 3  # it took place
    assert lake.open("b").verify(deep=True) == []


def test_a_log_that_was_fetched_in_part_is_fetched_on(lake: Lake):
    corpus = lake.open("b")
    (corpus.folder / "cells/_delta_log/00000000000000000001.json").unlink()
    assert state_of(lake.open("b")).content == state_of(lake.open("c")).content


def test_a_network_error_is_no_damage(lake: Lake, monkeypatch: pytest.MonkeyPatch):
    corpus = lake.open("b")
    [segment, *_] = corpus.state.segments

    def fail(*_: Any, **__: Any) -> None:
        raise StorageError("timed out")

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "things", fail)
        with pytest.raises(StorageError, match="timed out"):
            verify_segment(corpus.segments_folder / segment)
    assert verify_segment(corpus.segments_folder / segment) == []


def test_a_stale_copy_does_not_tell_what_a_vacuum_may_take(lake: Lake):
    stale = lake.open("a")  # knows of no vacuum
    state_of(stale)
    lake.open("b").delete("source_id = 'lung'")
    lake.open("b").vacuum(older_than_ms=0)
    assert not any("segments/lung" in key for key in lake.keys())
    with home(lake.machines / "c"):
        fresh = Corpus.open(lake.uri)
        with lease(fresh.folder):
            records = [prepare_part(fresh, "lung", part) for part in range(2)]
            staged = [key for key in lake.keys() if "segments/lung" in key]
            remove_named(stale.folder)
            stale.vacuum(older_than_ms=0)
            assert [key for key in lake.keys() if "segments/lung" in key] == staged
    assert all(record.block != 0 for record in records)


def test_a_copy_of_an_array_that_was_cut_short_is_fetched_anew(lake: Lake):
    whole = packs(lake.open("a"))
    corpus = lake.open("b")
    assert packs(corpus) == whole
    for path in corpus.folder.glob("segments/*/rna.zarr/X/data/c/*"):
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-3])
    assert packs(lake.open("b")) == whole


def test_names_of_genes_fetch_no_counts(lake: Lake):
    corpus = lake.open("n")
    corpus.sql("SELECT count(*) FROM genes")
    assert not list(corpus.folder.glob("segments/*/expression/*.parquet"))
