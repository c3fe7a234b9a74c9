"""The fake corpus: 6 cells, 5 genes, 2 sources, made by the real writers; answers by hand.

            ACTB  CD3D  MS4A1  MT-CO1  MIR21 | n_counts  type    donor
    blood
      AAA      2     4      0       1      0 |       10  T cell  d1
      AAC      1     0      0       0      2 |        5  T cell  d2
      AAG      3     0      5       0      0 |       10  B cell  d1
    lung                      (not measured)
      AAA      0     2      0                |        4  T cell  d3
      CCC      3     0      5                |       10  B cell  d3    equal to blood's AAG
      GGG  70000     0      0                |    80000  NULL    d4    does not fit 16 bits

blood also read TTT (n_counts 1) and dropped it; lung is a panel.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cytolake.corpus.cells import CellBatch
from cytolake.corpus.content import content_hashes, content_keys
from cytolake.corpus.genes import GeneReference
from cytolake.corpus.log.receipts import Receipt
from cytolake.corpus.payload.records import SegmentRecord
from cytolake.corpus.payload.writing import write_segment
from cytolake.corpus.store import Corpus

GENES = ("ACTB", "CD3D", "MS4A1", "MT-CO1", "MIR21")
GENE_IDS = tuple(f"ENSG0000000000{i}" for i in range(1, 6))
BIOTYPES = ("protein_coding",) * 4 + ("miRNA",)

BLOOD: dict[str, Any] = {
    "barcode": ["AAA", "AAC", "AAG"],
    "counts": [[2, 4, 0, 1, 0], [1, 0, 0, 0, 2], [3, 0, 5, 0, 0]],
    "n_counts": [10, 5, 10],
    "cell_type": ["T cell", "T cell", "B cell"],
    "donor_id": ["d1", "d2", "d1"],
    "dropped": [("TTT", "total_counts", 1, 1, None)],
}
LUNG: dict[str, Any] = {
    "barcode": ["AAA", "CCC", "GGG"],
    "counts": [[0, 2, 0], [3, 0, 5], [70000, 0, 0]],
    "n_counts": [4, 10, 80000],
    "cell_type": ["T cell", "B cell", None],
    "donor_id": ["d3", "d3", "d4"],
    "dropped": [],
}


@pytest.fixture(scope="session")
def fake_reference() -> GeneReference:
    """The five genes; `BETA` is an alias of CD3D."""
    aliases = ((), ("BETA",), (), (), ())
    return GeneReference(gene_ids=GENE_IDS, symbols=GENES, biotypes=BIOTYPES, aliases=aliases)


def _batch(given: dict[str, Any]) -> CellBatch:
    counts = np.array(given["counts"], dtype=np.uint32)
    gene_ids = np.array(GENE_IDS[: counts.shape[1]], dtype=object)
    rows, indices = np.nonzero(counts)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(counts)))])
    stored = counts[rows, indices]
    indices = indices.astype(np.int32)
    hashes = content_hashes(list(gene_ids), indptr, indices, stored)
    obs = {
        "barcode": given["barcode"],
        "organism": ["Homo sapiens"] * len(counts),
        "tissue": [given["tissue"]] * len(counts),
        "cell_type": given["cell_type"],
        "donor_id": given["donor_id"],
        "n_counts": given["n_counts"],
        "n_genes": (counts > 0).sum(axis=1).astype(np.int32),
        "mito_fraction": pa.nulls(len(counts), pa.float64()),
    }
    return CellBatch(
        gene_ids=gene_ids,
        indptr=indptr.astype(np.int64),
        indices=indices,
        counts=stored,
        n_counts=np.array(given["n_counts"], dtype=np.int64),
        content_keys=content_keys(hashes),
        obs=pa.table(obs),
    )


def _var(n_genes: int) -> pa.Table:
    return pa.table(
        {
            "gene_id": GENE_IDS[:n_genes],
            "symbol": GENES[:n_genes],
            "biotype": BIOTYPES[:n_genes],
            "mapping": ["symbol"] * n_genes,
            "source_name": GENES[:n_genes],
        }
    )


@pytest.fixture(scope="session")
def fake_batch() -> Callable[[str], CellBatch]:
    """Make the cells of `blood` or `lung` as a batch, as ingest would."""
    return lambda name: _batch({"blood": BLOOD, "lung": LUNG}[name] | {"tissue": name})


@pytest.fixture(scope="session")
def prepare_source() -> Callable[..., tuple[Receipt, list[SegmentRecord]]]:
    """Write the segment of `blood` or `lung` into a corpus and make its receipt; no commit.

    `prepare(corpus, "blood", source_id=..., segment_id=..., **receipt_fields)`.
    """

    def prepare(
        corpus: Corpus, name: str, *, source_id: str | None = None, **others: Any
    ) -> tuple[Receipt, list[SegmentRecord]]:
        given = {"blood": BLOOD, "lung": LUNG}[name] | {"tissue": name}
        source_id = source_id or name
        sha256 = others.get("sha256", {"blood": "a" * 64, "lung": "b" * 64}[name])
        cells = _batch(given)
        segment_id = others.pop("segment_id", f"{source_id}-0")
        columns = ("barcode", "reason", "n_counts", "n_genes", "mito_fraction")
        dropped = [dict(zip(columns, row, strict=True)) for row in given["dropped"]]
        schema = pa.schema(
            [
                ("barcode", pa.string()),
                ("reason", pa.string()),
                ("n_counts", pa.int64()),
                ("n_genes", pa.int32()),
                ("mito_fraction", pa.float64()),
            ]
        )
        record = write_segment(
            corpus.segments_folder / segment_id,
            segment_id,
            cells,
            _var(cells.n_genes),
            pa.table({"cluster": [f"{name}-{i}" for i in range(3)], "age": [40, 50, 60]}),
            pa.Table.from_pylist(dropped, schema=schema),
            {
                "corpus_uuid": corpus.uuid,
                "source_id": source_id,
                "source_sha256": sha256,
                "first_row": 0,
            },
        )
        receipt = Receipt(
            source_id=source_id,
            uri=f"/data/{name}.h5ad",
            sha256=sha256,
            n_bytes=1000,
            reader="h5ad",
            layer="X",
            n_read=3 + len(dropped),
            n_kept=3,
            dropped={"total_counts": len(dropped)} if dropped else {},
            thresholds={"total_counts_low": 2.0},
            panel=name == "lung",
            units=(segment_id,),
        )
        return replace(receipt, **others), [record]

    return prepare


@pytest.fixture(scope="session")
def build_fake_corpus(
    prepare_source: Callable[..., tuple[Receipt, list[SegmentRecord]]],
) -> Callable[[Path], Corpus]:
    """Make the fake corpus in a folder: a fresh one, that a test may change or damage."""

    def build(folder: Path) -> Corpus:
        corpus = Corpus.create(folder)
        for name in ("blood", "lung"):
            corpus.commit_source(*prepare_source(corpus, name))
        return Corpus.open(folder)

    return build


@pytest.fixture(scope="session")
def fake_corpus(
    build_fake_corpus: Callable[[Path], Corpus], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Corpus]:
    """The fake corpus, made once: to be read only."""
    yield build_fake_corpus(tmp_path_factory.mktemp("fake") / "corpus")


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process; gives exit status, standard output and error."""
    from cytolake import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CYTOLAKE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")

    def run_words(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cytolake", *map(str, words)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        shown = capfd.readouterr()
        return status, shown.out, shown.err

    return run_words
