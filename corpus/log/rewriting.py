"""Files of `cells` written anew without some of their rows, or with other values in them.

Knows rows; knows no reason. A change is a table with a `cell_id`; the files that hold none of its
cells stay as they are. What was written for one version of the table is used again for the next,
where the same files are to be changed in the same way: so a writer that lost redoes only what the
winner touched.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from ...platform.storage import discard
from .chain import TableState
from .ledger import NewFile, write_rows
from .rows import open_engine, quote, select_rows

ROWS_PER_FILE = 1 << 17
"""Files are put together up to so many rows: the most that is in memory at once."""

_Signature = frozenset[tuple[str, int, int]]
"""Of some files and their changes: name, rows that change, a hash of the changes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewritten:
    """What a proposal may say: files out, files in, and how many rows changed."""

    removes: tuple[str, ...]
    adds: tuple[NewFile, ...]
    n_cells: int


class Rewriter:
    """Applies a kind of change to versions of the table, one after the other until one lands."""

    def __init__(self, folder: Path, replace: dict[str, str] | None = None) -> None:
        """Prepare.

        Args:
            folder: of the table `cells`.
            replace: column -> SQL of its new value, over the old row `c` and the change `x`;
                None takes the rows out.
        """
        self._folder = folder
        self._replace = replace
        self._written: dict[_Signature, NewFile | None] = {}

    def apply(self, state: TableState, change: pa.Table, columns: pa.Schema) -> Rewritten:
        """Write what a change makes of a version's files; nothing is visible yet.

        Args:
            state: the version.
            change: `cell_id`, and what `replace` names of `x`; ids that are not there are let be.
            columns: of the new files: the table's, or more.
        """
        with open_engine() as connection:
            # Files are in order of rows: no sort is needed for them to stay so.
            connection.execute("SET preserve_insertion_order = true")
            connection.register("x", change)
            affected = self._affected(connection, state)
            groups = {
                frozenset((name, *affected[name]) for name in group): group
                for group in _groups(affected, state)
            }
            missing = {key: group for key, group in groups.items() if key not in self._written}
            self._write(
                (key, self._rows(connection, state, group, columns))
                for key, group in missing.items()
            )
        new = [self._written[key] for key in groups]
        return Rewritten(
            removes=tuple(sorted(affected)),
            adds=tuple(file for file in new if file is not None),
            n_cells=sum(n_rows for n_rows, _ in affected.values()),
        )

    def discard(self, kept: Sequence[NewFile] = ()) -> None:
        """Take away what was written and is not kept."""
        names = {new.name for new in kept}
        for new in self._written.values():
            if new is not None and new.name not in names:
                discard(self._folder / new.name)

    def _affected(
        self, connection: duckdb.DuckDBPyConnection, state: TableState
    ) -> dict[str, tuple[int, int]]:
        """File -> how many of its rows change, and a signature of the changes."""
        only = pa.schema([state.columns.field("cell_id")])
        rows = select_rows(self._paths(state, state.files), only)
        found = connection.execute(
            "SELECT parse_filename(c.filename), count(*), bit_xor(hash(x)) "
            f"FROM ({rows}) c JOIN x USING (cell_id) GROUP BY 1"
        ).fetchall()
        return {str(name): (int(n_rows), int(signature)) for name, n_rows, signature in found}

    def _write(self, tables: Iterable[tuple[_Signature, pa.Table]]) -> None:
        """Write each table, if it has rows, to a file, while the next one is made."""
        begun: deque[tuple[_Signature, Future[NewFile | None]]] = deque()

        def finish() -> None:
            key, future = begun.popleft()
            self._written[key] = future.result()

        with ThreadPoolExecutor(1) as pool:
            try:
                for key, table in tables:
                    begun.append((key, pool.submit(self._write_one, table)))
                    del table  # two at most are in memory: this bounds it
                    if len(begun) > 1:
                        finish()
            finally:
                while begun:  # what stands must be known, to be taken away
                    finish()

    def _write_one(self, table: pa.Table) -> NewFile | None:
        return write_rows(self._folder, table) if table.num_rows else None

    def _rows(
        self,
        connection: duckdb.DuckDBPyConnection,
        state: TableState,
        group: Sequence[str],
        columns: pa.Schema,
    ) -> pa.Table:
        """The rows of some files after the change."""
        rows = select_rows(self._paths(state, group), columns)
        if self._replace is None:
            query = f"SELECT c.* EXCLUDE (filename) FROM ({rows}) c ANTI JOIN x USING (cell_id)"
        else:
            chosen = ", ".join(
                f"CASE WHEN x.cell_id IS NULL THEN c.{quote(name)} ELSE {self._replace[name]} END"
                f" AS {quote(name)}"
                if name in self._replace
                else f"c.{quote(name)}"
                for name in columns.names
            )
            query = f"SELECT {chosen} FROM ({rows}) c LEFT JOIN x ON x.cell_id = c.cell_id"
        return connection.sql(query).to_arrow_table().cast(columns)

    def _paths(self, state: TableState, names: Iterable[str]) -> dict[Path, int]:
        return {self._folder / name: state.files[name] for name in names}


def _groups(affected: dict[str, tuple[int, int]], state: TableState) -> list[list[str]]:
    """Neighbouring files put together as long as they stay small."""
    groups: list[list[str]] = []
    held = ROWS_PER_FILE
    for name in sorted(affected):
        if held + state.rows[name] > ROWS_PER_FILE:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += state.rows[name]
    return groups
