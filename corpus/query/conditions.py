"""The cells that a user's condition chooses in a version of `cells`; and how a condition is told.

Knows SQL and versions; changes nothing. A record names no person, and the constants of a condition
may: so of a condition only its shape is told.
"""

import re
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import duckdb
import pyarrow as pa

from ...platform.errors import CytolakeError, QueryError
from ...platform.places import bring, files_in, folders_in
from ..log import history
from ..log.chain import TableState
from ..log.rows import open_engine, select_rows
from ..log.snapshots import Snapshot
from .sandbox import VIEWS, check_condition, check_query
from .sql import SqlEngine

_CHOSEN = "SELECT DISTINCT cell_id, content_hash, source_id, barcode FROM"

CHOSEN = pa.schema(
    [
        pa.field("cell_id", pa.int64()),
        pa.field("content_hash", pa.binary()),
        pa.field("source_id", pa.string()),
        pa.field("barcode", pa.string()),
    ]
)
"""What is told of the cells that a condition chooses."""

_TRIES = 5


def choose_living(folder: Path, state: TableState, where: str) -> pa.Table:
    """The cells of a version that a condition chooses, as `CHOSEN`.

    Args:
        folder: the corpus.
        state: the version of `cells`.
        where: a bare condition over the view `cells`.

    Raises:
        QueryError: the condition is refused or does not run.
        DamageError: a file that it needs is not what was committed.
    """
    return _choose(Snapshot.of_state(folder, state), where)


def choose_gone(folder: Path, state: TableState, where: str) -> pa.Table:
    """The cells that are in no row of a version, but in a file of `cells` that is still there.

    An older snapshot may hold them, and could be restored. Where they were annotated, their rows
    differ between files: a cell is chosen if any of its rows is.

    Args:
        folder: the corpus.
        state: the version of `cells`.
        where: a bare condition over the view `cells`.

    Raises:
        QueryError: the condition is refused or does not run.
        DamageError: a file is damaged.
    """
    snapshot = Snapshot.of_state(folder, state)
    there = {path.name for path in folders_in(folder / "segments")}
    segments = {
        name: entry for name, entry in history.every_entry(state.records).items() if name in there
    }
    tries_left = _TRIES
    while True:
        tries_left -= 1
        files = _files_on_disk(state.folder)
        if files.keys() <= snapshot.files.keys():
            return CHOSEN.empty_table()
        try:
            chosen = _choose(replace(snapshot, files=files, segments=segments), where)
            break
        except (CytolakeError, OSError):
            # A writer that lost takes its own files away, and a vacuum what ended: look again.
            if not tries_left or all(path.exists() for path in files):
                raise
    living = select_rows(snapshot.files, pa.schema([CHOSEN.field("cell_id")]))
    with open_engine() as connection:
        connection.register("chosen", chosen)
        return connection.sql(
            f"SELECT * FROM chosen ANTI JOIN ({living}) USING (cell_id)"
        ).to_arrow_table()


def _files_on_disk(folder: Path) -> dict[Path, int]:
    """Every whole file of a table, whether a version names it or not -> its bytes."""
    files: dict[Path, int] = {}
    for path in files_in(folder, ".parquet"):
        with suppress(FileNotFoundError):
            bring([path])
            files[path] = path.stat().st_size
    return files


def n_equal_elsewhere(state: TableState, chosen: pa.Table) -> int:
    """How many living cells that were not chosen have the very counts of one that was."""
    columns = pa.schema([CHOSEN.field("cell_id"), CHOSEN.field("content_hash")])
    rows = select_rows({state.folder / name: size for name, size in state.files.items()}, columns)
    with open_engine() as connection:
        connection.register("chosen", chosen)
        found = connection.execute(
            f"SELECT count(*) FROM ({rows}) SEMI JOIN chosen USING (content_hash) "
            "ANTI JOIN chosen other USING (cell_id)"
        ).fetchone()
    return int(found[0]) if found else 0


def shape_of(where: str, columns: pa.Schema) -> str:
    """A condition without its constants, each a `?`: `donor_id = ? AND n_counts > ?`.

    What stays is what is known not to be a user's own word: keywords, operators, columns, views
    and functions. Comments go; a name of the user's own, as that of a WITH, is told as `?` too.

    Args:
        where: the condition.
        columns: of the table `cells`.
    """
    known = {name.lower() for name in (*columns.names, *VIEWS, "is_primary", "gene_id", "symbol")}
    given = where.encode()
    tokens = duckdb.tokenize(where)
    ends = [offset for offset, _ in tokens[1:]] + [len(given)]
    words: list[str] = []
    for (start, kind), end in zip(tokens, ends, strict=True):
        text = given[start:end].decode().strip()
        if kind == duckdb.token_type.comment:
            continue
        if (
            (kind == duckdb.token_type.keyword and re.fullmatch(r"\w+", text))
            or not re.search(r"[\w$'\"]", text)  # an operator
            or text.strip('"').lower() in known
            or text.lower() in _functions()
        ):
            words.append(text)
        elif words[-1:] != ["?"]:
            words.append("?")
    return re.sub(r" ?([(),.]|::) ?", _tight, " ".join(words)).strip()


def _tight(found: re.Match[str]) -> str:
    return {"(": " (", ")": ") ", ",": ", "}.get(found[1], found[1])


@lru_cache(maxsize=1)
def _functions() -> frozenset[str]:
    with open_engine() as connection:
        rows = connection.execute("SELECT DISTINCT lower(function_name) FROM duckdb_functions()")
        return frozenset(str(name) for (name,) in rows.fetchall())


def _choose(snapshot: Snapshot, where: str) -> pa.Table:
    clause = check_condition(where)
    if _needs_rows_only(clause):
        try:
            # Opens no segment, and does not look for duplicates.
            bare = SqlEngine(replace(snapshot, segments={}))
            query = f"{_CHOSEN} lake.all_cells AS cells WHERE {clause}"
            return bare.inner(query, {"all_cells"}).cast(CHOSEN)
        except QueryError:
            pass  # the whole engine can say which columns there are
    views = check_query(f"SELECT 1 FROM cells WHERE {clause}")
    return SqlEngine(snapshot).inner(f"{_CHOSEN} cells WHERE {clause}", views).cast(CHOSEN)


def _needs_rows_only(clause: str) -> bool:
    """Whether a condition can be told from a row of `cells` alone; False where in doubt."""
    if re.search(r"is_primary|columns|\bcells\b|[*]", clause, re.IGNORECASE):
        return False
    return not check_query(f"SELECT 1 WHERE {clause}")
