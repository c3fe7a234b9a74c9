"""Where things are: read once from cytolake.toml and CYTOLAKE_*, then handed on as arguments.

Knows no recipe: what a run does is the recipe's, where it happens is told here.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from .configuration import Configuration, parse_values
from .errors import RecipeError, SettingsError

FILE_NAME = "cytolake.toml"
_PREFIX = "CYTOLAKE_"


class Settings(Configuration):
    """Where things are.

    Attributes:
        home: folder of runs, fetched resources and the tracking database.
        corpus: the corpus used where a command names none.
        tracking: MLflow tracking URI; `sqlite:///<home>/mlflow.db` where None.
        address: Ray cluster to use; an embedded session where None.
        resources: folders in which resources are looked up before anything is fetched.
    """

    home: Path = Field(default_factory=lambda: Path.home() / ".cytolake")
    corpus: str | None = None
    tracking: str | None = None
    address: str | None = None
    resources: tuple[Path, ...] = ()

    @property
    def tracking_uri(self) -> str:
        """The MLflow URI that runs are logged to."""
        return self.tracking or f"sqlite:///{self.home / 'mlflow.db'}"


def load_settings(
    folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Read `cytolake.toml` of a folder, then lay `CYTOLAKE_*` over it.

    Relative paths in the file are relative to the file; in the environment, to the working folder.
    `CYTOLAKE_RESOURCES` may hold several folders, joined as in PATH.

    Args:
        folder: where to look for the file; the working folder where None.
        environment: variables to read; the process's own where None.

    Raises:
        SettingsError: a setting is unknown, or of the wrong type.
    """
    folder = folder or Path.cwd()
    environment = os.environ if environment is None else environment
    path = folder / FILE_NAME
    values: dict[str, object] = {}
    if path.is_file():
        try:
            values = dict(tomllib.loads(path.read_text()))
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{path}: not valid TOML: {error}") from error
        if "resources" in values and isinstance(values["resources"], str):
            values["resources"] = [values["resources"]]
    for name in Settings.model_fields:
        given = environment.get(_PREFIX + name.upper())
        if given:
            values[name] = given.split(os.pathsep) if name == "resources" else given
    try:
        settings = parse_values(values, Settings, origin=str(path))
    except RecipeError as error:
        raise SettingsError(str(error)) from error
    return settings.model_copy(
        update={
            "home": _absolute(settings.home, folder),
            "resources": tuple(_absolute(place, folder) for place in settings.resources),
            "corpus": _absolute_uri(settings.corpus, folder),
        }
    )


def _absolute(path: Path, folder: Path) -> Path:
    return (folder / path.expanduser()).resolve()


def _absolute_uri(uri: str | None, folder: Path) -> str | None:
    if uri is None or "://" in uri:
        return uri
    return str(_absolute(Path(uri), folder))
