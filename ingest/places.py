"""Where a source lies: here, at a URI, or in a Census. Brought near, and named on record.

Knows entries and copies; knows no format. What goes on record of a place holds no secret.
"""

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from ..platform.settings import Settings
from ..platform.uris import identity, is_uri, name_of, recorded, scheme_of
from .fetching import Fetched, discard, fetch
from .sources.census_store import select_cells
from .sources_toml import SourceEntry, SourcesFile, default_name, resolve

_MAY_BE_URIS = ("path", "metadata", "orthologs", "proteins")


@dataclass(kw_only=True, slots=True)
class Nearby:
    """Copies of what lies elsewhere, for as long as they are needed.

    Attributes:
        staging: where they lie.
        console: where to show progress; standard error where None.
        copies: those at hand.
    """

    staging: Path
    console: Console | None = None
    copies: list[Fetched] = field(default_factory=list[Fetched])

    def bring(self, entry: SourceEntry, plan: SourcesFile, settings: Settings) -> Path:
        """The file or folder of a source, fetched or selected first where it lies elsewhere.

        Args:
            entry: as it was given, with whatever it takes to reach it.
            plan: what a relative path is relative to.
            settings: where resources are.

        Raises:
            ResourceError: the resource is not to be had.
            SourceError: there is no such place, or it cannot be reached.
            StorageError: there is no room for a copy.
        """
        if not is_elsewhere(entry):
            return resolve(entry, plan, settings)
        if entry.census is None:
            copy = fetch(entry.path or "", self.staging, console=self.console)
            self.copies.append(copy)
            return copy.path
        query = settled(entry, plan).census or entry.census
        key = identity(f"census://{query.place}/?obs={query.obs}")
        folder = self.staging / f"fetched-{key}"
        copy = Fetched(path=select_cells(query, folder / name_of_source(entry)), folder=folder)
        self.copies.append(copy)
        return copy.path

    def discard(self) -> None:
        """Remove the copies.

        Raises:
            StorageError: the disk says no.
        """
        while self.copies:
            discard(self.copies.pop())


def is_elsewhere(entry: SourceEntry) -> bool:
    """Whether a source has to be brought near: `file://` is here already."""
    if entry.census is not None:
        return True
    return entry.path is not None and is_uri(entry.path) and scheme_of(entry.path) != "file"


def settled(entry: SourceEntry, plan: SourcesFile) -> SourceEntry:
    """An entry as it may be logged, sent to workers and written anywhere.

    Its URIs are as they may be recorded, and the folder of a Census is told from the root.
    """
    given = {name: getattr(entry, name, None) for name in _MAY_BE_URIS}
    said: dict[str, object] = {
        name: recorded(uri) for name, uri in given.items() if uri and is_uri(uri)
    }
    query = entry.census
    if query is not None and not is_uri(query.uri):
        near = (plan.folder or Path.cwd()) / Path(query.uri).expanduser()
        said["census"] = query.model_copy(update={"uri": str(near.resolve())})
    return entry.model_copy(update=said) if said else entry


def name_of_source(entry: SourceEntry) -> str:
    """What a source is called unless its entry says so: as its file, or as its Census."""
    if entry.census is not None:
        return f"census-{entry.census.organism}"
    place = entry.path or entry.resource or ""
    return default_name(Path(name_of(place) if is_uri(place) else place))


def uri_on_record(entry: SourceEntry, path: Path | None) -> str:
    """What a receipt calls the place: where the source came from, not where its copy lay."""
    if path is not None and not is_elsewhere(entry):
        return path.absolute().as_uri()
    if is_uri(entry.place):
        return recorded(entry.place)
    return Path(entry.place).as_uri() if entry.census is not None else entry.place


def as_given(text: str, entry: SourceEntry, path: Path | None) -> str:
    """Words about a source's copy as words about the source."""
    if path is None or not is_elsewhere(entry):
        return text
    return text.replace(str(path), uri_on_record(entry, path))
