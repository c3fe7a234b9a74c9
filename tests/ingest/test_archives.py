import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cytolake.ingest.sources import archives
from cytolake.ingest.sources.archives import members_of, open_tar, unzipped
from cytolake.ingest.sources.formats import open_source
from cytolake.ingest.sources.tables import column_names
from cytolake.ingest.sources.tenx_mtx import TenxMtxSource
from cytolake.ingest.sources.zarr_store import open_store
from cytolake.platform.errors import SourceError

from .test_tenx import COUNTS, IDS, NAMES, write_mtx

ZEROS = bytes(2**23)


def tar_with(folder: Path, *added: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    """A good matrix, and something else."""
    write_mtx(folder / "m", COUNTS, IDS, NAMES)
    path = folder / "a.tar.gz"
    with tarfile.open(path, mode) as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
        archive.add(folder / "m", arcname="m")
        for member in added:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


@pytest.mark.parametrize(
    ("added", "message"),
    [
        (member("../../evil"), r"'\.\./\.\./evil' in it leads out of it"),
        (member("m/../../evil"), "leads out of it"),
        (member("/etc/evil"), "leads out of it"),
        (member("m/link", tarfile.SYMTYPE, "/etc/passwd"), "is a link to '/etc/passwd'"),
        (member("m/hard", tarfile.LNKTYPE, "m/matrix.mtx.gz"), "is a link to"),
        (member("m/device", tarfile.CHRTYPE), "is neither a file nor a folder"),
    ],
    ids=["up", "up inside", "absolute", "link", "hard link", "device"],
)
def test_a_tar_that_reaches_out_is_refused_and_nothing_is_written(
    tmp_path: Path, added: tarfile.TarInfo, message: str
):
    path = tar_with(tmp_path / "in", added)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SourceError, match=message):
        open_source(path, recognise=len).layers()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_tar_that_holds_too_much_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tar_with(tmp_path, member("m/zeros", size=len(ZEROS)), member("m/after"))
    assert TenxMtxSource(path=path).layers()
    monkeypatch.setattr(archives, "SURELY_FINE", 2**20)
    with pytest.raises(SourceError, match=r"'m/zeros' in it is its 5th and makes it 8,38\d,\d+"):
        TenxMtxSource(path=path).layers()


def test_a_tar_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 10)
    path = tar_with(tmp_path, *(member(f"m/{i}") for i in range(20)))
    with pytest.raises(SourceError, match="is its 11th"):
        TenxMtxSource(path=path).layers()


def test_a_header_that_claims_gigabytes_is_not_believed(tmp_path: Path):
    huge = member("x", tarfile.XHDTYPE)
    huge.size = 2**34
    path = tmp_path / "a.tar"
    path.write_bytes(huge.tobuf(tarfile.GNU_FORMAT) + bytes(2**16))
    with pytest.raises(SourceError, match=r"a\.tar"), open_tar(path) as archive:
        list(members_of(archive, path))


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:bz2", "w:xz"])
def test_every_packing_of_a_tar_is_read(tmp_path: Path, mode: str):
    path = tar_with(tmp_path, mode=mode)
    source = open_source(path, recognise=len)
    assert source.barcodes().tolist() == ["b0", "b1", "b2", "b3"]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress],
                         ids=["gz", "bz2", "xz"])  # fmt: skip
def test_a_packed_file_that_is_no_tar_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]):
    (tmp_path / "a.tar.gz").write_bytes(pack(b"no tar" * 999))
    with pytest.raises(SourceError, match="not a format that is read"):
        open_source(tmp_path / "a.tar.gz", recognise=len)


def test_a_gzip_is_read_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archives, "SURELY_FINE", 2**20)
    packed = gzip.compress(ZEROS)
    with pytest.raises(SourceError, match=r"b\.gz unpacks to more than 1,\d+,\d+ bytes"):
        unzipped(io.BytesIO(packed), len(packed), "b.gz").read()
    lines = unzipped(io.BytesIO(gzip.compress(b"one\ntwo\n")), 30, "c.gz")
    assert lines.readlines() == [b"one\n", b"two\n"]


def test_a_table_and_a_matrix_that_are_bombs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archives, "SURELY_FINE", 2**20)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"g," * 2**22))
    with pytest.raises(SourceError, match=r"a\.csv\.gz unpacks to more"):
        column_names(tmp_path / "a.csv.gz")
    write_mtx(tmp_path / "m", COUNTS, IDS, NAMES)
    (tmp_path / "m/matrix.mtx.gz").write_bytes(gzip.compress(b"%" * 2**23))
    with pytest.raises(SourceError, match=r"matrix\.mtx\.gz unpacks to more"):
        TenxMtxSource(path=tmp_path / "m").layers()


def test_a_zip_that_is_a_bomb_is_refused(tmp_path: Path):
    path = tmp_path / "a.zarr.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zarr.json", "{}")
        with archive.open("X/c/0", "w") as file:
            for _ in range(40):
                file.write(ZEROS)
    with open_store(path) as store, pytest.raises(SourceError, match="looks made to fill"):
        store.read("X/c/0")
