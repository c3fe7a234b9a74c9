"""Synthetic cells: like the real ones in numbers, the same under a seed, whole as files."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from cytolake.corpus.genes import GeneReference
from cytolake.ingest.reading import read_cells
from cytolake.ingest.sources.h5ad import H5adSource
from cytolake.platform.errors import CytolakeError, ResourceError, SourceError
from cytolake.platform.resources import available
from cytolake.platform.settings import Settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import sparse
from scipy import stats as distributions
from typer.testing import CliRunner

from benchmarks.likeness import likeness
from benchmarks.negative_binomial import GOLDEN, alias_table, draw_counts
from benchmarks.source_statistics import Statistics, learn, learn_file
from benchmarks.synthetic import (
    BLOCK_CELLS,
    Block,
    app,
    barcodes,
    generate,
    learn_blocks,
    prepare,
)
from benchmarks.synthetic_corpus import build_corpus, cell_batches, var_table
from benchmarks.synthetic_h5ad import write_h5ad


@cache
def real_reference() -> GeneReference:
    """A reference of just the genes that scanpy's packaged cells name, with ids made up."""
    source = H5adSource(path=packaged_cells())
    symbols = tuple(str(name) for name in source.genes("raw.X")["index"])
    return GeneReference(
        gene_ids=tuple(f"ENSG{number:011d}" for number in range(len(symbols))),
        symbols=symbols,
        biotypes=("protein_coding",) * len(symbols),
        aliases=((),) * len(symbols),
    )


def packaged_cells() -> Path:
    place = available("pbmc68k-reduced", Settings())
    assert place is not None
    return place


@cache
def real() -> Statistics:
    """The numbers of 700 real cells."""
    return learn_file(
        packaged_cells(),
        real_reference(),
        label="bulk_labels",
        recover="log1p_cp10k",
        facts={"organism": "Homo sapiens", "tissue": "blood"},
    )


def whole(blocks: list[Block], n_genes: int) -> sparse.csr_matrix:
    return sparse.csr_matrix(sparse.vstack([block.to_csr(n_genes) for block in blocks]))


def fingerprint(blocks: list[Block]) -> str:
    digest = hashlib.sha256()
    for name in ("indices", "counts", "type_c", "sample_c"):
        digest.update(np.concatenate([getattr(block, name) for block in blocks]).tobytes())
    digest.update(" ".join(name for block in blocks for name in block.barcodes).encode())
    return digest.hexdigest()


def test_synthetic_cells_are_like_the_real_ones() -> None:
    made = learn_blocks(real(), list(generate(real(), 700, seed=0)))
    found = likeness(real(), made)
    assert found.detection_rank > 0.95
    assert found.profile > 0.97
    assert found.marker_rank > 0.8
    assert found.counts_ratio == pytest.approx(1, abs=0.05)
    assert found.nonzeros_ratio == pytest.approx(1, abs=0.03)
    for percent in (5, 25, 50, 75, 95):
        assert made.nonzeros_q[percent] == pytest.approx(real().nonzeros_q[percent], rel=0.12)
    share = made.cells_k / made.n_cells - real().cells_k / real().n_cells
    assert np.abs(share).max() < 0.06


def test_a_source_is_most_like_itself() -> None:
    found = likeness(real(), real())
    assert found.detection_rank == pytest.approx(1)
    assert found.marker_rank == pytest.approx(1)
    assert found.counts_ratio == found.nonzeros_ratio == found.dispersion_ratio == 1


@pytest.mark.parametrize("depth", [20.0, 400.0])
def test_a_depth_scales_genes_seen_and_keeps_the_order_of_genes(depth: float) -> None:
    made = learn_blocks(real(), list(generate(real(), 8192, seed=1, depth=depth)))
    assert made.mean_nonzeros == pytest.approx(depth, rel=0.05)
    assert likeness(real(), made).detection_rank > 0.95


def test_the_same_seed_gives_the_same_cells_and_another_seed_others() -> None:
    first = list(generate(real(), 700, seed=5))
    assert fingerprint(first) == fingerprint(list(generate(real(), 700, seed=5)))
    assert fingerprint(first) != fingerprint(list(generate(real(), 700, seed=6)))
    assert fingerprint(first) != fingerprint(list(generate(real(), 700, seed=5, source=1)))


def test_a_longer_source_begins_with_the_cells_of_a_shorter_one() -> None:
    short = whole(list(generate(real(), 600, seed=5)), real().n_genes)
    long = whole(list(generate(real(), 1500, seed=5)), real().n_genes)
    assert abs(short - long[:600]).nnz == 0


def test_blocks_are_bounded_and_hold_ascending_genes_with_counts_above_zero() -> None:
    blocks = list(generate(real(), 2 * BLOCK_CELLS + 3, seed=0))
    assert [block.n_cells for block in blocks] == [BLOCK_CELLS, BLOCK_CELLS, 3]
    assert [block.first for block in blocks] == [0, BLOCK_CELLS, 2 * BLOCK_CELLS]
    for block in blocks:
        assert block.counts.min() > 0
        matrix = block.to_csr(real().n_genes)
        assert matrix.has_canonical_format
        assert block.n_counts.tolist() == np.asarray(matrix.sum(axis=1)).ravel().tolist()


@given(first=st.integers(0, 2**31), seed=st.integers(0, 2**40), source=st.integers(0, 10))
@hypothesis_settings(max_examples=20, deadline=None)
def test_barcodes_are_sixteen_letters_unique_and_the_same_however_cut(
    first: int, seed: int, source: int
) -> None:
    names = barcodes(first, 300, seed, source).tolist()
    assert len(set(names)) == 300
    assert names[100:] == barcodes(first + 100, 200, seed, source).tolist()
    assert all(len(name) == 18 and set(name[:16]) <= set("ACGT") for name in names)
    assert all(name.endswith("-1") for name in names)


@given(weights=st.lists(st.floats(0, 1e6), min_size=1, max_size=50).filter(lambda w: sum(w) > 1))
@hypothesis_settings(max_examples=50, deadline=None)
def test_an_alias_table_gives_back_the_law_that_it_was_made_of(weights: list[float]) -> None:
    share_g = np.array(weights) / sum(weights)
    table_g = alias_table(share_g)
    own = (table_g >> np.uint64(32)).astype(np.float64) / 2**32
    other = (table_g & np.uint64(2**32 - 1)).astype(np.int64)
    given_back = own / len(own)
    np.add.at(given_back, other, (1 - own) / len(own))
    assert given_back == pytest.approx(share_g, abs=1e-8)


def plain_counts(
    size: float, n_proposals: int, key: int, direct: dict[int, int], alias_g: np.ndarray, spread_g
) -> dict[int, int]:
    """The oracle: one cell with Python's integers, the burst's law summed term by term."""
    tally = {gene: count for gene, count in direct.items() if count}
    mask = 2**64 - 1
    for i in range(n_proposals):
        word = (key + (i + 1) * GOLDEN) & mask
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & mask
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
        word ^= word >> 31
        place = (word >> 24) * len(alias_g)
        gene = place >> 40
        own, other = int(alias_g[gene]) >> 32, int(alias_g[gene]) & (2**32 - 1)
        if (place >> 8) & (2**32 - 1) >= own:
            gene = other
        x = float(spread_g[gene]) * size
        u = ((word & (2**24 - 1)) + 0.5) / 2**24
        if x == 0 or u < 1 / (1 + x):
            length = 1
        elif u * x >= np.log1p(x):
            length = 0
        else:
            q, below, length = x / (1 + x), 0.0, 0
            while below <= u and length < 10_000:
                length += 1
                below += q**length / (length * x)
        if length:
            tally[gene] = tally.get(gene, 0) + length
    return tally


@given(
    cells=st.lists(
        st.tuples(st.integers(0, 1), st.floats(1, 500), st.integers(0, 200), st.integers(0, 2**63)),
        min_size=1,
        max_size=6,
    ),
    n_genes=st.integers(2, 200),
    seed=st.integers(0, 100),
)
@hypothesis_settings(max_examples=30, deadline=None)
def test_the_kernel_draws_what_the_plain_oracle_draws(
    cells: list[tuple[int, float, int, int]], n_genes: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    alias_kg = np.stack([alias_table(draw.dirichlet(np.ones(n_genes))) for _ in range(2)])
    spread_kg = (draw.uniform(0, 0.2, (2, n_genes)) ** 2).astype(np.float32)
    often = np.array([1], dtype=np.int64)
    direct = draw.integers(0, 3, (len(cells), 1))
    type_c, size_c, n_proposals_c, keys = (list(column) for column in zip(*cells, strict=True))
    indptr, indices, counts = draw_counts(
        np.array(type_c),
        np.array(size_c),
        np.array(n_proposals_c),
        np.array(keys, dtype=np.uint64),  # as int64 some would be floats first
        often,
        direct,
        alias_kg,
        spread_kg,
    )
    for c, (k, size, n_proposals, key) in enumerate(cells):
        expected = plain_counts(
            size, n_proposals, key, {1: int(direct[c, 0])}, alias_kg[k], spread_kg[k]
        )
        found = slice(indptr[c], indptr[c + 1])
        assert dict(zip(indices[found].tolist(), counts[found].tolist(), strict=True)) == expected
        assert (np.diff(indices[found]) > 0).all()


@pytest.mark.parametrize("mean", [0.5, 3.0, 12.0], ids=["rare", "common", "drawn directly"])
def test_counts_follow_the_negative_binomial_law(mean: float) -> None:
    dispersion, n_cells, size = 0.8, 20 * BLOCK_CELLS, 100.0
    statistics = Statistics(
        gene_ids=("ENSG00000000001", "ENSG00000000002"),
        symbols=("A", "B"),
        biotypes=("", ""),
        cell_types=("only",),
        cells_k=np.array([100_000]),
        totals_kg=np.array([[mean / size * 1e7, (1 - mean / size) * 1e7]]).astype(np.uint64),
        sizes_kq=np.full((1, 101), size),
        dispersion_g=np.array([dispersion, 0.0]),
        detected_g=np.array([50_000, 100_000]),
        nonzeros_q=np.full(101, 2.0),
    )
    matrix = whole(list(generate(statistics, n_cells, seed=3)), 2)
    found = matrix[:, [0]].toarray().ravel().astype(np.int64)
    law: Any = distributions.nbinom(1 / dispersion, 1 / (1 + dispersion * mean))
    top = int(law.ppf(0.99))
    seen = np.append(np.bincount(found, minlength=top + 1)[: top + 1], (found > top).sum())
    expected = np.append(law.pmf(np.arange(top + 1)), law.sf(top)) * n_cells
    assert distributions.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > 1e-3
    assert (len(prepare(statistics).often) == 2) == (mean > 4)


def test_statistics_come_back_from_their_file(tmp_path: Path) -> None:
    real().save(tmp_path / "pbmc.npz")
    back = Statistics.load(tmp_path / "pbmc.npz")
    assert (back.gene_ids, back.cell_types, back.facts) == (
        real().gene_ids,
        real().cell_types,
        real().facts,
    )
    assert fingerprint(list(generate(back, 20, seed=0))) == fingerprint(
        list(generate(real(), 20, seed=0))
    )


def test_another_file_is_no_statistics(tmp_path: Path) -> None:
    (tmp_path / "other.npz").write_bytes(b"not an archive")
    with pytest.raises(ResourceError, match=r"other\.npz: no statistics of a source"):
        Statistics.load(tmp_path / "other.npz")


def test_fewer_genes_keep_their_counts_and_the_cells_shrink() -> None:
    fewer = real().keep_genes(100)
    assert fewer.n_genes == 100
    assert min(fewer.detected_g) >= np.sort(real().detected_g)[-100]
    made = learn_blocks(fewer, list(generate(fewer, 1024, seed=0)))
    assert made.mean_counts == pytest.approx(fewer.mean_counts, rel=0.06)


@pytest.mark.parametrize(
    ("values", "message"),
    [([[1.5, 0.0]], "no raw count"), ([[-1.0, 2.0]], "no raw count"), ([[0.0, 0.0]], "nothing")],
    ids=["fractional", "negative", "empty"],
)
def test_what_is_no_raw_count_is_not_learnt_from(values: list[list[float]], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        learn(sparse.csr_matrix(values), ["a", "b"])


def test_a_depth_beyond_the_genes_is_refused() -> None:
    with pytest.raises(SourceError, match="765 genes"):
        next(generate(real(), 1, seed=0, depth=10_000))


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_the_file_is_read_by_anndata_and_by_ingest(tmp_path: Path, compression) -> None:
    path = tmp_path / "cells.h5ad"
    write_h5ad(path, real(), 700, seed=0, compression=compression)
    blocks = list(generate(real(), 700, seed=0))
    adata: Any = anndata.read_h5ad(path)
    assert adata.shape == (700, real().n_genes)
    assert adata.X.dtype == np.float32
    assert abs(adata.X - whole(blocks, real().n_genes)).nnz == 0
    assert adata.obs_names.tolist() == [name for block in blocks for name in block.barcodes]
    assert tuple(adata.var_names) == real().gene_ids
    assert tuple(adata.var["gene_symbols"]) == real().symbols
    assert adata.obs["n_counts"].tolist() == np.asarray(adata.X.sum(axis=1)).ravel().tolist()
    types = np.concatenate([block.type_c for block in blocks])
    assert adata.obs["cell_type"].tolist() == [real().cell_types[k] for k in types]
    assert (adata.obs["tissue"] == "blood").all()
    assert adata.obs["sample"].nunique() == 8
    assert adata.obs.groupby("sample", observed=True)["donor_id"].nunique().max() == 1
    batches = list(read_cells(path, real_reference()))
    read: Any = sparse.vstack([batch.to_csr() for batch in batches])
    assert abs(read - adata.X).nnz == 0
    assert [path.name for path in tmp_path.iterdir()] == ["cells.h5ad"]


def test_an_unknown_compression_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected None or 'gzip'"):
        write_h5ad(tmp_path / "x.h5ad", real(), 1, seed=0, compression="zip")  # pyright: ignore[reportArgumentType]
    assert not list(tmp_path.iterdir())


def test_batches_hold_the_same_cells_however_they_are_cut() -> None:
    once = next(cell_batches(real(), [900], seed=2))
    cut = list(cell_batches(real(), [10, 513, 377], seed=2))
    assert [batch.n_cells for batch in cut] == [10, 513, 377]
    assert np.concatenate([batch.content_keys for batch in cut]).tolist() == (
        once.content_keys.tolist()
    )
    assert once.gene_ids.tolist() == var_table(real()).column("gene_id").to_pylist()


def test_a_corpus_is_built_whose_accounts_balance(tmp_path: Path) -> None:
    corpus = build_corpus(tmp_path / "corpus", real(), 700, 5, 2, seed=0, depth=3.0)
    receipts = [source.receipt for source in corpus.state.accepted]
    assert [receipt.n_read for receipt in receipts] == [280, 420]
    assert all(receipt.n_read == receipt.n_kept + receipt.n_dropped for receipt in receipts)
    assert sum(receipt.n_dropped for receipt in receipts) > 0
    assert len({receipt.sha256 for receipt in receipts}) == 2
    assert [len(source.segments) for source in corpus.state.accepted] == [2, 3]
    assert corpus.verify(deep=True) == []
    made = corpus.sql("SELECT count(*) AS n, sum(n_counts) AS counts FROM cells").to_pylist()[0]
    assert made["n"] == sum(receipt.n_kept for receipt in receipts)
    expected = sum(
        int(batch.n_counts.sum())
        for source, size in enumerate([280, 420])
        for batch in cell_batches(real(), [size], seed=0, depth=3.0, source=source)
    )
    assert made["counts"] == expected


def test_more_segments_than_cells_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CytolakeError, match="at least one cell a segment"):
        build_corpus(tmp_path / "corpus", real(), 3, 5, 2, seed=0)


def test_the_command_writes_a_file_and_tells_how_like_it_is(tmp_path: Path) -> None:
    real().save(tmp_path / "pbmc.npz")
    out = tmp_path / "cells.h5ad"
    words = [str(out), "--cells", "600", "--statistics", str(tmp_path / "pbmc.npz")]
    done = CliRunner().invoke(app, [*words, "--compression", "gzip", "--depth", "100"])
    assert done.exit_code == 0, done.output
    assert "detection_rank" in done.output
    assert anndata.read_h5ad(out, backed="r").n_obs == 600
