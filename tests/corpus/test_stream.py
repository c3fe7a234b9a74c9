from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cytolake.corpus.cells import CellBatch
from cytolake.corpus.order import epoch_order, groups
from cytolake.corpus.store import Corpus
from cytolake.corpus.stream import Stream
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray


@given(
    st.integers(0, 300),
    st.integers(0, 2**31),
    st.integers(0, 9),
    st.integers(1, 9),
    st.integers(1, 50),
)
def test_every_cell_comes_once_an_epoch(
    n_cells: int, seed: int, epoch: int, block: int, buffer: int
) -> None:
    order = epoch_order(n_cells, seed=seed, epoch=epoch, block=block, buffer=buffer)
    assert sorted(order.tolist()) == list(range(n_cells))


def test_the_order_is_fixed_for_ever() -> None:
    """These numbers are in every checkpoint's position: a change of them is a change of format."""
    order = epoch_order(12, seed=7, epoch=1, block=2, buffer=6)
    assert order.tolist() == [5, 1, 10, 0, 11, 4, 3, 6, 8, 7, 9, 2]


def test_seed_and_epoch_change_the_order() -> None:
    orders = {
        tuple(epoch_order(1000, seed=seed, epoch=epoch).tolist())
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_a_buffer_holds_whole_blocks() -> None:
    order = epoch_order(1024, seed=0, epoch=0, block=16, buffer=64)
    for start in range(0, 1024, 64):
        blocks = np.unique(order[start : start + 64] // 16)
        assert len(blocks) == 4


def entropy_of_sources(order: NDArray[np.int64], *, n_sources: int, batch: int) -> float:
    """Mean bits that a cell's source has within a batch, of cells that lie source by source."""
    sources = order * n_sources // len(order)
    cut = sources[: len(sources) // batch * batch].reshape(-1, batch)
    shares = np.stack([(cut == source).mean(axis=1) for source in range(n_sources)])
    return float(-(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=0).mean())


def test_one_number_sets_how_near_batches_come_to_independent_draws() -> None:
    """Cells lie source by source; a batch of a true shuffle has the entropy of a random draw."""
    n_cells, how = 60_000, {"n_sources": 20, "batch": 256}
    independent = entropy_of_sources(np.random.default_rng(0).permutation(n_cells), **how)
    found = [
        entropy_of_sources(epoch_order(n_cells, seed=0, epoch=0, block=block), **how) / independent
        for block in (1, 16, 64, 256, 1024, 20_000)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(1, abs=1e-3)
    assert found[2] > 0.98, "the default"
    assert found[-1] < 0.7, "three sources a buffer"


def test_groups_cut_the_order_and_lose_nothing() -> None:
    cut = groups(np.arange(10), 4)
    assert [len(group) for group in cut] == [4, 4, 2]
    assert np.concatenate(cut).tolist() == list(range(10))


def cells_of(batches: list[CellBatch]) -> dict[int, tuple[object, ...]]:
    """Each cell by its id: its genes with their counts, and all else that a batch says of it."""
    found: dict[int, tuple[object, ...]] = {}
    for batch in batches:
        for row, obs in enumerate(batch.obs.to_pylist()):
            places = slice(batch.indptr[row], batch.indptr[row + 1])
            genes = batch.gene_ids[batch.indices[places]].tolist()
            counts = dict(zip(genes, batch.counts[places].tolist(), strict=True))
            assert list(counts) == sorted(counts)
            key, total = batch.content_keys[row].item(), batch.n_counts[row].item()
            found[obs["cell_id"]] = (counts, key, total, obs)
    return found


@pytest.mark.parametrize("buffer", [2, 3, 5, 16])
@pytest.mark.parametrize("cells_per_group", [1, 2, 3, 7])
def test_a_stream_gives_what_reading_gives(
    fake_corpus: Corpus, buffer: int, cells_per_group: int
) -> None:
    chosen = fake_corpus.select(primary_only=False)
    stream = Stream(
        fake_corpus,
        chosen,
        seed=3,
        cells_per_group=cells_per_group,
        columns=["barcode"],
        block=1,
        buffer=buffer,
    )
    for epoch in (0, 1):
        order = epoch_order(chosen.n_cells, seed=3, epoch=epoch, block=1, buffer=buffer)
        cut = groups(order, cells_per_group)
        assert stream.n_groups == len(cut)
        for index in reversed(range(stream.n_groups)):  # any rank, any order
            expected = fake_corpus.read(chosen, cut[index], columns=["barcode"])
            [found] = stream.group(epoch, index)
            assert cells_of([found]) == cells_of(expected)
            assert found.obs.column("cell_id").to_pylist() == chosen.cell_id[cut[index]].tolist()
            assert found.gene_ids is stream.gene_ids
    stream.close()


def test_a_batch_is_never_written_to_again(fake_corpus: Corpus) -> None:
    """Memory is used again only once nobody looks into it."""
    chosen = fake_corpus.select(primary_only=False)
    stream = Stream(fake_corpus, chosen, seed=0, cells_per_group=1, block=1, buffer=2)
    kept: list[tuple[NDArray[np.uint32], NDArray[np.int32]]] = []
    copies: list[tuple[list[int], list[int]]] = []
    for epoch in range(6):
        for [batch] in stream.epoch(epoch):
            kept.append((batch.counts[:1], batch.indices[:1]))
            copies.append((batch.counts[:1].tolist(), batch.indices[:1].tolist()))
            del batch
    stream.close()
    assert [(counts.tolist(), indices.tolist()) for counts, indices in kept] == copies


def test_deleted_cells_never_appear(two: Corpus) -> None:
    before = two.select(primary_only=False)
    gone = set(two.sql("SELECT cell_id FROM cells WHERE row % 5 = 2").column(0).to_pylist())
    two.delete("row % 5 = 2")
    corpus = Corpus.open(two.uri)
    chosen = corpus.select(primary_only=False)
    stream = Stream(corpus, chosen, seed=0, cells_per_group=7, block=4, buffer=16)
    for epoch in range(3):
        batches = [batch for [batch] in stream.epoch(epoch)]
        seen = np.concatenate([batch.obs.column("cell_id").to_numpy() for batch in batches])
        assert sorted(seen.tolist()) == sorted(set(before.cell_id.tolist()) - gone)
    stream.close()
    assert gone


def test_the_same_files_give_the_same_stream_in_a_corpus_built_anew(
    fake_corpus: Corpus, build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path
) -> None:
    anew = build_fake_corpus(tmp_path / "corpus")
    streams = [
        Stream(corpus, corpus.select(), seed=1, cells_per_group=2) for corpus in (fake_corpus, anew)
    ]
    assert streams[0].selection.digest == streams[1].selection.digest
    seen = [
        [batch.content_keys.tolist() for group in stream.epoch(0) for batch in group]
        for stream in streams
    ]
    assert seen[0] == seen[1]
    ids = [stream.selection.cell_id.tolist() for stream in streams]
    assert ids[0] != ids[1], "cell ids are drawn: nothing may depend on them"
    for stream in streams:
        stream.close()


def test_a_selection_of_another_snapshot_is_refused(fake_corpus: Corpus) -> None:
    from cytolake.platform.errors import CorpusError

    stale = replace(fake_corpus.select(), snapshot=1)
    with pytest.raises(CorpusError, match="snapshot 1, this is 2"):
        fake_corpus.read(stale)
