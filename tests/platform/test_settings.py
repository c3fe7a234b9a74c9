"""Settings: the file, the environment over it, and errors that name the key."""

from pathlib import Path

import pytest
from cytolake.platform.errors import SettingsError
from cytolake.platform.settings import load_settings


def test_settings_have_defaults_without_any_file(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, {})
    assert settings.home == Path("~/.cytolake").expanduser()
    assert settings.tracking_uri == f"sqlite:///{settings.home}/mlflow.db"


def test_paths_of_the_file_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "cytolake.toml").write_text('home = "."\ncorpus = "cells"\nresources = "data"\n')
    settings = load_settings(tmp_path, {})
    assert settings.home == tmp_path
    assert settings.corpus == str(tmp_path / "cells")
    assert settings.resources == (tmp_path / "data",)


def test_the_environment_is_laid_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "cytolake.toml").write_text('corpus = "cells"\n')
    environment = {"CYTOLAKE_CORPUS": "/else/where", "CYTOLAKE_RESOURCES": "/a:/b"}
    settings = load_settings(tmp_path, environment)
    assert settings.corpus == "/else/where"
    assert settings.resources == (Path("/a"), Path("/b"))


@pytest.mark.parametrize("text", ['corpse = "x"', "corpus = ["])
def test_a_bad_settings_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "cytolake.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"cytolake\.toml: "):
        load_settings(tmp_path, {})
