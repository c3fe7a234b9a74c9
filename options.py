"""Options that several verbs of the command line share, and what they mean.

Knows settings and where a corpus is; knows no verb. Imports nothing heavy before it must.
"""

import os
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .platform.errors import SettingsError
from .platform.places import absolute_uri
from .platform.settings import Settings, load_settings

if TYPE_CHECKING:
    from .corpus.store import Corpus

CorpusOption = Annotated[
    str | None, typer.Option("--corpus", help="The corpus; the setting `corpus` where left out.")
]
SnapshotOption = Annotated[
    str | None,
    typer.Option("--snapshot", help="A snapshot's number or tag; the newest where left out."),
]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="A Ray cluster; this machine where left out.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Lay a.b=value over the recipe; repeatable.")
]

COMMAND = "CYTOLAKE_COMMAND"
"""The variable that tells a submitted job the line by which its sender submitted it."""


def corpus_uri(given: str | None, settings: Settings) -> str:
    """The corpus that is meant.

    Raises:
        SettingsError: none is named.
    """
    uri = given or settings.corpus
    if not uri:
        raise SettingsError(
            "no corpus is named: give --corpus URI, or set `corpus` in cytolake.toml"
        )
    return absolute_uri(uri)


def open_corpus(given: str | None, snapshot: str | None = None) -> "Corpus":
    """Open the corpus that is meant, at a snapshot's number or tag."""
    from .corpus.store import Corpus

    return Corpus.open(corpus_uri(given, load_settings()), snapshot=snapshot)


def with_address(settings: Settings, address: str | None) -> Settings:
    """The settings, with a Ray cluster of the command's own."""
    return settings.model_copy(update={"address": address}) if address else settings


def plain(text: str) -> str:
    """Text for a console that would take `[` for a style."""
    return text.replace("[", "\\[")


def command_line() -> str:
    """The line that this command was given as, to be given again; of a job, its sender's."""
    return os.environ.get(COMMAND) or shlex.join(["cytolake", *sys.argv[1:]])
