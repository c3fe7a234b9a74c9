"""What a handle of a corpus may do to it: each a call of the file that knows how.

Knows names; knows no table. Every change is asked of the NEWEST snapshot and makes a newer one: the
handle stays where it is, and whoever wants to see the change opens the corpus again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import pyarrow as pa

from ..platform.places import local_path
from .log import commits
from .log.history import CommittedSource
from .log.receipts import Receipt
from .log.tags import Tag, remove_tag, snapshot_of, tag, tags
from .payload.records import SegmentRecord
from .query.uses import Kind, Use, record_use, uses

if TYPE_CHECKING:
    from anndata import AnnData

    from .change.annotation import Annotated
    from .change.deletion import Deleted
    from .change.restoring import Restored
    from .report.comparison import Difference
    from .store import Corpus
    from .upkeep.compaction import Compacted
    from .upkeep.vacuum import Vacuumed

_DAY_MS = 24 * 3_600_000


class Handle(Protocol):
    """What is asked of a corpus here."""

    @property
    def folder(self) -> Path:
        """Where it lies."""
        ...

    @property
    def snapshot(self) -> int:
        """The number of the open snapshot."""
        ...


class _Exporting(Handle, Protocol):
    def to_anndata(
        self, where: str | None = None, genes: Sequence[str] | None = None
    ) -> "AnnData": ...

    def record_use(
        self, kind: Kind, name: str, *, where: str | None = None, uri: str = ""
    ) -> None: ...


class Changes:
    """The part of `Corpus` that writes, or tells of what was written."""

    def commit_source(
        self: Handle,
        receipt: Receipt,
        segments: Sequence[SegmentRecord],
        *,
        replace: bool = False,
    ) -> commits.Commit:
        """Make a source visible; by the driver only. See `commits.commit_source`."""
        return commits.commit_source(self.folder, receipt, segments, replace=replace)

    def refuse_source(self: Handle, receipt: Receipt, reason: str) -> None:
        """Put on record that a source was refused."""
        commits.refuse_source(self.folder, receipt, reason)

    def find_source(self: Handle, source_id: str) -> CommittedSource | None:
        """The accepted source of a name in the newest snapshot."""
        return commits.find_source(self.folder, source_id)

    def annotate(
        self: Handle, given: pa.Table | str | Path, *, origin: str = "", dry_run: bool = False
    ) -> "Annotated":
        """Fill columns from a table or a file of one; see `annotation.annotate`."""
        from .change.annotation import annotate
        from .change.annotation_files import origin_of, read_annotations

        if isinstance(given, str | Path):
            path = Path(given)
            given, origin = read_annotations(path), origin or origin_of(path)
        return annotate(self.folder, given, origin=origin or "a table", dry_run=dry_run)

    def delete(self: Handle, where: str, *, dry_run: bool = False) -> "Deleted":
        """Take out the cells that a condition chooses; see `deletion.delete`."""
        from .change.deletion import delete

        return delete(self.folder, where, dry_run=dry_run)

    def withdraw(self: Handle, where: str, reason: str, *, dry_run: bool = False) -> "Deleted":
        """Take cells out for ever, of every snapshot; see `deletion.withdraw`."""
        from .change.deletion import withdraw

        return withdraw(self.folder, where, reason, dry_run=dry_run)

    def compact(self: Handle, *, cells_per_segment: int | None = None) -> "Compacted":
        """Few large segments for many small ones, in this process; see `compaction.compact`."""
        from .upkeep.compaction import CELLS_PER_SEGMENT, compact

        return compact(self.folder, cells_per_segment=cells_per_segment or CELLS_PER_SEGMENT)

    def vacuum(
        self: Handle,
        *,
        older_than_ms: int = _DAY_MS,
        for_consent: bool = False,
        dry_run: bool = False,
    ) -> "Vacuumed":
        """End what nobody needs any more, and free its disk; see `vacuum.vacuum`."""
        from .upkeep.vacuum import vacuum

        return vacuum(
            self.folder, older_than_ms=older_than_ms, for_consent=for_consent, dry_run=dry_run
        )

    def restore(self: Handle, snapshot: int | str) -> "Restored":
        """Make an earlier snapshot's cells the newest again; see `restoring.restore`."""
        from .change.restoring import restore

        return restore(self.folder, snapshot_of(self.folder, snapshot))

    # ------------------------------------------------------------------ names, readers, origins

    def tag(self: Handle, name: str, snapshot: int | str | None = None) -> Tag:
        """Name a snapshot; this handle's where none is given. See `tags.tag`."""
        number = self.snapshot if snapshot is None else snapshot_of(self.folder, snapshot)
        return tag(self.folder, name, number)

    def untag(self: Handle, name: str) -> None:
        """Remove a tag."""
        remove_tag(self.folder, name)

    def tags(self: Handle) -> dict[str, Tag]:
        """All tags by name."""
        return tags(self.folder)

    def record_use(
        self: Handle,
        kind: Kind,
        name: str,
        *,
        where: str | None = None,
        part: str | None = None,
        uri: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Put on record that this snapshot is read; see `uses.Use` and `uses.record_use`."""
        use = Use(
            kind=kind,
            name=name,
            snapshot=self.snapshot,
            where=where,
            part=part,
            uri=uri,
            details=details or {},
        )
        record_use(self.folder, use)

    def uses(self: Handle) -> list[Use]:
        """Who has read the corpus, oldest first."""
        return uses(self.folder)

    def compare(self: Handle, before: int | str, after: int | str) -> "Difference":
        """What differs between two snapshots; see `comparison.compare`."""
        from .report.comparison import compare

        numbers = [snapshot_of(self.folder, given) for given in (before, after)]
        return compare(self.folder, *numbers)

    def lineage(self: Handle, what: int | str) -> list[dict[str, Any]]:
        """Where a cell, source or snapshot comes from, and who read it; see `corpus.lineage`."""
        from .report.lineage import lineage

        return lineage(self.folder, what)

    def write_anndata(
        self: "_Exporting",
        path: str | Path,
        where: str | None = None,
        genes: Sequence[str] | None = None,
    ) -> "AnnData":
        """Write `to_anndata(...)` as an h5ad file, whole or not at all, over one of that name.

        That these cells leave the corpus is put on record before anything is written.
        """
        from .exports.placing import aside

        target = local_path(path).absolute()
        adata = self.to_anndata(where, genes)
        self.record_use("export", target.name, where=where, uri=str(target))
        with aside(target) as temporary:
            adata.write_h5ad(temporary)
        return adata

    def export(
        self,
        path: str | Path,
        where: str | None = None,
        genes: Sequence[str] | None = None,
        *,
        form: str | None = None,
    ) -> int:
        """Write cells to a new h5ad, zarr or folder of Parquet tables; see `export.export`."""
        from .export import export

        return export(cast("Corpus", self), path, form=form, where=where, genes=genes)
