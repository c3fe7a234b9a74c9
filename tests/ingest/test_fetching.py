"""Copies of what lies elsewhere: in memory, behind a web server on loopback, in a bucket."""

import functools
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from cytolake.ingest import fetching
from cytolake.ingest.fetching import Fetched, discard, fetch
from cytolake.ingest.remote import remote_sources
from cytolake.platform.errors import SourceError, StorageError
from rich.console import Console


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory, empty."""
    filesystem = fsspec.filesystem("memory")
    filesystem.rm("/", recursive=True) if filesystem.ls("/") else None
    yield filesystem
    filesystem.rm("/", recursive=True) if filesystem.ls("/") else None


class _Site(http.server.SimpleHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012 - the server makes a handler a request
    cut = 0
    """So many bytes are kept back of each file."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        self.asked.append(format % args)

    def copyfile(self, source: Any, outputfile: Any) -> None:
        data = source.read()
        outputfile.write(data[: len(data) - self.cut] if self.path.endswith("ad") else data)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A folder behind a web server: its URI, and the folder."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetching, "_PAUSE_S", 0.0)
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(_Site, "asked", [])
    handler = functools.partial(_Site, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


def files_of(fetched: Fetched) -> dict[str, bytes]:
    return {
        file.relative_to(fetched.folder).as_posix(): file.read_bytes()
        for file in sorted(fetched.folder.rglob("*"))
        if file.is_file() and file.name != ".listed.json"
    }


def test_a_file_comes_whole_and_its_copy_goes(memory: Any, tmp_path: Path):
    data = bytes(range(256)) * 12_000  # three blocks
    memory.pipe("/lab/a.h5ad", data)
    fetched = fetch("memory://lab/a.h5ad", tmp_path)
    assert fetched.path == fetched.folder / "a.h5ad" and files_of(fetched) == {"a.h5ad": data}
    discard(fetched)
    discard(fetched)
    assert not any(tmp_path.iterdir())


def test_a_copy_that_was_left_is_taken_up_only_while_size_and_mark_agree(
    memory: Any, tmp_path: Path
):
    memory.pipe("/lab/a.h5ad", b"first")
    place = fetch("memory://lab/a.h5ad", tmp_path).path
    inode = place.stat().st_ino
    assert fetch("memory://lab/a.h5ad", tmp_path).path.stat().st_ino == inode
    memory.pipe("/lab/a.h5ad", b"other")  # the same size, another time
    assert fetch("memory://lab/a.h5ad", tmp_path).path.read_bytes() == b"other"
    place.write_bytes(b"oth")  # cut by whoever
    assert fetch("memory://lab/a.h5ad", tmp_path).path.read_bytes() == b"other"


def test_what_a_dead_process_left_unfinished_is_never_taken_for_whole(memory: Any, tmp_path: Path):
    memory.pipe("/lab/a.h5ad", b"whole")
    fetched = fetch("memory://lab/a.h5ad", tmp_path)
    fetched.path.rename(fetched.folder / ".77-abc.part")
    again = fetch("memory://lab/a.h5ad", tmp_path)
    assert files_of(again) == {"a.h5ad": b"whole"}


def test_a_folder_comes_with_the_files_that_are_read_and_no_others(memory: Any, tmp_path: Path):
    for name in ("matrix.mtx.gz", "barcodes.tsv.gz", "features.tsv.gz"):
        memory.pipe(f"/run/s1/outs/filtered_feature_bc_matrix/{name}", name.encode())
    memory.pipe("/run/s1/outs/spatial/tissue_positions.csv", b"spots")
    memory.pipe("/run/s1/outs/possorted_genome_bam.bam", b"large")
    fetched = fetch("memory://run/s1/", tmp_path)
    assert fetched.path.name == "s1" and sorted(files_of(fetched)) == [
        "s1/outs/filtered_feature_bc_matrix/barcodes.tsv.gz",
        "s1/outs/filtered_feature_bc_matrix/features.tsv.gz",
        "s1/outs/filtered_feature_bc_matrix/matrix.mtx.gz",
        "s1/outs/spatial/tissue_positions.csv",
    ]


def test_a_matrix_whose_name_a_sample_leads_comes_with_its_parts(memory: Any, tmp_path: Path):
    for name in ("s1_matrix.mtx", "s1_genes.tsv", "s1_barcodes.tsv", "s2_genes.tsv"):
        memory.pipe(f"/geo/{name}", name.encode())
    fetched = fetch("memory://geo/s1_matrix.mtx", tmp_path)
    assert sorted(files_of(fetched)) == ["s1_barcodes.tsv", "s1_genes.tsv", "s1_matrix.mtx"]
    assert fetched.path.name == "s1_matrix.mtx"


def test_whole_files_of_a_broken_fetch_are_kept_and_the_rest_fetched(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("zarr.json", "c/0", "c/1"):
        memory.pipe(f"/a.zarr/{name}", name.encode())
    monkeypatch.setattr(fetching, "_PAUSE_S", 0.0)
    real, opened = fetching._opened, []

    def breaking(source: Any, file: Any) -> Any:
        opened.append(file.name)
        if file.name == "a.zarr/c/1" and len(opened) < 6:
            while len(list(tmp_path.rglob("*.json")) + list(tmp_path.rglob("c/0"))) < 3:
                time.sleep(0.01)  # the others are to be whole first
            raise SourceError("the line is dead")
        return real(source, file)

    monkeypatch.setattr(fetching, "_opened", breaking)
    with pytest.raises(SourceError, match="the line is dead"):
        fetch("memory://a.zarr", tmp_path)
    (folder,) = tmp_path.iterdir()
    assert not list(folder.rglob("*.part")) and not (folder / "a.zarr/c/1").exists()
    n_before = len(opened)
    opened += ["a new process"] * 6
    fetched = fetch("memory://a.zarr", tmp_path)
    assert files_of(fetched)["a.zarr/c/1"] == b"c/1" and len(files_of(fetched)) == 3
    assert n_before == 5 and opened[-1] == "a.zarr/c/1"


def test_a_file_that_changes_while_it_is_fetched_is_refused(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    memory.pipe("/lab/a.h5ad", b"first")
    monkeypatch.setattr(fetching, "_PAUSE_S", 0.0)
    real = fetching._opened

    def written_meanwhile(source: Any, file: Any) -> Any:
        remote = real(source, file)
        memory.pipe("/lab/a.h5ad", b"other")
        return remote

    monkeypatch.setattr(fetching, "_opened", written_meanwhile)
    with pytest.raises(SourceError, match="changed while it was fetched"):
        fetch("memory://lab/a.h5ad", tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_source_larger_than_the_disk_is_refused_before_a_byte_is_asked_for(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    memory.pipe("/lab/a.h5ad", b"x" * 100)
    few = type("usage", (), {"free": 99})()
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: few)
    monkeypatch.setattr(fetching, "_opened", None)
    with pytest.raises(StorageError, match=r"0\.0 GB are to be fetched"):
        fetch("memory://lab/a.h5ad", tmp_path)


def test_the_web_gives_files_folders_and_patterns(site: Any, tmp_path: Path):
    uri, folder = site
    (folder / "lab/s 1").mkdir(parents=True)
    (folder / "lab/a b.h5ad").write_bytes(b"x" * 3_000_000)
    for name in ("matrix.mtx.gz", "barcodes.tsv.gz", "features.tsv.gz"):
        (folder / "lab/s 1" / name).write_bytes(name.encode())
    fetched = fetch(f"{uri}/lab/a%20b.h5ad", tmp_path / "staging")
    assert files_of(fetched) == {"a b.h5ad": b"x" * 3_000_000}
    assert remote_sources(f"{uri}/lab/") == [f"{uri}/lab/a%20b.h5ad", f"{uri}/lab/s%201/"]
    assert remote_sources(f"{uri}/lab/*.h5ad") == [f"{uri}/lab/a%20b.h5ad"]
    matrix = fetch(f"{uri}/lab/s%201/", tmp_path / "staging")
    assert matrix.path.name == "s 1" and len(files_of(matrix)) == 3
    n_asked = sum("GET" in line for line in _Site.asked)
    fetch(f"{uri}/lab/a%20b.h5ad", tmp_path / "staging")
    assert sum("GET" in line for line in _Site.asked) == n_asked  # its time had not changed


def test_a_connection_that_breaks_leaves_no_file(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    uri, folder = site
    (folder / "a.h5ad").write_bytes(b"x" * 100_000)
    monkeypatch.setattr(_Site, "cut", 10)
    with pytest.raises(SourceError, match=r"a\.h5ad"):
        fetch(f"{uri}/a.h5ad", tmp_path / "staging")
    assert not any((tmp_path / "staging").iterdir())
    assert sum("GET" in line for line in _Site.asked) == fetching.ATTEMPTS


def test_a_page_is_no_file_of_cells(site: Any, tmp_path: Path):
    uri, folder = site
    (folder / "lab").mkdir()
    with pytest.raises(SourceError, match="is a web page, not a file of cells"):
        fetch(f"{uri}/lab", tmp_path)
    with pytest.raises(SourceError, match="the folder is empty"):
        fetch(f"{uri}/lab/", tmp_path)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("memory://nowhere/a.h5ad", "memory://nowhere/a.h5ad: no such file or folder"),
        ("http://127.0.0.1:9/a.h5ad?sig=hidden", "http://127.0.0.1:9/a.h5ad: cannot be reached"),
        ("http://me:hidden@127.0.0.1:9/lab/", "http://127.0.0.1:9/lab/: cannot be reached"),
        ("zzz://b/hidden", "zzz:// is not known; known are abfs"),
        ("simplecache::s3://me:hidden@b/a", "chained URIs are not read"),
        ("oss://me:hidden@b/a.h5ad", "oss://b/a.h5ad: oss:// needs the package ossfs"),
    ],
)
def test_what_cannot_be_had_is_told_without_secrets(
    uri: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(SourceError, match=message) as caught:
        fetch(uri, tmp_path)
    assert "hidden" not in str(caught.value) or uri.startswith("zzz")
    assert caught.value.__cause__ is None and not any(tmp_path.iterdir())


def test_a_prefix_is_every_source_below_it_by_the_rules_for_folders(memory: Any):
    for name in (
        "a.h5ad", "notes/README.txt", "b/matrix.mtx", "b/genes.tsv", "b/barcodes.tsv",
        "c.zarr/zarr.json", "c.zarr/X/c/0", "raw_feature_bc_matrix.h5",
        "filtered_feature_bc_matrix.h5", ".hidden.h5ad",
    ):  # fmt: skip
        memory.pipe(f"/lab/{name}", b"x")
    names = ["a.h5ad", "b", "c.zarr", "filtered_feature_bc_matrix.h5"]
    assert remote_sources("memory://lab/") == [f"memory://lab/{name}" for name in names]
    assert remote_sources("memory://lab/?.h5ad") == ["memory://lab/a.h5ad"]
    assert remote_sources("memory://lab/[bc]*") == ["memory://lab/b", "memory://lab/c.zarr"]
    assert remote_sources("memory://lab/b") == ["memory://lab/b"]
    with pytest.raises(SourceError, match="no file or folder fits this pattern"):
        remote_sources("memory://lab/*.loom")
    with pytest.raises(SourceError, match="memory://lab/notes: holds no source"):
        remote_sources("memory://lab/notes")


def test_a_name_that_leads_out_of_its_folder_is_refused(memory: Any, tmp_path: Path):
    memory.pipe("/lab/a.zarr/zarr.json", b"x")
    memory.store["/lab/a.zarr/../../x.h5ad"] = memory.store["/lab/a.zarr/zarr.json"]
    with pytest.raises(SourceError, match=r"the name '../../x.h5ad' leads out of the folder"):
        fetch("memory://lab/a.zarr", tmp_path)


def test_progress_is_told_by_megabytes(memory: Any, tmp_path: Path):
    memory.pipe("/lab/a.h5ad", b"x" * 2_000_000)
    with (tmp_path / "screen").open("w") as screen:
        console = Console(file=screen, force_terminal=True, width=160)
        fetch("memory://lab/a.h5ad", tmp_path / "staging", console=console)
    assert "fetching a.h5ad" in (tmp_path / "screen").read_text()
    assert "2/2" in (tmp_path / "screen").read_text()


def test_a_list_that_is_damaged_means_that_all_is_fetched_again(memory: Any, tmp_path: Path):
    memory.pipe("/lab/a.h5ad", b"whole")
    fetched = fetch("memory://lab/a.h5ad", tmp_path)
    for text in ("[]", "{", json.dumps({"a.h5ad": [5, "another mark"]})):
        (fetched.folder / ".listed.json").write_text(text)
        assert files_of(fetch("memory://lab/a.h5ad", tmp_path)) == {"a.h5ad": b"whole"}
