"""SQL over one snapshot: DuckDB with the views and nothing else. Knows no Zarr and no model.

Views are made when a query first names them, over explicit lists of files of the snapshot, so that
what is committed meanwhile is not seen. DuckDB does not verify Parquet's page checksums (43 of 60
flipped bits went unseen): each file is hashed once, before its first use in this process.

| view | one row per | columns |
|---|---|---|
| `cells` | cell | those of `corpus.schema`, and `is_primary` |
| `genes` | gene | `gene_id, symbol, biotype, mapping, n_segments, n_cells, total` |
| `measured` | segment and gene | `segment, gene_id`: what is not here is NULL, never 0 |
| `expression` | stored count of a live cell | `cell_id, segment, row, gene_id, symbol, count` |
| `sources` | source, refused ones too | receipt's figures, `receipt` whole as JSON |
| `source_obs` | cell | `cell_id`, then the sources' own columns, verbatim |
| `dropped` | cell that was not kept | `source_id, segment`, barcode, reason, QC values |
| `segments` | segment | `segment, source_id`, its figures and bytes |
"""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ..platform.errors import DamageError, QueryError
from ..platform.storage import sha256_file
from .records import SegmentRecord
from .sandbox import VIEWS, check_query, explain_error
from .schema import DROPPED_COLUMNS
from .snapshots import Snapshot

_hashed: set[tuple[str, int, int]] = set()
"""Files (path, size, time of change) whose bytes this process has checked."""

_hashing = threading.Lock()


class SqlEngine:
    """Answers queries over one snapshot. Safe to use from several threads, one query at a time."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Prepare; nothing is opened before the first query."""
        self._snapshot = snapshot
        self._lock = threading.RLock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._made: set[str] = set()
        self._records: dict[str, SegmentRecord] = {}
        self._makers: dict[str, Callable[[duckdb.DuckDBPyConnection], None]] = {
            "cells": self._make_cells,
            "genes": self._make_genes,
            "measured": self._make_measured,
            "expression": self._make_expression,
            "sources": self._make_sources,
            "source_obs": self._make_source_obs,
            "dropped": self._make_dropped,
            "segments": self._make_segments,
        }

    def query(self, query: str) -> pa.Table:
        """Run a user's query in the sandbox.

        Raises:
            QueryError: it is refused, or does not run.
            DamageError: a file that it needs is not what was committed.
        """
        return self._run(query, check_query(query))

    def inner(self, query: str, views: Iterable[str]) -> pa.Table:
        """Run a query of ours, which may also use the schema `lake`; names the views it needs."""
        return self._run(query, set(views))

    def columns(self, view: str) -> list[str]:
        """The columns of a view."""
        with self._lock:
            return self._columns(self._require({view}), view)

    def _run(self, query: str, views: set[str]) -> pa.Table:
        with self._lock:
            connection = self._require(views)
            try:
                return connection.sql(query).to_arrow_table()
            except duckdb.Error as error:
                known = {name for view in sorted(views) for name in self._columns(connection, view)}
                raise QueryError(explain_error(str(error), known)) from error

    def _columns(self, connection: duckdb.DuckDBPyConnection, view: str) -> list[str]:
        rows = connection.execute(f'SELECT column_name FROM (DESCRIBE "{view}")').fetchall()
        return [str(name) for (name,) in rows]

    def _require(self, views: set[str]) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            self._connection = self._connect()
        for view in VIEWS:  # in this order: later views are made of earlier ones
            if view in views:
                self._make(self._connection, view)
        return self._connection

    def _make(self, connection: duckdb.DuckDBPyConnection, view: str) -> None:
        if view not in self._made:
            self._makers[view](connection)
            self._made.add(view)

    def _connect(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(":memory:")
        folder = self._snapshot.folder
        self._records = {
            entry.segment_id: SegmentRecord.load(folder / "segments" / entry.segment_id)
            for source in self._snapshot.accepted
            for entry in source.segments
        }
        allowed = [str(path) for path in self._snapshot.files]
        for record in self._records.values():
            allowed += [
                str(record.folder / name) for name in record.files if name.endswith(".parquet")
            ]
        connection.execute("CREATE SCHEMA lake")
        connection.execute("SET autoinstall_known_extensions = false")
        connection.execute("SET autoload_known_extensions = false")
        connection.execute("SET python_enable_replacements = false")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET allowed_paths = {_list(allowed)}")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        return connection

    def _files(self, connection: duckdb.DuckDBPyConnection, part: str) -> tuple[list[str], str]:
        """The checked files of a part of every segment, and a table of file -> segment."""
        rows: dict[str, list[str]] = {"file": [], "segment": [], "source_id": []}
        for record in self._records.values():
            for name, (size, sha256) in record.files.items():
                if name != part and not name.startswith(part + "/"):
                    continue
                _check_file(record.folder / name, size, sha256)
                rows["file"].append(str(record.folder / name))
                rows["segment"].append(record.segment_id)
                rows["source_id"].append(str(record.provenance["source_id"]))
        table = f"lake.files_{part.removesuffix('.parquet')}"
        schema = pa.schema([(name, pa.string()) for name in rows])
        _store(connection, table, pa.table(rows, schema=schema))
        return rows["file"], table

    def _make_cells(self, connection: duckdb.DuckDBPyConnection) -> None:
        columns = self._snapshot.columns
        for path, (size, sha256) in self._snapshot.files.items():
            _check_file(path, size, sha256)
        files = [str(path) for path in self._snapshot.files]
        if files:
            held = {name for path in files for name in pq.read_schema(path).names}
            chosen = ", ".join(
                _quote(name) if name in held else f"NULL::VARCHAR AS {_quote(name)}"
                for name in columns.names
            )
            source = f"SELECT {chosen} FROM read_parquet({_list(files)}, union_by_name = true)"
        else:
            _store(connection, "lake.no_cells", columns.empty_table())
            source = "SELECT * FROM lake.no_cells"
        connection.execute(f"CREATE VIEW lake.all_cells AS {source}")
        # Of equal contents the first by (source_id, barcode) is the primary one.
        connection.execute(
            "CREATE TABLE lake.duplicates AS WITH same AS (SELECT content_hash FROM lake.all_cells "
            "GROUP BY content_hash HAVING count(*) > 1), ranked AS (SELECT cell_id, "
            "first_value(cell_id) OVER (PARTITION BY content_hash ORDER BY source_id, barcode, "
            "cell_id) AS primary_id FROM lake.all_cells SEMI JOIN same USING (content_hash)) "
            "SELECT cell_id, primary_id FROM ranked WHERE cell_id <> primary_id"
        )
        connection.execute(
            "CREATE VIEW cells AS SELECT c.*, d.cell_id IS NULL AS is_primary "
            "FROM lake.all_cells c LEFT JOIN lake.duplicates d ON d.cell_id = c.cell_id"
        )

    def _make_genes(self, connection: duckdb.DuckDBPyConnection) -> None:
        files, _ = self._files(connection, "statistics.parquet")
        source = f"read_parquet({_list(files)})" if files else _NO_STATISTICS
        connection.execute(
            "CREATE TABLE genes AS SELECT gene_id, min(symbol) AS symbol, min(biotype) AS biotype, "
            "min(mapping) AS mapping, count(*) AS n_segments, sum(n_cells)::BIGINT AS n_cells, "
            f"sum(total)::BIGINT AS total FROM {source} GROUP BY gene_id ORDER BY gene_id"
        )

    def _make_measured(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._make(connection, "genes")
        files, names = [], "lake.files_statistics"
        files = [f for (f,) in connection.execute(f"SELECT file FROM {names}").fetchall()]
        if files:
            source = f"read_parquet({_list(files)}, filename = true) s JOIN {names} f"
            source = f"SELECT f.segment, s.gene_id FROM {source} ON f.file = s.filename"
        else:
            source = f"SELECT ''::VARCHAR AS segment, gene_id FROM {_NO_STATISTICS}"
        connection.execute(f"CREATE VIEW measured AS {source}")

    def _make_expression(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._make(connection, "genes")
        self._make(connection, "cells")
        files, names = self._files(connection, "expression")
        if files:
            source = (
                f"read_parquet({_list(files)}, filename = true) e "
                f"JOIN {names} f ON f.file = e.filename "
                "JOIN genes g ON g.gene_id = e.gene "
                'JOIN lake.all_cells c ON c.segment = f.segment AND c."row" = e."row"'
            )
            chosen = 'c.cell_id, c.segment, c."row", g.gene_id, g.symbol, e."count"'
        else:
            source = "genes g, lake.all_cells c"
            chosen = 'c.cell_id, c.segment, c."row", g.gene_id, g.symbol, 0::UINTEGER AS "count"'
        connection.execute(f"CREATE VIEW expression AS SELECT {chosen} FROM {source}")

    def _make_sources(self, connection: duckdb.DuckDBPyConnection) -> None:
        _store(connection, "main.sources", _source_table(self._snapshot))

    def _make_source_obs(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._make(connection, "cells")
        files, names = self._files(connection, "obs.parquet")
        if files:
            # Sources may name their columns as they like: ours stand first, under names of ours.
            reader = (
                f"read_parquet({_list(files)}, filename = '_file', file_row_number = true, "
                "union_by_name = true)"
            )
            source = (
                "SELECT c.cell_id AS cell_id, o.* EXCLUDE (_file, file_row_number) "
                f"FROM {reader} o JOIN {names} f ON f.file = o._file JOIN lake.all_cells c "
                'ON c.segment = f.segment AND c."row" = o.file_row_number'
            )
        else:
            source = "SELECT cell_id FROM lake.all_cells"
        connection.execute(f"CREATE VIEW source_obs AS {source}")

    def _make_dropped(self, connection: duckdb.DuckDBPyConnection) -> None:
        files, names = self._files(connection, "dropped.parquet")
        chosen = ", ".join(f"d.{_quote(name)}" for name in DROPPED_COLUMNS.names)
        if files:
            source = f"read_parquet({_list(files)}, filename = true) d"
            join = f"JOIN {names} f ON f.file = d.filename"
        else:
            _store(connection, "lake.no_dropped", DROPPED_COLUMNS.empty_table())
            source, join = "lake.no_dropped d", f"JOIN {names} f ON false"
        connection.execute(
            f"CREATE VIEW dropped AS SELECT f.source_id, f.segment, {chosen} FROM {source} {join}"
        )

    def _make_segments(self, connection: duckdb.DuckDBPyConnection) -> None:
        _store(connection, "main.segments", _segment_table(self._snapshot))


_NO_STATISTICS = (
    "(SELECT NULL::VARCHAR AS gene_id, NULL::VARCHAR AS symbol, NULL::VARCHAR AS biotype, "
    "NULL::VARCHAR AS mapping, 0::BIGINT AS n_cells, 0::BIGINT AS total WHERE false)"
)


def _source_table(snapshot: Snapshot) -> pa.Table:
    schema = pa.schema(
        [
            ("source_id", pa.string()),
            ("status", pa.string()),
            ("reason", pa.string()),
            ("snapshot", pa.int64()),
            ("committed_at", pa.timestamp("ms", tz="UTC")),
            ("uri", pa.string()),
            ("sha256", pa.string()),
            ("n_bytes", pa.int64()),
            ("reader", pa.string()),
            ("layer", pa.string()),
            ("n_read", pa.int64()),
            ("n_kept", pa.int64()),
            ("n_dropped", pa.int64()),
            ("panel", pa.bool_()),
            ("panel_use", pa.bool_()),
            ("receipt", pa.string()),
        ]
    )
    rows = [
        {
            "source_id": source.receipt.source_id,
            "status": "accepted" if source.refused is None else "refused",
            "reason": source.refused,
            "snapshot": source.snapshot,
            "committed_at": source.committed_at,
            **{
                name: getattr(source.receipt, name)
                for name in ("uri", "sha256", "n_bytes", "reader", "layer", "n_read", "n_kept")
            },
            "n_dropped": source.receipt.n_dropped,
            "panel": source.receipt.panel,
            "panel_use": source.receipt.panel_use,
            "receipt": source.receipt.to_json(),
        }
        for source in snapshot.sources
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def _segment_table(snapshot: Snapshot) -> pa.Table:
    schema = pa.schema(
        [
            ("segment", pa.string()),
            ("source_id", pa.string()),
            ("n_cells", pa.int64()),
            ("n_dropped", pa.int64()),
            ("n_genes", pa.int64()),
            ("n_nonzero", pa.int64()),
            ("first_row", pa.int64()),
            ("n_bytes", pa.int64()),
        ]
    )
    rows = [
        {
            "segment": entry.segment_id,
            "source_id": source.receipt.source_id,
            "n_cells": entry.n_cells,
            "n_dropped": entry.n_dropped,
            "n_genes": entry.n_genes,
            "n_nonzero": entry.n_nonzero,
            "first_row": entry.first_row,
            "n_bytes": sum(entry.n_bytes.values()),
        }
        for source in snapshot.accepted
        for entry in source.segments
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def _check_file(path: Path, size: int, sha256: str | None) -> None:
    """Hold a file's bytes against what was committed, once in this process.

    Raises:
        DamageError: it is missing, or its bytes are others.
    """
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise DamageError(f"{path} is missing ({size} bytes were written)") from error
    if found.st_size != size:
        raise DamageError(f"{path} has {found.st_size} bytes, {size} were written")
    key = (str(path), found.st_size, found.st_mtime_ns)
    with _hashing:
        if key in _hashed:
            return
    if sha256 is not None and sha256_file(path) != sha256:
        raise DamageError(f"{path} has other bytes than were written (sha256 differs)")
    with _hashing:
        _hashed.add(key)


def _store(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    connection.register("_given", table)
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM _given")
    connection.unregister("_given")


def _list(values: Iterable[str]) -> str:
    return "[" + ", ".join("'" + value.replace("'", "''") + "'" for value in values) + "]"


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
