"""A bucket through its mirror: what is written goes there first, what is read is fetched once."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cytolake.platform import claims, places, storage
from cytolake.platform.buckets import Bucket
from cytolake.platform.errors import SettingsError, StorageError
from cytolake.platform.places import (
    bring,
    bring_anew,
    check_creates_once,
    delta_place,
    files_in,
    folders_in,
    follow,
    forget_gone,
    is_there,
    modified_at,
    named,
    place_of,
    refresh,
    size_of,
    sizes_in_bucket,
    time_of_files,
)
from cytolake.platform.storage import (
    create_durably,
    discard,
    publish,
    remove_durably,
    touch,
    write_durably,
)
from cytolake.tests.object_store import BUCKET, home, keys, s3_server


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A client of an S3 server on loopback."""
    with s3_server() as client:
        yield client


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A prefix of the bucket for one test alone."""
    return f"of/{abs(hash(request.node.name)):x}"


def on(machine: Path, prefix: str) -> Path:
    """The folder that stands for a prefix on a machine."""
    with home(machine):
        return place_of(f"s3://{BUCKET}/{prefix}")


def make_folder(folder: Path, **files: bytes) -> Path:
    for name, data in files.items():
        path = folder / name.replace("__", "/").replace("_json", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def test_what_one_machine_writes_another_reads(client: Any, prefix: str, tmp_path: Path):
    ours, theirs = on(tmp_path / "a", prefix), on(tmp_path / "b", prefix)
    (ours / "x").mkdir()
    write_durably(ours / "x/note.json", b"one")
    assert keys(client, prefix) == ["x/note.json"]
    bring([theirs / "x/note.json"])
    assert (theirs / "x/note.json").read_bytes() == b"one"
    write_durably(ours / "x/note.json", b"another")
    bring([theirs / "x/note.json"])
    assert (theirs / "x/note.json").read_bytes() == b"one"  # it never asks twice
    assert bring_anew(theirs / "x/note.json")
    assert (theirs / "x/note.json").read_bytes() == b"another"
    remove_durably(theirs / "x/note.json")
    assert keys(client, prefix) == [] and not (theirs / "x/note.json").exists()
    with pytest.raises(FileNotFoundError):
        bring([theirs / "x/note.json"])
    assert not is_there(ours / "x/note.json") and not (ours / "x/note.json").exists()


def test_a_name_is_created_once_whoever_asks(client: Any, prefix: str, tmp_path: Path):
    ours, theirs = on(tmp_path / "a", prefix), on(tmp_path / "b", prefix)
    for folder in (ours, theirs):
        (folder / "tags").mkdir()
    create_durably(ours / "tags/one.json", b"1")
    with pytest.raises(FileExistsError):
        create_durably(theirs / "tags/one.json", b"2")
    assert not (theirs / "tags/one.json").exists()
    refresh(theirs / "tags")
    assert (theirs / "tags/one.json").read_bytes() == b"1"
    touch(theirs / "tags/.one.there")
    refresh(ours / "tags")
    assert (ours / "tags/.one.there").exists()
    discard(ours / "tags/one.json")
    discard(ours / "tags/.one.there")
    refresh(theirs / "tags")
    assert not list((theirs / "tags").iterdir()) and keys(client, prefix) == []


def test_a_folder_is_whole_or_not_there(client: Any, prefix: str, tmp_path: Path):
    ours, theirs = on(tmp_path / "a", prefix), on(tmp_path / "b", prefix)
    files = {"rows__a": b"aa", "rows__b": b"bbb", "account_json": b"{}"}
    made = make_folder(ours / ".making", **files)
    publish(made, ours / "one", last="account.json")
    assert keys(client, prefix) == ["one/account.json", "one/rows/a", "one/rows/b"]
    assert sizes_in_bucket(ours / "one") == {"account.json": 2, "rows/a": 2, "rows/b": 3}
    assert size_of(theirs / "one") == 7 and folders_in(theirs) == [theirs / "one"]
    again = make_folder(theirs / ".making", rows__a=b"other", account_json=b"[]")
    with pytest.raises(FileExistsError):
        publish(again, theirs / "one", last="account.json")
    bring([theirs / "one/rows/a", theirs / "one/rows/b"])
    assert (theirs / "one/rows/a").read_bytes() == b"aa"
    remove_durably(ours / "one")
    assert keys(client, prefix) == []
    assert (theirs / "one").exists()
    forget_gone(theirs)
    assert not (theirs / "one").exists() and (theirs / ".making").exists()


def test_what_a_dead_writer_left_is_written_over(
    client: Any, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ours = on(tmp_path, prefix)
    for name in ("one/rows/a", "one/rows/of-another-try", "one/.claim"):
        client.put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=b"half")
    monkeypatch.setattr(claims, "_CLAIM_SECONDS", 0.5)
    publish(
        make_folder(ours / ".new", rows__a=b"a", last_json=b"{}"), ours / "one", last="last.json"
    )
    assert keys(client, prefix) == ["one/last.json", "one/rows/a"]
    body = client.get_object(Bucket=BUCKET, Key=f"{prefix}/one/rows/a")["Body"].read()
    assert body == b"a"


def test_a_living_writer_is_waited_for(client: Any, prefix: str, tmp_path: Path):
    ours = on(tmp_path, prefix)
    client.put_object(Bucket=BUCKET, Key=f"{prefix}/one/.claim", Body=b"of a living writer")
    told: list[BaseException] = []

    def write() -> None:
        try:
            made = make_folder(ours / ".new", last_json=b"{}")
            publish(made, ours / "one", last="last.json")
        except OSError as error:
            told.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.5)
    assert keys(client, prefix) == ["one/.claim"]
    client.put_object(Bucket=BUCKET, Key=f"{prefix}/one/last.json", Body=b"theirs")
    client.delete_object(Bucket=BUCKET, Key=f"{prefix}/one/.claim")
    writer.join()
    assert [type(error) for error in told] == [FileExistsError]
    body = client.get_object(Bucket=BUCKET, Key=f"{prefix}/one/last.json")["Body"].read()
    assert body == b"theirs"


def test_many_writers_of_one_folder_leave_the_files_of_one(
    client: Any, prefix: str, tmp_path: Path
):
    outcomes: list[str] = []

    def write(number: int) -> None:
        ours = on_machines[number]
        data = str(number).encode()
        made = make_folder(ours / ".new", a=data, b=data, last_json=data)
        try:
            publish(made, ours / "one", last="last.json")
            outcomes.append("wrote")
        except FileExistsError:
            outcomes.append("was there")

    on_machines = [on(tmp_path / str(number), prefix) for number in range(4)]
    writers = [threading.Thread(target=write, args=[number]) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(outcomes) == ["was there"] * 3 + ["wrote"]
    found = {
        client.get_object(Bucket=BUCKET, Key=f"{prefix}/one/{name}")["Body"].read()
        for name in ("a", "b", "last.json")
    }
    assert len(found) == 1
    assert keys(client, prefix) == ["one/a", "one/b", "one/last.json"]


def test_numbered_files_are_followed_and_another_past_is_refused(
    client: Any, prefix: str, tmp_path: Path
):
    ours, theirs = on(tmp_path / "a", prefix), on(tmp_path / "b", prefix)
    (ours / "log").mkdir()
    follow(theirs / "log", ".json")
    assert not (theirs / "log").exists()
    for number in range(3):
        write_durably(ours / f"log/{number}.json", str(number).encode())
    write_durably(ours / "log/2.checkpoint.parquet", b"a hint")
    follow(theirs / "log", ".json")
    write_durably(ours / "log/3.json", b"3")
    follow(theirs / "log", ".json")
    assert [path.name for path in sorted((theirs / "log").iterdir())] == [
        f"{number}.json" for number in range(4)
    ]
    client.put_object(Bucket=BUCKET, Key=f"{prefix}/log/3.json", Body=b"another")
    with pytest.raises(StorageError, match=r"holds another corpus than it did.*remove the copy"):
        follow(theirs / "log", ".json")


def test_times_are_the_buckets_and_staging_is_the_machines(
    client: Any, prefix: str, tmp_path: Path
):
    ours = on(tmp_path, prefix)
    (ours / "staging").mkdir()
    write_durably(ours / "staging/note", b"mine")
    hidden = make_folder(ours / ".hidden", a=b"a")
    write_durably(hidden / "b", b"b")
    assert keys(client, prefix) == [] and files_in(ours / "staging") == [ours / "staging/note"]
    (ours / "x").mkdir()
    touch(ours / "x/lease")
    assert 0 <= time_of_files(ours / "x") - modified_at(ours / "x/lease") < 60
    assert files_in(ours / "x") == [ours / "x/lease"]
    assert keys(client, prefix) == ["x/lease"]  # and no probe is left


def test_a_store_that_creates_twice_is_refused(
    client: Any, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ours = on(tmp_path, prefix)
    check_creates_once(ours)  # this one does not
    monkeypatch.setattr(places, "_PROVEN", set[str]())
    monkeypatch.setattr(Bucket, "create", Bucket.put)
    with pytest.raises(StorageError, match=r"overwrites where it was told to create.*conditional"):
        check_creates_once(ours)


@pytest.mark.parametrize(
    ("uri", "match"),
    [
        ("ftp://b/a", r"ftp:// is no object store.*expected a path or one of s3://"),
        ("s3://AKIA:hidden@b/a", r"s3://b/a: give credentials by the environment"),
    ],
)
def test_a_uri_that_is_no_bucket_or_holds_a_password_is_refused(
    uri: str, match: str, tmp_path: Path
):
    with home(tmp_path), pytest.raises(SettingsError, match=match) as caught:
        place_of(uri)
    assert "hidden" not in str(caught.value)


@pytest.mark.usefixtures("client")
def test_a_bucket_that_is_not_there_is_told(tmp_path: Path):
    with home(tmp_path):
        folder = place_of("s3://no-such-bucket/corpus")
    with pytest.raises(StorageError, match=r"s3://no-such-bucket/corpus/.*NoSuchBucket"):
        files_in(folder)


def test_local_paths_are_let_be(tmp_path: Path):
    path = tmp_path / "mirrors" / "mine" / "here" / "a"  # named like one, and none
    path.parent.mkdir(parents=True)
    storage.write_durably(path, b"a")
    bring([path, tmp_path / "nothing"])
    assert named(path) == str(path) and delta_place(path) == (str(path), None)
    assert not bring_anew(path) and sizes_in_bucket(tmp_path) is None
    assert is_there(path) and not is_there(tmp_path / "nothing")
    assert files_in(path.parent) == [path] and size_of(tmp_path) == 1
