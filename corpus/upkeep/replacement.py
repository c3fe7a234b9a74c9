"""Segments made of others on their way into `cells`: what of them still fits a version, and how.

Knows the table's rows and the commits' account; knows no reason why they were made. A segment fits
where its inputs are still there with no living cell that it lacks. Cells deleted meanwhile are
simply not there; what was annotated meanwhile stays, for the table's rows keep all but their place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ..log import history
from ..log.chain import TableState
from ..log.commits import entry_of
from ..log.history import SegmentEntry
from ..log.ledger import NewFile
from ..log.rewriting import Rewriter
from ..log.rows import open_engine, select_rows
from ..payload.records import SegmentRecord
from .remaking import Prepared

_PLACE = pa.schema([("cell_id", pa.int64()), ("segment", pa.string()), ("row", pa.int32())])


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitting:
    """What a version makes of prepared segments.

    Attributes:
        landing: those that fit.
        there: those that another writer has brought already.
        redo: those whose inputs have changed: plan them anew.
        entries: of the segments that land.
        replaced: segments that go.
        removes: files of `cells` that go.
        adds: files of `cells` that come.
        n_cells: cells that move.
    """

    landing: tuple[Prepared, ...]
    there: tuple[Prepared, ...]
    redo: tuple[Prepared, ...]
    entries: tuple[SegmentEntry, ...]
    replaced: tuple[str, ...]
    removes: tuple[str, ...]
    adds: tuple[NewFile, ...]
    n_cells: int


class Replacement:
    """Fits prepared segments into one version after the other, until a commit lands."""

    def __init__(self, folder: Path, prepared: Sequence[Prepared]) -> None:
        """Prepare.

        Args:
            folder: the corpus.
            prepared: segments whose inputs do not overlap.
        """
        self._prepared = prepared
        self._rewriter = Rewriter(
            folder / "cells", replace={"segment": "x.segment", "row": 'x."row"'}
        )
        self._entries: dict[str, SegmentEntry] = {}
        self._places: list[pa.Table] = []
        for one in prepared:
            places = _PLACE.empty_table()
            if one.segment is not None:
                record = SegmentRecord.load(folder / "segments" / one.segment)
                self._entries[one.segment] = entry_of(record, one.sources)
                places = record.cells().select(_PLACE.names).cast(_PLACE)
            self._places.append(places)

    def onto(self, state: TableState) -> Fitting:
        """Write what a version makes of them; nothing is visible yet."""
        account = history.account(state.records)
        gone = history.removing(state.records)
        there: list[Prepared] = []
        redo: list[Prepared] = []
        candidates: list[int] = []
        for number, one in enumerate(self._prepared):
            entry = self._entries.get(one.segment or "")
            left = [name for name in one.inputs if name in account.segments]
            if not left and (one.segment is None or one.segment in account.segments):
                there.append(one)
            elif (
                [account.segments[name].sha256 for name in left] != list(one.inputs.values())
                or one.segment in account.segments
                or (entry is not None and (entry.segment_id, entry.block) in gone)
            ):
                redo.append(one)
            else:
                candidates.append(number)
        moved = self._moved(state, candidates)
        redo += [self._prepared[number] for number in candidates if number in moved]
        landing = [number for number in candidates if number not in moved]
        change = pa.concat_tables(
            [_PLACE.empty_table(), *(self._places[number] for number in landing)]
        )
        rewritten = self._rewriter.apply(state, change, state.columns)
        fits = tuple(self._prepared[number] for number in landing)
        return Fitting(
            landing=fits,
            there=tuple(there),
            redo=tuple(redo),
            entries=tuple(self._entries[one.segment] for one in fits if one.segment),
            replaced=tuple(sorted(name for one in fits for name in one.inputs)),
            removes=rewritten.removes,
            adds=rewritten.adds,
            n_cells=rewritten.n_cells,
        )

    def discard(self, kept: Sequence[NewFile] = ()) -> None:
        """Take away the files of `cells` that were written and are not kept."""
        self._rewriter.discard(kept)

    def _moved(self, state: TableState, candidates: Sequence[int]) -> set[int]:
        """Those with a living cell that is in an input and not in them, or the other way round."""
        inputs = [(name, n) for n in candidates for name in self._prepared[n].inputs]
        places = [
            self._places[n].append_column(
                "number", pa.array([n] * self._places[n].num_rows, pa.int64())
            )
            for n in candidates
        ]
        if not inputs:
            return set()
        names, numbers = zip(*inputs, strict=True)
        schema = pa.schema([*_PLACE, pa.field("number", pa.int64())])
        columns = pa.schema([state.columns.field(name) for name in ("cell_id", "segment")])
        files = {state.folder / name: size for name, size in state.files.items()}
        with open_engine() as connection:
            connection.register("i", pa.table({"segment": names, "number": numbers}))
            connection.register("x", pa.concat_tables([schema.empty_table(), *places]))
            rows = connection.execute(
                f"WITH c AS (SELECT cell_id, segment FROM ({select_rows(files, columns)})), "
                "held AS (SELECT c.cell_id, i.number FROM c JOIN i ON i.segment = c.segment), "
                "known AS (SELECT c.cell_id, x.number FROM c JOIN x ON x.cell_id = c.cell_id) "
                "SELECT DISTINCT number FROM (FROM held EXCEPT FROM known "
                "UNION ALL (FROM known EXCEPT FROM held))"
            ).fetchall()
        return {int(number) for (number,) in rows}
