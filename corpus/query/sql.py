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
| `protein`, `atac` | stored count of a live cell | as `expression`, with `feature_id, name` |
| `protein_abundance` | measured value of a live cell | the same, with `value` for `count` |
| `features` | feature of these | `modality, feature_id, name, feature_type, genome, n_segments` |
| `segments` | segment | `segment, source_id`, its figures and bytes |

Questions about genes and groups have macros of their own (`corpus.query.macros`).
"""

import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, suppress
from functools import partial

import duckdb
import pyarrow as pa

from ...platform.errors import QueryError
from ...platform.places import bring
from ..log.rows import list_of, literal
from ..log.snapshots import Snapshot
from ..payload.records import SegmentRecord
from .genes_named import GenesNamed, genes_named
from .macros import MACROS
from .sandbox import VIEWS, check_tree, explain_error, parse
from .views import Views


class SqlEngine:
    """Answers queries over one snapshot. Safe to use from several threads, one query at a time."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Prepare; nothing is opened before the first query."""
        self._snapshot = snapshot
        self._lock = threading.RLock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._views: Views | None = None

    def query(self, query: str) -> pa.Table:
        """Run a user's query in the sandbox.

        Raises:
            QueryError: it is refused, or does not run.
            DamageError: a file that it needs is not what was committed.
        """
        tree = parse(query)
        return self._run(query, check_tree(tree), genes_named(tree))

    def inner(self, query: str, views: Iterable[str]) -> pa.Table:
        """Run a query of ours, which may also use the schema `lake`; names the views it needs."""
        return self._run(query, set(views))

    def stream(self, query: str, views: Iterable[str], rows: int) -> pa.RecordBatchReader:
        """Run a query of ours, and hand its rows over as they are found.

        Other queries may run meanwhile. What waits to be read is bounded, whatever the answer's
        length.

        Args:
            query: see `inner`.
            views: see `inner`.
            rows: the most rows of a batch.

        Raises:
            QueryError: it does not run; a later batch may tell so, too.
            DamageError: a file that it needs is not what was committed.
        """
        with self._lock, self._snapshot.telling_of_its_end():
            connection = self._require(set(views)).cursor()
            try:
                found = connection.sql(query).to_arrow_reader(rows)
            except duckdb.Error as error:
                connection.close()
                raise QueryError(explain_error(str(error), self._columns_of(views))) from error
        return pa.RecordBatchReader.from_batches(found.schema, self._batches(connection, found))

    def _batches(
        self, connection: duckdb.DuckDBPyConnection, found: pa.RecordBatchReader
    ) -> Generator[pa.RecordBatch]:
        with closing(connection):
            while True:
                try:
                    with self._snapshot.telling_of_its_end():
                        batch = found.read_next_batch()
                except StopIteration:
                    return
                except (duckdb.Error, pa.ArrowException, OSError) as error:
                    raise QueryError(explain_error(str(error))) from error
                yield batch

    def columns(self, view: str) -> list[str]:
        """The columns of a view."""
        with self._lock:
            return self._columns(self._require({view}), view)

    def _run(self, query: str, views: set[str], genes: GenesNamed | None = None) -> pa.Table:
        with self._lock, self._snapshot.telling_of_its_end():
            return self._interruptible(partial(self._answer, query, views, genes))

    def _answer(self, query: str, views: set[str], genes: GenesNamed | None) -> pa.Table:
        connection = self._require(views, genes)
        try:
            return connection.sql(query).to_arrow_table()
        except duckdb.Error as error:
            raise QueryError(explain_error(str(error), self._columns_of(views))) from error
        except pa.ArrowException as error:
            raise QueryError(f"the answer does not fit a table: {error}") from error

    def _interruptible(self, work: Callable[[], pa.Table]) -> pa.Table:
        """Work aside, so that a Ctrl-C ends it: DuckDB 2.0 itself missed 5 of 22.

        Connecting and making views are aside, too, so that it may come at any moment.
        """
        if threading.current_thread() is not threading.main_thread():  # no Ctrl-C comes here
            return work()
        answers: list[pa.Table | BaseException] = []
        done = threading.Event()

        def answer() -> None:
            try:
                answers.append(work())
            except BaseException as error:  # handed over below, whatever it is
                answers.append(error)
            finally:
                done.set()

        threading.Thread(target=answer, name="sql", daemon=True).start()
        try:
            while not done.wait(0.1):
                pass
        except BaseException:
            while not done.wait(0.05):
                if self._connection is not None:
                    self._connection.interrupt()
            raise
        if isinstance(answers[0], BaseException):
            raise answers[0]
        return answers[0]

    def _columns_of(self, views: Iterable[str]) -> set[str]:
        """The columns of all these views; those of `cells` where there are macros among them."""
        known: set[str] = set()
        for view in {"cells" if name in MACROS else name for name in views} & set(VIEWS):
            with suppress(duckdb.Error):  # a file has gone: the first error tells more
                known |= set(self._columns(self._require({view}), view))
        return known

    def _columns(self, connection: duckdb.DuckDBPyConnection, view: str) -> list[str]:
        rows = connection.execute(f'SELECT column_name FROM (DESCRIBE "{view}")').fetchall()
        return [str(name) for (name,) in rows]

    def _require(
        self, views: set[str], genes: GenesNamed | None = None
    ) -> duckdb.DuckDBPyConnection:
        if self._connection is None or self._views is None:
            self._connection = self._connect()
        if self._views is not None:
            self._views.make(*(view for view in ("all_cells", *VIEWS, *MACROS) if view in views))
            self._views.restrict(genes)
        return self._connection

    def _connect(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(":memory:")
        folder = self._snapshot.folder
        segments = self._snapshot.segments
        bring(folder / "segments" / name / "segment.json" for name in segments)
        records = {
            name: SegmentRecord.load(folder / "segments" / name, entry.sha256)
            for name, entry in segments.items()
        }
        allowed = [str(path) for path in self._snapshot.files]
        for record in records.values():
            allowed += [
                str(record.folder / name) for name in record.files if name.endswith(".parquet")
            ]
        self._views = Views(connection, self._snapshot, records)
        connection.execute("SET autoinstall_known_extensions = false")
        connection.execute("SET autoload_known_extensions = false")
        connection.execute("SET python_enable_replacements = false")
        # A query that wants too much fails alone: half of the memory, half of the free disk, and
        # what is spilled goes where temporary files go, not into the folder one happens to be in.
        spill = f"{tempfile.gettempdir()}/cytolake-sql-{secrets.token_hex(8)}"
        free = shutil.disk_usage(tempfile.gettempdir()).free
        connection.execute("SET memory_limit = '50%'")
        connection.execute(f"SET temp_directory = {literal(spill)}")
        connection.execute(f"SET max_temp_directory_size = '{free // 2}B'")
        # Files never change: their footers are read once.
        connection.execute("SET parquet_metadata_cache = true")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")  # it would go to standard output
        connection.execute(f"SET allowed_paths = {list_of(allowed)}")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        return connection
