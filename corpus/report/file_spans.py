"""Which files of `cells` stood in which snapshots, and which of them hold a cell.

Knows Delta's log, one small JSON file a commit, and rows; knows no meaning of a commit.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...platform.errors import DamageError
from ...platform.places import files_in
from ..log.rows import literal, open_engine, select_rows

NEVER = 1 << 62


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A file's presence in the table.

    Attributes:
        name: of the file.
        n_bytes: its size.
        since: the first snapshot that has it.
        until: the first that has it no more; `NEVER` where the newest one has it.
    """

    name: str
    n_bytes: int
    since: int
    until: int


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldCell:
    """A cell's row in a file.

    Attributes:
        span: the file.
        values: column -> value.
    """

    span: Span
    values: Mapping[str, Any]


def spans(cells: Path, newest: int) -> list[Span]:
    """The presences of all files that any commit named, in the order of commits.

    Args:
        cells: the folder of the table.
        newest: the number of the newest snapshot.

    Raises:
        DamageError: a commit in the log cannot be read.
    """
    found: list[Span] = []
    open_: dict[str, tuple[int, int]] = {}
    for version in range(newest + 1):
        path = cells / "_delta_log" / f"{version:020}.json"
        try:
            actions = [json.loads(line) for line in path.read_text().splitlines() if line]
            removed = [action["remove"]["path"] for action in actions if "remove" in action]
            added = {
                action["add"]["path"]: int(action["add"]["size"])
                for action in actions
                if "add" in action
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamageError(f"{path} cannot be read: restore it from a copy ({error})") from error
        for name in removed:
            if name in open_:
                since, size = open_.pop(name)
                found.append(Span(name=name, n_bytes=size, since=since, until=version))
        open_ |= {name: (version, size) for name, size in added.items() if name not in open_}
    found += [
        Span(name=name, n_bytes=size, since=since, until=NEVER)
        for name, (since, size) in open_.items()
    ]
    return sorted(found, key=lambda span: (span.since, span.until, span.name))


def rows_where(
    cells: Path, of: list[Span], columns: pa.Schema, column: str, value: int | str
) -> list[HeldCell]:
    """The rows with a value, in all files that are still on disk, in the order of the files.

    Args:
        cells: the folder of the table.
        of: the files to look into.
        columns: the table's columns.
        column: which must have the value.
        value: the value.

    Raises:
        DamageError: a file is not what was committed.
    """
    on_disk = {path.name for path in files_in(cells)}
    there = {span.name: span.n_bytes for span in of if span.name in on_disk}
    rows = select_rows({cells / name: size for name, size in there.items()}, columns)
    wanted = str(value) if isinstance(value, int) else literal(value)
    with open_engine() as engine:
        found = engine.sql(
            f"SELECT *, parse_filename(filename) AS _file FROM ({rows}) "
            f'WHERE "{column}" = {wanted} ORDER BY cell_id'
        ).to_arrow_table()
    by_file: dict[str, list[dict[str, Any]]] = {}
    for row in found.drop_columns(["filename"]).to_pylist():
        by_file.setdefault(row.pop("_file"), []).append(row)
    return [HeldCell(span=span, values=row) for span in of for row in by_file.get(span.name, [])]
