"""Sources on their way into a corpus: found, fingerprinted, let in or turned away.

Knows the snapshot that stands; knows no cell and no Ray.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from ..corpus.log.snapshots import Snapshot
from ..platform.errors import CorpusError, CytolakeError, SourceError, did_you_mean
from ..platform.settings import Settings
from ..platform.storage import sha256_file
from .doublets import SampleScores
from .places import Nearby, as_given, name_of_source, settled, uri_on_record
from .quality import Thresholds
from .report import IngestedSource, Status
from .sources.formats import stamp_of
from .sources_toml import (
    SourceEntry,
    SourcesFile,
    recipe_hash,
    resolve_metadata,
    resolve_orthologs,
    resolve_proteins,
)
from .survey import Survey
from .units import PreparedUnit


@dataclass(kw_only=True, slots=True)
class Candidate:
    """A source on its way through the stages: the one thing of an ingest that changes.

    Attributes:
        entry: its settings.
        source_id: its name in the corpus.
        path: the file or folder, once found.
        nearby: copies of what lies elsewhere; None where nothing does.
        metadata: the table of cells beside it.
        orthologs: the table of orthologs that its genes need.
        stamp: of its files when they were fingerprinted.
        sha256: of its bytes.
        n_bytes: its size.
        recipe_hash: of all that decides which cells it gives.
        survey: what pass 1 and 2 need to know.
        offences: layer -> the value that is no count, found when all values were tested.
        measures: first row of a unit -> its measures (pass 1).
        thresholds: frozen between the passes.
        scores: number of a sample -> its doublet scores; empty where none are asked for.
        units: first row of a unit -> what became of it (pass 2).
        outcome: set once the source is done with.
    """

    entry: SourceEntry
    source_id: str = ""
    path: Path | None = None
    nearby: Nearby | None = None
    metadata: Path | None = None
    orthologs: Path | None = None
    stamp: str = ""
    sha256: str = ""
    n_bytes: int = 0
    recipe_hash: str = ""
    survey: Survey | None = None
    offences: dict[str, str] = field(default_factory=dict[str, str])
    measures: dict[int, Path] = field(default_factory=dict[int, Path])
    thresholds: Thresholds | None = None
    scores: dict[int, SampleScores] = field(default_factory=dict[int, SampleScores])
    units: dict[int, PreparedUnit] = field(default_factory=dict[int, PreparedUnit])
    outcome: IngestedSource | None = None

    def end(self, status: Status, **values: Any) -> None:
        """Be done with the source."""
        self.outcome = IngestedSource(
            source_id=self.source_id, place=self.entry.place, status=status, **values
        )

    def refuse(self, error: str) -> None:
        """Be done with the source: the first error stands."""
        if self.outcome is None:
            self.end("refused", error=as_given(error, self.entry, self.path))

    @property
    def uri(self) -> str:
        """What a receipt calls the source's place."""
        return uri_on_record(self.entry, self.path)

    def discard_copies(self) -> None:
        """Remove what was fetched: the source is done with.

        Raises:
            StorageError: the disk says no.
        """
        if self.nearby is not None:
            self.nearby.discard()

    def check_unchanged(self) -> None:
        """Refuse a source whose files are no longer those that were fingerprinted.

        Raises:
            SourceError: a file changed while it was read.
        """
        if self.path is not None and stamp_of(self.path) != self.stamp:
            raise SourceError(
                f"{self.path}: changed while it was read; nothing of it is in the corpus: ingest "
                "it again when nobody writes to it"
            )

    @contextmanager
    def refusing(self) -> Generator[None]:
        """Refuse the source for any error of ours that the body raises, or if it went away."""
        try:
            yield
        except CytolakeError as error:
            self.refuse(str(error))
        except OSError as error:
            self.refuse(f"{self.path}: cannot be read any more: {error}; ingest it again")


def check_replaced(replaced: str, plan: SourcesFile, snapshot: Snapshot) -> None:
    """Refuse to replace a source that is not there, or by anything but one file.

    Args:
        replaced: the name of the source in the corpus.
        plan: what is given in its place.
        snapshot: the newest.

    Raises:
        SourceError: not exactly one file is given, or it has a name of its own.
        CorpusError: the corpus has no such source.
    """
    if len(plan.source) != 1:
        raise SourceError(
            f"{len(plan.source)} sources are given to replace {replaced!r}: a source is replaced "
            "by one file"
        )
    name = plan.source[0].name
    if name not in (None, replaced):
        raise SourceError(
            f"the given source is called {name!r}, but is to replace {replaced!r}: leave its name "
            "out, or ingest it beside the other"
        )
    known = [source.receipt.source_id for source in snapshot.accepted]
    if replaced not in known:
        raise CorpusError(
            f"the corpus has no source {replaced!r} to replace{did_you_mean(replaced, known)} "
            f"(it has {', '.join(sorted(known)[:10]) or 'none'}{', ...' if known[10:] else ''})"
        )


def find_files(
    candidates: Sequence[Candidate],
    plan: SourcesFile,
    settings: Settings,
    *,
    gene_reference: str,
    staging: Path,
    console: Console | None = None,
) -> None:
    """Find each source's files, name it and hash its settings; fetch what lies elsewhere.

    From here on an entry holds no secret of its URI: it goes to workers, receipts and reports.

    Args:
        candidates: the sources.
        plan: what they come from.
        settings: where resources are.
        gene_reference: digest of the gene reference.
        staging: where copies of what lies elsewhere are put; see `Candidate.discard_copies`.
        console: where to show progress; standard error where None.
    """
    for candidate in candidates:
        given = candidate.entry
        candidate.entry = entry = settled(given, plan)
        candidate.source_id = entry.name or name_of_source(entry)
        candidate.nearby = Nearby(staging=staging, console=console)
        with candidate.refusing():
            candidate.path = candidate.nearby.bring(given, plan, settings)
            candidate.metadata = resolve_metadata(entry, plan, settings)
            beside = sha256_file(candidate.metadata) if candidate.metadata else None
            candidate.orthologs = resolve_orthologs(entry, plan)
            pairs = sha256_file(candidate.orthologs) if candidate.orthologs else None
            proteins = resolve_proteins(entry, plan)
            measured = sha256_file(proteins) if proteins else None
            if proteins is not None:  # from here on the table is where it is
                candidate.entry = entry.model_copy(update={"proteins": str(proteins.absolute())})
            candidate.recipe_hash = recipe_hash(
                entry,
                gene_reference=gene_reference,
                metadata_sha256=beside,
                orthologs_sha256=pairs,
                proteins_sha256=measured,
            )


def admit(
    candidates: Sequence[Candidate], snapshot: Snapshot, *, replaced: str | None = None
) -> None:
    """Turn away what is given twice or in the corpus already; give every source a free name.

    Args:
        candidates: the sources.
        snapshot: the newest.
        replaced: the source in whose place the only candidate comes; see `check_replaced`.
    """
    by_sha256 = {source.receipt.sha256: source for source in snapshot.accepted}
    taken = {source.receipt.source_id for source in snapshot.accepted} - {replaced}
    given: dict[str, Candidate] = {}
    for candidate in candidates:
        if candidate.outcome is not None:
            continue
        if replaced is not None:
            candidate.source_id = replaced
        before = by_sha256.get(candidate.sha256)
        first = given.setdefault(candidate.sha256, candidate)
        if first is not candidate:
            candidate.refuse(
                f"{candidate.path}: given twice: it has the same bytes as {first.entry.place}"
            )
        elif before is not None and replaced not in (None, before.receipt.source_id):
            candidate.refuse(
                f"{candidate.path}: is in the corpus as {before.receipt.source_id!r}; in the place "
                f"of {replaced!r} its cells would be there twice"
            )
        elif before is not None and before.receipt.recipe_hash == candidate.recipe_hash:
            candidate.source_id = before.receipt.source_id
            candidate.end("present", receipt=before.receipt, snapshot=before.snapshot)
        elif before is not None and replaced is None:
            name = before.receipt.source_id
            candidate.refuse(
                f"{candidate.path}: is in the corpus as {name!r}, read with other settings or "
                "another gene reference; a second time its cells would be there twice: let it take "
                f"its own place by `cytolake ingest --replace {name}`, or use a new corpus"
            )
        elif candidate.source_id in taken and candidate.entry.name is not None:
            candidate.refuse(
                f"{candidate.path}: another source is called {candidate.source_id!r}: give this "
                "one another name"
            )
        else:
            if candidate.source_id in taken:
                candidate.source_id += f"-{candidate.sha256[:8]}"
            taken.add(candidate.source_id)
