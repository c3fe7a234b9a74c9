from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from cytolake.corpus.gene_axis import GeneAxis
from cytolake.corpus.held_cells import HeldCells, hold
from cytolake.corpus.payload.segments import Segment
from cytolake.corpus.payload.shards import CHUNK
from cytolake.corpus.rooms import Rooms
from cytolake.platform.errors import DamageError
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from .made_segments import made_batch, made_segment


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> list[Segment]:
    """Three gene lists, one of them twice; counts of two widths; one of several chunks."""
    folder = tmp_path_factory.mktemp("segments")
    sizes = [(30, 40, 40), (9, 11, 70_000), (600, 900, 40), (20, 40, 40)]
    found: list[Segment] = []
    for number, (n_cells, n_genes, highest) in enumerate(sizes):
        batch = made_batch(n_cells, n_genes, seed=number, highest=highest)
        found.append(Segment.open(made_segment(folder / f"s{number}", batch)))
    assert found[2].counts.indptr[-1] > CHUNK
    return found


def test_equal_gene_lists_are_one_object(segments: list[Segment]) -> None:
    assert segments[0].gene_ids is segments[3].gene_ids
    assert segments[0].gene_ids is not segments[1].gene_ids


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_taken_is_what_segments_read(segments: list[Segment], data: st.DataObject) -> None:
    """Any rows, with gaps or without, of any segments, in any order."""
    lists = list({id(s.gene_ids): s.gene_ids for s in segments}.values())
    axis = GeneAxis.of(lists)
    parts: list[tuple[Segment, int, NDArray[np.int64], NDArray[np.uint64]]] = []
    expected: list[dict[str, int]] = []
    for segment in segments:
        n_cells = segment.record.n_cells
        first = data.draw(st.integers(0, n_cells - 1))
        rows = np.arange(first, data.draw(st.integers(first, n_cells)))
        gone = data.draw(st.sets(st.integers(0, n_cells), max_size=5))
        rows = rows[~np.isin(rows, list(gone))]
        if not len(rows):
            continue
        number = next(i for i, names in enumerate(lists) if names is segment.gene_ids)
        parts.append((segment, number, rows, content_keys_of(segment)[rows]))
        indptr, indices, counts = segment.read(rows)
        for i in range(len(rows)):
            mine = slice(indptr[i], indptr[i + 1])
            genes = segment.gene_ids[indices[mine]].tolist()
            expected.append(dict(zip(genes, counts[mine].tolist(), strict=True)))
    if not parts:
        return
    positions = np.arange(len(expected)) * 3  # positions of a selection, of which these are some
    with ThreadPoolExecutor(2) as threads:
        held = hold(positions, parts, Rooms(kept=2), threads)
    asked = data.draw(st.lists(st.sampled_from(positions.tolist()), max_size=50))
    indptr, indices, counts = held.take(np.array(asked, dtype=np.int64), axis, Rooms(kept=2))
    assert (indices.dtype, counts.dtype) == (np.int32, np.uint32)
    for i, position in enumerate(asked):
        mine = slice(indptr[i], indptr[i + 1])
        genes = axis.gene_ids[indices[mine]].tolist()
        assert genes == sorted(genes)
        assert dict(zip(genes, counts[mine].tolist(), strict=True)) == expected[position // 3]


def content_keys_of(segment: Segment) -> NDArray[np.uint64]:
    from cytolake.corpus.content import content_keys, from_binary

    return content_keys(from_binary(segment.record.cells().column("content_hash")))


@pytest.mark.parametrize(
    ("genes", "counts"),
    [([3, 1], [1, 1]), ([1, 1], [1, 1]), ([1, 5], [1, 1]), ([-1, 2], [1, 1]), ([1, 2], [1, 0])],
    ids=["descending", "twice", "beyond the list", "below 0", "a count of 0"],
)
def test_a_damaged_cell_is_told(
    segments: list[Segment], genes: list[int], counts: list[int]
) -> None:
    axis = GeneAxis.of([np.array(list("abcde"), dtype=object), np.array(["f"], dtype=object)])
    held = HeldCells(
        positions=np.array([7]),
        begins=np.array([0, 2]),
        list_of=np.zeros(1, dtype=np.int32),
        segment_of=np.zeros(1, dtype=np.int32),
        segments=(segments[0],),
        indices=np.array(genes, dtype=np.int32),
        counts=np.array(counts, dtype=np.uint16),
    )
    with pytest.raises(DamageError, match="genes of a cell do not ascend below its 5"):
        held.take(np.array([7]), axis, Rooms(kept=1))


def test_a_room_is_used_again_only_when_its_last_view_is_gone() -> None:
    rooms = Rooms(kept=2)

    def address(array: NDArray[Any]) -> int:
        return array.__array_interface__["data"][0]

    first = rooms.empty(100_000, np.int32)
    view, where = first[5:].view(np.uint8), address(first)
    del first
    other = rooms.empty(100_000, np.int32)
    assert address(other) != where
    del view
    assert address(rooms.empty(90_000, np.uint32)) == where
