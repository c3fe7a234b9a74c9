"""Cells of two sources that are one cell: found at the commit, kept, and not primary."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cytolake.corpus.cells import CellBatch
from cytolake.corpus.content import content_hashes, content_keys
from cytolake.corpus.log.links import read_links
from cytolake.corpus.query.primaries import join_pairs
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import DamageError
from hypothesis import given, settings
from hypothesis import strategies as st

from .committed import commit
from .made_segments import made_batch


def of_genes(batch: CellBatch, genes: slice, cells: slice = slice(None)) -> CellBatch:
    """The same cells as another lab measured them: some of the genes."""
    dense = batch.to_csr().toarray()[cells, genes].astype(np.uint32)
    rows, indices = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))])
    gene_ids, counts = batch.gene_ids[genes], dense[rows, indices]
    hashes = content_hashes(gene_ids, indptr, indices.astype(np.int32), counts)
    return CellBatch(
        gene_ids=gene_ids,
        indptr=indptr.astype(np.int64),
        indices=indices.astype(np.int32),
        counts=counts,
        n_counts=batch.n_counts[cells],
        content_keys=content_keys(hashes),
        obs=batch.obs.slice(cells.start or 0, len(dense)),
    )


@pytest.fixture
def lab() -> CellBatch:
    return made_batch(60, 200, seed=7)


@pytest.fixture
def folder(tmp_path: Path, lab: CellBatch) -> Path:
    commit(Corpus.create(tmp_path / "corpus"), "whole", lab)
    return tmp_path / "corpus"


def primaries(folder: Path) -> dict[str, list[str]]:
    """Source -> barcodes of its primary cells."""
    rows = Corpus.open(folder).sql(
        "SELECT source_id, barcode FROM cells WHERE is_primary ORDER BY ALL"
    )
    found: dict[str, list[str]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["source_id"], []).append(row["barcode"])
    return found


def test_cells_that_came_before_under_another_gene_list_are_linked_and_not_primary(
    folder: Path, lab: CellBatch
) -> None:
    part = of_genes(lab, slice(50, 150), slice(0, 40))
    done = commit(Corpus.open(folder), "subset", part)
    # The first cell of a made batch is empty in both: equal contents, the first source's counts.
    assert done.linked == {"whole": 39}
    assert primaries(folder)["subset"] == ["C0"]
    assert len(primaries(folder)["whole"]) == 59
    corpus = Corpus.open(folder)
    assert corpus.select().n_cells == 60 and corpus.select(primary_only=False).n_cells == 100
    assert corpus.verify(deep=True) == []


def test_other_cells_under_the_same_barcodes_are_not_linked(folder: Path) -> None:
    assert commit(Corpus.open(folder), "other", made_batch(60, 180, seed=8)).linked == {}


def test_one_count_that_differs_tells_two_cells_apart(folder: Path, lab: CellBatch) -> None:
    part = of_genes(lab, slice(0, 150))
    counts = part.counts.copy()
    counts[part.indptr[7]] += 1
    assert commit(Corpus.open(folder), "changed", replace(part, counts=counts)).linked == {
        "whole": 58
    }
    assert "C7" in primaries(folder)["changed"]


def test_a_few_shared_genes_say_nothing(folder: Path, lab: CellBatch) -> None:
    assert commit(Corpus.open(folder), "panel", of_genes(lab, slice(0, 12))).linked == {}


def test_the_later_cell_is_primary_again_when_the_earlier_is_gone(
    folder: Path, lab: CellBatch
) -> None:
    commit(Corpus.open(folder), "subset", of_genes(lab, slice(0, 150)))
    Corpus.open(folder).delete("source_id = 'whole' AND barcode IN ('C5', 'C6')")
    assert primaries(folder)["subset"] == ["C0", "C5", "C6"]
    corpus = Corpus.open(folder)
    assert Corpus.open(folder, corpus.snapshot - 1).select().n_cells == 60
    corpus.vacuum(older_than_ms=0)
    assert primaries(folder)["subset"] == ["C0", "C5", "C6"]
    assert Corpus.open(folder).verify(deep=True) == []


def test_a_source_that_was_compacted_is_still_known(folder: Path, lab: CellBatch) -> None:
    commit(Corpus.open(folder), "second", made_batch(30, 200, seed=9))
    Corpus.open(folder).compact(cells_per_segment=1000)
    assert commit(Corpus.open(folder), "subset", of_genes(lab, slice(0, 150))).linked == {
        "whole": 59
    }


def test_a_lost_list_of_links_is_told_each_time_somebody_asks(folder: Path, lab: CellBatch) -> None:
    commit(Corpus.open(folder), "subset", of_genes(lab, slice(0, 150)))
    [path] = (folder / "links").glob("*.parquet")
    whole = path.read_bytes()
    path.unlink()
    read_links.cache_clear()
    corpus = Corpus.open(folder)
    assert any(path.name in problem for problem in corpus.verify())
    for _ in range(2):
        with pytest.raises(DamageError, match=path.name):
            corpus.sql("SELECT count(*) FROM cells")
    path.write_bytes(whole)
    [row] = corpus.sql("SELECT count(*) AS n FROM cells WHERE is_primary").to_pylist()
    assert row["n"] == 60


pairs = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda p: p[0] != p[1]))


@settings(max_examples=200, deadline=None)
@given(same=pairs, linked=pairs)
def test_groups_have_one_primary_cell_each(same: Any, linked: Any) -> None:
    def table(rows: Any) -> pa.Table:
        columns = [pa.array([row[i] for row in rows], pa.int64()) for i in range(2)]
        return pa.table(columns, names=["cell_id", "primary_id"])

    cells = pa.table(
        {
            "cell_id": pa.array(range(10), pa.int64()),
            "source_id": [f"s{i % 3}" for i in range(10)],
            "barcode": [f"b{i}" for i in range(10)],
        }
    )
    found = dict(
        zip(*join_pairs(table(same), table(linked), cells).to_pydict().values(), strict=True)
    )
    groups = [{i} for i in range(10)]  # the oracle: sets that are joined one by one
    for first, second in [*same, *linked]:
        joined = groups[first] | groups[second]
        for member in joined:
            groups[member] = joined
    came_later = {first for first, _ in linked}
    for member in range(10):
        best = min(groups[member], key=lambda i: (i in came_later, f"s{i % 3}", f"b{i}", i))
        assert found.get(member, member) == best
