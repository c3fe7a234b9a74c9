import numpy as np
import pytest
from cytolake.corpus.payload.pieces import Pieces
from cytolake.corpus.payload.unpacking import unpack_part
from hypothesis import given
from hypothesis import strategies as st
from numcodecs import Blosc

N = 50_000
VALUES = np.random.default_rng(0).geometric(0.3, N).astype(np.uint16)
PACKED = bytes(Blosc(cname="zstd", clevel=1, shuffle=Blosc.SHUFFLE).encode(VALUES))


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
    torn = PACKED[:16] + bytes(len(PACKED) - 16)
    with pytest.raises((ValueError, RuntimeError)):
        unpack_part(torn, 0, np.empty(N, dtype=np.uint16), N, partly=partly)


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
