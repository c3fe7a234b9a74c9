"""The columns of `cells`, and what each means. Knows no file and no engine.

A cell exists iff it has a row in the table `cells`. The columns below are fixed and typed; a
source may lift more of its own columns by name, which then follow these.
"""

import pyarrow as pa

from ..platform.errors import CorpusError, did_you_mean

FORMAT = 2
"""The format written by this cytolake. A newer one is refused by name, an older one lifted."""

POSITION_BITS = 24
"""`cell_id` = block << 24 | position: a segment holds fewer than 2**24 cells."""

BLOCK_BITS = 39
"""Blocks are random numbers below 2**39, so that a `cell_id` is a positive int64."""

IDENTITY = pa.schema(
    [
        pa.field("cell_id", pa.int64()),  # block << 24 | position; survives compaction
        pa.field("segment", pa.string()),  # the segment that holds the counts
        pa.field("row", pa.int32()),  # the row in that segment
        pa.field("source_id", pa.string()),  # the source that brought the cell
        pa.field("barcode", pa.string()),  # the source's own name of the cell
    ]
)

# CELLxGENE's names; `<name>_ontology_term_id` stands beside what CELLxGENE gives an ontology.
_WITH_ONTOLOGY = (
    "organism",
    "assay",
    "tissue",
    "disease",
    "cell_type",
    "sex",
    "development_stage",
)

ANNOTATIONS = pa.schema(
    [
        pa.field(column, pa.string())
        for name in (
            "organism",
            "assay",
            "tissue",
            "disease",
            "donor_id",
            "cell_type",
            "sex",
            "development_stage",
            "technical_batch",
            "suspension_type",
        )
        for column in ((name, f"{name}_ontology_term_id") if name in _WITH_ONTOLOGY else (name,))
    ]
)
"""What the cell is and where it comes from; NULL where the source does not say."""

MEASUREMENTS = pa.schema(
    [
        # The first three are of the source's raw matrix BEFORE gene mapping: the denominators
        # of quality control and of normalisation.
        pa.field("n_counts", pa.int64()),
        pa.field("n_genes", pa.int32()),
        pa.field("mito_fraction", pa.float64()),  # NULL with fewer than 5 mitochondrial genes
        pa.field("n_counts_stored", pa.int64()),  # total of the stored counts: what verify checks
        pa.field("content_hash", pa.binary()),  # 16 bytes, see corpus.content
    ]
)

CELL_COLUMNS = pa.schema([*IDENTITY, *ANNOTATIONS, *MEASUREMENTS])
"""The columns of the Delta table `cells`, in order."""

GIVEN_COLUMNS = pa.schema(
    [
        IDENTITY.field("barcode"),
        *ANNOTATIONS,
        MEASUREMENTS.field("n_counts"),
        MEASUREMENTS.field("n_genes"),
        MEASUREMENTS.field("mito_fraction"),
    ]
)
"""The part of `cells` that a source gives; the rest is made when a segment is written."""

DROPPED_COLUMNS = pa.schema(
    [
        pa.field("barcode", pa.string()),
        pa.field("reason", pa.string()),  # the first quality rule that the cell failed
        pa.field("n_counts", pa.int64()),
        pa.field("n_genes", pa.int32()),
        pa.field("mito_fraction", pa.float64()),
    ]
)
"""The columns of `dropped`: cells that were read and not kept."""

VAR_COLUMNS = pa.schema(
    [
        pa.field("gene_id", pa.string()),  # Ensembl id without version, or `unmapped:<name>`
        pa.field("symbol", pa.string()),
        pa.field("biotype", pa.string()),
        pa.field("mapping", pa.string()),  # how the name was understood, see corpus.genes
        pa.field("source_name", pa.string()),  # the name in the source; several joined by `|`
    ]
)
"""The columns of a segment's gene table."""


def conform(table: pa.Table, schema: pa.Schema, *, what: str) -> pa.Table:
    """Bring a table to a schema: its columns in order, cast; missing ones NULL, others refused.

    Args:
        table: the table.
        schema: the columns wanted.
        what: what to call the table in errors.

    Raises:
        CorpusError: a column is unknown, or its values do not fit the type.
    """
    for name in table.column_names:
        if name not in schema.names:
            raise CorpusError(
                f"{what} has a column {name!r} that the schema lacks"
                f"{did_you_mean(name, schema.names)}"
            )
    columns: list[pa.ChunkedArray | pa.Array] = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        try:
            columns.append(table.column(field.name).cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise CorpusError(
                f"{what}: column {field.name!r} is {table.schema.field(field.name).type}, "
                f"expected {field.type}: {error}"
            ) from error
    return pa.table(columns, schema=schema)


def lifted_columns(table: pa.Table) -> pa.Schema:
    """The columns of a given table that go beyond `cells`, with the types they are stored in.

    Raises:
        CorpusError: a lifted column is of a type that `cells` does not take.
    """
    fields: list[pa.Field] = []
    for field in table.schema:
        if field.name in CELL_COLUMNS.names:
            continue
        kind = _stored_type(field.type)
        if kind is None:
            raise CorpusError(
                f"column {field.name!r} is {field.type}, expected text, integers, decimals or "
                "true/false: such a column stays in source_obs and cannot be lifted into cells"
            )
        fields.append(pa.field(field.name, kind))
    return pa.schema(fields)


def _stored_type(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind):
        return pa.float64()
    if pa.types.is_boolean(kind):
        return pa.bool_()
    return None
