"""A corpus for questions: two sources of unequal genes, symbols that genes share, cells deleted.

Beside it, all its views as tables of a plain DuckDB: what any query answers there, is right.
"""

from collections.abc import Iterator
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from cytolake.corpus.log.receipts import Receipt
from cytolake.corpus.payload.writing import write_segment
from cytolake.corpus.store import Corpus
from cytolake.tests.corpus.made_segments import made_batch

SOURCES = {"large": (260, 600, 1), "small": (90, 200, 2)}
"""Name -> cells, genes, seed: the small one measured the first 200 genes."""


def symbol_of(gene: int) -> str:
    """The first ten genes share five symbols."""
    return f"S{gene // 2}" if gene < 10 else f"S{gene}"


def add(corpus: Corpus, name: str) -> None:
    n_cells, n_genes, seed = SOURCES[name]
    batch = made_batch(n_cells, n_genes, seed=seed)
    random = np.random.default_rng(seed)
    types = random.choice(np.array(["T cell", "B cell", None], dtype=object), n_cells)
    obs = batch.obs.append_column("cell_type", pa.array(types.tolist(), pa.string()))
    donors = pa.array([f"{name}{i % 3}" for i in range(n_cells)])
    batch = replace(batch, obs=obs.append_column("donor_id", donors))
    var = {"gene_id": list(batch.gene_ids), "symbol": [symbol_of(i) for i in range(n_genes)]}
    sha256 = f"{seed:064d}"
    record = write_segment(
        corpus.segments_folder / f"{name}-0",
        f"{name}-0",
        batch,
        pa.table(var),
        pa.table({"cluster": ["k"] * n_cells}),
        pa.table({"barcode": pa.array([], pa.string())}),
        {
            "corpus_uuid": corpus.uuid,
            "source_id": name,
            "source_sha256": sha256,
            "first_row": 0,
        },
    )
    counts = {"n_bytes": 1, "n_read": n_cells, "n_kept": n_cells}
    receipt = Receipt(source_id=name, uri=name, sha256=sha256, reader="h5ad", **counts)
    corpus.commit_source(receipt, [record])


@pytest.fixture(scope="session")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The corpus; to be read only."""
    folder = tmp_path_factory.mktemp("asked") / "corpus"
    corpus = Corpus.create(folder)
    for name in SOURCES:
        add(corpus, name)
    Corpus.open(folder).delete("barcode IN ('C3', 'C7', 'C11')")
    return Corpus.open(folder)


@pytest.fixture(scope="session")
def plain(asked: Corpus) -> Iterator[duckdb.DuckDBPyConnection]:
    """Its views as tables, that know no file."""
    connection = duckdb.connect()
    for view in ("cells", "genes", "measured", "expression"):
        rows = asked.sql(f"SELECT * FROM {view}")
        connection.register("given", rows)
        connection.execute(f"CREATE TABLE {view} AS FROM given")
        connection.unregister("given")
    yield connection
    connection.close()
