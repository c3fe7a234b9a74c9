"""The views of a snapshot as DuckDB makes them, over explicit lists of its files.

Knows files and columns; knows no query. A file is hashed once in a process before its first use:
DuckDB does not verify Parquet's page checksums (43 of 60 flipped bits went unseen).
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import compress

import duckdb
import pyarrow as pa

from ..features import MODALITIES
from ..log.rows import list_of, quote, select_rows
from ..log.snapshots import Snapshot
from ..payload.records import SegmentRecord, bring_parts
from ..schema import DROPPED_COLUMNS
from .few_genes import PLACES_IN_MEMORY, FewGenes
from .genes_named import GenesNamed
from .listings import segment_table, source_table
from .macros import MACROS
from .primaries import ROWS_AT_ONCE, join_pairs, repeated

_NO_STATISTICS = (
    "(SELECT NULL::VARCHAR AS gene_id, NULL::VARCHAR AS symbol, NULL::VARCHAR AS biotype, "
    "NULL::VARCHAR AS mapping, 0::BIGINT AS n_cells, 0::BIGINT AS total, ''::VARCHAR AS filename "
    "WHERE false)"
)

_FILE_COLUMNS = pa.schema(
    [
        ("file", pa.string()),
        ("segment", pa.string()),
        ("first_place", pa.int64()),
        ("source_id", pa.string()),
        ("source_sha256", pa.string()),
    ]
)


class Views:
    """Makes the views of one snapshot, each when it is first needed."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        snapshot: Snapshot,
        records: Mapping[str, SegmentRecord],
    ) -> None:
        """Prepare.

        Args:
            connection: where to make them; a schema `lake` holds what is not for users.
            snapshot: whose.
            records: segment_id -> its record.
        """
        self._connection, self._snapshot, self._records = connection, snapshot, records
        self._made: set[str] = set()
        self._few_genes = FewGenes(connection, records)
        connection.execute("CREATE SCHEMA lake")
        self._makers = {
            "all_cells": self._make_all_cells,
            "places": self._make_places,
            "cells": self._make_cells,
            "genes": self._make_genes,
            "measured": self._make_measured,
            "expression": self._make_expression,
            "sources": self._make_sources,
            "source_obs": self._make_source_obs,
            "dropped": self._make_dropped,
            "segments": self._make_segments,
            "features": self._make_features,
            **{modality: partial(self._make_companion, modality) for modality in MODALITIES},
            **{name: partial(self._make_macro, name) for name in MACROS},
        }

    def make(self, *views: str) -> None:
        """Make views that are not there yet, and those they need: all of it or nothing.

        Raises:
            DamageError: a file that they need is not what was committed.
        """
        made = set(self._made)
        if made.issuperset(views):
            return
        self._run("BEGIN")
        try:
            self._need(*views)
        except BaseException:
            self._run("ROLLBACK")
            self._made = made
            raise
        self._run("COMMIT")

    def restrict(self, genes: GenesNamed | None) -> None:
        """Let `expression` show the counts of these genes, at least; None for all of them."""
        if "expression" in self._made:
            self._few_genes.restrict(genes)

    def _need(self, *views: str) -> None:
        for view in views:
            if view not in self._made:
                self._makers[view]()
                self._made.add(view)

    def _files(self, part: str, records: Iterable[SegmentRecord]) -> list[str]:
        """The checked files of a part of some segments."""
        files: list[str] = []
        for record in records:
            for name in record.files:
                if name == part or name.startswith(part + "/"):
                    record.check(name)
                    files.append(str(record.folder / name))
        return files

    def _named_files(self, part: str, only: set[str] | None = None) -> tuple[list[str], str]:
        """The checked files of a part of segments, and a table: whose, from which place on."""
        chosen = [only is None or name in only for name in self._records]
        bring_parts(compress(self._records.values(), chosen), part)
        rows: list[dict[str, str | int]] = []
        for number, record in compress(enumerate(self._records.values()), chosen):
            of_segment = {
                "segment": record.segment_id,
                "first_place": number << 32,
                "source_id": str(record.provenance["source_id"]),
                "source_sha256": str(record.provenance["source_sha256"]),
            }
            rows += [{"file": file, **of_segment} for file in self._files(part, [record])]
        table = f"lake.{'files' if only is None else 'some'}_{part.removesuffix('.parquet')}"
        self._store(table, pa.Table.from_pylist(rows, schema=_FILE_COLUMNS))
        return [str(row["file"]) for row in rows], table

    def _make_all_cells(self) -> None:
        """The rows as they are, in `lake`: without the search for duplicates."""
        rows = select_rows(self._snapshot.files, self._snapshot.columns)
        self._run(f"CREATE VIEW lake.all_cells AS SELECT * EXCLUDE (filename) FROM ({rows})")

    def _make_places(self) -> None:
        """Each living cell under one whole number: its segment's, times 2^32, and its row.

        Counts find their cells by it: to join by a segment's name and a row took twice as long as
        to read the counts of one gene.
        """
        self._need("all_cells")
        segments = pa.table(
            {
                "segment": pa.array(list(self._records), pa.string()),
                "first_place": pa.array([n << 32 for n in range(len(self._records))], pa.int64()),
            }
        )
        self._store("lake.first_places", segments)
        n_cells = sum(record.n_cells for record in self._records.values())
        self._run(
            f"CREATE {'TABLE' if n_cells <= PLACES_IN_MEMORY else 'VIEW'} lake.places AS "
            'SELECT s.first_place + c."row" AS place, c.cell_id, c."row" '
            "FROM lake.all_cells c JOIN lake.first_places s USING (segment)"
        )

    def _make_cells(self) -> None:
        self._need("all_cells")
        # Of equal contents the first by (source_id, barcode) is the primary one.
        hashes = self._connection.sql(
            "SELECT hash(content_hash) AS hashed FROM lake.all_cells"
        ).to_arrow_reader(ROWS_AT_ONCE)
        self._store("lake.repeated", pa.table({"hashed": repeated(hashes)}))
        self._run(
            "CREATE TABLE lake.duplicates AS WITH same AS (SELECT content_hash FROM lake.all_cells "
            "WHERE hash(content_hash) IN (SELECT hashed FROM lake.repeated) "
            "GROUP BY content_hash HAVING count(*) > 1), ranked AS (SELECT cell_id, "
            "first_value(cell_id) OVER (PARTITION BY content_hash ORDER BY source_id, barcode, "
            "cell_id) AS primary_id FROM lake.all_cells SEMI JOIN same USING (content_hash)) "
            "SELECT cell_id, primary_id FROM ranked WHERE cell_id <> primary_id"
        )
        links = self._snapshot.links()
        if links.num_rows:
            self._link(links)
        found = self._connection.execute("SELECT count(*) FROM lake.duplicates").fetchone()
        if found and found[0]:
            told = "d.cell_id IS NULL AS is_primary FROM lake.all_cells c "
            told += "LEFT JOIN lake.duplicates d ON d.cell_id = c.cell_id"
        else:  # a join with nothing would be done for every question
            told = "true AS is_primary FROM lake.all_cells c"
        self._run(f"CREATE VIEW cells AS SELECT c.*, {told}")

    def _link(self, links: pa.Table) -> None:
        """Add the cells that two sources have in common under other lists of genes."""
        self._store("lake.links", links)
        living = self._connection.sql(
            "SELECT l.* FROM lake.links l SEMI JOIN lake.all_cells a ON a.cell_id = l.cell_id "
            "SEMI JOIN lake.all_cells b ON b.cell_id = l.primary_id"
        ).to_arrow_table()
        duplicates = self._connection.sql("SELECT * FROM lake.duplicates").to_arrow_table()
        self._store("lake.paired", pa.concat_tables([duplicates, living.cast(duplicates.schema)]))
        cells = self._connection.sql(
            "SELECT cell_id, source_id, barcode FROM lake.all_cells WHERE cell_id IN (SELECT "
            "cell_id FROM lake.paired UNION ALL SELECT primary_id FROM lake.paired)"
        ).to_arrow_table()
        self._run("DROP TABLE lake.duplicates")
        self._store("lake.duplicates", join_pairs(duplicates, living, cells))

    def _make_genes(self) -> None:
        """Each gene's names and totals; where cells of a segment are gone, over the living."""
        self._need("cells")
        files, names = self._named_files("statistics.parquet")
        source = f"read_parquet({list_of(files)}, filename = true)" if files else _NO_STATISTICS
        self._run(
            "CREATE VIEW lake.statistics AS SELECT f.segment, s.gene_id, s.symbol, s.biotype, "
            f"s.mapping, s.n_cells, s.total FROM {source} s JOIN {names} f ON f.file = s.filename"
        )
        found = self._connection.execute(
            "SELECT segment, count(*) FROM lake.all_cells GROUP BY segment"
        ).fetchall()
        living = {str(segment): int(n_cells) for segment, n_cells in found}
        thinned = [
            record for name, record in self._records.items() if living.get(name, 0) < record.n_cells
        ]
        self._count_the_gone(thinned)
        self._run(
            "CREATE TABLE genes AS SELECT s.gene_id, min(s.symbol) AS symbol, min(s.biotype) AS "
            "biotype, min(s.mapping) AS mapping, count(*) AS n_segments, "
            "sum(s.n_cells)::BIGINT - coalesce(any_value(g.n_cells), 0) AS n_cells, "
            "sum(s.total)::BIGINT - coalesce(any_value(g.total), 0) AS total "
            "FROM lake.statistics s LEFT JOIN lake.gone g USING (gene_id) "
            "GROUP BY s.gene_id ORDER BY s.gene_id"
        )

    def _count_the_gone(self, thinned: Sequence[SegmentRecord]) -> None:
        """What the statistics of some segments hold of cells that are gone, gene by gene."""
        self._need("places")
        rows = {record.segment_id: record.n_cells for record in thinned}
        counts = pa.table(
            {
                "segment": pa.array(list(rows), pa.string()),
                "n_cells": pa.array(list(rows.values()), pa.int64()),
            }
        )
        self._store("lake.thinned", counts)
        self._run(
            "CREATE TABLE lake.gone_places AS SELECT place FROM (SELECT unnest(range(first_place, "
            "first_place + t.n_cells)) AS place FROM lake.thinned t JOIN lake.first_places "
            "USING (segment)) ANTI JOIN lake.places USING (place)"
        )
        files, names = self._named_files("expression", set(rows))
        source = (
            f"read_parquet({list_of(files)}, filename = true) e "
            f"JOIN {names} f ON f.file = e.filename "
            'SEMI JOIN lake.gone_places g ON g.place = f.first_place + e."row"'
        )
        none = "(SELECT ''::VARCHAR AS gene, 0::UINTEGER AS \"count\" WHERE false) e"
        self._run(
            "CREATE TABLE lake.gone AS SELECT e.gene AS gene_id, count(*) AS n_cells, "
            f'sum(e."count")::BIGINT AS total FROM {source if files else none} GROUP BY 1'
        )

    def _make_measured(self) -> None:
        self._need("genes")
        # Few lists of genes serve many segments: each is kept once, under one of its segments.
        self._run(
            "CREATE TABLE lake.lists AS SELECT segment, min(segment) OVER (PARTITION BY n, a, b) "
            "AS list FROM (SELECT segment, count(*) AS n, sum(hash(gene_id)) AS a, "
            "bit_xor(hash(gene_id)) AS b FROM lake.statistics GROUP BY segment)"
        )
        self._run(
            "CREATE TABLE lake.listed AS SELECT s.segment AS list, s.gene_id FROM lake.statistics "
            "s SEMI JOIN lake.lists l ON l.list = s.segment"
        )
        self._run(
            "CREATE VIEW measured AS SELECT l.segment, g.gene_id FROM lake.lists l "
            "JOIN lake.listed g USING (list)"
        )

    def _make_expression(self) -> None:
        self._need("genes", "places")
        files, names = self._named_files("expression")
        if files:
            source = (
                f"read_parquet({list_of(files)}, filename = true) e "
                f"JOIN {names} f ON f.file = e.filename "
                "JOIN genes g ON g.gene_id = e.gene "
                'JOIN lake.places c ON c.place = f.first_place + e."row"'
            )
            chosen = 'c.cell_id, f.segment, c."row", g.gene_id, g.symbol, e."count"'
        else:
            source = "genes g, lake.all_cells c"
            chosen = 'c.cell_id, c.segment, c."row", g.gene_id, g.symbol, 0::UINTEGER AS "count"'
        self._run(f"CREATE VIEW lake.every_count AS SELECT {chosen} FROM {source}")
        self._run("CREATE VIEW expression AS FROM lake.every_count")

    def _make_sources(self) -> None:
        self._store("main.sources", source_table(self._snapshot))

    def _make_source_obs(self) -> None:
        self._need("cells")
        files, names = self._named_files("obs.parquet")
        if files:
            # Sources may name their columns as they like: ours stand first, under names of ours.
            reader = (
                f"read_parquet({list_of(files)}, filename = '_file', file_row_number = true, "
                "union_by_name = true)"
            )
            source = (
                "SELECT c.cell_id AS cell_id, o.* EXCLUDE (_file, file_row_number) "
                f"FROM {reader} o JOIN {names} f ON f.file = o._file JOIN lake.all_cells c "
                'ON c.segment = f.segment AND c."row" = o.file_row_number'
            )
        else:
            source = "SELECT cell_id FROM lake.all_cells"
        self._run(f"CREATE VIEW source_obs AS {source}")

    def _make_dropped(self) -> None:
        """Dropped cells of the sources that are in the snapshot; not of one that was replaced."""
        chosen = ", ".join(f"d.{quote(name)}" for name in DROPPED_COLUMNS.names)
        accepted = [source.receipt for source in self._snapshot.accepted]
        self._store(
            "lake.accepted",
            pa.table(
                {
                    "source_id": pa.array([r.source_id for r in accepted], pa.string()),
                    "sha256": pa.array([r.sha256 for r in accepted], pa.string()),
                }
            ),
        )
        _, names = self._named_files("dropped.parquet")
        selects: list[str] = []
        for mixed in (False, True):
            # A segment made of others says of each row whose it is (`corpus.compaction`).
            records = [r for r in self._records.values() if r.n_dropped and r.is_mixed == mixed]
            if records:
                files = list_of(self._files("dropped.parquet", records))
                whose = "d" if mixed else "f"
                selects.append(
                    f"SELECT {whose}.source_id, f.segment, {chosen} "
                    f"FROM read_parquet({files}, filename = true) d "
                    f"JOIN {names} f ON f.file = d.filename SEMI JOIN lake.accepted a "
                    f"ON a.source_id = {whose}.source_id AND a.sha256 = {whose}.source_sha256"
                )
        if not selects:
            self._store("lake.no_dropped", DROPPED_COLUMNS.empty_table())
            selects = [
                f"SELECT ''::VARCHAR AS source_id, ''::VARCHAR AS segment, {chosen} "
                "FROM lake.no_dropped d"
            ]
        self._run(f"CREATE VIEW dropped AS {' UNION ALL '.join(selects)}")

    def _make_segments(self) -> None:
        self._store("main.segments", segment_table(self._snapshot))

    def _make_features(self) -> None:
        """The features of the modalities beside RNA, each once."""
        selects = [
            "SELECT NULL::VARCHAR AS modality, NULL::VARCHAR AS feature_id, NULL::VARCHAR AS name, "
            "NULL::VARCHAR AS feature_type, NULL::VARCHAR AS genome WHERE false"
        ]
        for modality in MODALITIES:
            files = self._files(f"{modality}.parquet", self._records.values())
            if files:
                selects.append(
                    f"SELECT '{modality}' AS modality, feature_id, name, feature_type, genome "
                    f"FROM read_parquet({list_of(files)})"
                )
        self._run(
            "CREATE TABLE features AS SELECT modality, feature_id, min(name) AS name, "
            "min(feature_type) AS feature_type, min(genome) AS genome, count(*) AS n_segments "
            f"FROM ({' UNION ALL '.join(selects)}) GROUP BY ALL ORDER BY ALL"
        )

    def _make_companion(self, modality: str) -> None:
        """The numbers of one modality, of living cells."""
        self._need("features", "places")
        files, names = self._named_files(modality)
        kind = MODALITIES[modality]
        if files:
            chosen = 'c.cell_id, f.segment, c."row", g.feature_id, g.name'
            source = (
                f'{chosen}, e."{kind.column}" '
                f"FROM read_parquet({list_of(files)}, filename = true) e "
                f"JOIN {names} f ON f.file = e.filename "
                f"JOIN features g ON g.modality = '{modality}' AND g.feature_id = e.feature "
                'JOIN lake.places c ON c.place = f.first_place + e."row"'
            )
        else:
            chosen = 'c.cell_id, c.segment, c."row", g.feature_id, g.name'
            none = f'0::{kind.sql} AS "{kind.column}"'
            source = f"{chosen}, {none} FROM features g, lake.all_cells c WHERE 0=1"
        self._run(f"CREATE VIEW {modality} AS SELECT {source}")

    def _make_macro(self, name: str) -> None:
        self._need("cells", "genes", "measured", "expression")
        self._run(MACROS[name])

    def _run(self, statement: str) -> None:
        self._connection.execute(statement)

    def _store(self, name: str, table: pa.Table) -> None:
        self._connection.register("_given", table)
        self._run(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM _given")
        self._connection.unregister("_given")
