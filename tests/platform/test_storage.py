"""Storage: URIs to paths, and writes that are whole or not at all."""

import os
from pathlib import Path

import pytest
from cytolake.platform.errors import SettingsError
from cytolake.platform.storage import freeze, local_path, sha256_file, write_durably


@pytest.mark.parametrize("uri", ["/data/cells", "file:///data/cells", Path("/data/cells")])
def test_a_uri_names_a_local_path(uri: str | Path) -> None:
    assert local_path(uri) == Path("/data/cells")


def test_an_unsupported_scheme_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"s3:// is not supported"):
        local_path("s3://bucket/cells")


def test_a_write_that_dies_before_its_rename_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "file"
    write_durably(place, b"old")

    def die(descriptor: int) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(OSError, match="power cut"):
        write_durably(place, b"new")
    assert place.read_bytes() == b"old"


def test_a_checksum_is_the_standard_one(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    known = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256_file(tmp_path / "empty") == known


def test_a_frozen_file_has_no_write_permission(tmp_path: Path) -> None:
    write_durably(tmp_path / "payload", b"counts")
    freeze(tmp_path / "payload")
    assert (tmp_path / "payload").stat().st_mode & 0o777 == 0o444
