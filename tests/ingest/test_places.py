"""Sources at URIs, from the command's words to the receipt: fetched, named, put on record."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cytolake.corpus.store import Corpus
from cytolake.ingest import inspect as inspecting
from cytolake.ingest import planning
from cytolake.ingest.admission import Candidate, find_files
from cytolake.ingest.fetching import fetch
from cytolake.ingest.inspect import inspect_source
from cytolake.ingest.plan_toml import plan_toml
from cytolake.ingest.remote import remote_sources
from cytolake.ingest.sources_toml import SourceEntry, SourcesFile, load_sources, plan_of
from cytolake.platform.errors import RecipeError, SourceError
from cytolake.platform.session import ray_session
from cytolake.platform.settings import Settings
from cytolake.tests.object_store import home, s3_server

from .test_fetching import files_of, memory, site

__all__ = ["memory", "site"]


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """An S3 server on loopback with the empty bucket `lab-bucket`, and a client of it."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: the extra [remote]")
    import s3fs

    with s3_server() as client:
        s3fs.S3FileSystem.clear_instance_cache()
        yield client
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_bucket_gives_files_folders_and_prefixes(bucket: Any, tmp_path: Path):
    large = os.urandom(20_000_000)
    for key, body in {
        "lab/a.h5ad": large,
        "lab/b.zarr/zarr.json": b"{}",
        "lab/b.zarr/X/c/0": b"0",
        "lab/c/matrix.mtx.gz": b"m",
        "lab/c/barcodes.tsv.gz": b"b",
        "lab/c/features.tsv.gz": b"f",
        "lab/c/": b"",
    }.items():
        bucket.put_object(Bucket="lab-bucket", Key=key, Body=body)
    uri = "s3://lab-bucket/lab"
    assert remote_sources(uri) == [f"{uri}/a.h5ad", f"{uri}/b.zarr", f"{uri}/c"]
    assert remote_sources(f"{uri}/*.h5ad") == [f"{uri}/a.h5ad"]
    assert files_of(fetch(f"{uri}/a.h5ad", tmp_path)) == {"a.h5ad": large}
    assert set(files_of(fetch(f"{uri}/b.zarr", tmp_path))) == {"b.zarr/zarr.json", "b.zarr/X/c/0"}
    assert len(files_of(fetch(f"{uri}/c/", tmp_path))) == 3
    first = fetch(f"{uri}/a.h5ad", tmp_path).path.stat().st_ino
    assert fetch(f"{uri}/a.h5ad", tmp_path).path.stat().st_ino == first
    bucket.put_object(Bucket="lab-bucket", Key="lab/a.h5ad", Body=large[::-1])
    assert files_of(fetch(f"{uri}/a.h5ad", tmp_path)) == {"a.h5ad": large[::-1]}
    for missing in ("s3://lab-bucket/nowhere.h5ad", "s3://no-such-bucket/a.h5ad"):
        with pytest.raises(SourceError, match="no such file or folder"):
            fetch(missing, tmp_path)


def test_words_on_the_command_line_are_paths_uris_and_patterns(memory: Any, tmp_path: Path):
    for name in ("a.h5ad", "b.h5ad", "c.loom"):
        memory.pipe(f"/lab/{name}", b"x")
    (tmp_path / "d.h5ad").touch()
    words = ["memory://lab/*.h5ad", "memory://lab/c.loom", f"file://{tmp_path}/d.h5ad", "~/e.h5ad",
             "memory://nowhere/*.h5ad"]  # fmt: skip
    paths = [entry.path for entry in plan_of(words).source]
    assert paths == ["memory://lab/a.h5ad", "memory://lab/b.h5ad", "memory://lab/c.loom",
                     str(tmp_path / "d.h5ad"), str(Path.home() / "e.h5ad"),
                     "memory://nowhere/*.h5ad"]  # fmt: skip
    with pytest.raises(RecipeError, match=r"s3://b/a\.h5ad: has no setting 'laier'") as caught:
        plan_of(["s3://AKIA:hidden@b/a.h5ad"], {"laier": "X"})
    assert "hidden" not in str(caught.value)


def test_what_cannot_be_brought_is_refused_alone_and_its_secrets_with_it(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    memory.pipe("/lab/a.h5ad", b"x")
    entries = (
        SourceEntry(path="http://me:hidden@127.0.0.1:9/a.h5ad?X-Amz-Signature=hidden"),
        SourceEntry(path="memory://lab/*.loom"),
        SourceEntry(path="memory://lab/a*"),
        SourceEntry(path="memory://lab/a.h5ad", metadata="s3://k:hidden@b/cells.csv"),
        SourceEntry(path="memory://lab/a.h5ad", name="good"),
    )
    candidates = [Candidate(entry=entry) for entry in entries]
    plan = SourcesFile(source=entries, folder=tmp_path)
    find_files(candidates, plan, Settings(), gene_reference="g", staging=tmp_path / "staging")
    said = [candidate.outcome and str(candidate.outcome.error) for candidate in candidates]
    assert "http://127.0.0.1:9/a.h5ad: cannot be reached" in str(said[0])
    assert "no file or folder fits this pattern" in str(said[1])
    assert "a pattern of 1 sources" in str(said[2])
    assert "s3://b/cells.csv (metadata of memory://lab/a.h5ad): only a source" in str(said[3])
    assert said[4] is None and candidates[4].path is not None and candidates[4].path.is_file()
    assert "hidden" not in repr([candidate.entry for candidate in candidates]) + str(said)
    assert [c.uri for c in candidates[:2]] == ["http://127.0.0.1:9/a.h5ad", "memory://lab/*.loom"]
    assert [c.source_id for c in candidates[2:]] == ["a*", "a", "good"]
    for candidate in candidates:
        candidate.discard_copies()
    assert not any((tmp_path / "staging").iterdir())


def test_a_plan_of_a_uri_is_told_and_written_by_its_uri(
    adata: Any, memory: Any, tmp_path: Path, reference_table: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(planning, "gene_table", lambda settings: reference_table)
    monkeypatch.setattr(inspecting, "gene_table", lambda settings: reference_table)
    adata.write_h5ad(tmp_path / "a.h5ad")
    memory.pipe("/lab/a.h5ad", (tmp_path / "a.h5ad").read_bytes())
    memory.pipe("/lab/cut.h5ad", (tmp_path / "a.h5ad").read_bytes()[:5000])
    plan = plan_of(["memory://lab/"])
    report = planning.plan_report(plan, Settings(home=tmp_path))
    assert [source.error is None for source in report.sources] == [True, False]
    assert report.sources[0].n_cells == 40
    assert "memory://lab/cut.h5ad: not a whole HDF5" in str(report.sources[1].error)
    assert [str(drawn.title) for drawn in report.tables()] == [
        "memory://lab/a.h5ad", "memory://lab/cut.h5ad",
    ]  # fmt: skip
    (tmp_path / "sources.toml").write_text(plan_toml(report))
    (entry,) = load_sources(tmp_path / "sources.toml").source
    assert (entry.path, entry.reader, entry.layer) == ("memory://lab/a.h5ad", "h5ad", "X")
    seen = inspect_source("memory://lab/a.h5ad", Settings(home=tmp_path))
    assert seen.n_cells == 40 and seen.to_text().startswith("memory://lab/a.h5ad\n")
    assert 'path = "memory://lab/a.h5ad"' in seen.to_toml() and 'name = "a"' in seen.to_toml()
    with pytest.raises(SourceError, match=r"^memory://lab/cut\.h5ad: not a whole HDF5"):
        inspect_source("memory://lab/cut.h5ad", Settings(home=tmp_path))


@pytest.mark.slow
def test_sources_at_uris_land_with_their_uris_on_record(
    adata: Any, memory: Any, site: Any, bucket: Any, tmp_path: Path, run: Any
):
    uri, folder = site
    for number, name in enumerate(("near", "web", "bucket")):
        adata.obs_names = [f"{name}{i}" for i in range(40)]
        adata.X.data[0] = 1 + number
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
    (tmp_path / "web.h5ad").rename(folder / "web.h5ad")
    data = (tmp_path / "bucket.h5ad").read_bytes()
    bucket.put_object(Bucket="lab-bucket", Key="b/bucket.h5ad", Body=data)
    memory.pipe("/lab/cut.h5ad", data[:5000])
    entries = (
        SourceEntry(path=f"file://{tmp_path}/near.h5ad"),
        SourceEntry(path=f"{uri.replace('//', '//me:hidden@')}/web.h5ad?Signature=hidden"),
        SourceEntry(path="s3://lab-bucket/b/bucket.h5ad"),
        SourceEntry(path="memory://lab/cut.h5ad"),
        SourceEntry(path="s3://lab-bucket/b/nowhere.h5ad"),
    )
    with home(tmp_path / "home"), ray_session(n_cpus=2):
        report = run(*entries)
        again = run(entries[2])
        run(entries[0], entries[2], uri="s3://lab-bucket/lake")
        there = run(entries[0], uri="s3://lab-bucket/lake")
    with home(tmp_path / "of-another-machine"):
        remote = Corpus.open("s3://lab-bucket/lake")
        assert remote.verify(deep=True) == []
    assert [source.status for source in report.sources] == ["added"] * 3 + ["refused"] * 2
    assert [source.status for source in again.sources] == ["present"]
    assert "hidden" not in report.to_json()
    lake = Corpus.open(tmp_path / "lake")
    rows = lake.sql("SELECT uri, source_id, n_kept FROM sources ORDER BY uri").to_pylist()
    assert [(row["uri"], row["source_id"]) for row in rows] == [
        (f"file://{tmp_path}/near.h5ad", "near"),
        (f"{uri}/web.h5ad", "web"),
        ("memory://lab/cut.h5ad", "cut"),
        ("s3://lab-bucket/b/bucket.h5ad", "bucket"),
        ("s3://lab-bucket/b/nowhere.h5ad", "nowhere"),
    ]
    kept = lake.sql("SELECT source_id, count(*) AS n FROM cells GROUP BY 1").to_pylist()
    assert len(kept) == 3 and len({row["n"] for row in kept}) == 1
    assert str(report.sources[3].error).startswith("memory://lab/cut.h5ad: not a whole HDF5")
    assert lake.verify(deep=True) == []
    query = "SELECT sum(count) AS n FROM expression JOIN cells USING (cell_id) WHERE source_id IN"
    counted = f"{query} ('near', 'bucket')"
    assert remote.sql(counted).to_pylist() == lake.sql(counted).to_pylist()
    assert [source.status for source in there.sources] == ["present"]
    left = [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]
    assert not any(b"hidden" in path.read_bytes() for path in left)
    assert not any((tmp_path / "lake" / "staging").iterdir())
