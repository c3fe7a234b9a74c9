from typing import Any

import numpy as np
import pytest
from cytolake.corpus.payload.pieces import Pieces
from cytolake.corpus.payload.unpacking import unpack_part, unpack_pieces
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Blosc
from numpy.typing import NDArray

N = 50_000
VALUES = np.random.default_rng(0).geometric(0.3, N).astype(np.uint16)
PACKED = np.frombuffer(
    Blosc(cname="zstd", clevel=1, shuffle=Blosc.SHUFFLE).encode(VALUES), dtype=np.uint8
)


@given(st.integers(0, N), st.integers(0, N), st.booleans())
def test_a_part_is_what_the_whole_has_there(one: int, other: int, partly: bool) -> None:
    """Both ways give it: the library's own call, and the whole chunk unpacked."""
    first, last = min(one, other), max(one, other)
    out = np.zeros(last - first, dtype=np.uint16)
    unpack_part(PACKED, first, out, N, partly=partly)
    assert (out == VALUES[first:last]).all()


@pytest.mark.parametrize("partly", [True, False])
@pytest.mark.parametrize(("first", "n"), [(-1, 2), (N - 1, 2)])
def test_a_part_outside_the_chunk_is_refused(first: int, n: int, partly: bool) -> None:
    with pytest.raises(ValueError, match=f"of {N}"):
        unpack_part(PACKED, first, np.empty(n, dtype=np.uint16), N, partly=partly)


@pytest.mark.parametrize("partly", [True, False])
def test_a_chunk_that_is_none_is_refused(partly: bool) -> None:
    torn = PACKED.copy()
    torn[16:] = 0
    with pytest.raises((ValueError, RuntimeError)):
        unpack_part(torn, 0, np.empty(N, dtype=np.uint16), N, partly=partly)


def unpacked(
    packed: NDArray[np.uint8],
    pieces: list[tuple[int, int, int]],
    out: NDArray[Any],
    *,
    n: int = N,
    by_blocks: bool = True,
) -> NDArray[Any]:
    firsts, lengths, places = (np.array(some) for some in zip(*pieces, strict=True))
    stored = np.dtype(f"u{packed[3]}")
    unpack_pieces(packed, firsts, lengths, places, out, stored, n, by_blocks=by_blocks)
    return out


CHUNKS = {
    "many blocks": VALUES,
    "odd end": VALUES[:16_385],
    "bytes that do not shrink": np.random.default_rng(1).integers(0, 2**16, N).astype(np.uint16),
    "one number": np.full(N, 7, dtype=np.uint16),
    "four bytes": VALUES.astype(np.uint32),
}
WAYS = {"zstd": Blosc(cname="zstd", clevel=1), "lz4": Blosc(cname="lz4", clevel=1)}


@settings(max_examples=30, deadline=None)
@given(st.data(), st.booleans())
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CHUNKS)
def test_pieces_go_where_they_belong(
    name: str, way: str, data: st.DataObject, by_blocks: bool
) -> None:
    """Whatever unpacks them; and nothing else is written to."""
    values = CHUNKS[name]
    packed = np.frombuffer(WAYS[way].encode(values), dtype=np.uint8)
    borders = sorted(data.draw(st.sets(st.integers(0, len(values)), min_size=2, max_size=9)))
    order = data.draw(st.permutations(range(len(borders) // 2)))
    wide = data.draw(st.sampled_from([values.dtype, np.dtype(np.int32), np.dtype(np.uint32)]))
    out = np.full(len(values) + 20, 60_001, dtype=wide)
    expected, pieces, place = out.copy(), [(0, 0, 0)] * len(order), 3
    for i in order:
        first, last = borders[2 * i], borders[2 * i + 1]
        pieces[i] = (first, last - first, place)
        expected[place : place + last - first] = values[first:last]
        place += last - first + 1
    found = unpacked(packed, pieces, out, n=len(values), by_blocks=by_blocks)
    assert (found == expected).all()


@pytest.mark.parametrize("by_blocks", [True, False])
@pytest.mark.parametrize("piece", [(-1, 2, 0), (N - 1, 2, 0), (0, 3, 8), (0, 3, -1)])
def test_pieces_outside_the_chunk_or_the_places_are_refused(
    piece: tuple[int, int, int], by_blocks: bool
) -> None:
    with pytest.raises(ValueError, match=f"of {N} do not fit 10 places"):
        unpacked(PACKED, [piece], np.zeros(10, dtype=np.uint16), by_blocks=by_blocks)


@pytest.mark.parametrize("start", [0, 15, 19, 2**31 - 1, -5])
def test_a_block_that_lies_elsewhere_is_refused(start: int) -> None:
    torn = PACKED.copy()
    torn[16:20] = np.array([start], dtype="<i4").view(np.uint8)
    with pytest.raises(ValueError, match="block 0 begins at"):
        unpacked(torn, [(0, N, 0)], np.zeros(N, dtype=np.uint16))


@pytest.mark.parametrize("length", [-1, 2**31 - 1])
def test_a_block_that_is_longer_than_the_chunk_is_refused(length: int) -> None:
    torn = PACKED.copy()
    start = int(PACKED[16:20].view("<i4")[0])
    torn[start : start + 4] = np.array([length], dtype="<i4").view(np.uint8)
    with pytest.raises(ValueError, match="block 0 lies at"):
        unpacked(torn, [(0, N, 0)], np.zeros(N, dtype=np.uint16))


@settings(deadline=None)
@given(st.integers(16, len(PACKED) - 1), st.integers(0, 255))
def test_any_other_byte_is_refused_or_gives_numbers(place: int, byte: int) -> None:
    """What a checksum would have told comes to no more than wrong numbers: no memory is read."""
    torn = PACKED.copy()
    torn[place] = byte
    out = np.zeros(N + 8, dtype=np.uint16)
    try:
        unpacked(torn, [(0, N, 4)], out)
    except ValueError as error:
        assert "block" in str(error)
    assert not out[:4].any() and not out[-4:].any()


STEPS = st.lists(st.integers(1, 40), min_size=2, max_size=12)


@given(STEPS, st.integers(1, 20), st.integers(1, 3))
def test_pieces_are_their_ranges_cut_at_chunks(
    steps: list[int], chunk: int, n_at_once: int
) -> None:
    borders = np.cumsum(steps)
    starts, stops = borders[:-1:2], borders[1::2]
    starts = starts[: len(stops)]
    places = np.cumsum(stops - starts) - (stops - starts)
    source, out = np.arange(borders[-1]), np.full((stops - starts).sum(), -1)
    whole = Pieces.of(starts, stops, places, chunk)
    for some in whole.cut(n_at_once):
        assert len(set(some.chunk.tolist())) <= n_at_once
        for number, first, length, place in zip(
            some.chunk, some.first, some.length, some.place, strict=True
        ):
            assert first + length <= chunk
            begin = number * chunk + first
            out[place : place + length] = source[begin : begin + length]
    ranges = [np.arange(a, b) for a, b in zip(starts, stops, strict=True)]
    assert out.tolist() == np.concatenate(ranges).tolist()
