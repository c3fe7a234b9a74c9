"""An AnnData that reads its counts later: the same counts, and no more of them than needed."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from cytolake.corpus.exports import lazy
from cytolake.corpus.exports.extract import Extract
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CorpusError, QueryError

from .committed import real_corpus

pytest.importorskip("dask", reason="the extra `lazy` is not installed")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Which ranges of cells were read; chunks are of two cells."""
    found: list[tuple[int, int]] = []
    counts = Extract.counts

    def noted(self: Extract, start: int, stop: int) -> Any:
        found.append((start, stop))
        return counts(self, start, stop)

    monkeypatch.setattr(Extract, "counts", noted)
    monkeypatch.setattr(lazy, "CELLS_PER_CHUNK", 2)
    return found


def test_all_cells_read_later_are_those_read_at_once(fake_corpus: Corpus, reads: Any) -> None:
    adata = fake_corpus.to_anndata(lazy=True)
    assert reads == []
    wanted = fake_corpus.to_anndata()
    reads.clear()
    found = adata.to_memory()
    assert sorted(reads) == [(0, 2), (2, 4), (4, 6)]
    assert (found.X != wanted.X).nnz == 0 and found.X.dtype == wanted.X.dtype
    pd.testing.assert_frame_equal(found.obs, wanted.obs)
    pd.testing.assert_frame_equal(found.var, wanted.var)


@pytest.mark.parametrize("axis", [0, 1, None])
def test_dense_chunks_add_up(fake_corpus: Corpus, reads: Any, axis: int | None) -> None:
    lazily, whole = fake_corpus.to_anndata(lazy=True).X, fake_corpus.to_anndata().X.toarray()
    reads.clear()
    dense = lazily.map_blocks(lambda counts: counts.toarray(), dtype=lazily.dtype)
    assert np.array_equal(dense.sum(axis=axis).compute(), whole.sum(axis=axis))
    assert sorted(reads) == [(0, 2), (2, 4), (4, 6)]


def test_a_slice_reads_the_chunks_that_it_touches(fake_corpus: Corpus, reads: Any) -> None:
    adata = fake_corpus.to_anndata(lazy=True)
    part = adata[adata.obs["barcode"] == "AAG", ["ENSG00000000003", "ENSG00000000001"]]
    assert part.shape == (1, 2) and reads == []
    assert part.to_memory().X.toarray().tolist() == [[5, 3]]
    assert reads == [(2, 4)]


def test_genes_and_a_condition_choose_beforehand(fake_corpus: Corpus, reads: Any) -> None:
    adata = fake_corpus.to_anndata("tissue = 'blood'", ["MIR21", "ACTB"], lazy=True)
    assert adata.var["symbol"].tolist() == ["MIR21", "ACTB"]
    assert adata.to_memory().X.toarray().tolist() == [[0, 2], [2, 1], [0, 3]]
    with pytest.raises(QueryError, match="did you mean 'CD3D'"):
        fake_corpus.to_anndata(genes=["CD3E"], lazy=True)


def test_two_of_them_do_not_mix_their_counts(fake_corpus: Corpus, reads: Any) -> None:
    import dask

    blood, lung = (fake_corpus.to_anndata(f"tissue = '{t}'", lazy=True) for t in ("blood", "lung"))
    found = dask.compute(blood.X, lung.X)  # pyright: ignore[reportPrivateImportUsage]
    assert [int(part.sum()) for part in found] == [18, 70010]


def test_a_lazy_object_can_be_written_and_read(fake_corpus: Corpus, tmp_path: Path) -> None:
    fake_corpus.to_anndata(lazy=True).write_h5ad(tmp_path / "a.h5ad")
    found = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert (found.X != fake_corpus.to_anndata().X).nnz == 0


def test_counts_of_a_snapshot_that_ended_are_told(
    build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path
) -> None:
    corpus = build_fake_corpus(tmp_path / "corpus")
    adata = corpus.to_anndata(lazy=True)
    corpus.withdraw("barcode = 'AAC'", "consent ended")
    Corpus.open(corpus.uri).vacuum(older_than_ms=0, for_consent=True)
    with pytest.raises(CorpusError):
        adata.to_memory()


def test_without_dask_the_way_out_is_told(
    fake_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dask.array.core", None)
    with pytest.raises(CorpusError, match=r"pip install 'cytolake\[lazy\]'"):
        fake_corpus.to_anndata(lazy=True)


@pytest.mark.parametrize("name", ["blood-0", "lung-0"])
def test_plain_anndata_opens_a_segment(fake_corpus: Corpus, name: str) -> None:
    adata: Any = anndata.io.read_zarr(fake_corpus.segments_folder / name / "rna.zarr")
    source = name.removesuffix("-0")
    wanted = fake_corpus.to_anndata(f"source_id = '{source}'")
    assert adata.var_names.tolist() == wanted.var_names.tolist()
    assert (adata.X.astype(np.float32) != wanted.X).nnz == 0


def test_real_cells_go_through_scanpy_chunk_by_chunk(tmp_path: Path) -> None:
    scanpy = pytest.importorskip("scanpy")
    corpus = real_corpus(tmp_path / "corpus", "pbmc3k", "kang")
    later, now = corpus.to_anndata(lazy=True), corpus.to_anndata()
    for adata in (later, now):
        scanpy.pp.normalize_total(adata, target_sum=1e4)
        scanpy.pp.log1p(adata)
    chosen = later[later.obs["cell_type"] == "NK"].to_memory()
    wanted = now[now.obs["cell_type"] == "NK"]
    assert chosen.n_obs > 100 and abs(chosen.X - wanted.X).max() < 1e-6
